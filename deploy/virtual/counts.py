"""What happened to the events that were sent to a board: none is lost without being counted here."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Counts:
    """Events since a board was opened.

    ``n_late``: more than a second past their time, sent at once; ``n_outside``: of no core, or outside its maps;
    ``n_unmapped``: reads and writes of addresses that hold nothing; ``n_ignored``: of a kind that does nothing here;
    ``n_discarded``: not yet processed when the board was reset, closed or unplugged.
    """

    n_in: int = 0
    n_out: int = 0
    n_late: int = 0
    n_outside: int = 0
    n_unmapped: int = 0
    n_ignored: int = 0
    n_discarded: int = 0
