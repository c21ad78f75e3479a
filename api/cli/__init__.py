"""The command line: a thin skin over `facedex.Facedex`.

`main` finds the module of a command by name and imports only that one, so `facedex --help` stays
fast. Results go to standard output, progress and messages to standard error.
"""

from api.cli.main import main

__all__ = ["main"]
