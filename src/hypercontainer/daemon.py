"""hyperd: puts the parts together, and nothing else.

Order of a start: lock, log, socket (clients that connect now wait), engine, answers.  The machines
outlive the daemon: on SIGTERM and SIGINT it lets go of them and ends, and the next one finds them again.
It also ends when its root is removed under it, and then it ends the machines that no other could find.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import grp
import logging
import os
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hypercontainer import log as logs
from hypercontainer.client.start import RUNS_ALREADY
from hypercontainer.config import Paths, Settings
from hypercontainer.errors import Conflict, HyperError, Unavailable
from hypercontainer.files import FileId, short_path

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

log = logging.getLogger("hypercontainer.daemon")

GROUP = "hyper"  # whose members may use the socket, when there is such a group: they are as good as root
_BACKLOG = 512
_LOCK_WAIT_S = 10.0  # for a hyperd that is on its way out
_FIRST_PASSED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_WATCH_S = 2.0  # between two looks whether the root is still there


class Listening(NamedTuple):
    """Where clients connect."""

    sockets: list[socket.socket]
    own: FileId | None  # the socket's file, which goes with us; None: systemd's, which stays

    def is_in_place(self) -> bool:
        return self.own is None or self.own.is_in_place()

    def withdraw(self) -> None:
        """Remove our file, unless another hyperd has one there by now."""
        if self.own is not None and self.own.is_in_place():
            self.own.path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``hyperd``; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.root:
        os.environ["HYPER_ROOT"] = str(Path(options.root).absolute())
    try:
        return _run(options, Paths.default())
    except HyperError as error:
        print(f"hyperd: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        return RUNS_ALREADY if isinstance(error, Conflict) else 1
    except OSError as error:
        print(f"hyperd: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hyperd", description="The daemon of HyperContainer.")
    parser.add_argument("--root", metavar="DIRECTORY", help="keep everything below this (also: HYPER_ROOT)")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="configuration, else hyperd.toml in its place"
    )
    parser.add_argument(
        "--pool-memory",
        metavar="MIB",
        type=int,
        help="for machines started ahead, else pool_memory_mib",
    )
    parser.add_argument("--log", metavar="FILE", type=Path, help="log to this file instead of stderr")
    parser.add_argument("--debug", action="store_true", help="log what is done, too")
    return parser


def _run(options: argparse.Namespace, paths: Paths) -> int:
    os.umask(0o077)
    _make_directory(paths.state, mode=0o700)
    _make_directory(paths.run, mode=0o700 if _group() is None else 0o711)
    settings = _settings(options, paths)
    with _lock(paths) as lock:
        logs.set_up(file=options.log, debug=options.debug)
        _raise_limits()
        os.chdir("/")
        _reap_without_threads()
        with _listening(paths) as listening:
            asyncio.run(_serve(paths, settings, lock, listening))
    return 0


def _settings(options: argparse.Namespace, paths: Paths) -> Settings:
    """Of the file, and over it those of the command line."""
    settings = Settings.load(options.config or paths.config / "hyperd.toml")
    return settings if options.pool_memory is None else replace(settings, pool_memory_mib=options.pool_memory)


def _make_directory(path: Path, *, mode: int) -> None:
    """Make ``path``; raises Unavailable when somebody else has it, as a stranger may in /tmp."""
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        for each in (path, path.parent):
            if each.stat().st_uid not in {0, os.geteuid()}:
                raise Unavailable(f"cannot use {path}: {each} belongs to another user")
        path.chmod(mode)
    except OSError as error:
        raise Unavailable(f"cannot use {path}: {error.strerror}") from error


@contextlib.contextmanager
def _lock(paths: Paths) -> Iterator[FileId]:
    """Be the only hyperd of this root; raises Conflict when another one answers."""
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while not _try_lock(descriptor):
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if _is_answered(paths.socket) or time.monotonic() > deadline:
                raise Conflict(f"hyperd runs already for {paths.run} (pid {owner or 'unknown'})")
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield FileId.of(paths.lock)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, short_path(path) as short:
        try:
            probe.connect(short)
        except OSError:
            return False
    return True


def _reap_without_threads() -> None:
    """Python 3.11 starts a thread for each program that is run, though it has pidfds; 3.12 does not."""
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def _raise_limits() -> None:
    """A pod takes a dozen descriptors; the soft limit of 1024 is for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _listening(paths: Paths) -> Iterator[Listening]:
    if passed := _passed_sockets():
        listening = Listening(passed, None)
    else:
        listening = Listening([_bind(paths.socket)], FileId.of(paths.socket))
    try:
        yield listening
    finally:
        listening.withdraw()
        for listener in listening.sockets:
            listener.close()


def _passed_sockets() -> list[socket.socket]:
    """sd_listen_fds(3)."""
    owner, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if owner != str(os.getpid()) or not count.isdigit():
        return []
    passed = [socket.socket(fileno=_FIRST_PASSED + number) for number in range(int(count))]
    for listener in passed:
        listener.set_inheritable(False)
        listener.setblocking(False)
    return passed


def _bind(path: Path) -> socket.socket:
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_path(path) as short:
            listener.bind(short)  # mode 0700 by our umask, until the next lines open it
        path.chmod(0o600)
        if (group := _group()) is not None:
            os.chown(path, -1, group)
            path.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that is dead: we have its lock."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Unavailable(f"{path} is in the way: it is no socket")
        path.unlink()
    except FileNotFoundError:
        pass


def _group() -> int | None:
    if os.geteuid() != 0:
        return None
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


async def _serve(paths: Paths, settings: Settings, lock: FileId, listening: Listening) -> None:
    from hypercontainer.api.app import Api  # late: whoever finds another hyperd here is done by now
    from hypercontainer.api.server import Server
    from hypercontainer.engine.engine import Engine

    stop = asyncio.Event()

    def end_in_order() -> None:
        listening.withdraw()  # first: by it a client that loses us knows that we were told to end
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end_in_order)
    engine = await Engine.open(paths, settings)
    kept = [FileId.of(path) for path in (paths.database, paths.machines)]
    watch = asyncio.create_task(_watch([lock, *kept], listening, stop))
    log.info("hyperd serves %s", paths.socket)
    try:
        await Server(Api(engine)).run(listening.sockets, stop=stop)
    finally:
        watch.cancel()
        await _end(engine, kept)


async def _watch(files: Sequence[FileId], listening: Listening, stop: asyncio.Event) -> None:
    """Stop when somebody has removed what clients reach us by, or what we keep."""
    while listening.is_in_place() and all(file.is_in_place() for file in files):  # noqa: ASYNC110
        await asyncio.sleep(_WATCH_S)
    if not stop.is_set():
        log.error("hyperd ends: its files were removed, or are another's")
        stop.set()


async def _end(engine: Engine, kept: Sequence[FileId]) -> None:
    """Let go of the machines, or end them when the next hyperd has nothing to find them by."""
    if all(file.is_in_place() for file in kept):
        await engine.close()
        log.info("hyperd ends; what runs goes on")
    else:
        await engine.abandon()
        log.error("hyperd has ended what ran: its records were removed")


if __name__ == "__main__":
    sys.exit(main())
