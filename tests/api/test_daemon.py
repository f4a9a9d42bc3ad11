"""hyperd as a process: one for each root, quick to answer, clean when it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hypercontainer.client import Client, ensure_daemon, is_listening
from hypercontainer.client.start import RUNS_ALREADY, Stopped, next_daemon
from hypercontainer.config import Paths
from hypercontainer.errors import Unavailable
from tests.support.processes import hyperds, see
from tests.support.waiting import PATIENCE_S, until

HYPERD = (sys.executable, "-m", "hypercontainer.daemon")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HYPER_ROOT", str(tmp_path))
    yield tmp_path
    end_daemon(Paths.default())


def end_daemon(paths: Paths) -> None:
    """End the daemon that a test has left, and wait until it is gone."""
    if not paths.lock.exists():
        return
    pid = int(paths.lock.read_text().strip() or 0)
    if pid and is_listening(paths):
        os.kill(pid, signal.SIGTERM)
        until(lambda: see(pid) is None)


@contextlib.contextmanager
def daemon(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [*HYPERD, *arguments], stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=PATIENCE_S)


def wait_for(paths: Paths) -> Client:
    until(lambda: is_listening(paths))
    return Client(paths.socket)


def test_the_first_command_starts_the_daemon(root: Path) -> None:
    paths = Paths.default()
    ensure_daemon(paths)
    client = Client(paths.socket)
    assert client.system.ping() == "OK"
    assert client.pods.list() == []
    assert paths.socket.stat().st_mode & 0o777 in {0o600, 0o660}
    assert paths.state.stat().st_mode & 0o077 == 0


def test_many_commands_at_once_start_one_daemon(root: Path) -> None:
    program = "from hypercontainer.client import Client; print(Client.default().system.ping())"
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: subprocess.run([sys.executable, "-c", program], capture_output=True, text=True),
                range(4),
            )
        )
    assert [answer.stdout for answer in answers] == ["OK\n"] * 4, [answer.stderr for answer in answers]


def test_a_daemon_that_came_too_late_takes_no_place_that_becomes_free(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands start one each; one is slow, and the other is stopped before that is up."""
    (root / "slow").mkdir()
    wait = f"while not os.path.exists({str(root / 'slow/go')!r}): time.sleep(0.05)"
    (root / "slow/sitecustomize.py").write_text(f"import os, time\n{wait}\n")
    monkeypatch.setenv("PYTHONPATH", str(root / "slow"))
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(ensure_daemon, Paths.default())
        until(lambda: len(hyperds(root)) == 1)
        monkeypatch.delenv("PYTHONPATH")
        with daemon():
            started.result(PATIENCE_S)
    (root / "slow/go").touch()
    until(lambda: hyperds(root) == [])


def test_a_second_daemon_says_so_and_ends(root: Path) -> None:
    with daemon() as first:
        wait_for(Paths.default())
        second = subprocess.run(HYPERD, capture_output=True, text=True, timeout=PATIENCE_S)
        assert second.returncode == RUNS_ALREADY
        assert f"pid {first.pid}" in second.stderr
        assert Client(Paths.default().socket).system.ping() == "OK"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_in_order(root: Path, number: int) -> None:
    with daemon() as child:
        wait_for(Paths.default()).system.ping()
        child.send_signal(number)
        assert child.wait(PATIENCE_S) == 0
    assert not Paths.default().socket.exists()


def test_a_daemon_takes_over_from_one_that_was_killed(root: Path) -> None:
    with daemon() as child:
        wait_for(Paths.default()).system.ping()
        child.kill()
        child.wait(PATIENCE_S)
        assert Paths.default().socket.exists()
        ensure_daemon(Paths.default())
        assert Client(Paths.default().socket).system.ping() == "OK"


def test_a_root_deeper_than_a_socket_name_can_say_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    monkeypatch.setenv("HYPER_ROOT", str(deep))
    paths = Paths.default()
    try:
        ensure_daemon(paths)
        assert Client(paths.socket).system.ping() == "OK"
    finally:
        end_daemon(paths)


def test_a_daemon_that_cannot_start_says_why_to_the_command(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "hyperd.toml").write_text('hypervisr = "uml"\n')
    with pytest.raises(Unavailable) as refusal:
        ensure_daemon(Paths.default(), timeout_s=3600)  # it is not waited for
    assert "unknown key 'hypervisr'" in refusal.value.message


