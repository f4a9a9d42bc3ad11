"""The VMM as a process of the host: started apart from us, reaped, found again, ended with its helpers.

A VMM leads a session of its own, so that a signal for the daemon's group does not reach it, and so that
every helper it forks can be told by its session (field 6 of /proc/PID/stat, proc(5)).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypercontainer.errors import HypervisorError
from hypercontainer.faults import point
from hypercontainer.files import short_path
from hypercontainer.process import ProcessId, last_words, stat_fields

FIRST_DESCRIPTOR = 3  # what a VMM inherits is numbered from here, in the order given
START_TIMEOUT = 30.0  # seconds; a busy host, not a slow VMM, is what takes long


class Child:
    """A process that we started.  It is reaped when it ends, as long as the event loop lives."""

    def __init__(self, pid: int) -> None:
        self.process = ProcessId(pid, _read_stat(pid).start_time)
        self.status: int | None = None  # as subprocess has it: negative is a signal
        self.ended = asyncio.Event()
        self._descriptor = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        with contextlib.suppress(ChildProcessError):  # somebody ignores SIGCHLD
            result = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED)
            if result is not None:
                self.status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        os.close(self._descriptor)
        self.ended.set()


def spawn(
    command: Sequence[str],
    *,
    output: Path,
    descriptors: Sequence[int | Path] = (),
    environment: Mapping[str, str] | None = None,
    settle: Callable[[], None] = lambda: None,
) -> Child:
    """Start ``command`` in a session of its own, its stdout and stderr appended to ``output``.

    It inherits ``descriptors`` as 3, 4, ... and nothing else; a path is opened (O_PATH) as it starts.
    ``settle`` is called in the thread that starts it and ends then: what it changes of the thread
    (namespaces, personality) is the command's alone.  Raises HypervisorError when the program cannot be
    executed, and what ``settle`` raises.
    """
    # posix_spawn: no fork of a threaded Python, no thread to wait for the child, and numbers of our choice.
    free = 64 + len(descriptors)
    moved = [
        given if isinstance(given, Path) else fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, free)
        for given in descriptors
    ]
    actions = _actions(output, moved)

    def start() -> int:
        settle()
        words = list(command)
        return os.posix_spawn(words[0], words, dict(environment or {}), file_actions=actions, setsid=True)

    point("launching")
    try:
        with ThreadPoolExecutor(1) as thread:
            pid = thread.submit(start).result()
    except OSError as error:
        raise HypervisorError(f"{command[0]} cannot be executed: {error.strerror}") from error
    finally:
        for number in moved:
            if isinstance(number, int):
                os.close(number)
    point("launched")
    return Child(pid)


def _actions(output: Path, descriptors: Sequence[int | Path]) -> list[tuple[object, ...]]:
    """What a child does with its descriptors before it executes anything."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[object, ...]] = [(os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()]
    actions += [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    for number, given in enumerate(descriptors, FIRST_DESCRIPTOR):
        if isinstance(given, Path):
            actions.append((os.POSIX_SPAWN_OPEN, number, str(given), os.O_PATH | os.O_DIRECTORY, 0))
        else:
            actions.append((os.POSIX_SPAWN_DUP2, given, number))
    return actions


def _inheritable() -> list[int]:
    """What the daemon was itself started with: all that Python opens is closed by exec."""
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    found = []
    for number in numbers:
        with contextlib.suppress(OSError):  # the scan's own descriptor
            if number >= FIRST_DESCRIPTOR and os.get_inheritable(number):
                found.append(number)
    return found


async def until_ready(child: Child, *, ready: Callable[[], Awaitable[None]], output: Path, name: str) -> None:
    """Until ``ready()`` returns.  A VMM that ends before is a HypervisorError.

    When this raises, or is cancelled, nothing is left of the VMM.
    """
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _ready_or_ended(child, ready)
        if child.ended.is_set():
            raise _died(child, output=output, name=name)
    except BaseException as error:
        await _see_through(end_session(child.process))
        if isinstance(error, TimeoutError):
            words = f"{name} did not come up in {START_TIMEOUT:.0f} s: {_words(output)}"
            raise HypervisorError(words) from error
        raise


async def _ready_or_ended(child: Child, ready: Callable[[], Awaitable[None]]) -> None:
    watches = [asyncio.ensure_future(ready()), asyncio.ensure_future(child.ended.wait())]
    try:
        await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        if watches[0].done() and watches[0].exception():  # often the first sign of its death
            await asyncio.wait(watches[1:], timeout=1)
        if not child.ended.is_set():
            await watches[0]
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def _see_through(work: Coroutine[Any, Any, None]) -> None:
    """Finish ``work``, however often the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


def _died(child: Child, *, output: Path, name: str) -> HypervisorError:
    return HypervisorError(f"{name} {ending(child.status or 0)} as it started: {_words(output)}")


def ending(status: int) -> str:
    """A child's status in words."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _words(output: Path) -> str:
    with contextlib.suppress(OSError):
        return last_words(output.read_bytes()[-4096:])
    return "it said nothing"


# --- Sockets ---


def listen(path: Path) -> socket.socket:
    """A socket that listens at ``path``, for a VMM to inherit: a connection made early just waits in it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_path(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        listener.listen(4)
    except BaseException:
        listener.close()
        raise
    return listener


async def connect(path: Path) -> socket.socket:
    """A connection to the VMM's socket ``path``; waits while its queue is full."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with short_path(path) as name:
            while not _try_connect(connection, name):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except OSError as error:
        connection.close()
        raise HypervisorError(f"no VMM listens on {path}: {error.strerror}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _try_connect(connection: socket.socket, name: str) -> bool:
    # asyncio's sock_connect takes EAGAIN, a full queue (unix(7)), for a connection that is under way.
    try:
        connection.connect(name)
    except BlockingIOError:
        return False
    return True


# --- Sessions ---


@dataclass(frozen=True, slots=True)
class _Stat:
    is_zombie: bool  # with no thread that still runs
    session: int
    start_time: int


def _read_stat(pid: int) -> _Stat:
    fields = stat_fields(pid)
    is_zombie = fields[0] in b"ZX" and int(fields[17]) <= 1
    return _Stat(is_zombie, int(fields[3]), int(fields[19]))


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


def _living(pids: Iterable[int]) -> Iterator[tuple[int, _Stat]]:
    """Those that are no zombies."""
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):  # it ended meanwhile
            stat = _read_stat(pid)
            if not stat.is_zombie:
                yield pid, stat


def _pids_of_session(session: int) -> Iterator[int]:
    """By getsid(2), a microsecond for each process of the host."""
    for pid in _all_pids():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if os.getsid(pid) == session or pid == session:
                yield pid


def session_members(leader: ProcessId) -> list[ProcessId]:
    """The living processes of ``leader``'s session, whether or not it lives itself."""
    members = []
    for pid, stat in _living(_pids_of_session(leader.pid)):
        if pid == leader.pid and stat.start_time != leader.start_time:
            return []  # the pid has a new owner, so the old session is gone (credentials(7))
        if stat.session == leader.pid and stat.start_time >= leader.start_time:
            members.append(ProcessId(pid, stat.start_time))
    return members


async def end_session(leader: ProcessId) -> None:
    """Kill ``leader`` and every process of its session; returns when none is left."""
    point("killing")
    leader.kill()
    await leader.wait()  # first: until then it may make children that no look at all processes shows
    while members := session_members(leader):
        for member in members:
            member.kill()
        await asyncio.gather(*(member.wait() for member in members))
    point("killed")


def find_orphans(machines: Path) -> list[tuple[Path, ProcessId]]:
    """Every VMM of ours below ``machines``: its run directory, and its session for ``end_session``.

    A VMM that died by itself or by a stranger is found by the helpers that it left.
    """
    prefix = os.fsencode(machines) + b"/"
    sessions: dict[int, tuple[Path, ProcessId]] = {}
    for pid, stat in sorted(_living(_all_pids()), key=lambda item: item[1].start_time):
        if stat.session in sessions or stat.session == os.getsid(0):
            continue
        run_dir = _machine_of(pid)
        if run_dir.startswith(prefix):
            leader = ProcessId(stat.session, stat.start_time)
            sessions[stat.session] = (Path(os.fsdecode(run_dir)), leader)
    return list(sessions.values())


async def end_processes_of(run_dir: Path) -> None:
    """End what runs for ``run_dir`` though no note says so: its launcher died, or only helpers are left."""
    for found, leader in find_orphans(run_dir.parent):
        if found == run_dir:
            await end_session(leader)


def _machine_of(pid: int) -> bytes:
    """HYPER_MACHINE in the environment of a process of our user, else nothing."""
    proc = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        if proc.stat().st_uid == os.geteuid():
            for variable in (proc / "environ").read_bytes().split(b"\0"):
                if variable.startswith(b"HYPER_MACHINE="):
                    return variable.partition(b"=")[2]
    return b""
