"""What was read from stdin and is not safe yet: kept, to be sent again when hyperd dies with it."""

from __future__ import annotations

from collections import deque

LIMIT = 1 << 20  # bytes kept; then stdin is left unread
NOBODY_READS = 2**64 - 1


class KeptInput:
    """Bytes by their offsets in the process's stdin; ``accepted`` of them came before ours."""

    def __init__(self, accepted: int) -> None:
        self._start = accepted  # of the first byte that is kept
        self._chunks: deque[bytes] = deque()
        self.size = 0
        self.has_ended = False
        self._is_dropped = False

    @property
    def is_full(self) -> bool:
        return self.size >= LIMIT

    def add(self, data: bytes) -> None:
        if not self._is_dropped:
            self._chunks.append(data)
            self.size += len(data)

    def taken(self, offset: int) -> None:
        """The process has all before ``offset``, or reads no more."""
        self._is_dropped = self._is_dropped or offset == NOBODY_READS
        while self._chunks and offset >= self._start + len(self._chunks[0]):
            self._drop(len(self._chunks.popleft()))
        if self._chunks and offset > self._start:
            cut = offset - self._start
            self._chunks[0] = self._chunks[0][cut:]
            self._drop(cut)

    def again(self, accepted: int) -> list[bytes]:
        """What to send to the next hyperd, which has all before ``accepted``."""
        self.taken(accepted)
        return list(self._chunks)

    def _drop(self, count: int) -> None:
        self._start += count
        self.size -= count
