"""Progress bars on a terminal.  Imported only when there is something to draw: rich takes 100 ms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from hypercontainer.cli.output import size
from hypercontainer.client import Record


class _Sizes(ProgressColumn):
    """``3.1MB/27.5MB``, while there is something to count."""

    def render(self, task: Task) -> Text:
        if not task.total or task.finished:
            return Text("")
        return Text(f"{size(task.completed, digits=3)}/{size(task.total, digits=3)}")


def with_bars(steps: Iterable[Record], file: TextIO) -> Iterator[Record]:
    """``steps`` as they come, each layer with a line and a bar of its own."""
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[status]:<18}"),
        BarColumn(),
        _Sizes(),
    )
    with Progress(*columns, console=Console(file=file), transient=False) as bars:
        drawn: dict[str, TaskID] = {}
        for step in steps:
            _draw(bars, drawn, step)
            yield step


def _draw(bars: Progress, drawn: dict[str, TaskID], step: Record) -> None:
    identifier = step.get("id", "")
    if not identifier or step.status.startswith("Pulling from"):  # about the image, not about a layer
        text = f"{identifier}: {step.status}" if identifier else step.status
        bars.console.print(text, markup=False, highlight=False)
        return
    if identifier not in drawn:
        drawn[identifier] = bars.add_task(f"{identifier}:", total=None, status="")
    bar = drawn[identifier]
    total, current = step.get("total", 0), step.get("current", 0)
    if total:
        bars.update(bar, status=step.status, total=total, completed=current)
    else:
        is_done = "complete" in step.status or "exists" in step.status
        bars.update(bar, status=step.status)
        if is_done:
            bars.update(bar, total=1, completed=1)
