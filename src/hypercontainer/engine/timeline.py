"""When a start reached each of its steps, on both sides of the wall, in the host's clock."""

from __future__ import annotations

import time

from hypercontainer.guest.protocol import Mark, Welcome
from hypercontainer.model.rest import TimelineMark, TimelineView


class StartTimeline:
    """The marks of one start of a pod; all in CLOCK_MONOTONIC of the host, nanoseconds."""

    def __init__(self, *, since_ns: int = 0) -> None:
        self._marks: list[TimelineMark] = []
        self._guest_offset_ns = 0
        self._since_ns = since_ns  # what the guest did before is of no interest: it may be a copy

    def successor(self) -> StartTimeline:
        """For another start on the same machine, whose clock is known already."""
        after = StartTimeline()
        after._guest_offset_ns = self._guest_offset_ns
        after._since_ns = time.monotonic_ns()
        return after

    def mark(self, name: str) -> None:
        self._marks.append(TimelineMark(name=name, at_ns=time.monotonic_ns(), inside=False))

    def meet(self, welcome: Welcome, *, met_ns: int = 0) -> None:
        """Learn the guest's clock: its "now" was a moment before ``met_ns``, less than a round trip.

        0: that is now.
        """
        self._guest_offset_ns = (met_ns or time.monotonic_ns()) - welcome.now_ns
        self.mark_inside("kernel begins", 0)
        self.mark_inside("hyperstart begins", welcome.started_ns)

    def mark_inside(self, name: str, at_ns: int) -> None:
        """A moment of the guest, given in its CLOCK_BOOTTIME."""
        mark = TimelineMark(name=name, at_ns=at_ns + self._guest_offset_ns, inside=True)
        if mark.at_ns >= self._since_ns:
            self._marks.append(mark)

    def merge(self, marks: tuple[Mark, ...]) -> None:
        for mark in marks:
            self.mark_inside(mark.name, mark.at_ns)

    def view(self) -> TimelineView:
        return TimelineView(marks=tuple(sorted(self._marks, key=lambda mark: mark.at_ns)))
