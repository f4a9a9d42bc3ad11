"""``python -m hypercontainer`` is ``hyper``."""

from hypercontainer.cli.main import program

program()
