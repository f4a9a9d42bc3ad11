"""Tar streams of containers: hyperstart packs and unpacks them, and this end feeds and drains it.

The bytes flow as fast as the slower side takes them: nothing is stored here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import posixpath
import tarfile
from collections.abc import AsyncIterator, Collection, Sequence

from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.errors import GuestError, HyperError, InvalidRequest, NotFound, Unavailable
from hypercontainer.guest.agent import Agent, Process, clean
from hypercontainer.guest.protocol import NO_OWNER, Output, SignalProcess, StartArchive, Stream
from hypercontainer.model.pod import FileSpec

_SIGKILL = 9
_MAX_ERRORS = 4096  # bytes of what hyperstart says went wrong


# --- The files of a spec ---


def needs_files(container: Container) -> bool:
    """Whether the spec has files that are not in the container's root yet."""
    return bool(container.record.spec.files) and not container.record.files_written


async def write_files(pod: Pod, container: Container, agent: Agent) -> None:
    """The spec's files, once in a container's life and before its first process."""
    files = container.record.spec.files
    request = message(pod, container, "/", unpack=True, keep_owners=True)
    try:
        await unpacked(pod, agent, request, _pieces(files_archive(files)))
    except (GuestError, NotFound) as error:
        names = ", ".join(file.path for file in files[:3])
        raise InvalidRequest(
            f"cannot write the files of {container.record.name} ({names}): {error}"
        ) from error
    pod.save_container(container, files_written=True)


def files_archive(files: Sequence[FileSpec]) -> bytes:
    """A tar of ``files``, the directories above them left to who unpacks it."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            info = tarfile.TarInfo(posixpath.normpath(file.path).lstrip("/"))
            info.size, info.mode = len(file.data), file.mode
            user, _, group = file.owner.partition(":")
            info.uid, info.uname = _owner(user)
            info.gid, info.gname = _owner(group)
            archive.addfile(info, io.BytesIO(file.data))
    return output.getvalue()


def _owner(text: str) -> tuple[int, str]:
    """A number, or a name that the container must know; nothing: root."""
    if text.isdecimal() or not text:
        return int(text or "0"), ""
    return NO_OWNER, text


# --- Archive processes ---


def message(
    pod: Pod,
    container: Container,
    path: str,
    *,
    unpack: bool = False,
    follow: bool = False,
    keep_owners: bool = False,
) -> StartArchive:
    return StartArchive(
        process=pod.next_process(),
        container=container.record.id,
        path=path,
        unpack=unpack,
        follow=follow,
        keep_owners=keep_owners,
    )


@contextlib.asynccontextmanager
async def _started(pod: Pod, agent: Agent, request: StartArchive) -> AsyncIterator[Process]:
    try:
        process = await agent.start_process(request)
    except GuestError as error:
        raise _refusal(error, request.path) from error
    try:
        yield process
    finally:
        pod.host.tasks.start(_dispose(agent, process), name=f"end archive {request.process}")


async def _dispose(agent: Agent, process: Process) -> None:
    """End a process that nobody reads any more; hyperstart and the agent forget it."""
    with contextlib.suppress(HyperError):
        with contextlib.suppress(GuestError):  # it has ended
            await agent.request(SignalProcess(process.number, _SIGKILL, whole_container=False))
        while (output := await process.read()) is not None:
            _acknowledge(process, output)
        await process.exited()
        await process.forget()


def end_strays(pod: Pod, agent: Agent, numbers: Collection[int]) -> None:
    """In the background: end processes of the guest that no record knows, such as those of a copy whose
    hyperd died."""
    for number in numbers:
        pod.host.tasks.start(_dispose(agent, agent.process(number)), name=f"end stray process {number}")


async def packed(pod: Pod, agent: Agent, request: StartArchive) -> AsyncIterator[bytes]:
    async with _started(pod, agent, request) as process:
        errors = bytearray()
        while (output := await process.read()) is not None:
            if output.stream == Stream.STDOUT:
                yield output.data
            else:
                errors += output.data[: _MAX_ERRORS - len(errors)]
            _acknowledge(process, output)
        await _check_end(process, bytes(errors), f"cannot read {request.path!r}")


async def unpacked(pod: Pod, agent: Agent, request: StartArchive, archive: AsyncIterator[bytes]) -> None:
    async with _started(pod, agent, request) as process:
        complaints = asyncio.create_task(_read_errors(process))
        try:
            async for piece in archive:
                if complaints.done():  # it has given up: its words say why
                    break
                await process.write(piece)
            await process.write_end()
            await _check_end(process, await complaints, f"cannot write to {request.path!r}")
        finally:
            complaints.cancel()
            await asyncio.gather(complaints, return_exceptions=True)


async def _read_errors(process: Process) -> bytes:
    errors = bytearray()
    while (output := await process.read()) is not None:
        errors += output.data[: _MAX_ERRORS - len(errors)]
        _acknowledge(process, output)
    return bytes(errors)


def _acknowledge(process: Process, output: Output) -> None:
    process.stored(Stream(output.stream), output.offset + len(output.data))


async def _check_end(process: Process, errors: bytes, failure: str) -> None:
    exited = await process.exited()
    if exited.out_of_memory:
        raise Unavailable(f"{failure}: the machine's memory does not suffice", hint="give the pod more")
    if exited.status:
        reason = clean(errors.decode(errors="replace").strip()) or f"status {exited.status}"
        raise GuestError(f"{failure} in the container: {reason}")


def _refusal(error: GuestError, path: str) -> HyperError:
    if error.errno == errno.ENOENT:
        return NotFound(f"there is no {path!r} in the container")
    if error.errno == errno.ENOTDIR:
        return InvalidRequest(f"{path!r} in the container is no directory")
    return error


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
