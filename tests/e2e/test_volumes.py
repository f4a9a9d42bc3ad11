"""Volumes: of the pod, of the image, of the host, disk images; and the files that a pod brings."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.client import Client, Record
from tests.e2e.hyper import Hyper
from tests.support.images import Member, cached_busybox_layer, directory, docker_archive, layer


def create(hyper: Hyper, *containers: dict[str, Any], **fields: Any) -> Record:
    """A pod called ``v`` whose containers sleep, unless they say otherwise."""
    whole = [
        {"image": "busybox", "command": ["sleep", "1000"], "stop_signal": "KILL"} | c for c in containers
    ]
    client = Client(hyper.root / "run/hyper.sock")
    return client.pods.create({"network": "none", "name": "v", "containers": whole, **fields})


def start(hyper: Hyper, *containers: dict[str, Any], **fields: Any) -> None:
    create(hyper, *containers, **fields)
    hyper.ok("start", "v")


def sh(hyper: Hyper, container: str, script: str) -> str:
    return hyper.ok("exec", container, "sh", "-c", script)


def mount(target: str, volume: str = "data", **fields: Any) -> dict[str, Any]:
    return {"target": target, "volume": volume, **fields}


# --- Of the pod ---


@pytest.mark.every_driver
def test_a_volume_of_the_pod_is_shared_and_survives_a_stop(hyper: Hyper) -> None:
    one, two = ({"name": name, "mounts": [mount("/data")]} for name in ("one", "two"))
    start(hyper, one, two, volumes=[{"name": "data"}])
    sh(hyper, "one", "echo shared > /data/x")
    assert sh(hyper, "two", "cat /data/x; echo more >> /data/x") == "shared"
    hyper.ok("stop", "-t", "0", "v")
    hyper.ok("start", "v")
    assert sh(hyper, "one", "cat /data/x") == "shared\nmore"


def test_a_read_only_mount_of_a_volume_that_another_writes(hyper: Hyper) -> None:
    writer = {"name": "writer", "mounts": [mount("/data")]}
    reader = {"name": "reader", "mounts": [mount("/data", read_only=True)]}
    start(hyper, writer, reader, volumes=[{"name": "data"}])
    sh(hyper, "writer", "echo seen > /data/x")
    assert sh(hyper, "reader", "cat /data/x") == "seen"
    assert "Read-only file system" in hyper("exec", "reader", "touch", "/data/y").err


@pytest.mark.every_driver
def test_mounts_lie_in_one_another_and_a_tmpfs_is_empty(hyper: Hyper) -> None:
    mounts = [mount("/a/b/c", "inner"), mount("/a", "outer"), {"target": "/a/t", "options": ["size=1m"]}]
    start(hyper, {"mounts": mounts}, volumes=[{"name": "outer"}, {"name": "inner"}])
    found = sh(
        hyper, "v", "touch /a/o /a/b/c/i; cat /proc/mounts | cut -d' ' -f2 | grep ^/a | sort; ls /a/b/c"
    )
    assert found.split() == ["/a", "/a/b/c", "/a/t", "i"]
    assert "1024" in sh(hyper, "v", "df -k /a/t")


# --- Of the image ---


@pytest.fixture
def with_volumes(hyper: Hyper, tmp_path: Path) -> str:
    """An image with VOLUME /data and files there."""
    files = layer(directory("data"), Member(name="data/seed", content=b"seed\n", uid=7, mode=0o640))
    archive = docker_archive(
        tmp_path / "image.tar",
        layers=[cached_busybox_layer(), files],
        config={"Cmd": ["sleep", "1000"], "Volumes": {"/data": {}}, "Env": ["PATH=/bin"]},
        tags=["with-volumes:latest"],
    )
    hyper.ok("load", "-q", "-i", str(archive))
    return "with-volumes"


@pytest.mark.every_driver
def test_imagevolume(hyper: Hyper, with_volumes: str) -> None:
    """The image's volume begins with the image's files, and is no part of a root that is read-only."""
    start(hyper, {"image": with_volumes, "read_only": True})
    assert sh(hyper, "v", "cat /data/seed; stat -c %u:%a /data/seed") == "seed\n7:640"
    assert "v" in sh(hyper, "v", "hostname; cat /etc/hosts")
    sh(hyper, "v", "echo new > /data/seed")
    assert "Read-only file system" in hyper("exec", "v", "touch", "/x").err
    hyper.ok("stop", "-t", "0", "v")
    hyper.ok("start", "v")
    assert sh(hyper, "v", "cat /data/seed") == "new"


def test_a_mount_takes_the_place_of_the_images_volume(hyper: Hyper, with_volumes: str) -> None:
    mounts = [mount("/data", populate=False)]
    start(hyper, {"image": with_volumes, "mounts": mounts}, volumes=[{"name": "data"}])
    assert sh(hyper, "v", "ls /data") == ""


def test_an_empty_volume_gets_the_images_files(hyper: Hyper, with_volumes: str) -> None:
    """Those of the first container that mounts it, whichever is the faster to be made."""
    first = {"image": with_volumes, "name": "first", "mounts": [mount("/data")]}
    others = [{"name": name, "mounts": [mount("/other")]} for name in ("second", "third")]
    start(hyper, first, *others, volumes=[{"name": "data"}])
    assert [sh(hyper, name, "cat /other/seed") for name in ("second", "third")] == ["seed", "seed"]


# --- Of the host ---


@pytest.mark.every_driver
def test_what_is_read_only_cannot_be_written_from_the_machine_itself(hyper: Hyper, tmp_path: Path) -> None:
    """The host's side refuses it: to the container, and to who mounts it anew with all rights."""
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"{name}\n")
    flags = ("-v", f"{tmp_path}/ro:/ro:ro", "-v", f"{tmp_path}/rw:/rw")
    hyper.ok("run", "-d", "--network", "none", "--name", "v", *flags, "busybox", "sleep", "1000")
    assert sh(hyper, "v", "cat /ro/file /rw/file; echo new > /rw/new") == "ro\nrw"
    assert (tmp_path / "rw/new").read_text() == "new\n"
    assert "Read-only file system" in hyper("exec", "v", "touch", "/ro/new").err
    share = "/run/hyper/share"
    anew = f"mount -o remount,rw {share}; for d in {share}/ro-*; do touch $d/new; echo x > $d/file; done"
    hyper("exec", "-m", "v", "sh", "-c", anew)
    assert sh_in_machine(hyper, "v", f"cat {share}/ro-*/file") == "ro"
    assert [(entry.name, entry.read_text()) for entry in (tmp_path / "ro").iterdir()] == [("file", "ro\n")]


