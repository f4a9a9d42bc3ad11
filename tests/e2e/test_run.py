"""``hyper run`` and its flags, as a user types them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess

import pytest

from tests.e2e.hyper import Hyper
from tests.support.waiting import until


@pytest.mark.every_driver
def test_a_command_runs_in_a_kernel_of_its_own(hyper: Hyper) -> None:
    result = hyper.run("busybox", "uname", "-r")
    assert (result.status, result.err) == (0, "")
    assert result.out.strip() != os.uname().release


@pytest.mark.every_driver
@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 17", 17), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("true", 0), ("false", 1)],
)
def test_the_exit_code_is_passed_on(hyper: Hyper, command: str, status: int) -> None:
    assert hyper.run("busybox", "sh", "-c", command).status == status


def test_paths_up_to_the_longest_reach_the_kernel_whole(hyper: Hyper) -> None:
    script = """
        slashes() { head -c "$1" /dev/zero | tr "\\0" /; }
        for length in 1 511 512 2047 2048 3000 3001 3002 4094 4095 4096; do
            path=$(slashes $((length - 1)))a
            (: > "$path") 2>&- && test -e /a && rm /a && echo $length
        done
        true"""
    lengths = [int(word) for word in hyper.ok("run", "--rm", "busybox", "sh", "-c", script).split()]
    assert lengths == [1, 511, 512, 2047, 2048, 3000, 3001, 3002, 4094, 4095]  # PATH_MAX counts its end


@pytest.mark.every_driver
def test_a_command_that_is_not_there_is_127(hyper: Hyper) -> None:
    result = hyper.run("busybox", "nosuchthing", "--flag")
    assert result.status == 127
    assert "nosuchthing" in result.err
    assert result.out == ""


@pytest.mark.parametrize("command", ["/etc/passwd", "/tmp"])
def test_a_command_that_cannot_be_run_is_126(hyper: Hyper, command: str) -> None:
    result = hyper.run("busybox", command)
    assert result.status == 126
    assert command in result.err


@pytest.mark.every_driver
def test_stdout_and_stderr_stay_apart(hyper: Hyper) -> None:
    result = hyper.run("busybox", "sh", "-c", "echo out; echo err >&2; echo more; printf last")
    assert (result.out, result.err) == ("out\nmore\nlast", "err\n")


@pytest.mark.every_driver
def test_stdin_goes_in_and_ends(hyper: Hyper) -> None:
    assert hyper.run("-i", "busybox", "wc", "-c", stdin=b"x" * 100_000).out.strip() == "100000"


def test_without_i_stdin_is_empty(hyper: Hyper) -> None:
    assert hyper.run("busybox", "cat", stdin=b"not for you").out == ""


@pytest.mark.every_driver
def test_much_data_comes_back_unchanged(hyper: Hyper) -> None:
    data = os.urandom(1 << 20) * 16
    result = hyper.run("-i", "busybox", "cat", stdin=data, timeout=110)
    assert result.status == 0
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_the_environment_is_the_images_and_what_is_asked(hyper: Hyper, tmp_path: object) -> None:
    out = hyper.run("-e", "A=1", "-e", "B=two words", "-h", "box", "busybox", "env").out.splitlines()
    assert {"A=1", "B=two words", "HOSTNAME=box"} <= set(out)
    assert any(line.startswith("PATH=") for line in out)


def test_it_starts_where_it_is_asked_to(hyper: Hyper) -> None:
    assert hyper.run("-w", "/some/where", "busybox", "pwd").out == "/some/where\n"


def test_it_runs_as_whom_it_is_asked_to(hyper: Hyper) -> None:
    assert hyper.run("-u", "1234:5678", "busybox", "sh", "-c", "id -u; id -g").out == "1234\n5678\n"


def test_a_user_that_is_not_there_is_an_error(hyper: Hyper) -> None:
    result = hyper.run("-u", "nobody-here", "busybox", "true")
    assert result.status in {125, 126}
    assert "nobody-here" in result.err


def test_another_entrypoint(hyper: Hyper) -> None:
    assert hyper.run("--entrypoint", "/bin/echo", "busybox", "a", "b").out == "a b\n"


def test_the_hostname_is_the_pods(hyper: Hyper) -> None:
    assert hyper.run("-h", "some-box", "busybox", "hostname").out == "some-box\n"


def test_a_read_only_root_cannot_be_written(hyper: Hyper) -> None:
    result = hyper.run("--read-only", "busybox", "touch", "/file")
    assert result.status == 1
    assert "Read-only file system" in result.err


def test_without_it_the_root_can_be_written(hyper: Hyper) -> None:
    assert hyper.run("busybox", "sh", "-c", "echo x > /file && cat /file").out == "x\n"


@pytest.mark.every_driver
def test_memory_and_cpus_are_as_asked(hyper: Hyper) -> None:
    small = int(hyper.run("-m", "64m", "busybox", "awk", "/MemTotal/{print $2}", "/proc/meminfo").out)
    large = int(hyper.run("-m", "256m", "busybox", "awk", "/MemTotal/{print $2}", "/proc/meminfo").out)
    assert 32 * 1024 < small < 64 * 1024 < 192 * 1024 < large < 256 * 1024


def test_hyperstart_is_pid_1_of_the_pod(hyper: Hyper) -> None:
    assert "hyperstart" in hyper.run("busybox", "cat", "/proc/1/comm").out


def test_run_leaves_nothing_with_rm(hyper: Hyper) -> None:
    hyper.run("busybox", "true")
    assert hyper.ok("ps", "-aq") == hyper.ok("list", "-q") == hyper.ok("list", "-q", "vm") == ""


def test_run_without_rm_leaves_a_created_pod_with_its_output(hyper: Hyper) -> None:
    hyper.ok("run", "--network", "none", "--name", "once", "busybox", "echo", "kept")
    assert hyper.state("once") == "created"
    assert hyper.ok("logs", "once") == "kept"
    assert hyper.ok("list", "-q", "vm") == ""


def test_detached_prints_the_id_and_goes_on(hyper: Hyper) -> None:
    pod = hyper.ok("run", "-d", "--network", "none", "--name", "back", "busybox", "sleep", "100")
    assert len(pod) == 64
    assert hyper.state(pod) == "running"
    assert hyper.state("back") == "running"
    assert hyper.state(pod[:12]) == "running"


@pytest.mark.every_driver
def test_interrupting_run_interrupts_the_process(hyper: Hyper) -> None:
    script = "trap 'echo caught; exit 5' INT; echo up; while :; do sleep 0.1; done"
    child = hyper.spawn("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=30)
    assert (out, child.returncode) == (b"caught\n", 5)


def test_a_reader_that_leaves_ends_the_run_quietly(hyper: Hyper) -> None:
    child = hyper.spawn("run", "--rm", "--network", "none", "busybox", "yes")
    assert child.stdout is not None
    assert child.stdout.read(4) == b"y\ny\n"
    child.stdout.close()
    assert child.wait(timeout=30) == 128 + signal.SIGPIPE
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    until(lambda: hyper.ok("list", "-q") == "")  # the process got its SIGPIPE


def test_an_early_end_of_stdin_is_no_error(hyper: Hyper) -> None:
    child = hyper.spawn(
        "run", "--rm", "-i", "--network", "none", "busybox", "head", "-c", "4", stdin=subprocess.PIPE
    )
    out, err = child.communicate(b"abcdefgh" * 100_000, timeout=60)
    assert (out, err, child.returncode) == (b"abcd", b"", 0)


@pytest.mark.every_driver
def test_the_timeline_tells_of_both_sides(hyper: Hyper) -> None:
    err = hyper.run("--timeline", "busybox", "true").err
    lines = [line.split() for line in err.splitlines()]
    assert lines[0][:4] == ["at", "ms", "step", "where"]
    assert {line[2] for line in lines[1:]} == {"hyper", "hyperd", "guest"}
    moments = [float(line[0]) for line in lines[1:]]
    assert moments == sorted(moments)
    assert moments[0] == 0


# --- bad input ---


def test_too_little_memory_is_refused_and_nothing_is_left(hyper: Hyper) -> None:
    result = hyper("run", "-m", "1m", "--network", "none", "busybox", "true")
    assert result.status == 125
    assert "memory" in result.err
    assert hyper.ok("list", "-q") == ""


def test_an_unknown_image_is_refused_and_nothing_is_left(hyper: Hyper) -> None:
    result = hyper("run", "--pull", "never", "no/such/image", "true")
    assert result.status == 125
    assert "no/such/image" in result.err
    assert hyper.ok("list", "-q") == ""


@pytest.mark.parametrize("name", ["bad/name", "-x", "x" * 200, "a b"])
def test_a_bad_name_is_refused(hyper: Hyper, name: str) -> None:
    result = hyper("create", f"--name={name}", "busybox")
    assert result.status == 1
    assert "name" in result.err


def test_a_name_that_is_taken_is_refused(hyper: Hyper) -> None:
    hyper.ok("create", "--name", "taken", "busybox")
    result = hyper("create", "--name", "taken", "busybox")
    assert result.status == 1
    assert "taken" in result.err


def test_an_unknown_hypervisor_is_refused(hyper: Hyper) -> None:
    result = hyper("run", "--rm", "--hypervisor", "abacus", "busybox")
    assert result.status == 125
    assert "abacus" in result.err


def test_hardware_isolation_is_refused_where_there_is_none(hyper: Hyper) -> None:
    result = hyper.run("--require-isolation", "hardware", "busybox", "true")
    assert result.status == 125
    assert "hardware" in result.err


def test_an_image_reference_that_is_none_is_refused(hyper: Hyper) -> None:
    result = hyper("run", "UPPER/case", "true")
    assert result.status == 125
    assert "UPPER" in result.err
