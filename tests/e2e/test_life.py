"""The whole life of a pod of two containers, from a podfile to nothing, as one story under each driver."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from hypercontainer.process import ProcessId
from tests.e2e.hyper import Hyper
from tests.hypervisors.machines import processes_of
from tests.support import xen

SERVER = "echo first >> /data/log; while :; do sleep 1; done"
READER = "until [ -s /data/log ]; do sleep 1; done; cat /data/log; while :; do sleep 1; done"


@pytest.mark.every_driver
@pytest.mark.needs_root
@pytest.mark.timeout(600)
def test_a_pod_of_two_containers_lives_through_everything(hyper: Hyper, tmp_path: Path) -> None:
    hyper.ok("create", "-p", str(_podfile(tmp_path, "site")))
    assert (hyper.state("site"), hyper.json("list", "vm")) == ("created", [])
    hyper.ok("start", "site")
    _both_containers_share_what_is_the_pods(hyper)
    _it_is_paused_and_goes_on(hyper)
    _hyperd_is_killed_and_finds_it_again(hyper)
    _another_takes_its_machine_and_gives_way(hyper, tmp_path)
    _it_is_started_again_with_its_data(hyper)
    assert len(_taps(hyper)) == 1
    run_dir = hyper.root / "run/machines" / hyper.json("list", "vm")[0]["id"]
    hyper.ok("rm", "-f", "site")
    _nothing_is_left(hyper, run_dir)


def _podfile(directory: Path, name: str) -> Path:
    mounts = [{"volume": "data", "path": "/data"}]
    containers = [
        {"name": f"{name}-server", "image": "busybox", "command": ["sh", "-c", SERVER], "volumes": mounts},
        {"name": f"{name}-reader", "image": "busybox", "command": ["sh", "-c", READER], "volumes": mounts},
    ]
    path = directory / f"{name}.json"
    resource = {"vcpu": 1, "memory": 64}
    volumes = [{"name": "data"}]
    path.write_text(
        json.dumps({"id": name, "resource": resource, "containers": containers, "volumes": volumes})
    )
    return path


def _both_containers_share_what_is_the_pods(hyper: Hyper) -> None:
    hyper.eventually("first", "logs", "site-reader")
    assert hyper.ok("exec", "site-server", "hostname") == hyper.ok("exec", "site-reader", "hostname")
    assert hyper.ok("exec", "site-server", "sh", "-c", "echo kept > /root/own; cat /data/log") == "first"
    assert hyper("exec", "site-reader", "cat", "/root/own").status != 0
    (machine,) = hyper.json("list", "vm")
    assert machine["pod_name"] == "site"


def _it_is_paused_and_goes_on(hyper: Hyper) -> None:
    hyper.ok("pause", "site")
    assert hyper.state("site") == "paused"
    hyper.ok("unpause", "site")
    assert hyper.ok("exec", "site-server", "echo", "awake") == "awake"


def _hyperd_is_killed_and_finds_it_again(hyper: Hyper) -> None:
    (before,) = hyper.json("list", "vm")
    hyper.kill_daemon()
    hyper.start_daemon()
    (after,) = hyper.json("list", "vm")
    assert (after["id"], after["pid"]) == (before["id"], before["pid"])
    assert hyper.ok("exec", "site-server", "cat", "/root/own") == "kept"


def _another_takes_its_machine_and_gives_way(hyper: Hyper, directory: Path) -> None:
    (before,) = hyper.json("list", "vm")
    hyper.ok("replace", "-o", "site", "-f", str(_podfile(directory, "next")))
    (after,) = hyper.json("list", "vm")
    assert (after["id"], after["pid"], after["pod_name"]) == (before["id"], before["pid"], "next")
    assert (hyper.state("site"), hyper.state("next")) == ("created", "running")
    hyper.eventually("first", "logs", "next-reader")
    hyper.ok("stop", "-t", "1", "next")
    victim = ProcessId.of(int(after["pid"]))
    assert victim is None or not victim.is_alive()
    hyper.ok("rm", "next")


def _it_is_started_again_with_its_data(hyper: Hyper) -> None:
    hyper.ok("start", "site")
    assert hyper.ok("exec", "site-server", "cat", "/root/own") == "kept"
    hyper.eventually("first\nfirst", "logs", "site-reader")


def _nothing_is_left(hyper: Hyper, run_dir: Path) -> None:
    assert hyper.json("list") == []
    assert processes_of(run_dir) == []
    assert list((hyper.root / "run/machines").iterdir()) == []
    assert list((hyper.root / "lib/pods").iterdir()) == []
    assert _taps(hyper) == []
    assert hyper.driver != "xen" or xen.nothing_is_left()


def _taps(hyper: Hyper) -> list[str]:
    """What hangs on this hyperd's bridge: each pod with a network has a tap there."""
    bridge = tomllib.loads((hyper.root / "etc/hyperd.toml").read_text())["bridge"]
    command = ["ip", "-br", "link", "show", "master", bridge]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
