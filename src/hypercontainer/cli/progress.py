"""Progress of a pull, load or import: bars on a terminal, else a line when something has changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from hypercontainer.client import Record

_COUNTED = {"Downloading", "Extracting"}  # these come many times, with numbers


def show(steps: Iterable[Record], *, file: TextIO | None) -> list[Record]:
    """Show ``steps`` as they come on ``file`` (None: nowhere); those that tell the outcome."""
    outcome: list[Record] = []
    if file is None:
        shown: Iterable[Record] = steps
    elif file.isatty():
        from hypercontainer.cli.bars import with_bars  # rich: 100 ms

        shown = with_bars(steps, file)
    else:
        shown = _with_lines(steps, file)
    for step in shown:
        if step.get("image") or step.get("reference") or step.get("digest"):
            outcome.append(step)
    return outcome


def _with_lines(steps: Iterable[Record], file: TextIO) -> Iterable[Record]:
    last: dict[str, str] = {}
    for step in steps:
        identifier, status = step.get("id", ""), step.status
        is_news = last.get(identifier) != status
        last[identifier] = status
        if is_news and status not in _COUNTED:
            print(f"{identifier}: {status}" if identifier else status, file=file, flush=True)
        yield step
