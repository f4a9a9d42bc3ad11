"""VMM processes: what they inherit, how they are reaped, found and ended with their helpers."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from hypercontainer.errors import HypervisorError
from hypercontainer.hypervisors import _mounts, _processes
from hypercontainer.process import ProcessId

SELECTABLE = 1024  # FD_SETSIZE: select(2) can watch no descriptor from this on


def shell(tmp_path: Path, script: str, **rest: object) -> _processes.Child:
    environment = {"HYPER_MACHINE": str(tmp_path / "m"), "PATH": os.environ["PATH"]}
    return _processes.spawn(
        ["/bin/sh", "-c", script],
        output=tmp_path / "out",
        environment=environment,
        **rest,  # type: ignore[arg-type]
    )


async def forever() -> None:
    await asyncio.Event().wait()


async def ended(child: _processes.Child) -> None:
    async with asyncio.timeout(10):
        await child.ended.wait()


async def test_a_child_inherits_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        three.set_inheritable(True)
        child = shell(tmp_path, "exec ls -l /proc/self/fd", descriptors=[two.fileno(), one.fileno()])
        await ended(child)
        inodes = [os.fstat(s.fileno()).st_ino for s in (two, one)]
    lines = [line.split() for line in (tmp_path / "out").read_text().splitlines()[1:]]
    links = {int(line[8]): line[10] for line in lines}
    assert links[0] == "/dev/null"
    assert links[1] == links[2] == str(tmp_path / "out")
    assert [links[3], links[4]] == [f"socket:[{inode}]" for inode in inodes]
    assert set(links) - {0, 1, 2, 3, 4, 5} == set()  # 5 is ls's own


async def test_what_settles_a_child_is_its_own(tmp_path: Path) -> None:
    """Addresses that are fixed: seen in the child, and in none after it."""
    told = "cat /proc/self/personality"
    await ended(shell(tmp_path, told, settle=_mounts.fix_addresses))
    await ended(shell(tmp_path, told))
    assert (tmp_path / "out").read_text().split() == ["00040000", "00000000"]
    assert Path("/proc/self/personality").read_text().strip() == "00000000"


@pytest.mark.needs_root
async def test_a_directory_is_opened_where_the_child_is(tmp_path: Path) -> None:
    """What is mounted in its namespace alone is found below the descriptor, and nowhere on the host."""
    inside, shown = tmp_path / "inside", tmp_path / "shown"
    inside.mkdir()
    shown.mkdir()
    (shown / "file").touch()

    def settle() -> None:
        _mounts.unshare_mounts()
        _mounts.bind(str(shown), str(inside), _mounts.MS_RDONLY)

    script = "ls /proc/self/fd/3/inside; touch /proc/self/fd/3/inside/other"
    await ended(shell(tmp_path, script, descriptors=[tmp_path], settle=settle))
    assert (tmp_path / "out").read_text().startswith("file\n")
    assert "Read-only file system" in (tmp_path / "out").read_text()
    assert not list(inside.iterdir())


async def test_what_cannot_be_settled_is_an_error_and_starts_nothing(tmp_path: Path) -> None:
    def settle() -> None:
        raise HypervisorError("no")

    with pytest.raises(HypervisorError, match="no"):
        shell(tmp_path, "echo started", settle=settle)
    assert not (tmp_path / "out").exists()


async def test_a_child_has_only_the_environment_it_was_given(tmp_path: Path) -> None:
    await ended(shell(tmp_path, "exec env"))
    names = {line.partition("=")[0] for line in (tmp_path / "out").read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"HYPER_MACHINE", "PATH"}


async def test_a_child_is_reaped_and_its_status_is_known(tmp_path: Path) -> None:
    for script, status in (("exit 3", 3), ("kill -9 $$", -9), ("exit 0", 0)):
        child = shell(tmp_path, script)
        await ended(child)
        assert child.status == status
        assert not Path(f"/proc/{child.process.pid}").exists()


async def test_a_program_that_cannot_be_executed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    for program in ("/nonexistent", str(tmp_path / "text"), str(tmp_path)):
        with pytest.raises(HypervisorError, match="cannot be executed"):
            _processes.spawn([program], output=tmp_path / "out")


async def test_an_early_death_is_reported_with_the_last_words(tmp_path: Path) -> None:
    child = shell(tmp_path, "echo no such thing >&2; exit 4")
    began = time.monotonic()
    with pytest.raises(HypervisorError, match=r"status 4.*no such thing"):
        await _processes.until_ready(
            child,
            ready=forever,
            output=tmp_path / "out",
            name="it",
        )
    assert time.monotonic() - began < _processes.START_TIMEOUT / 2


async def test_a_start_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, "START_TIMEOUT", 0.2)
    child = shell(tmp_path, "sleep 100")
    with pytest.raises(HypervisorError, match="did not come up"):
        await _processes.until_ready(
            child,
            ready=forever,
            output=tmp_path / "out",
            name="it",
        )
    assert _processes.session_members(child.process) == []


HELPERS = "sleep 100 & (sleep 100 & sleep 100) & echo up; wait"


@pytest.mark.parametrize("steps", range(1, 9))
async def test_a_start_that_is_cancelled_at_any_step_is_ended(tmp_path: Path, steps: int) -> None:
    child = shell(tmp_path, "sleep 1000 & sleep 1000")
    starting = asyncio.ensure_future(
        _processes.until_ready(child, ready=lambda: asyncio.sleep(0), output=tmp_path / "out", name="VMM")
    )
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.sleep(0)
    starting.cancel()  # whoever is impatient changes nothing
    try:
        await starting
    except asyncio.CancelledError:
        assert _processes.session_members(child.process) == []
    else:
        assert child.process.is_alive()
        await _processes.end_session(child.process)


async def test_a_session_ends_with_its_helpers(tmp_path: Path) -> None:
    child = shell(tmp_path, HELPERS)
    async with asyncio.timeout(10):
        while len(_processes.session_members(child.process)) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await _processes.end_session(child.process)
    assert _processes.session_members(child.process) == []
    await _processes.end_session(child.process)  # a second time is no error


async def test_helpers_of_a_dead_leader_are_ended_too(tmp_path: Path) -> None:
    child = shell(tmp_path, HELPERS)
    await until_said(tmp_path / "out", "up")
    os.kill(child.process.pid, signal.SIGKILL)
    await ended(child)
    assert _processes.session_members(child.process)
    ((run_dir, session),) = _processes.find_orphans(tmp_path)
    assert run_dir == tmp_path / "m"
    await _processes.end_session(session)
    assert _processes.session_members(child.process) == []
    assert _processes.find_orphans(tmp_path) == []


async def test_the_session_of_a_pids_next_owner_is_left_alone(tmp_path: Path) -> None:
    child = shell(tmp_path, "echo up; sleep 100")
    await until_said(tmp_path / "out", "up")
    earlier = ProcessId(child.process.pid, child.process.start_time - 1)
    await _processes.end_session(earlier)
    assert child.process.is_alive()
    await _processes.end_session(child.process)


async def test_an_end_is_seen_by_a_daemon_with_more_descriptors_than_select_takes(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, _ = resource.prlimit(0, resource.RLIMIT_NOFILE, (hard, hard))
    taken = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(SELECTABLE)]
    try:
        child = shell(tmp_path, "sleep 0.3")
        async with asyncio.timeout(10):
            await child.process.wait()
        await ended(child)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_orphans_are_those_below_the_directory_and_never_ourselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = shell(tmp_path, "echo up; sleep 100")
    await until_said(tmp_path / "out", "up")
    ours = subprocess.Popen(["sleep", "100"], env={"HYPER_MACHINE": str(tmp_path / "m2")})
    try:
        assert [found[0] for found in _processes.find_orphans(tmp_path)] == [tmp_path / "m"]
        assert _processes.find_orphans(tmp_path / "m") == []
        assert _processes.find_orphans(tmp_path.with_name(tmp_path.name[:-1])) == []
    finally:
        ours.kill()
        ours.wait()
        await _processes.end_session(child.process)


async def test_a_full_queue_makes_a_connection_wait(tmp_path: Path) -> None:
    listener = _processes.listen(tmp_path / "s")
    listener.listen(0)
    first = await _processes.connect(tmp_path / "s")
    waiting = asyncio.ensure_future(_processes.connect(tmp_path / "s"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    listener.accept()[0].close()
    async with asyncio.timeout(10):
        (await waiting).close()
    first.close()
    listener.close()


async def until_said(path: Path, words: str) -> None:
    async with asyncio.timeout(10):
        while words not in path.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
