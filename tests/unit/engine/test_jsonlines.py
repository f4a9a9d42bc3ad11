"""The log file that others read: Docker's JSON lines, a copy that misses and doubles nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hypercontainer.engine.output import OutputLog, open_log
from hypercontainer.errors import Unavailable
from hypercontainer.guest.protocol import Stream
from hypercontainer.model.pod import LogSpec


def _open(directory: Path, *, max_size: int = 0, max_files: int = 1) -> OutputLog:
    spec = LogSpec(path=str(directory / "logs/web.log"), max_size=max_size, max_files=max_files)
    log = open_log(directory / "output", spec)
    log.restart()
    return log


def _lines(path: Path) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(set(each) == {"log", "stream", "time"} for each in found)
    return [(each["stream"], each["log"]) for each in found]


def test_each_line_is_an_object_as_dockers(tmp_path: Path) -> None:
    log = _open(tmp_path)
    log.append(Stream.STDOUT, b'one\ntwo "quoted"\n')
    log.append(Stream.STDERR, b"no newline, \xff and \xc3\xa4")
    log.close()
    assert _lines(tmp_path / "logs/web.log") == [
        ("stdout", "one\n"),
        ("stdout", 'two "quoted"\n'),
        ("stderr", "no newline, \ufffd and ä"),
    ]


@pytest.mark.parametrize("files", [1, 2, 3])
def test_it_rotates_by_size_and_count(tmp_path: Path, files: int) -> None:
    log = _open(tmp_path, max_size=2000, max_files=files)
    for number in range(200):
        log.append(Stream.STDOUT, b"line %d\n" % number)
    log.close()
    names = ["web.log", *(f"web.log.{number}" for number in range(1, files))]
    assert sorted(each.name for each in (tmp_path / "logs").iterdir()) == names
    assert all(each.stat().st_size <= 2000 for each in (tmp_path / "logs").iterdir())
    lines = [line for name in reversed(names) for line in _lines(tmp_path / "logs" / name)]
    assert lines == [("stdout", f"line {number}\n") for number in range(200)][-len(lines) :]


@pytest.mark.parametrize("lost", [0, 1, 40, 100, 10_000])
def test_a_daemon_that_died_leaves_no_gap_and_no_line_twice(tmp_path: Path, lost: int) -> None:
    """Whatever of the file was not written yet, or half."""
    path = tmp_path / "logs/web.log"
    log = _open(tmp_path)
    for number in range(20):
        log.append(Stream.STDOUT, b"line %d\n" % number)
    log.close()
    os.truncate(path, max(0, path.stat().st_size - lost))
    again = open_log(tmp_path / "output", LogSpec(path=str(path)))
    again.append(Stream.STDOUT, b"line 20\n")
    again.close()
    assert _lines(path) == [("stdout", f"line {number}\n") for number in range(21)]


def test_a_path_that_cannot_be_written_fails_the_start_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = open_log(tmp_path / "output", LogSpec(path=str(tmp_path / "file/web.log")))
    with pytest.raises(Unavailable, match="cannot write the log"):
        log.restart()
    log.close()


def test_output_is_kept_though_the_file_went_away(tmp_path: Path) -> None:
    log = _open(tmp_path)
    log.append(Stream.STDOUT, b"before\n")
    (tmp_path / "logs/web.log").unlink()
    log.append(Stream.STDOUT, b"after\n")
    assert log.offsets[Stream.STDOUT] == 13
    log.close()
