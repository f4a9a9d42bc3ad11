"""Filters of ps, rows of images, lines of progress and logs, and the timeline, from what the API answers."""

from __future__ import annotations

import io
from typing import Any

import pytest

from hypercontainer.cli import containers, images, progress
from hypercontainer.cli.logs import LogPrinter, moment
from hypercontainer.cli.timeline import Moment, render
from hypercontainer.client import Record
from hypercontainer.client.streams import LogFrame
from hypercontainer.errors import InvalidRequest


def container(**changes: Any) -> Record:
    base = Record(
        id="c" * 64, name="web-1", pod="a" * 64, pod_name="web", image="nginx:latest",
        image_id="sha256:" + "d" * 64, state="running", paused=False, exit_code=None,
        labels={"team": "web", "empty": ""},
    )  # fmt: skip
    return Record(base | changes)


def matches(record: Record, *filters: str) -> bool:
    return containers._matches(record, [containers._filter(text) for text in filters])


@pytest.mark.parametrize(
    "text",
    ["id=ccc", "name=web", "name=/web", "pod=web", "pod=aaa", "status=running", "label=team",
     "label=team=web", "ancestor=nginx", "ancestor=nginx:latest", "ancestor=dddd", "label=empty="],
)  # fmt: skip
def test_a_filter_finds_what_it_names(text: str) -> None:
    assert matches(container(), text)


@pytest.mark.parametrize(
    "text", ["id=a", "name=x", "pod=we", "status=exited", "label=team=db", "ancestor=ngin", "exited=0"]
)
def test_a_filter_leaves_out_what_it_does_not_name(text: str) -> None:
    assert not matches(container(), text)


def test_filters_of_one_key_are_alternatives_and_of_two_are_both_needed() -> None:
    assert matches(container(), "name=x", "name=web")
    assert not matches(container(), "name=web", "status=paused")
    assert matches(container(state="exited", exit_code=3), "exited=3", "status=exited")
    assert matches(container(paused=True), "status=paused")


@pytest.mark.parametrize("text", ["name", "colour=red", "", "=x"])
def test_an_unknown_filter_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid filter"):
        containers._filter(text)


def image(**changes: Any) -> Record:
    base = Record(id="sha256:" + "1" * 64, tags=["debian:latest"], digests=[], created=0.0, size=116_541_020)
    return Record(base | changes)


def rows(record: Record) -> list[tuple[str, ...]]:
    return [tuple(row) for row in images._rows(record, whole=False)]


def test_an_image_has_a_row_for_each_name() -> None:
    found = rows(image(tags=["debian:latest", "localhost:5000/base:1"]))
    assert [row[:2] for row in found] == [("debian", "latest"), ("localhost:5000/base", "1")]
    assert found[0][3:] == ("1" * 12, "N/A", "117MB")


def test_an_image_without_names_is_shown_as_docker_does() -> None:
    assert rows(image(tags=[]))[0][:3] == ("<none>", "<none>", "<none>")
    digest = "sha256:" + "2" * 64
    assert rows(image(tags=[], digests=[f"debian@{digest}"]))[0][:3] == ("debian", "<none>", digest)


def test_progress_is_a_line_for_each_change() -> None:
    steps = [
        Record(id="1", status="Pulling from library/debian"),
        Record(id="abc", status="Pulling fs layer"),
        *(Record(id="abc", status="Downloading", current=n, total=9) for n in range(9)),
        Record(id="abc", status="Pull complete"),
        Record(status="Digest: sha256:1", digest="sha256:1"),
        Record(status="Status: done", reference="docker.io/library/debian:1", image="sha256:2"),
    ]
    file = io.StringIO()
    outcome = progress.show(steps, file=file)
    assert file.getvalue() == (
        "1: Pulling from library/debian\nabc: Pulling fs layer\nabc: Pull complete\n"
        "Digest: sha256:1\nStatus: done\n"
    )
    assert outcome == steps[-2:]


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", 0), ("10m", NOW - 600), ("1h30m", NOW - 5400), ("1.5s", NOW - 1.5), ("2d", NOW - 172_800),
        ("1700000000", NOW), ("1700000000.5", NOW + 0.5), ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T23:13:20+01:00", NOW), ("10", 10),
    ],
)  # fmt: skip
def test_times_are_written_as_for_docker(text: str, wanted: float) -> None:
    assert moment(text, now=NOW) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["x", "10m5", "-5m", "yesterday", "2023-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid time"):
        moment(text, now=NOW)


def test_each_line_gets_its_time_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = LogPrinter(timestamps=True)
    for data in (b"one\ntw", b"o\r\n", b"three"):
        printer.show(LogFrame(1, 1_700_000_000_000_000_001, data))
    printer.show(LogFrame(2, 1_700_000_000_000_000_001, b"error\n"))
    stamp = b"2023-11-14T22:13:20.000000001Z "
    out, err = capfdbinary.readouterr()
    assert out == stamp + b"one\n" + stamp + b"two\r\n" + stamp + b"three"
    assert err == stamp + b"error\n"


def test_a_timeline_is_aligned_and_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    moments = [
        Moment(0, "hyper", "begins"),
        Moment(30_000_000, "hyperd", "asked"),
        Moment(60_000_000, "guest", "up"),
    ]
    file = io.StringIO()
    render(moments, file=file)
    assert file.getvalue() == (
        "    at ms     step  where   what\n"
        "      0.0      0.0  hyper   begins  ▏\n"
        "     30.0     30.0  hyperd  asked   ███████████████\n"
        "     60.0     30.0  guest   up                     ███████████████\n"
    )
