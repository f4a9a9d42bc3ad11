"""A real distribution in a VM: a shell, the package manager through NAT, a web server, a database."""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.distribution import debian_archive
from tests.e2e.hyper import Hyper

PACKAGES = "python3,nginx,redis-server"


@pytest.fixture(scope="module")
def archive() -> Path:
    return debian_archive("debian", PACKAGES)


@pytest.fixture
def debian(hyper: Hyper, archive: Path) -> Iterator[Hyper]:
    hyper.ok("load", "-q", "-i", str(archive))
    yield hyper
    hyper.remove_all()
    hyper.ok("rmi", "debian")  # other tests count the images, or have another one of this name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _get(url: str, *, timeout: float = 60) -> str:
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            assert time.monotonic() < deadline, f"{url} never answered"
            time.sleep(0.2)


@pytest.mark.every_driver
@pytest.mark.timeout(300)
def test_python_computes(debian: Hyper) -> None:
    assert debian.run("-m", "256m", "debian", "python3", "-c", "print(6 * 7)").out == "42\n"


@pytest.mark.every_driver
@pytest.mark.timeout(300)
def test_nginx_answers_on_a_published_port(debian: Hyper) -> None:
    port = _free_port()
    debian.ok(
        "run", "-d", "--name", "web", "-m", "256m", "-p", f"{port}:80", "debian", "nginx", "-g", "daemon off;"
    )
    assert "Welcome to nginx" in _get(f"http://127.0.0.1:{port}/")
    assert f"0.0.0.0:{port}->80/tcp" in debian.ok("ps")
    debian.ok("stop", "web")
    with pytest.raises(OSError, match="refused"), contextlib.closing(socket.socket()) as client:
        client.connect(("127.0.0.1", port))


@pytest.mark.every_driver
@pytest.mark.timeout(300)
def test_redis_keeps_its_data_across_stop_and_start(debian: Hyper) -> None:
    flags = ("-d", "--name", "db", "--network", "none", "-m", "256m")
    server = ("redis-server", "--dir", "/var/lib/redis", "--appendonly", "yes", "--save", "")
    debian.ok("run", *flags, "debian", *server)
    _redis(debian, "set", "key", "kept")
    debian.ok("stop", "db")
    assert debian.state("db") == "created"
    debian.ok("start", "db")
    assert _redis(debian, "get", "key") == "kept"


def _redis(hyper: Hyper, *words: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        done = hyper("exec", "db", "redis-cli", *words)
        if done.status == 0 and "LOADING" not in done.out:
            return done.out.strip()
        assert time.monotonic() < deadline, done.err
        time.sleep(0.5)


@pytest.mark.every_driver
@pytest.mark.timeout(300)
def test_apt_reaches_its_mirror_through_nat(debian: Hyper) -> None:
    done = debian("run", "--rm", "-m", "512m", "debian", "apt-get", "-q", "update", timeout=240)
    assert done.status == 0, done.err
    assert "Reading package lists" in done.out


@pytest.mark.every_driver
@pytest.mark.timeout(300)
def test_a_login_shell_has_line_editing_and_colours(debian: Hyper) -> None:
    with debian.terminal("run", "-t", "--rm", "--network", "none", "-m", "256m", "debian", "bash") as screen:
        screen.wait_for("# ", timeout=90)
        screen.type("echo hellp\x7fo | tr a-z A-Z\r")  # a backspace, as the key sends it
        screen.wait_for("HELLO")
        screen.type("ls --color=always -d /etc; tput cols 2>/dev/null || stty size\r")
        screen.wait_for("80")
        screen.type("\x1b[A\x1b[A\r")  # up, up: the history
        screen.wait_for("HELLO")
        screen.type("exit 5\r")
        assert screen.wait(timeout=60) == 5
