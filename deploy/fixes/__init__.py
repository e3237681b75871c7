"""Changes with which a net fits a chip: searched, planned, ranked, applied."""

from .apply import choose, fix_tables, next_command, write_fix
from .suggest import suggest
from .types import Cost, Fix

__all__ = ["Cost", "Fix", "choose", "fix_tables", "next_command", "suggest", "write_fix"]
