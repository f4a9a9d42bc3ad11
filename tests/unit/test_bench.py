"""What the benchmark shows: the picture, the tables, and the program that works in containers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import burst, crowd, memory, throughput
from bench.chart import Panel, chart
from bench.images import PROGRAM, write_programs
from bench.measure import side_by_side

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_has_a_bar_for_each_value_as_long_as_the_value_says() -> None:
    bars = {"hyper uml": 100.0, "docker <runc>": 200.0}
    picture = ElementTree.fromstring(chart([Panel(title="a & b", unit="ms", bars=bars)], note="today"))
    found = picture.findall(f"{SVG}rect")
    assert [each.get("class") for each in found] == ["hyper", "peer"]
    assert float(found[1].get("width", 0)) == pytest.approx(2 * float(found[0].get("width", 0)), rel=0.01)
    texts = [each.text for each in picture.findall(f"{SVG}text")]
    assert texts == ["a & b", "hyper uml", "100 ms", "docker <runc>", "200 ms", "today"]


def test_contenders_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []

    def contender(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    found = side_by_side({"a": lambda: contender("a"), "b": lambda: contender("b")}, rounds=2)
    assert turns == ["a", "b"] * 3
    assert found == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_work_that_is_slower_than_with_gvisor_is_shown_in_bold_and_a_failure_is_said() -> None:
    figures = {
        "nginx": {"native": [1000.0], "docker gVisor": [100.0], "hyper uml": [50.0], "hyper tcg": []},
        "a system call": {"native": [1.0], "docker gVisor": [10.0], "hyper uml": [5.0], "hyper tcg": [20.0]},
    }
    assert throughput.report(figures).splitlines()[-2:] == [
        "| nginx | 10.00 | **20.00** | failed |",
        "| a system call | 10.00 | 5.00 | **20.00** |",
    ]


def test_the_last_of_a_crowd_is_compared_with_its_tenth() -> None:
    starts = [9.0] * 5 + [0.1] * 10 + [9.0] * 475 + [0.15] * 10
    figures = {
        "hyper uml": {"starts": starts, "answers": 499, "exec": 0.05, "memory": 2e7, "daemon": 6e7},
    }
    assert (
        crowd.report(figures).splitlines()[-1]
        == "| hyper uml | 100 | 150 | 1.50 | 499 of 500 | 50 | 20.0 | 60 |"
    )


def test_a_peer_that_is_not_here_leaves_no_ratio() -> None:
    assert (
        burst.report({"hyper uml": [2.0, 4.0, 3.0]}).splitlines()[-1] == "| hyper uml | 2.0 | 3.0 | 4.0 |  |"
    )


def test_what_only_a_machine_has_is_empty_for_a_container() -> None:
    figures = {
        "count": 3,
        "runtimes": {"docker runc": {"fall": 12.34e6}},
        "daemon": {"before": 1, "after": 2},
    }
    assert memory.report(figures).splitlines()[-1] == "| docker runc | 12.3 |  |  |  |  |  |"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench") / "programs"
    write_programs(directory)
    return directory / "work"


@pytest.mark.parametrize("what", ["calls", "forks", "executes", "flush", "write", "run"])
def test_the_program_measures_and_prints_one_number(work: Path, tmp_path: Path, what: str) -> None:
    argument = {"run": "true"}.get(what, str(tmp_path / "file"))
    assert float(subprocess.check_output([work, what, argument])) > 0


def test_the_program_says_what_failed(work: Path) -> None:
    done = subprocess.run([work, "run", "false"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "work: a child failed\n")


def test_the_program_is_compiled_without_warnings_of_either_compiler() -> None:
    for compiler in ("gcc", "clang"):
        words = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-c", "-o", "/dev/null", PROGRAM]
        subprocess.run(words, check=True)


def test_the_project_that_is_built_in_containers_builds(work: Path) -> None:
    subprocess.run(["make", "-s", "-j2", "-C", work.parent / "project"], check=True)
    assert subprocess.run([work.parent / "project/program"], check=False).returncode == 0
