"""A lane's commands come out of a process that has imported hyper: they are what a shell would start."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hyper import PROGRAM, Hyper
from tests.support.commands import Result
from tests.support.preloaded import Preloaded
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def variables(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a root of its own, whose hyperd, which a command may start, is ended."""
    hyper = Hyper(root=tmp_path, driver="uml")
    yield hyper.variables() | {"COLUMNS": "80", "HOME": str(tmp_path)}
    hyper.stop_daemon()


@pytest.fixture
def preloaded(variables: dict[str, str]) -> Iterator[Preloaded]:
    process = Preloaded(variables)
    yield process
    process.close()


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (["version", "--short"], None),
        (["run", "--help"], None),
        (["frob"], None),
        (["run"], None),
        (["create", "-p", "-"], b"no podfile"),
    ],
)
def test_it_prints_and_ends_as_the_program_does(
    preloaded: Preloaded, variables: dict[str, str], words: list[str], stdin: bytes | None
) -> None:
    done = subprocess.run(
        [*PROGRAM, *words], env=variables, input=stdin or b"", capture_output=True, check=False
    )
    for _ in range(2):
        ended = preloaded.run(words, variables, stdin=stdin, timeout=PATIENCE_S)
        assert ended == Result(done.returncode, done.stdout, done.stderr)


def test_each_has_an_environment_of_its_own(preloaded: Preloaded, variables: dict[str, str]) -> None:
    said = {
        preloaded.run(["run", "--help"], variables | {"COLUMNS": columns}, stdin=None, timeout=PATIENCE_S)
        for columns in ("60", "160")
    }
    assert len(said) == 2


def test_one_that_does_not_end_is_ended(variables: dict[str, str]) -> None:
    process = Preloaded(variables)
    os.kill(process._process.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        process.run(["--help"], variables, stdin=None, timeout=0.1)
    assert process._process.poll() is not None
