"""The byte stream to a guest, whatever carries it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Channel:
    """One connection to a machine's channel socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
