"""exec, logs, attach and terminals."""

from __future__ import annotations

import re
import time

import pytest

from tests.e2e.hyper import Hyper

LOOP = "while :; do sleep 0.1; done"


def shell(hyper: Hyper, script: str = LOOP, name: str = "web") -> None:
    hyper.ok("run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", script)


# --- exec ---


@pytest.mark.every_driver
def test_exec_runs_beside_the_main_process(hyper: Hyper) -> None:
    shell(hyper)
    result = hyper("exec", "web", "sh", "-c", "echo out; echo err >&2; exit 37")
    assert (result.out, result.err, result.status) == ("out\n", "err\n", 37)


def test_exec_takes_stdin_environment_user_and_directory(hyper: Hyper) -> None:
    shell(hyper)
    assert hyper.ok("exec", "-i", "web", "cat", stdin=b"through") == "through"
    assert hyper.ok("exec", "-e", "A=b c", "web", "sh", "-c", "echo $A") == "b c"
    assert (
        hyper.ok("exec", "-u", "12:34", "-w", "/etc", "web", "sh", "-c", "id -u; id -g; pwd")
        == "12\n34\n/etc"
    )


@pytest.mark.parametrize(("command", "status"), [("nosuchthing", 127), ("/etc", 126)])
def test_exec_failures_have_dockers_statuses(hyper: Hyper, command: str, status: int) -> None:
    shell(hyper)
    result = hyper("exec", "web", command)
    assert result.status == status
    assert command in result.err


def test_exec_in_what_does_not_run_is_an_error(hyper: Hyper) -> None:
    hyper.ok("create", "--name", "web", "busybox")
    result = hyper("exec", "web", "true")
    assert result.status == 125
    assert "web" in result.err
    assert hyper("exec", "nothere", "true").status == 125


def test_exec_detached_goes_on_by_itself(hyper: Hyper) -> None:
    shell(hyper)
    hyper.ok("exec", "-d", "web", "sh", "-c", "sleep 0.5; echo done > /mark")
    hyper.eventually("done", "exec", "web", "cat", "/mark")


# --- logs ---


@pytest.mark.every_driver
def test_logs_keep_both_streams_in_order_and_apart(hyper: Hyper) -> None:
    hyper("run", "--network", "none", "--name", "web", "busybox", "sh", "-c", "echo a; echo b >&2; printf c")
    result = hyper("logs", "web")
    assert (result.out, result.err) == ("a\nc", "b\n")


def test_logs_may_be_cut_and_stamped(hyper: Hyper) -> None:
    hyper(
        "run", "--network", "none", "--name", "web", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; done"
    )
    assert hyper.ok("logs", "--tail", "2", "web") == "2\n3"
    assert hyper.ok("logs", "--tail", "0", "web") == ""
    stamped = hyper.ok("logs", "-t", "web").splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z \d", line) for line in stamped)
    assert hyper.ok("logs", "--since", "1h", "web") == "1\n2\n3"
    assert hyper.ok("logs", "--until", "1h", "web") == ""


def test_logs_follow_until_the_end(hyper: Hyper) -> None:
    shell(hyper, "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done")
    assert hyper.ok("logs", "-f", "web") == "1\n2\n3\n4\n5"


def test_logs_of_what_is_not_there_are_an_error(hyper: Hyper) -> None:
    result = hyper("logs", "nothere")
    assert result.status == 1
    assert "nothere" in result.err


# --- attach ---


def test_attach_shows_what_comes_and_passes_the_code_on(hyper: Hyper) -> None:
    shell(hyper, "while [ ! -e /go ]; do echo wait; sleep 0.1; done; echo now; exit 4")
    child = hyper.spawn("attach", "--no-stdin", "web")
    assert child.stdout is not None
    assert child.stdout.readline() == b"wait\n"  # it is attached
    hyper.ok("exec", "web", "touch", "/go")
    out, err = child.communicate(timeout=30)
    assert (out.replace(b"wait\n", b""), err, child.returncode) == (b"now\n", b"", 4)


def test_attach_to_what_does_not_run_is_an_error(hyper: Hyper) -> None:
    hyper.ok("create", "--name", "web", "busybox")
    result = hyper("attach", "web")
    assert result.status == 125
    assert "hyper start web" in result.err


# --- terminals ---


@pytest.mark.every_driver
def test_a_shell_on_a_terminal_has_its_size_and_follows_it(hyper: Hyper) -> None:
    with hyper.terminal(
        "run", "--rm", "--network", "none", "-t", "busybox", "sh", rows=33, columns=101
    ) as screen:
        screen.type("stty size\n")
        screen.wait_for("33 101")
        screen.resize(44, 122)
        screen.type("until stty size | grep '44 1'22; do sleep 0.1; done\n")  # it gets there by and by
        screen.wait_for("44 122")
        screen.type("exit 6\n")
        assert screen.wait() == 6


@pytest.mark.every_driver
def test_ctrl_c_interrupts_the_command_and_not_the_shell(hyper: Hyper) -> None:
    with hyper.terminal("run", "--rm", "--network", "none", "-it", "busybox", "sh") as screen:
        screen.type("sh -c 'echo begun $((20 + 3)); exec sleep 100'\n")
        screen.wait_for("begun 23")
        time.sleep(0.5)
        screen.type(b"\x03")
        screen.type("echo alive $((40 + 2))\n")
        screen.wait_for("alive 42")
        screen.wait_for("/ # ")  # while the terminal is not the shell's, ^D means nothing
        screen.type(b"\x04")
        screen.wait()


def test_a_terminal_is_a_terminal_to_the_program(hyper: Hyper) -> None:
    with hyper.terminal(
        "run", "--rm", "--network", "none", "-t", "busybox", "sh", "-c", "test -t 0 && test -t 1 && tty"
    ) as screen:
        screen.wait_for("/dev/")
        assert screen.wait() == 0


@pytest.mark.every_driver
def test_the_detach_keys_leave_it_running_and_attach_comes_back(hyper: Hyper) -> None:
    with hyper.terminal("run", "--network", "none", "-t", "--name", "web", "busybox", "sh") as screen:
        screen.type("echo first $((1 + 1))\n")
        screen.wait_for("first 2")
        screen.type(b"\x10\x11")
        screen.wait_for("read escape sequence")
        assert screen.wait() == 0
    assert hyper.state("web") == "running"
    with hyper.terminal("attach", "web") as screen:
        time.sleep(1)
        screen.type("echo again $((2 + 2))\n")
        screen.wait_for("again 4")
        screen.type("exit 0\n")
        assert screen.wait() == 0


def test_exec_on_a_terminal(hyper: Hyper) -> None:
    shell(hyper)
    with hyper.terminal("exec", "-it", "web", "sh", rows=20, columns=90) as screen:
        screen.type("stty size; exit 8\n")
        screen.wait_for("20 90")
        assert screen.wait() == 8


def test_i_and_t_without_a_terminal_is_an_error(hyper: Hyper) -> None:
    result = hyper.run("-it", "busybox", "sh")
    assert result.status == 125
    assert "not a TTY" in result.err
