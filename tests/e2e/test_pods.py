"""The life of a pod: create, start, stop, rm, and what the listings say meanwhile."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.e2e.hyper import Hyper
from tests.support.pages import is_dirty


def sleeper(hyper: Hyper, name: str, *flags: str) -> str:
    return hyper.ok("run", "-d", "--network", "none", "--name", name, *flags, "busybox", "sleep", "1000")


def test_create_starts_no_machine_and_start_does(hyper: Hyper) -> None:
    pod = hyper.ok("create", "--network", "none", "--name", "web", "busybox", "sleep", "1000")
    assert hyper.state("web") == "created"
    assert hyper.ok("list", "-q", "vm") == ""
    assert hyper.ok("start", "web") == "web"
    assert hyper.state(pod) == "running"
    assert hyper.ok("list", "-q", "vm") != ""


@pytest.mark.every_driver
def test_stop_ends_the_machine_and_start_finds_the_data_again(hyper: Hyper) -> None:
    sleeper(hyper, "web", "--stop-signal", "KILL")
    hyper.ok("exec", "web", "sh", "-c", "echo precious > /data && sync")
    assert hyper.ok("stop", "-t", "2", "web") == "web"
    assert hyper.state("web") == "created"
    assert hyper.ok("list", "-q", "vm") == ""
    hyper.ok("start", "web")
    assert hyper.ok("exec", "web", "cat", "/data") == "precious"


@pytest.mark.every_driver
@pytest.mark.skipif(os.geteuid() != 0, reason="to see what is in the host's memory only needs root")
def test_the_first_mount_of_a_pod_disk_waits_for_no_disk_of_the_host_and_fsync_does(hyper: Hyper) -> None:
    pod = sleeper(hyper, "web")
    disk = hyper.paths.pods / pod / "disk.img"
    hyper.ok("exec", "web", "sh", "-c", "echo precious > /data")
    assert is_dirty(disk)
    hyper.ok("exec", "web", "dd", "if=/dev/zero", "of=/data", "bs=512", "count=1", "conv=fsync")
    assert not is_dirty(disk)


@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_rm_stops_and_removes(hyper: Hyper, flags: list[str]) -> None:
    sleeper(hyper, "web", "--stop-signal", "KILL")
    assert hyper.ok("rm", *flags, "web") == "web"
    result = hyper("inspect", "web")
    assert result.status == 1
    assert "'web'" in result.err
    assert json.loads(result.out) == []


def test_verbs_go_on_after_a_name_that_is_wrong(hyper: Hyper) -> None:
    sleeper(hyper, "one")
    result = hyper("stop", "-t", "0", "nothere", "one")
    assert result.status == 1
    assert result.out == "one\n"
    assert "nothere" in result.err


def test_pods_may_be_named_by_their_container(hyper: Hyper) -> None:
    sleeper(hyper, "web")
    container = hyper.ok("ps", "-q")
    hyper.ok("stop", "-t", "0", container)
    assert hyper.state("web") == "created"


@pytest.mark.every_driver
def test_pause_and_unpause(hyper: Hyper) -> None:
    sleeper(hyper, "web")
    hyper.ok("pause", "web")
    assert hyper.state("web") == "paused"
    assert "(Paused)" in hyper.ok("ps")
    hyper.ok("unpause", "web")
    assert hyper.ok("exec", "web", "echo", "back") == "back"


def test_kill_sends_the_signal_that_is_asked_for(hyper: Hyper) -> None:
    script = "trap 'exit 3' USR1; echo up; while :; do sleep 0.1; done"
    hyper.ok("run", "-d", "--network", "none", "--name", "web", "busybox", "sh", "-c", script)
    hyper.eventually("up", "logs", "web")
    hyper.ok("kill", "-s", "USR1", "web")
    assert hyper.ok("wait", "web") == "3"


def test_wait_prints_the_exit_code(hyper: Hyper) -> None:
    hyper.ok("run", "-d", "--network", "none", "--name", "web", "busybox", "sh", "-c", "sleep 1; exit 9")
    assert hyper.ok("wait", "web") == "9"
    assert "Exited (9)" in hyper.ok("ps", "-a")


def test_ps_has_dockers_columns(hyper: Hyper) -> None:
    sleeper(hyper, "web")
    header, row = hyper.ok("ps").splitlines()
    assert re.split(r"   +", header) == [
        "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES",
    ]  # fmt: skip
    assert re.fullmatch(
        r'[0-9a-f]{12}   busybox +"sleep 1000" +(\d+ seconds?|Less than a second) ago +'
        r"Up (\d+ seconds?|Less than a second) +web",
        row,
    )


def test_ps_shows_ended_containers_only_with_a(hyper: Hyper) -> None:
    hyper("run", "--network", "none", "--name", "done", "busybox", "false")
    assert hyper.ok("ps", "-q") == ""
    assert "Exited (1)" in hyper.ok("ps", "-a")
    assert len(hyper.ok("ps", "-q", "--filter", "status=exited")) == 12
    assert hyper.ok("ps", "-aq", "--filter", "name=other") == ""


@pytest.mark.every_driver
def test_list_has_the_originals_columns(hyper: Hyper) -> None:
    sleeper(hyper, "web")
    header, row = hyper.ok("list").splitlines()
    assert re.split(r"   +", header)[:4] == ["POD ID", "POD Name", "VM name", "Status"]
    assert " running " in row
    assert hyper.driver in row
    assert hyper.ok("list", "vm").startswith("VM name   ")
    assert hyper.ok("list", "container").startswith("Container ID   Name ")


def test_listings_are_json_when_asked(hyper: Hyper) -> None:
    pod = sleeper(hyper, "web")
    assert [found["id"] for found in hyper.json("list")] == [pod]
    assert [found["Names"] for found in hyper.json("ps")] == ["web"]
    assert "busybox" in [found["Repository"] for found in hyper.json("images")]
    assert hyper.json("list", "vm")[0]["hypervisor"] == hyper.driver


def test_images_has_dockers_columns(hyper: Hyper) -> None:
    header, row = hyper.ok("images", "busybox").splitlines()
    assert header == "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE"
    assert re.fullmatch(r"busybox      latest    [0-9a-f]{12}   \d+ \w+ ago   [\d.]+MB", row)


def test_an_image_in_use_is_not_removed(hyper: Hyper) -> None:
    hyper.ok("create", "--name", "web", "busybox")
    result = hyper("rmi", "busybox")
    assert result.status == 1
    assert "web" in result.err or "use" in result.err


def test_an_image_gets_and_loses_names(hyper: Hyper) -> None:
    hyper.ok("tag", "busybox", "example.org/team/box:2")
    assert "example.org/team/box   2" in hyper.ok("images")
    assert hyper.run("example.org/team/box:2", "echo", "same").out == "same\n"
    assert hyper.ok("rmi", "example.org/team/box:2") == "Untagged: example.org/team/box:2"


def test_inspect_tells_of_pods_containers_and_images(hyper: Hyper) -> None:
    pod = sleeper(hyper, "web")
    assert json.loads(hyper.ok("inspect", "web"))[0]["pod"]["id"] == pod
    container = json.loads(hyper.ok("inspect", "--type", "container", "web"))[0]
    assert (container["pod"], container["state"]) == (pod, "running")
    assert json.loads(hyper.ok("inspect", "busybox"))[0]["id"].startswith("sha256:")


def test_info_version_and_doctor_tell_the_driver(hyper: Hyper) -> None:
    assert "Pods: 0" in hyper.ok("info")
    assert "Guest kernel" in hyper.ok("version")
    doctor = hyper("doctor", "--quick")
    assert doctor.status == 0
    assert hyper.driver in doctor.out


# --- podfiles ---


@pytest.mark.every_driver
@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_podfile_is_run_as_the_mission_says(hyper: Hyper, tmp_path: Path, ending: str) -> None:
    podfile = tmp_path / f"podfile.{ending}"
    pod = {
        "id": "filed",
        "hostname": "filed-host",
        "network": "none",
        "resource": {"vcpu": 1, "memory": 96},
        "containers": [
            {
                "image": "busybox",
                "command": ["sh", "-c", "echo $GREETING from $(hostname); sleep 1000"],
                "envs": [{"env": "GREETING", "value": "hello"}],
            }
        ],
    }
    podfile.write_text(json.dumps(pod))  # which is YAML as well
    identifier = hyper.ok("run", "-d", str(podfile))
    assert hyper.state("filed") == "running"
    assert hyper.ok("list", "-q", "--no-trunc") == identifier
    assert json.loads(hyper.ok("inspect", "filed"))[0]["pod"]["memory_mib"] == 96
    assert hyper.eventually(r"\n", "logs", "filed") == "hello from filed-host\n"


def test_a_podfile_may_be_created_first(hyper: Hyper, tmp_path: Path) -> None:
    podfile = tmp_path / "podfile.json"
    podfile.write_text(
        '{"id": "filed", "network": "none", "containers": [{"image": "busybox", "command": ["true"]}]}'
    )
    hyper.ok("create", "-p", str(podfile))
    assert hyper.state("filed") == "created"
    hyper.ok("start", "filed")
    assert hyper.ok("wait", "filed") == "0"


def test_a_bad_podfile_is_refused_with_its_line(hyper: Hyper, tmp_path: Path) -> None:
    podfile = tmp_path / "podfile.json"
    podfile.write_text('{\n  "containers": [\n    {"imege": "busybox"}\n  ]\n}')
    result = hyper("run", "-d", str(podfile))
    assert result.status == 125
    assert "line 3" in result.err
    assert hyper.ok("list", "-q") == ""
