"""What a verb is, and argparse taught Docker's manners: exit status 125, no abbreviations, short help."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def _import_in_english() -> None:
    """Import argparse with a gettext that translates nothing, as no word of ours is translated.

    With Python's own, and locale, which that imports, each command takes 4 ms longer.
    """
    english = type(sys)("gettext")
    english.__dict__["gettext"] = lambda message: message
    english.__dict__["ngettext"] = lambda one, several, number: one if number == 1 else several
    own = sys.modules.get("gettext", english)
    sys.modules["gettext"] = english
    try:
        import argparse  # noqa: F401
    finally:
        if own is english:
            del sys.modules["gettext"]
        else:
            sys.modules["gettext"] = own


_import_in_english()  # by whichever verb is typed: this module is imported before that of a verb

import argparse  # noqa: E402

USAGE_STATUS = 125  # as Docker's for a command line that makes no sense


class Command:
    """A verb: how it is written, what it does, and by whom."""

    def __init__(
        self,
        *,
        usage: str,  # what stands behind ``hyper``
        description: str,
        arguments: Callable[[argparse.ArgumentParser], object],
        run: Callable[[argparse.Namespace], int],
        examples: str = "",
        failure_status: int = 1,  # of an error of hyper's own; verbs that pass an exit code on use 125
        short_help: bool = True,  # whether -h is help: ``run`` needs it for --hostname, as Docker's does
        words_follow: bool = False,  # what follows the first word is not ours: IMAGE [COMMAND...]
    ) -> None:
        self.usage = usage
        self.description = description
        self.arguments = arguments
        self.run = run
        self.examples = examples
        self.failure_status = failure_status
        self.short_help = short_help
        self.words_follow = words_follow


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line and says where help is."""

    def error(self, message: str) -> NoReturn:
        from hypercontainer.cli import output

        output.error(message)
        print(f"See `{self.prog} --help`.", file=sys.stderr)
        raise SystemExit(USAGE_STATUS)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Flags in one column that is wide enough for ours."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=columns() - 2)


def columns() -> int:
    """Of the terminal; argparse would import shutil (2 ms) to ask, in every command."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (ValueError, OSError):
        return 80


def parse(verb: str, command: Command, words: Sequence[str]) -> argparse.Namespace:
    """The arguments of ``verb``; exits with 0 after help, with 125 after an error."""
    parser = build(verb, command)
    if command.words_follow:
        return parser.parse_args(list(words))
    return parser.parse_intermixed_args(list(words))


def build(verb: str, command: Command) -> Parser:
    examples = f"examples:\n{_indented(command.examples)}" if command.examples else None
    parser = Parser(
        prog=f"hyper {verb}",
        usage=f"hyper {command.usage}",
        description=command.description,
        epilog=examples,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    names = ("-h", "--help") if command.short_help else ("--help",)
    command.arguments(parser)
    parser.add_argument(*names, action="help", help="show this and exit")
    return parser


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())


def add_format(parser: argparse.ArgumentParser) -> None:
    """What every listing has."""
    parser.add_argument("-q", "--quiet", action="store_true", help="only the first column: ids or names")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids and commands")
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="'json': an object on each line",
    )


def positive(text: str) -> float:
    """An argument that is a number of seconds, 0 or more."""
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError(text)
    return value


positive.__name__ = "number of seconds"  # argparse's message names it
