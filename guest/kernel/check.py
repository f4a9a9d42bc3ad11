"""Did every asked option survive?  Kconfig drops what its dependencies do not allow, without a word.

A fragment line is one of ``CONFIG_NAME=value`` and ``# CONFIG_NAME is not set``; anything else is a comment.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ASSIGNMENT = re.compile(r"CONFIG_(\w+)=(.+)")
REFUSAL = re.compile(r"# CONFIG_(\w+) is not set")
ABSENT = "n"


@dataclass(frozen=True, slots=True)
class Dropped:
    """An option whose final value is not the one that was asked for."""

    option: str
    asked: str
    got: str

    def __str__(self) -> str:
        return f"CONFIG_{self.option}: asked {self.asked}, got {self.got}"


def options(text: str) -> dict[str, str]:
    """The options of a fragment or of a finished ``.config``; the last line about an option counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if assignment := ASSIGNMENT.fullmatch(line.strip()):
            found[assignment[1]] = assignment[2]
        elif refusal := REFUSAL.fullmatch(line.strip()):
            found[refusal[1]] = ABSENT
    return found


def dropped(fragments: Iterable[str], config: str) -> list[Dropped]:
    """Every option of ``fragments`` that ``config`` does not have as asked."""
    asked: dict[str, str] = {}
    for fragment in fragments:
        asked |= options(fragment)
    final = options(config)
    return [
        Dropped(option, value, final.get(option, ABSENT))
        for option, value in asked.items()
        if final.get(option, ABSENT) != value
    ]


def main() -> int:
    if len(sys.argv) < 3:
        print("usage: check.py CONFIG FRAGMENT...", file=sys.stderr)
        return 2
    config, *fragments = (Path(name).read_text() for name in sys.argv[1:])
    lost = dropped(fragments, config)
    for option in lost:
        print(option, file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
