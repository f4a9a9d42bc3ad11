"""Layers merged into the one read-only disk of an image: a squashfs, made from a tar stream (decision 0005).

Nothing is ever unpacked onto the host's file system: names, owners, devices and capabilities of the image
exist only as bytes in the stream from here to ``mksquashfs -tar``, so neither root nor trust is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from hypercontainer.errors import HyperError, InvalidRequest, Unavailable
from hypercontainer.faults import point
from hypercontainer.images import tar
from hypercontainer.images.layers import PlainLayer
from hypercontainer.images.tree import Directory, File, Tree
from hypercontainer.images.work import Stop
from hypercontainer.process import find_program, last_words

_SMALL = 64 << 10  # bytes: contents up to this are copied into the buffer, larger ones sent by the kernel
_BUFFER = 1 << 20
_MAX_PIPE = 1 << 20
_MEMORY = "256M"  # of mksquashfs, which else takes a quarter of the host; as fast with this
_ZEROS = bytes(_BUFFER)
_NEW_DIRECTORY = tar.Entry(b"", tar.DIRECTORY, 0o755, 0, 0, 0, 0, b"", 0, 0, 0)


def make(stop: Stop, layers: Sequence[PlainLayer], target: Path) -> None:
    """Merge ``layers``, lowest first, into a squashfs at ``target``, which is removed on failure."""
    try:
        with contextlib.ExitStack() as stack:
            sources = [stack.enter_context(_Source.opened(layer.path)) for layer in layers]
            tree: Tree[_Source] = Tree()
            for source in sources:
                tree.add(tar.entries(source.data, check=stop.check), source)
            _squash(stop, tree, target)
        _sync(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    """A disk is not verified when it is used, so it must survive a power cut whole."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Source:
    """An open layer, mapped into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.descriptor = file.fileno()
        size = os.fstat(self.descriptor).st_size
        self.data: mmap.mmap | bytes = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ) if size else b""

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[_Source]:
        with path.open("rb") as file:
            source = cls(file)
            try:
                yield source
            finally:
                if isinstance(source.data, mmap.mmap):
                    source.data.close()


def _command(tree: Tree[_Source], target: Path) -> list[str]:
    root = tree.root.entry or _NEW_DIRECTORY
    # Without -mkfs-time two disks of the same layers would differ in their superblocks.
    # mksquashfs 4.5.1 takes the root's mode but not its owner, and from a tar not its time either: that
    # is now.  In the guest the overlay's upper directory is what shows at the root anyway.
    return [
        find_program("mksquashfs", package="squashfs-tools"),
        *("-", str(target), "-tar", "-noappend", "-quiet", "-no-progress", "-exit-on-error"),
        *("-comp", "zstd", "-Xcompression-level", "1"),
        *("-mem", _MEMORY),
        *("-mkfs-time", "0", "-root-mode", f"{root.mode:o}"),
    ]


def _squash(stop: Stop, tree: Tree[_Source], target: Path) -> None:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            _command(tree, target),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
        )
        try:
            point("making disk")
            _feed(stop, child, tree)
        except BaseException:
            child.kill()
            child.wait()
            raise
        point("disk fed")
        if child.wait() != 0:
            errors.seek(0)
            raise _failure(child.returncode, errors.read(), target)


def _feed(stop: Stop, child: subprocess.Popen[bytes], tree: Tree[_Source]) -> None:
    assert child.stdin is not None
    # A broken pipe: it died, and its status and last words say why.
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
        with contextlib.suppress(OSError):  # a plain user may have used up what pipes may take
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _MAX_PIPE)
        _Writer(stop, pipe.fileno()).write(tree)


def _failure(status: int, errors: bytes, target: Path) -> HyperError:
    if b"No space left" in errors or b"Disk quota" in errors:
        return Unavailable(
            f"cannot make the image's disk: no space left on the disk of {target.parent}",
            hint="free some space (hyper rmi removes images), and try again",
        )
    return Unavailable(
        f"cannot make the image's disk: mksquashfs ended with status {status}: {last_words(errors)}"
    )


class _Writer:
    """The merged tar, into a pipe."""

    def __init__(self, stop: Stop, pipe: int) -> None:
        self._stop = stop
        self._pipe = pipe
        self._buffer = bytearray()

    def write(self, tree: Tree[_Source]) -> None:
        for name, node in tree.walk():
            if isinstance(node, Directory):
                entry = node.entry or _NEW_DIRECTORY
                self._put(tar.header(entry, name=name, kind=tar.DIRECTORY, link=b""))
            else:
                self._file(name, node)
        self._put(tar.END)
        self._flush()

    def _file(self, name: bytes, file: File[_Source]) -> None:
        entry = file.entry
        if file.written_as:
            self._put(tar.header(entry, name=name, kind=tar.HARD_LINK, link=file.written_as))
            return
        file.written_as = name
        self._put(tar.header(entry, name=name, kind=entry.kind, link=entry.link))
        if entry.kind == tar.FILE and entry.size:
            self._content(entry, file.source)
            self._buffer += tar.padding(entry.size)

    def _content(self, entry: tar.Entry, source: _Source) -> None:
        if entry.segments is None:
            self._send(source, entry.data, entry.size)
            return
        at = 0
        for offset, start, length in entry.segments:
            self._zeros(offset - at)
            self._send(source, start, length)
            at = offset + length
        self._zeros(entry.size - at)

    def _send(self, source: _Source, start: int, length: int) -> None:
        if length <= _SMALL:
            self._put(source.data[start : start + length])
            return
        self._flush()
        while length:
            self._stop.check()
            sent = os.sendfile(self._pipe, source.descriptor, start, length)
            if not sent:
                raise InvalidRequest("a layer's file became shorter while it was read")
            start, length = start + sent, length - sent

    def _zeros(self, length: int) -> None:
        while length > 0:
            self._put(_ZEROS[:length])
            length -= _BUFFER

    def _put(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._stop.check()
        view = memoryview(self._buffer)
        while view:
            view = view[os.write(self._pipe, view) :]
        view.release()
        self._buffer = bytearray()