def sh_in_machine(hyper: Hyper, pod: str, script: str) -> str:
    return hyper.ok("exec", "-m", pod, "sh", "-c", script)


@pytest.mark.every_driver
def test_a_directory_that_is_not_there_is_made_and_stays_when_the_pod_goes(
    hyper: Hyper, tmp_path: Path
) -> None:
    made, image = tmp_path / "not/there", an_image(tmp_path / "image")
    disk = f"type=raw,source={image},target=/r"
    flags = ("-v", f"{made}:/v", "--mount", disk, "-v", f"{__file__}:/file:ro")
    hyper.ok("create", "--network", "none", "--name", "v", *flags, "busybox", "sleep", "1000")
    shown = json.loads(hyper.ok("inspect", "--type", "container", "v"))[0]["mounts"]
    assert [(m["destination"], m["type"], m["source"], m["rw"]) for m in shown] == [
        ("/file", "bind", __file__, False),
        ("/r", "disk", str(image), True),
        ("/v", "bind", str(made), True),
    ]
    hyper.ok("start", "v")
    assert sh(hyper, "v", "echo kept > /v/x; head -n 1 /file").startswith('"""Volumes')
    hyper.ok("rm", "-f", "v")
    assert (made / "x").read_text() == "kept\n"
    assert image.exists()
    assert Path(__file__).exists()


# --- Disk images ---


def an_image(path: Path, size: str = "8M") -> Path:
    subprocess.run(["truncate", "-s", size, str(path)], check=True)
    mke2fs = shutil.which("mke2fs") or "/sbin/mke2fs"
    subprocess.run([mke2fs, "-q", "-F", "-t", "ext4", str(path)], check=True)
    return path


@pytest.mark.every_driver
def test_a_raw_image_is_a_disk_with_its_own_file_system(hyper: Hyper, tmp_path: Path) -> None:
    volume = {"name": "data", "kind": "raw", "source": str(an_image(tmp_path / "image"))}
    start(hyper, {"mounts": [mount("/data")]}, volumes=[volume])
    assert "lost+found" in sh(hyper, "v", "ls /data; echo kept > /data/x; grep ' /data ' /proc/mounts")
    hyper.ok("rm", "-f", "v")
    start(hyper, {"mounts": [mount("/data", read_only=True)]}, volumes=[volume])
    assert "Read-only file system" in hyper("exec", "v", "touch", "/data/y").err


def test_an_image_that_one_pod_writes_is_no_other_pods(hyper: Hyper, tmp_path: Path) -> None:
    volume = {"name": "data", "kind": "raw", "source": str(an_image(tmp_path / "image"))}
    start(hyper, {"mounts": [mount("/data")]}, volumes=[volume])
    create(hyper, {"mounts": [mount("/data")]}, volumes=[volume], name="w")
    refused = hyper("start", "w")
    assert (refused.status, "in use: pod v writes to it" in refused.err) == (1, True)
    assert hyper.state("w") == "created"
    hyper.ok("stop", "-t", "0", "v")
    hyper.ok("start", "w")


