"""Looking in: stats, top, events, detached execs, commands in the machine, logs of whole pods."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from tests.e2e.hyper import Hyper

BUSY = "while :; do :; done"
LOOP = "while :; do sleep 0.1; done"
COUNTER = "i=0; while [ ! -e /go ]; do echo $((i+=1)); sleep 0.1; done; echo now; exit 4"
IDLE_MIB = 10  # 4 more without percpu_alloc=page (hypervisors/_vmm.py)


def shell(hyper: Hyper, script: str = LOOP, name: str = "web") -> str:
    return hyper.ok("run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", script)


def two_containers(hyper: Hyper, first: str, second: str) -> None:
    podfile = {
        "id": "two",
        "containers": [
            {"name": name, "image": "busybox", "command": ["sh", "-c", script]}
            for name, script in (("left", first), ("right", second))
        ],
    }
    path = hyper.root / "two.json"
    path.write_text(json.dumps(podfile))
    hyper.ok("run", "-d", str(path))


def table(text: str) -> list[dict[str, str]]:
    """Docker's columns are at least three blanks apart from one another, or end a cell of ten."""
    header, *lines = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+(?: \S+)*", header)]
    ends = [*starts[1:], None]
    return [
        {header[a:b].strip(): line[a:b].strip() for a, b in zip(starts, ends, strict=True)} for line in lines
    ]


# --- stats ---


@pytest.mark.every_driver
def test_stats_have_dockers_columns_and_numbers_that_move(hyper: Hyper) -> None:
    shell(hyper, f"dd if=/dev/zero of=/data bs=1M count=4; sync; echo written; {BUSY}")
    hyper.eventually("written", "logs", "web")
    (row,) = table(hyper.ok("stats", "--no-stream", "web"))
    assert list(row) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    assert row["NAME"] == "web"
    assert float(row["CPU %"].rstrip("%")) > 20
    assert float(row["MEM %"].rstrip("%")) > 0
    assert row["PIDS"] == "1"
    assert re.fullmatch(r"[1-9].*MB", row["BLOCK I/O"].partition(" / ")[2])


@pytest.mark.every_driver
def test_stats_of_pods_show_guest_and_machine(hyper: Hyper) -> None:
    shell(hyper)
    (row,) = table(hyper.ok("stats", "--no-stream", "--pods"))
    assert row["NAME"] == "web"
    for column in ("GUEST MEM USAGE / LIMIT", "VMM RSS", "VMM PSS", "VMM PRIVATE", "DISK USAGE / LIMIT"):
        assert re.match(r"[1-9][\d.]*[KMG]iB", row[column]), row
    assert int(row["FILES"]) > 0


@pytest.mark.every_driver
def test_an_idle_pod_leaves_a_small_machine_to_its_container(hyper: Hyper) -> None:
    hyper.ok("run", "-d", "--network", "none", "-m", "64m", "--name", "web", "busybox", "sleep", "1000")
    (row,) = table(hyper.ok("stats", "--no-stream", "--pods"))
    used, unit = re.match(r"([\d.]+)(\w+)", row["GUEST MEM USAGE / LIMIT"]).groups()  # type: ignore[union-attr]
    assert unit == "MiB"
    assert float(used) < IDLE_MIB


def test_stats_go_on_until_they_are_interrupted(hyper: Hyper) -> None:
    shell(hyper)
    child = hyper.spawn("stats", "--format", "json")
    assert child.stdout is not None
    lines = [json.loads(child.stdout.readline()) for _ in range(3)]
    assert [line["Name"] for line in lines] == ["web"] * 3
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=20) == 130
    child.communicate()


def test_stats_of_what_does_not_run_are_an_error(hyper: Hyper) -> None:
    hyper.ok("create", "--name", "web", "busybox")
    assert "does not run" in hyper("stats", "--no-stream", "web").err


# --- top ---


@pytest.mark.every_driver
def test_top_shows_the_processes_of_a_container_and_of_a_pod(hyper: Hyper) -> None:
    two_containers(hyper, "sleep 1111", "sleep 2222")
    for name in ("left", "right"):
        hyper.eventually("(?<!sh -c )sleep", "top", name)  # the shell has become what it was told to run
    (row,) = table(hyper.ok("top", "right"))
    assert list(row) == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert (row["UID"], row["CMD"], row["TTY"]) == ("root", "sleep 2222", "?")
    rows = table(hyper.ok("top", "-o", "container,cmd", "two"))
    assert {(row["CONTAINER"], row["CMD"]) for row in rows} >= {
        ("left", "sleep 1111"),
        ("right", "sleep 2222"),
    }


def test_a_command_line_cannot_write_to_the_terminal(hyper: Hyper) -> None:
    shell(hyper)
    hyper.ok("exec", "-d", "web", "sh", "-c", "read x </dev/zero", "\x1b[2J\nfake line")
    text = hyper.ok("top", "web")
    assert "\x1b" not in text
    assert "\\x1b[2J\\nfake line" in text


# --- exec -d, exec -m ---


