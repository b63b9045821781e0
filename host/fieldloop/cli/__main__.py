"""python -m fieldloop.cli is the program `fieldloop`."""

from fieldloop.cli.main import entry

entry()
