"""The virtual board: the vendor's driver, samna, as far as its library uses it, with the emulator as the silicon.

    from spikeport.deploy.virtual import install
    install(devices=["speck2fdevkit"])   # before sinabs.backend.dynapcnn is imported

Everything that prints a name says "virtual": versions, serial numbers, handles, events.
"""

from .configuration import SpeckConfiguration
from .errors import VirtualBoardError
from .installation import install, installed, uninstall
from .modules import chip_module, driver
from .program import program_of
from .rack import hang, plug_in, unplug
from .validation import validate_configuration

__all__ = [
    "SpeckConfiguration",
    "VirtualBoardError",
    "chip_module",
    "driver",
    "hang",
    "install",
    "installed",
    "plug_in",
    "program_of",
    "uninstall",
    "unplug",
    "validate_configuration",
]
