"""The verbs of ``cp``: files into a container and out of it, whether its pod runs or not."""

from __future__ import annotations

import contextlib
import io
import posixpath
import stat
import tarfile
from collections.abc import AsyncIterator
from typing import Any, cast

from hypercontainer.engine import archives, offline, relay
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.errors import GuestError, Unavailable
from hypercontainer.model.rest import PathKind, PathView
from hypercontainer.tarstream import MAX_EXTENSION, members

_HEAD_LIMIT = 4 * MAX_EXTENSION  # bytes within which the first entry's header stands
_KINDS = {
    tarfile.REGTYPE: PathKind.FILE,
    tarfile.DIRTYPE: PathKind.DIRECTORY,
    tarfile.SYMTYPE: PathKind.SYMLINK,
    tarfile.FIFOTYPE: PathKind.FIFO,
    tarfile.CHRTYPE: PathKind.DEVICE,
    tarfile.BLKTYPE: PathKind.DEVICE,
}


async def look(pod: Pod, container: Container, path: str, *, follow: bool) -> PathView:
    """What is at ``path`` in a container.  Raises NotFound."""
    async with offline.reached(pod, container) as agent:
        request = archives.message(pod, container, path, follow=follow)
        head = bytearray()
        async with contextlib.aclosing(cast("Any", archives.packed(pod, agent, request))) as pieces:
            async for piece in pieces:
                head += piece
                if (view := _first_entry(bytes(head))) is not None:
                    return view
        raise GuestError(f"the guest packed nothing of {path!r}")


def pack(pod: Pod, container: Container, path: str, *, follow: bool) -> AsyncIterator[bytes]:
    """A tar of ``path`` in a container, its root named by the path's last part.  Raises NotFound."""
    return relay.relayed(_pack(pod, container, path, follow=follow), _patience(pod))


def _patience(pod: Pod) -> relay.Patience:
    """How long a client may do nothing: while a pod is reached that does not run, its verbs wait."""
    return lambda: pod.host.settings.copy_stall_s if pod.running is None else None


async def _pack(pod: Pod, container: Container, path: str, *, follow: bool) -> AsyncIterator[bytes]:
    async with offline.reached(pod, container) as agent:
        request = archives.message(pod, container, path, follow=follow)
        async with contextlib.aclosing(cast("Any", archives.packed(pod, agent, request))) as pieces:
            async for piece in pieces:
                yield piece


async def unpack(
    pod: Pod, container: Container, path: str, archive: AsyncIterator[bytes], *, keep_owners: bool
) -> None:
    """Write what ``archive`` holds into the directory ``path``.  Raises NotFound."""
    async with offline.reached(pod, container) as agent:
        request = archives.message(pod, container, path, unpack=True, keep_owners=keep_owners)
        await archives.unpacked(pod, agent, request, relay.in_time(archive, _patience(pod)))


def _first_entry(head: bytes) -> PathView | None:
    """None when more bytes are needed to tell."""
    try:
        member = next(members(io.BytesIO(head)), None)
    except Unavailable:
        if len(head) > _HEAD_LIMIT:
            raise
        return None
    if member is None:
        raise GuestError("the guest packed nothing")
    info = member.info
    return PathView(
        name=posixpath.basename(info.name.rstrip("/")),
        kind=_KINDS.get(info.type, PathKind.OTHER),
        size=info.size,
        mode=stat.S_IMODE(info.mode),
        modified=info.mtime,
        link=info.linkname,
    )
