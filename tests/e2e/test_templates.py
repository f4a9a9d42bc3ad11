"""`hyper template`, typed: what is listed, removed, and refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.hyper import Hyper

SMALL = ("--network", "none", "-m", "40m")


@pytest.fixture
def templates(hyper: Hyper) -> list[dict[str, Any]]:
    """Of the size that ``SMALL`` asks for, and that it is made for by now."""
    if hyper.driver == "uml":
        pytest.skip("this driver has no templates")
    hyper.ok("run", "--rm", *SMALL, "busybox", "true")
    deadline = time.monotonic() + 60
    while not (found := [each for each in hyper.json("template", "ls") if each["memory_mib"] == 40]):
        assert time.monotonic() < deadline, hyper.ok("template", "ls")
        time.sleep(0.1)
    return found


@pytest.mark.every_driver
def test_a_template_is_listed_used_and_removed(hyper: Hyper, templates: list[dict[str, Any]]) -> None:
    [template] = templates
    done = hyper.ok("run", "--rm", "--timeline", *SMALL, "busybox", "true")
    assert "kernel begins" not in done
    header, *rows = hyper.ok("template", "ls").splitlines()
    assert header.split()[:4] == ["TEMPLATE", "HYPERVISOR", "VCPUS", "MEMORY"]
    assert any(row.split()[:4] == [template["id"], hyper.driver, "1", "40"] for row in rows)
    assert hyper.ok("template", "rm", template["id"]) == template["id"]
    assert template["id"] not in hyper.ok("template", "ls")


@pytest.mark.every_driver
def test_prune_says_what_went(hyper: Hyper, templates: list[dict[str, Any]]) -> None:
    *removed, last = hyper.ok("template", "prune").splitlines()
    assert templates[0]["id"] in removed
    assert last.startswith("freed ")
    assert hyper.json("template", "ls") == []


def test_what_is_no_template_is_refused(hyper: Hyper) -> None:
    done = hyper("template", "rm", "nothing")
    assert (done.status, done.out) == (1, "")
    assert "'nothing' is no template" in done.err
    for words in (("rm",), ("ls", "one"), ("prune", "one")):
        assert hyper("template", *words).status != 0