def test_something_else_in_the_place_of_the_socket_is_left_alone(root: Path) -> None:
    paths = Paths.default()
    paths.run.mkdir()
    paths.socket.write_text("mine")
    with pytest.raises(Unavailable, match="in the way"):
        ensure_daemon(paths)
    assert paths.socket.read_text() == "mine"


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    result = subprocess.run(
        [*HYPERD, "--root", str(tmp_path / "file" / "below")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert result.returncode == 1
    assert "cannot use" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="not on this host: only root can be two users")
def test_a_root_that_belongs_to_another_user_is_refused(root: Path) -> None:
    Paths.default().run.mkdir()
    os.chown(Paths.default().run, 65534, 65534)
    with pytest.raises(Unavailable, match="belongs to another user"):
        ensure_daemon(Paths.default())


def test_a_socket_of_systemd_is_taken_and_left_in_place(root: Path) -> None:
    path = root / "passed.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        # what systemd does between fork and exec: descriptor 3, and LISTEN_PID is the new process
        program = (
            f"import os, sys; os.dup2({listener.fileno()}, 3); "
            "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}; "
            "os.execv(sys.executable, [sys.executable, '-m', 'hypercontainer.daemon'])"
        )
        child = subprocess.Popen([sys.executable, "-c", program], pass_fds=[listener.fileno()])
    try:
        assert Client(path).system.ping() == "OK"
        assert not Paths.default().socket.exists()
    finally:
        child.terminate()
        child.wait(PATIENCE_S)
    assert path.exists()


def test_the_daemon_imports_nothing_before_it_is_needed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first answer is part of the first ``hyper run``; each of these costs tens of milliseconds."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    ensure_daemon(Paths.default())
    listed = Paths.default().daemon_log.read_text()
    imported = {line.rpartition("|")[2].strip() for line in listed.splitlines() if "import time:" in line}
    assert "hypercontainer.engine.engine" in imported
    assert imported.isdisjoint({"httpx", "rich", "yaml", "importlib.metadata", "email.message"})


def test_a_log_that_has_grown_large_is_put_aside(root: Path) -> None:
    paths = Paths.default()
    paths.state.mkdir()
    with paths.daemon_log.open("wb") as log:
        log.truncate(9 << 20)
    ensure_daemon(paths)
    assert paths.daemon_log.stat().st_size < 1 << 20
    assert paths.daemon_log.with_name("hyperd.log.1").stat().st_size == 9 << 20


# --- A root that goes ---


def remove_tree(path: Path) -> None:
    """All of it at once: a hyperd that sees it go takes files of its own away meanwhile."""
    shutil.rmtree(path.rename(path.with_name("removed")))


@pytest.mark.parametrize("removed", ["socket", "lock", "database", "run", "state"])
def test_a_daemon_whose_files_are_removed_ends_by_itself(root: Path, removed: str) -> None:
    with daemon() as child:
        wait_for(Paths.default()).system.ping()
        path: Path = getattr(Paths.default(), removed)
        remove_tree(path) if path.is_dir() else path.unlink()
        assert child.wait(PATIENCE_S) == 0


def test_a_daemon_leaves_the_files_of_the_one_that_has_its_place(root: Path) -> None:
    with daemon() as first:
        wait_for(Paths.default()).system.ping()
        remove_tree(root / "run")
        remove_tree(root / "lib")
        with daemon():
            client = wait_for(Paths.default())
            assert first.wait(PATIENCE_S) == 0
            assert client.system.ping() == "OK"
            assert client.pods.list() == []


def test_a_client_that_is_left_over_starts_no_daemon_in_the_place_of_one_that_was_stopped(root: Path) -> None:
    with daemon() as child:
        wait_for(Paths.default()).system.ping()
        child.terminate()
        child.wait(PATIENCE_S)
    with pytest.raises(Stopped):
        next_daemon(Paths.default(), timeout_s=0.2)
    assert not is_listening(Paths.default())


def test_a_client_that_is_left_over_makes_no_root_anew(tmp_path: Path) -> None:
    paths = Paths(state=tmp_path / "lib", run=tmp_path / "run", config=tmp_path / "etc")
    with pytest.raises(Stopped):
        next_daemon(paths)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_is_left_over_waits_for_the_daemon_that_is_started(root: Path) -> None:
    with daemon() as first:
        wait_for(Paths.default()).system.ping()
        first.terminate()
        first.wait(PATIENCE_S)
    with ThreadPoolExecutor(1) as pool, daemon():
        pool.submit(next_daemon, Paths.default(), timeout_s=PATIENCE_S).result()
        assert Client(Paths.default().socket).system.ping() == "OK"


def test_a_client_that_is_left_over_starts_a_daemon_when_the_last_one_died(root: Path) -> None:
    with daemon() as child:
        wait_for(Paths.default()).system.ping()
        child.kill()
        child.wait(PATIENCE_S)
    next_daemon(Paths.default())
    assert Client(Paths.default().socket).system.ping() == "OK"
