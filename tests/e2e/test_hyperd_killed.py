"""hyperd may die at any moment: machines run on, and the next one misses nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from hypercontainer.process import ProcessId
from tests.e2e.hyper import Hyper
from tests.support.processes import hyperds
from tests.support.waiting import until

LINES = 400
PRINTER = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); usleep 20000; done; exit %d"


@pytest.fixture
def killable(daemon: Hyper) -> Iterator[Hyper]:
    yield daemon
    _kill_daemon(daemon)  # a command may have started one of its own
    daemon.remove_all()


def _kill_daemon(hyper: Hyper) -> None:
    hyper.kill_daemon()
    hyper.start_daemon()


@pytest.mark.every_driver
def test_pods_survive_and_no_line_is_lost_or_doubled(killable: Hyper) -> None:
    """Ten pods, five of them printing; fewer where each costs a second of CPU to boot."""
    hyper = killable
    half = 5 if hyper.driver == "uml" else 2
    printers = {f"printer{number}": number for number in range(1, half + 1)}
    sleepers = {f"sleeper{number}": number for number in range(half + 1, 2 * half + 1)}
    for name, code in printers.items():
        hyper.ok(
            "run",
            "-d",
            "--network",
            "none",
            "-m",
            "48m",
            "--name",
            name,
            "busybox",
            "sh",
            "-c",
            PRINTER % code,
        )
    for name, code in sleepers.items():
        script = f"trap 'exit {code}' TERM; while :; do sleep 1; done"
        hyper.ok("run", "-d", "--network", "none", "-m", "48m", "--name", name, "busybox", "sh", "-c", script)
    for _ in range(3):
        _kill_daemon(hyper)
        time.sleep(0.7)
    states = {pod["POD Name"]: pod["Status"] for pod in _list(hyper)}
    assert {name: states.get(name) for name in sleepers} == dict.fromkeys(sleepers, "running")
    for name, code in printers.items():
        assert hyper.ok("wait", name) == str(code)
        assert hyper.ok("logs", name).splitlines() == [f"line {number}" for number in range(LINES)]
    for name, code in sleepers.items():
        hyper.ok("kill", "-s", "TERM", name)
        assert hyper.ok("wait", name) == str(code)


def _list(hyper: Hyper) -> list[dict[str, str]]:
    lines = hyper.ok("list").splitlines()
    names = ("POD ID", "POD Name", "VM name", "Status")
    return [dict(zip(names, line.split(), strict=False)) for line in lines[1:]]


@pytest.mark.every_driver
def test_an_end_that_nobody_saw_is_known_afterwards(killable: Hyper) -> None:
    hyper = killable
    hyper.ok(
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "short",
        "busybox",
        "sh",
        "-c",
        "sleep 1; echo bye; exit 7",
    )
    hyper.kill_daemon()
    time.sleep(2.5)
    hyper.start_daemon()
    assert hyper.ok("wait", "short") == "7"
    assert hyper.ok("logs", "short") == "bye"


def test_a_machine_killed_while_hyperd_was_away_is_noticed(killable: Hyper) -> None:
    hyper = killable
    hyper.ok("run", "-d", "--network", "none", "--name", "doomed", "busybox", "sleep", "1000")
    machine = hyper.json("list", "vm")[0]
    hyper.kill_daemon()
    victim = ProcessId.of(int(machine["pid"]))
    assert victim is not None
    victim.kill()
    until(lambda: not victim.is_alive())
    hyper.start_daemon()
    assert hyper.state("doomed") == "created"
    hyper.ok("start", "doomed")
    assert hyper.state("doomed") == "running"


def test_a_machine_that_dies_leaves_a_created_pod_with_a_reason(killable: Hyper) -> None:
    hyper = killable
    hyper.ok("run", "-d", "--network", "none", "--name", "doomed", "busybox", "sleep", "1000")
    os.kill(int(hyper.json("list", "vm")[0]["pid"]), signal.SIGKILL)
    until(lambda: hyper.state("doomed") == "created")
    assert "the machine ended by itself" in hyper.ok("inspect", "--type", "pod", "doomed")


def test_kills_at_random_moments_of_starts_leave_nothing(killable: Hyper) -> None:
    """Starts go on while hyperd is killed again and again; whatever they reached, all can be removed."""
    hyper = killable

    def start(number: int) -> None:
        hyper("run", "-d", "--name", f"r{number}", "busybox", "sleep", "1000")

    for round_ in range(5):
        starters = [threading.Thread(target=start, args=(round_ * 2 + each,)) for each in range(2)]
        for starter in starters:
            starter.start()
        time.sleep(0.15 + 0.17 * round_)
        hyper.kill_daemon()
        for starter in starters:
            starter.join()
    _kill_daemon(hyper)
    hyper.remove_all()
    places = (hyper.root / "run/machines", hyper.root / "lib/pods")
    until(lambda: not any(left for place in places for left in place.iterdir()))
    assert hyper.json("list", "vm") == []


def test_an_attached_run_goes_on_with_the_next_hyperd(killable: Hyper) -> None:
    """Killed twice while it prints: each line once, on the right stream, and the exit code."""
    script = "for i in $(seq 60); do echo out $i; echo err $i >&2; sleep 0.05; done; exit 21"
    child = killable.spawn("run", "--network", "none", "-m", "48m", "busybox", "sh", "-c", script)
    assert child.stdout is not None
    first = child.stdout.readline()
    for _ in range(2):
        time.sleep(0.7)
        killable.kill_daemon()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 21, err
    assert (first + out).decode().split("\n") == [f"out {number}" for number in range(1, 61)] + [""]
    errors = [line for line in err.decode().splitlines() if not line.startswith("hyper: hyperd went away")]
    assert errors == [f"err {number}" for number in range(1, 61)]


def test_an_attached_run_waits_for_the_hyperd_that_follows_one_that_was_stopped(killable: Hyper) -> None:
    """It starts none itself: whoever stops hyperd means it."""
    script = "for i in $(seq 40); do echo out $i; sleep 0.05; done; exit 21"
    child = killable.spawn("run", "--network", "none", "-m", "48m", "busybox", "sh", "-c", script)
    assert child.stdout is not None
    first = child.stdout.readline()
    killable.stop_daemon()
    time.sleep(0.7)
    assert hyperds(killable.root) == []
    killable.start_daemon()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 21, err
    assert (first + out).decode().split("\n") == [f"out {number}" for number in range(1, 41)] + [""]


def test_an_attached_exec_goes_on_with_the_next_hyperd(killable: Hyper) -> None:
    """Also when it ends while there is none."""
    killable.ok("run", "-d", "--network", "none", "-m", "48m", "--name", "web", "busybox", "sleep", "1000")
    script = "for i in $(seq 30); do echo out $i; echo err $i >&2; sleep 0.05; done; exit 21"
    child = killable.spawn("exec", "web", "sh", "-c", script)
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(0.5)
    killable.kill_daemon()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 21, err
    assert (first + out).decode().split("\n") == [f"out {number}" for number in range(1, 31)] + [""]
    errors = [line for line in err.decode().splitlines() if not line.startswith("hyper: hyperd went away")]
    assert errors == [f"err {number}" for number in range(1, 31)]


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_no_byte_of_stdin_is_lost_or_doubled_when_hyperd_dies(killable: Hyper, verb: str) -> None:
    """Killed again and again while much goes in: what the guest had not taken is sent again."""
    data = os.urandom(24 << 20)
    words: tuple[str, ...]
    if verb == "run":
        words = ("run", "-i", "--network", "none", "-m", "48m", "busybox", "sha256sum")
    else:
        killable.ok("run", "-d", "--network", "none", "-m", "48m", "--name", "web", "busybox", "sleep", "999")
        words = ("exec", "-i", "web", "sha256sum")
    with killable.spawn(*words, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for at in range(0, len(data), 1 << 20):
            _write(child, data[at : at + (1 << 20)])
            if at in (4 << 20, 12 << 20, 20 << 20):
                killable.kill_daemon()
        child.stdin.close()
        out = child.stdout.read()
        assert child.wait(timeout=60) == 0
    assert out.split()[0].decode() == hashlib.sha256(data).hexdigest()


def _write(child: subprocess.Popen[bytes], data: bytes) -> None:
    assert child.stdin is not None
    assert child.stderr is not None
    try:
        child.stdin.write(data)
    except BrokenPipeError:
        pytest.fail(f"hyper has ended: {child.stderr.read().decode()}")


@pytest.mark.every_driver
def test_what_packed_files_for_a_client_ends_with_the_hyperd_that_served_it(killable: Hyper) -> None:
    hyper = killable
    script = "dd if=/dev/zero of=/big bs=1M count=64 2>&-; echo written; exec sleep 1000"
    hyper.ok("run", "-d", "--network", "none", "-m", "48m", "--name", "c", "busybox", "sh", "-c", script)
    until(lambda: "written" in hyper.ok("logs", "c"))
    before = _machine_processes(hyper)
    copy = hyper.spawn("cp", "c:/big", "-")
    assert copy.stdout is not None
    assert copy.stdout.read(1)  # and then no more
    assert _machine_processes(hyper) == before + 1
    _kill_daemon(hyper)
    copy.kill()
    copy.communicate()
    until(lambda: _machine_processes(hyper) == before)
    assert hyper.ok("exec", "c", "echo", "alive") == "alive"


def _machine_processes(hyper: Hyper) -> int:
    """How many processes of the machine are hyperstart's."""
    script = "cat /proc/[0-9]*/comm 2>&- || true"  # one may end meanwhile
    return hyper.ok("exec", "-m", "c", "sh", "-c", script).split().count("hyperstart")