def test_a_qcow2_image_is_for_drivers_that_have_it(hyper: Hyper, tmp_path: Path) -> None:
    raw, image = an_image(tmp_path / "raw"), tmp_path / "image.qcow2"
    qemu_img = shutil.which("qemu-img") or pytest.skip("there is no qemu-img")
    subprocess.run([qemu_img, "convert", "-O", "qcow2", str(raw), str(image)], check=True)
    flags = ("--network", "none", "--mount", f"type=qcow2,source={image},target=/q")
    refused = hyper("run", "--rm", *flags, "--hypervisor", "uml", "busybox", "true")
    assert refused.status == 125
    assert "uml has no qcow2 disks" in refused.err
    hyper.ok("run", "-d", "--name", "v", *flags, "--hypervisor", "tcg", "busybox", "sleep", "1000")
    sh(hyper, "v", "echo kept > /q/x")
    hyper.ok("stop", "-t", "0", "v")
    hyper.ok("start", "v")
    assert sh(hyper, "v", "cat /q/x") == "kept"


def test_what_is_wrong_with_a_volume_is_told_before_anything_is_made(hyper: Hyper, tmp_path: Path) -> None:
    volume = {"name": "data", "kind": "raw", "source": str(tmp_path / "nothing")}
    with pytest.raises(Exception, match="does not exist on the host"):
        create(hyper, {"mounts": [mount("/data")]}, volumes=[volume])
    assert hyper.ok("list", "-q") == ""


# --- Files ---


def a_file(path: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"path": path, "data": base64.b64encode(text.encode()).decode(), **fields}


@pytest.mark.every_driver
def test_insert_file(hyper: Hyper) -> None:
    """Files of the spec are there before the first process, with their modes and owners, and once only."""
    files = [
        a_file("/etc/app/deep/config", "one\n"),
        a_file("/run.sh", "#!/bin/sh\ncat /etc/app/deep/config\nexec sleep 1000\n", mode=0o755),
        a_file("/secret", "two", mode=0o600, owner="12:34"),
        a_file("/roots", "three", owner="root:root"),
    ]
    start(hyper, {"command": ["/run.sh"], "files": files})
    hyper.eventually("one", "logs", "v")
    assert sh(hyper, "v", "stat -c '%a %u:%g' /run.sh /secret /roots").split("\n") == [
        "755 0:0",
        "600 12:34",
        "644 0:0",
    ]
    sh(hyper, "v", "echo changed > /etc/app/deep/config")
    hyper.ok("stop", "-t", "0", "v")
    hyper.ok("start", "v")
    hyper.eventually("one\nchanged", "logs", "v")


@pytest.mark.every_driver
def test_a_read_only_root_has_its_files_too(hyper: Hyper) -> None:
    start(hyper, {"read_only": True, "files": [a_file("/new/file", "here")], "mounts": [mount("/data")]},
          volumes=[{"name": "data"}])  # fmt: skip
    assert sh(hyper, "v", "cat /new/file; touch /data/x") == "here"
    assert "Read-only file system" in hyper("exec", "v", "touch", "/new/other").err


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (a_file("/bin/sh/file", "x"), "/bin/sh/file"),
        (a_file("/file", "x", owner="stranger"), "find owner stranger"),
        (a_file("/file", "x", owner="root:strangers"), "find owner strangers"),
    ],
)
def test_a_file_that_cannot_be_written_leaves_the_start_undone(
    hyper: Hyper, file: dict[str, Any], reason: str
) -> None:
    create(hyper, {"files": [file]})
    failed = hyper("start", "v")
    assert failed.status == 1
    assert reason in failed.err
    assert file["path"] in failed.err
    assert hyper.state("v") == "created"


def test_the_files_of_a_container_that_never_ran_can_be_read_back(hyper: Hyper, tmp_path: Path) -> None:
    create(hyper, {"files": [a_file("/etc/app/config", "one\n", mode=0o640)]})
    hyper.ok("cp", "v:/etc/app/config", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "one\n"
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o640
    hyper.ok("cp", str(tmp_path / "back"), "v:/etc/app/other")
    hyper.ok("start", "v")
    assert sh(hyper, "v", "cat /etc/app/config /etc/app/other") == "one\none"


def test_inspect_shows_the_mounts(hyper: Hyper, with_volumes: str) -> None:
    mounts = [mount("/x", read_only=True), {"target": "/t"}]
    create(hyper, {"image": with_volumes, "mounts": mounts}, volumes=[{"name": "data"}])
    shown = json.loads(hyper.ok("inspect", "--type", "container", "v"))[0]["mounts"]
    assert [(m["destination"], m["type"], m["name"], m["rw"]) for m in shown] == [
        ("/data", "volume", "", True),
        ("/t", "tmpfs", "", True),
        ("/x", "volume", "data", False),
    ]
