"""``python -m spikeport.deploy``: the command ``spikeport``."""

from .cli import main

main()
