"""Sizes as Docker writes them: ``64m``, ``1.5g``, ``134217728``; units are powers of 1024."""

from __future__ import annotations

import math
import re

from hypercontainer.errors import InvalidRequest

SIZE = r"[0-9]{1,15}(\.[0-9]{1,6})? ?([kKmMgGtT]([iI]?[bB])?|[bB])?"
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# Compiled when it is asked for: at import it would cost each run half a millisecond.
_PARTS = r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kmgt])(?:i?b)?|(b))?"
MIB = 1 << 20


def size_bytes(text: str, what: str = "size", *, unit: int = 1) -> int:
    """``text`` in bytes, rounded up; a bare number is in ``unit``.  Raises InvalidRequest."""
    match = re.fullmatch(_PARTS, text.strip(), re.IGNORECASE | re.ASCII)
    if not match:
        raise InvalidRequest(f"invalid {what} {text[:60]!r}", hint="for example 64m, 1.5g, or bytes")
    number, suffix, in_bytes = match.groups()
    factor = _UNITS[suffix.lower()] if suffix else 1 if in_bytes else unit
    found = math.ceil(float(number) * factor)
    if found >= 1 << 62:
        raise InvalidRequest(f"invalid {what} {text[:60]!r}: nothing is so large")
    return found


def memory_mib(text: str) -> int:
    """The memory of a machine, rounded up to MiB, the unit that machines have."""
    mib = math.ceil(size_bytes(text, "memory size") / MIB)
    if not mib:
        raise InvalidRequest(f"invalid memory size {text!r}: a machine needs some")
    return mib
