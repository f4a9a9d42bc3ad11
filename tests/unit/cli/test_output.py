"""Listings read as Docker's do: the expected texts were printed by Docker 28 or are of its unit tests."""

from __future__ import annotations

import io
from typing import Any

import pytest

from hypercontainer.cli import output


def printed(header: list[str], rows: list[list[str]]) -> str:
    file = io.StringIO()
    output.table(header, rows, file=file)
    return file.getvalue()


def test_a_table_has_dockers_spacing() -> None:
    header = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    rows = [
        ["debian", "latest", "5a3a5e5b1d2c", "3 weeks ago", "117MB"],
        ["hello-world", "latest", "d2c94e258dcb", "2 years ago", "13.3kB"],
    ]
    assert printed(header, rows) == (
        "REPOSITORY    TAG       IMAGE ID       CREATED       SIZE\n"
        "debian        latest    5a3a5e5b1d2c   3 weeks ago   117MB\n"
        "hello-world   latest    d2c94e258dcb   2 years ago   13.3kB\n"
    )


def test_an_empty_listing_is_its_header() -> None:
    header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert printed(header, []) == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0, 4, "0B"), (1, 4, "1B"), (1000, 4, "1kB"), (1024, 4, "1.024kB"), (1_000_000, 4, "1MB"),
        (1_048_576, 4, "1.049MB"), (2_500_000, 4, "2.5MB"), (4_261_502, 3, "4.26MB"), (13_256, 3, "13.3kB"),
        (116_541_020, 3, "117MB"), (3_420_000_000, 4, "3.42GB"), (5.372e12, 4, "5.372TB"),
    ],
)  # fmt: skip
def test_sizes_are_those_of_go_units(number: float, digits: int, text: str) -> None:
    assert output.size(number, digits=digits) == text


def test_memory_is_counted_in_powers_of_1024() -> None:
    assert [output.bytes_size(n) for n in (1023, 1024, 28_835_840)] == ["1023B", "1KiB", "27.5MiB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.45, "Less than a second"), (1, "1 second"), (45, "45 seconds"), (60, "About a minute"),
        (90, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (5399, "About an hour"), (5400, "2 hours"), (3600 * 47, "47 hours"), (86400 * 2, "2 days"),
        (86400 * 13.9, "13 days"), (86400 * 14, "2 weeks"), (86400 * 59, "8 weeks"), (86400 * 60, "2 months"),
        (86400 * 729, "24 months"), (86400 * 730, "2 years"), (86400 * 365 * 3, "3 years"),
    ],
)  # fmt: skip
def test_durations_are_those_of_go_units(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def container(**changes: Any) -> dict[str, Any]:
    base = {"state": "running", "paused": False, "started": 1000.0, "finished": 0.0, "exit_code": None}
    return base | changes


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Up 2 minutes"),
        ({"paused": True}, "Up 2 minutes (Paused)"),
        ({"state": "exited", "finished": 1115.0, "exit_code": 0}, "Exited (0) 5 seconds ago"),
        ({"state": "exited", "finished": 1000.0, "exit_code": 137}, "Exited (137) 2 minutes ago"),
        ({"state": "created", "started": 0.0}, "Created"),
    ],
)
def test_states_are_dockers_words(changes: dict[str, Any], text: str) -> None:
    assert output.status(container(**changes), now=1120.0) == text


def test_a_command_is_joined_cut_and_quoted_as_docker_does() -> None:
    command = output.command(["nginx", "-g", "daemon off;"])
    assert output.quoted(output.ellipsis(command, 20)) == '"nginx -g \'daemon of…"'
    assert output.quoted(output.ellipsis(output.command(["sh"]), 20)) == '"sh"'


def mapping(container_port: int, host_port: int, protocol: str = "tcp", host_ip: str = "") -> dict[str, Any]:
    return {
        "container_port": container_port,
        "host_port": host_port,
        "protocol": protocol,
        "host_ip": host_ip,
    }


def test_ports_are_shown_as_in_docker_ps() -> None:
    assert output.ports([mapping(80, 8080)]) == "0.0.0.0:8080->80/tcp"
    assert output.ports([mapping(53, 53, "udp", "127.0.0.1")]) == "127.0.0.1:53->53/udp"
    assert output.ports([mapping(80, 80, "tcp", "::1")]) == "[::1]:80->80/tcp"


def test_neighbouring_ports_are_shown_as_a_range() -> None:
    shown = output.ports([mapping(1300 + n, 3000 + n) for n in range(11)] + [mapping(80, 8080)])
    assert shown == "0.0.0.0:8080->80/tcp, 0.0.0.0:3000-3010->1300-1310/tcp"


def test_a_moment_is_rfc_3339_with_nanoseconds() -> None:
    assert output.timestamp_ns(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"


def test_there_are_no_colours_in_a_file_or_when_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.styled("x", "red", file=io.StringIO()) == "x"
    assert output.styled("x", "red", file=Terminal()) == "\033[31mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.styled("x", "red", file=Terminal()) == "x"
