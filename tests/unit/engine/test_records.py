"""Records: what another daemon reads is what this one wrote, all of it or nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hypercontainer.engine.records import ContainerRecord, PodRecord, Records
from hypercontainer.errors import Conflict, Unavailable
from hypercontainer.model.network import Lease, NicLease
from hypercontainer.model.pod import ContainerSpec, PodSpec
from hypercontainer.model.rest import ContainerState

IMAGE = ContainerSpec(image="image")


def a_pod(number: int, name: str) -> tuple[PodRecord, list[ContainerRecord]]:
    pod = PodRecord(
        id=f"{number:064}", name=name, spec=PodSpec(containers=(IMAGE,)), created=1.0, hypervisor="uml"
    )
    container = ContainerRecord(
        id=f"{number:060}aaaa",
        pod=pod.id,
        index=0,
        name=name,
        spec=IMAGE,
        image_id="sha256:1",
        argv=("true",),
        environment=(),
        working_directory="/",
        user="",
        stop_signal=15,
        created=1.0,
    )
    return pod, [container]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path / "state.db", pods=tmp_path / "pods")
    yield records
    records.close()


def test_a_name_is_taken_until_its_pod_is_being_removed(records: Records) -> None:
    pod, containers = a_pod(1, "web")
    records.add_pod(pod, containers)
    with pytest.raises(Conflict, match="web"):
        records.add_pod(*a_pod(2, "web"))
    assert records.pods() == [pod]
    records.save_pod(msgspec.structs.replace(pod, target="removed"))
    records.add_pod(*a_pod(2, "web"))


def test_the_last_words_of_a_container_that_goes_do_not_take_its_name_back(records: Records) -> None:
    pod, containers = a_pod(1, "web")
    records.add_pod(pod, containers)
    records.save_pod(msgspec.structs.replace(pod, target="removed"))
    records.add_pod(*a_pod(2, "web"))
    records.save_containers(msgspec.structs.replace(containers[0], state=ContainerState.EXITED))
    with pytest.raises(Conflict):
        records.add_pod(*a_pod(3, "web"))


def test_records_of_a_newer_hyper_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Records(path, pods=tmp_path / "pods").close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="newer"):
        Records(path, pods=tmp_path / "pods")
    assert path.read_bytes() == before


def test_lost_records_are_no_reason_to_remove_the_pods(tmp_path: Path) -> None:
    path, pods = tmp_path / "state.db", tmp_path / "pods"
    (pods / "1234").mkdir(parents=True)
    with pytest.raises(Unavailable, match="gone or empty") as caught:
        Records(path, pods=pods)
    assert str(pods) in caught.value.hint
    (pods / "1234").rmdir()
    Records(path, pods=pods).close()


@pytest.mark.parametrize("size", [100, 4096, 10_000])
def test_truncated_records_are_refused(tmp_path: Path, size: int) -> None:
    path, pods = tmp_path / "state.db", tmp_path / "pods"
    records = Records(path, pods=pods)
    for number in range(20):
        records.add_pod(*a_pod(number, f"pod{number}"))
    records.close()
    os.truncate(path, size)
    with pytest.raises(Unavailable, match=r"state\.db"):
        Records(path, pods=pods)
    assert path.stat().st_size == size


def test_a_record_that_cannot_be_read_is_refused_by_its_reason(records: Records, tmp_path: Path) -> None:
    records.add_pod(*a_pod(1, "web"))
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("UPDATE pods SET body = x'00'")
    connection.commit()
    connection.close()
    with pytest.raises(Unavailable, match="cannot be read"):
        records.pods()


@pytest.mark.parametrize("step", range(1, 4))
def test_a_daemon_killed_at_any_step_of_a_change_left_all_or_nothing(tmp_path: Path, step: int) -> None:
    """The process dies before the transaction, after it, or (3) not at all."""
    fuse = tmp_path / "fuse"
    fuse.write_text(str(step))
    pod, containers = a_pod(1, "web")
    script = (
        "import sys, msgspec; from pathlib import Path\n"
        "from hypercontainer.engine.records import ContainerRecord, PodRecord, Records\n"
        "lines = sys.stdin.buffer.read().splitlines()\n"
        "pod = msgspec.json.decode(lines[0], type=PodRecord)\n"
        "container = msgspec.json.decode(lines[1], type=ContainerRecord)\n"
        f"here = Path({str(tmp_path)!r})\n"
        "Records(here / 'state.db', pods=here / 'pods').add_pod(pod, [container])\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script],
        input=msgspec.json.encode(pod) + b"\n" + msgspec.json.encode(containers[0]),
        env={"HYPER_FAULT": str(fuse), "PYTHONPATH": ":".join(sys.path)},
        check=False,
        capture_output=True,
    )
    assert child.returncode == (-9 if step < 3 else 0), child.stderr.decode()
    assert fuse.exists() == (step == 3)
    records = Records(tmp_path / "state.db", pods=tmp_path / "pods")
    assert (records.pods(), records.containers()) == (([], []) if step == 1 else ([pod], containers))
    records.close()


def test_a_lease_of_one_nic_is_brought_forward(tmp_path: Path) -> None:
    pod, containers = a_pod(1, "web")
    path = tmp_path / "old.db"
    records = Records(path, pods=tmp_path / "pods")
    records.add_pod(pod, containers)
    records.close()
    nic = {"nic_name": "hy0", "mac": "02:00:00:00:00:01", "address": "10.0.0.2/24", "gateway": "10.0.0.1"}
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(pod))
    old["lease"] = {**nic, "mtu": 1500, "dns": ["9.9.9.9"], "search": [], "ports": []}
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE pods SET body = ?", (msgspec.msgpack.encode(old),))
        database.execute("PRAGMA user_version = 1")
        database.commit()
    records = Records(path, pods=tmp_path / "pods")
    (found,) = records.pods()
    records.close()
    wanted = NicLease(mtu=1500, **nic)
    assert found.lease == Lease(nics=(wanted,), dns=("9.9.9.9",))
