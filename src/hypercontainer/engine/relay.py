"""Byte streams between a client and what waits for it: neither side is kept waiting for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from hypercontainer.errors import Unavailable

Patience = Callable[[], float | None]  # asked at each wait: seconds, or no end

_END = b""  # no piece is empty
_HINT = "others wait for a pod that does not run; start it, or see copy_stall_s in hyperd.toml"


async def in_time(pieces: AsyncIterator[bytes], patience: Patience) -> AsyncIterator[bytes]:
    """``pieces`` of a client.  Unavailable when one takes longer to come than ``patience`` has."""
    while True:
        try:
            async with asyncio.timeout(patience()):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Unavailable("the client has sent nothing for too long", hint=_HINT) from error
        yield piece


async def relayed(pieces: AsyncIterator[bytes], patience: Patience) -> AsyncIterator[bytes]:
    """``pieces`` for a client; when it takes none for too long they are closed, and Unavailable raised."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(1)
    filling = asyncio.create_task(_fill(queue, pieces, patience))
    try:
        while piece := await queue.get():
            yield piece
        await filling
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


async def _fill(queue: asyncio.Queue[bytes], pieces: AsyncIterator[bytes], patience: Patience) -> None:
    try:
        async with contextlib.aclosing(cast("Any", pieces)) as source:
            async for piece in source:
                if piece:
                    await _put(queue, piece, patience)
    finally:
        await queue.put(_END)


async def _put(queue: asyncio.Queue[bytes], piece: bytes, patience: Patience) -> None:
    try:
        async with asyncio.timeout(patience()):
            await queue.put(piece)
    except TimeoutError as error:
        raise Unavailable("the client has taken nothing for too long", hint=_HINT) from error
