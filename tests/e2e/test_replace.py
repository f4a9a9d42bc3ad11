"""Another pod on the machine of one that runs; an empty machine; containers that come and go: as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.hyper import Hyper
from tests.support.waiting import until


def sleeper(hyper: Hyper, name: str, *flags: str) -> str:
    return hyper.ok("run", "-d", "--network", "none", "--name", name, *flags, "busybox", "sleep", "1000")


def created(hyper: Hyper, name: str, *command: str) -> str:
    return hyper.ok("create", "--network", "none", "--name", name, "busybox", *command)


def until_it_speaks(hyper: Hyper, pod: str) -> None:
    until(lambda: hyper.ok("logs", pod) != "")


@pytest.mark.every_driver
def test_a_pod_takes_the_machine_of_another_which_keeps_its_data(hyper: Hyper) -> None:
    sleeper(hyper, "old")
    hyper.ok("exec", "old", "sh", "-c", "echo precious > /data")
    created(hyper, "new", "sh", "-c", "ls /data; echo here; sleep 1000")
    (before,) = hyper.json("list", "vm")
    hyper.ok("replace", "-o", "old", "-n", "new")
    (after,) = hyper.json("list", "vm")
    assert (after["id"], after["pid"], after["pod_name"]) == (before["id"], before["pid"], "new")
    assert (hyper.state("old"), hyper.state("new")) == ("created", "running")
    until(lambda: "here" in hyper.ok("logs", "new"))
    hyper.ok("stop", "-t", "1", "new")
    hyper.ok("start", "old")
    assert hyper.ok("exec", "old", "cat", "/data") == "precious"


@pytest.mark.every_driver
def test_pods_that_follow_each_other_see_no_disk_of_the_other(hyper: Hyper) -> None:
    """The machine has both pods' disks for a moment, but nothing that runs in it has."""
    watch = 'while :; do now=$(ls /sys/block | wc -l); [ "$now" = "$before" ] || echo $now; before=$now; done'
    created(hyper, "a", "sh", "-c", watch)
    created(hyper, "b", "sh", "-c", watch)
    hyper.ok("start", "a")
    until_it_speaks(hyper, "a")
    alone = hyper.ok("logs", "a")
    for old, new in (("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")):
        until_it_speaks(hyper, old)
        hyper.ok("replace", "-t", "0", "-o", old, "-n", new)
        assert {*hyper.ok("logs", old).split()} == {alone}
    hyper.ok("exec", "a", "true")


@pytest.mark.every_driver
def test_a_pod_that_cannot_be_run_leaves_the_old_one_running_and_says_why(hyper: Hyper) -> None:
    sleeper(hyper, "old")
    created(hyper, "new", "nothere")
    (before,) = hyper.json("list", "vm")
    result = hyper("replace", "-o", "old", "-n", "new")
    assert result.status == 1
    assert "'nothere'" in result.err
    assert "pod old runs again" in result.err
    assert [machine["id"] for machine in hyper.json("list", "vm")] == [before["id"]]
    assert hyper.ok("exec", "old", "echo", "alive") == "alive"


def test_a_podfile_that_fails_leaves_no_pod_behind(hyper: Hyper, tmp_path: Path) -> None:
    sleeper(hyper, "old")
    podfile = tmp_path / "new.json"
    content = {"id": "new", "containers": [{"image": "busybox", "command": ["nothere"]}]}
    podfile.write_text(json.dumps(content))
    assert hyper("replace", "-o", "old", "-f", str(podfile)).status != 0
    assert [pod["name"] for pod in hyper.json("list")] == ["old"]


def test_an_empty_machine_runs_until_it_is_stopped_and_takes_containers(hyper: Hyper) -> None:
    hyper.ok("vm", "--name", "spare", "--network", "none", "--memory", "64m")
    hyper.ok("create", "-c", "spare", "--name", "guest", "busybox", "echo", "hello")
    hyper.ok("start", "-c", "guest")
    until(lambda: hyper.ok("logs", "guest") == "hello")
    assert hyper.state("spare") == "running"
    assert hyper.json("list", "vm")[0]["pod_name"] == "spare"
    hyper.ok("stop", "spare")
    assert hyper.ok("list", "-q", "vm") == ""


@pytest.mark.every_driver
def test_a_container_comes_into_a_running_pod_and_goes_again(hyper: Hyper) -> None:
    sleeper(hyper, "web")
    hyper.ok("create", "-c", "web", "--name", "helper", "busybox", "sleep", "1000")
    hyper.ok("start", "-c", "helper")
    assert "sleep" in hyper.ok("exec", "helper", "ps")
    hyper.ok("stop", "-t", "1", "-c", "helper")
    assert hyper.state("web") == "running"
    assert hyper("exec", "helper", "true").status != 0
    hyper.ok("start", "-c", "helper")
    hyper.ok("rename", "helper", "aide")
    hyper.ok("rm", "-f", "-c", "aide")
    assert [each["name"] for each in hyper.json("list", "container")] == ["web"]


def test_what_is_the_pods_is_refused_for_a_container_of_one(hyper: Hyper) -> None:
    sleeper(hyper, "web")
    result = hyper("create", "-c", "web", "-p", "80", "busybox")
    assert "--publish is the pod's" in result.err


def test_a_container_that_fails_is_shown_restarting_as_in_docker(hyper: Hyper) -> None:
    flags = ("--network", "none", "--name", "pod", "--restart", "always")
    hyper.ok("run", "-d", *flags, "busybox", "sh", "-c", "exit 3")
    until(lambda: "Restarting (3)" in hyper.ok("ps"))
    hyper.ok("stop", "pod")
    assert hyper.state("pod") == "created"