@pytest.mark.every_driver
def test_a_detached_exec_has_an_id_that_tells_its_state_and_status(hyper: Hyper) -> None:
    shell(hyper)
    made = hyper.ok("exec", "-d", "web", "sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; exit 7")
    assert json.loads(hyper.ok("inspect", made))[0]["is_running"] is True
    hyper.ok("exec", "web", "touch", "/go")
    assert hyper.ok("wait", made[:12]) == "7"
    (seen,) = json.loads(hyper.ok("inspect", "--type", "exec", made))
    assert (seen["is_running"], seen["exit_code"]) == (False, 7)


def test_the_status_of_an_exec_is_known_as_long_as_its_pod_runs(hyper: Hyper) -> None:
    shell(hyper)
    made = hyper.ok("exec", "-d", "web", "true")
    hyper.ok("stop", "-t", "0", "web")
    result = hyper("wait", made)
    assert result.status == 1
    assert "no such" in result.err


def test_an_exec_that_a_signal_ends_gives_128_and_its_number(hyper: Hyper) -> None:
    shell(hyper)
    assert hyper("exec", "web", "sh", "-c", "kill -TERM $$").status == 143


@pytest.mark.every_driver
def test_a_command_in_the_machine_sees_hyperstart_and_the_kernels_threads(hyper: Hyper) -> None:
    shell(hyper)
    lines = hyper.ok("exec", "-m", "web", "ps", "-o", "pid,args").splitlines()
    assert any(line.split() == ["1", "hyperstart"] for line in lines)
    assert any("[kthreadd]" in line for line in lines)
    assert "Linux version" in hyper.ok("exec", "-m", "web", "dmesg")
    assert hyper("exec", "--vm", "web", "sh", "-c", "exit 9").status == 9
    with hyper.terminal("exec", "-m", "-t", "web", "sh", "-c", "tty; stty size") as screen:
        screen.wait_for("/dev/")
        assert screen.wait() == 0


# --- logs ---


def test_logs_of_a_pod_show_all_its_containers_in_order(hyper: Hyper) -> None:
    two_containers(hyper, "echo one; sleep 2; echo three", "sleep 1; echo two >&2")
    hyper.ok("wait", "left", "right")
    assert hyper.ok("logs", "two").splitlines() == ["left | one", "left | three"]
    assert hyper("logs", "two").err == "right | two\n"
    assert hyper.ok("logs", "left") == "one\nthree"


def test_logs_of_a_pod_can_be_followed(hyper: Hyper) -> None:
    two_containers(hyper, "sleep 1; echo one", "sleep 1.5; echo two")
    assert sorted(hyper.ok("logs", "-f", "two").splitlines()) == ["left | one", "right | two"]


# --- events ---


@pytest.mark.every_driver
def test_events_tell_a_pods_life(hyper: Hyper) -> None:
    begun = time.time()
    hyper("run", "--network", "none", "--name", "short-lived", "busybox", "sh", "-c", "exit 3")
    hyper.ok("rm", "short-lived")
    seen = [
        json.loads(line)
        for line in hyper.ok(
            "events", "--since", str(begun), "--until", "0s", "-f", "pod=short-lived", "--format", "json"
        ).splitlines()
    ]
    assert [f"{each['type']} {each['action']}" for each in seen] == [
        "pod create", "container create", "pod start", "container start", "container die", "pod stop",
        "container destroy", "pod destroy",
    ]  # fmt: skip
    assert seen[4]["attributes"]["exitCode"] == "3"


def test_events_come_as_they_happen_in_dockers_form(hyper: Hyper) -> None:
    child = hyper.spawn("events", "--since", str(time.time()), "--filter", "type=image")
    assert child.stdout is not None
    hyper.ok("tag", "busybox", "events-test:1")
    tagged = child.stdout.readline().decode()  # of the past, or as it happened: from now on, it listens
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z image tag sha256:\w{64} \(name=events-test:1\)\n", tagged)
    hyper.ok("rmi", "events-test:1")
    assert " image untag " in child.stdout.readline().decode()
    child.terminate()
    child.communicate()


# --- attach ---


def test_two_may_be_attached_at_once_and_both_see_all(hyper: Hyper) -> None:
    shell(hyper, COUNTER)
    both = [hyper.spawn("attach", "--no-stdin", "web") for _ in range(2)]
    first = [int(child.stdout.readline()) for child in both if child.stdout]  # then it is attached
    hyper.ok("exec", "web", "touch", "/go")
    counts = [child.communicate(timeout=30)[0].split() for child in both]
    end = int(hyper.ok("logs", "--tail", "2", "web").split()[0])
    for number, count, child in zip(first, counts, both, strict=True):
        assert count == [b"%d" % each for each in range(number + 1, end + 1)] + [b"now"]
        assert child.returncode == 4


def test_wait_waits_for_several(hyper: Hyper) -> None:
    shell(hyper, "sleep 1; exit 5", name="one")
    shell(hyper, "exit 6", name="two")
    assert hyper.ok("wait", "one", "two") == "5\n6"
