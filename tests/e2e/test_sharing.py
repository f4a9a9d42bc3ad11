"""What the containers of a pod share, and what they do not: the mission's words, one test for each."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.checks import built
from tests.e2e.hyper import Hyper
from tests.support.images import Member, cached_busybox_layer, docker_archive, layer
from tests.support.waiting import until

pytestmark = pytest.mark.every_driver


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Busybox with a program for queues and semaphores."""
    directory = tmp_path_factory.mktemp("ipc")
    extra = layer(Member(name="bin/ipc", content=built("ipc", directory).read_bytes(), mode=0o755))
    return docker_archive(
        directory / "ipc.tar",
        layers=[cached_busybox_layer(), extra],
        config={"Cmd": ["sh"]},
        tags=["ipc:latest"],
    )


@pytest.fixture
def pod(hyper: Hyper, archive: Path, tmp_path: Path) -> Iterator[Hyper]:
    """A pod ``p`` with the containers ``one`` and ``two`` that do nothing."""
    hyper.ok("load", "-q", "-i", str(archive))
    containers = [
        {"name": name, "image": "ipc", "command": ["sh", "-c", f"exec sleep {seconds}"]}
        for name, seconds in (("one", 1001), ("two", 1002))
    ]
    podfile = tmp_path / "pod.json"
    podfile.write_text(json.dumps({"id": "p", "hostname": "shared-host", "containers": containers}))
    hyper.ok("run", "-d", str(podfile))
    yield hyper
    hyper.remove_all()
    hyper.ok("rmi", "ipc")


def inside(hyper: Hyper, container: str, script: str) -> str:
    return hyper.ok("exec", container, "sh", "-c", script)


def test_the_namespaces_are_the_same_but_for_mounts(pod: Hyper) -> None:
    script = "for kind in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done"
    one, two = (inside(pod, name, script).splitlines() for name in ("one", "two"))
    same = {line.partition(":")[0] for line in set(one) & set(two)}
    assert same >= {"ipc", "net", "pid", "user", "uts"}
    assert "mnt" not in same


def test_each_sees_the_processes_of_the_other(pod: Hyper) -> None:
    assert "sleep 1002" in inside(pod, "one", "ps")
    assert "sleep 1001" in inside(pod, "two", "ps")


def test_one_may_signal_the_processes_of_the_other(pod: Hyper) -> None:
    inside(pod, "one", "kill -9 $(ps | sed -n 's/^ *\\([0-9]*\\) .*sleep 1002$/\\1/p')")
    assert pod.ok("wait", "two") == "137"


def test_a_system_v_queue_is_shared(pod: Hyper) -> None:
    inside(pod, "one", "ipc send hello")
    assert inside(pod, "two", "ipc receive") == "hello"


def test_a_posix_semaphore_is_shared(pod: Hyper) -> None:
    waiting = pod.spawn("exec", "two", "sh", "-c", "ipc wait /door && echo open")
    time.sleep(0.5)
    assert waiting.poll() is None
    inside(pod, "one", "ipc post /door")
    out, _ = waiting.communicate(timeout=30)
    assert out == b"open\n"


def test_shared_memory_files_are_shared(pod: Hyper) -> None:
    inside(pod, "one", "echo mine > /dev/shm/file")
    assert inside(pod, "two", "cat /dev/shm/file") == "mine"


def test_the_hostname_is_the_same(pod: Hyper) -> None:
    assert inside(pod, "one", "hostname") == "shared-host"
    assert inside(pod, "two", "hostname") == "shared-host"


def test_there_is_one_loopback(pod: Hyper) -> None:
    inside(pod, "one", "httpd -p 127.0.0.1:4000 -h /etc")
    assert inside(pod, "two", "wget -q -O - http://127.0.0.1:4000/hostname") == "shared-host"


def test_both_have_all_nics(pod: Hyper) -> None:
    script = "ls /sys/class/net | sort; ip -o addr show eth0 | grep -o 'inet [0-9.]*'"
    one, two = (inside(pod, name, script) for name in ("one", "two"))
    assert one == two
    assert "eth0" in one
    assert "inet " in one


def test_both_have_all_disks(pod: Hyper) -> None:
    one, two = (
        inside(pod, name, "cat /proc/partitions; find /dev -type b | sort") for name in ("one", "two")
    )
    assert one == two
    assert one.count("/dev/") >= 2  # the image's and the pod's own


def test_each_has_a_root_of_its_own(pod: Hyper) -> None:
    inside(pod, "one", "echo mine > /mine")
    assert pod("exec", "two", "cat", "/mine").status != 0


def test_a_mount_in_one_is_not_seen_in_the_other(pod: Hyper) -> None:
    pod.ok("exec", "--privileged", "one", "sh", "-c", "mkdir /m && mount -t tmpfs none /m && touch /m/file")
    assert " /m " in inside(pod, "one", "cat /proc/mounts")
    assert " /m " not in inside(pod, "two", "cat /proc/mounts")


def test_the_pods_init_reaps_orphans(pod: Hyper) -> None:
    inside(pod, "one", "sh -c 'sleep 0.2 & exit 0'")
    until(lambda: not re.search(r"sleep 0.2|\[sleep\]", inside(pod, "two", "ps")))


def test_one_ends_and_the_other_runs_on(pod: Hyper) -> None:
    pod.ok("kill", "-s", "KILL", "one")
    assert pod.ok("wait", "one") == "137"
    assert inside(pod, "two", "echo here") == "here"
    assert pod.state("p") == "running"
