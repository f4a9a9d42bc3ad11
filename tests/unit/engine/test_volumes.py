"""Volumes: what is refused, what a machine is shown, and what a container mounts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.engine import plan, volumes
from hypercontainer.engine.records import ContainerRecord
from hypercontainer.errors import Conflict, InvalidRequest, Unsupported
from hypercontainer.guest.protocol import NO_SLOT, SHARE_SLOT, Mount, Source
from hypercontainer.model.machine import Disk, DiskFormat, Share, ShareKind
from hypercontainer.model.pod import ContainerSpec, MountSpec, PodSpec, VolumeSpec
from tests.unit.engine.test_plan import CAPABILITIES, a_container, an_image

EVERYTHING = replace(
    CAPABILITIES, share=ShareKind.HOSTFS, disk_formats=frozenset({DiskFormat.RAW, DiskFormat.QCOW2})
)


def a_volume(name: str = "data", **fields: object) -> VolumeSpec:
    return VolumeSpec(name=name, **fields)  # type: ignore[arg-type]


def a_mount(target: str, volume: str = "data", **fields: object) -> MountSpec:
    return MountSpec(target=target, volume=volume, **fields)  # type: ignore[arg-type]


def record(*mounts: MountSpec, image: dict[str, object] | None = None) -> ContainerRecord:
    return a_container(an_image(cmd=["x"], volumes=image or {}), mounts=mounts)


def check(*mounts: MountSpec, volumes: tuple[VolumeSpec, ...], **fields: object) -> None:
    container = ContainerSpec(image="image", mounts=mounts)
    spec = PodSpec(containers=(container,), volumes=volumes, **fields)  # type: ignore[arg-type]
    plan.check_pod(spec, EVERYTHING, "uml")


# --- Refusals ---


@pytest.mark.parametrize(
    ("mounts", "pods", "message"),
    [
        ([a_mount("/data")], [], "no volume 'data'"),
        ([a_mount("/data")], [a_volume(), a_volume()], "there 2 times"),
        ([a_mount("/data")], [a_volume(""), a_volume()], "no name"),
        ([a_mount("/data"), a_mount("//data/")], [a_volume()], "two mounts of a container are at /data"),
        ([a_mount("/a/../data"), a_mount("/data")], [a_volume()], "two mounts"),
        ([a_mount("/")], [a_volume()], "nothing can be mounted at /"),
        ([a_mount("/x/..")], [a_volume()], "nothing can be mounted at /"),
        ([a_mount("/proc/sys")], [a_volume()], "the kernel's"),
        ([a_mount("/dev")], [a_volume()], "the kernel's"),
        ([a_mount("/t", "", options=("size=1m,exec",))], [], "no option"),
        ([a_mount("/t", "", options=("context=x",))], [], "no option"),
        ([a_mount("/t", "", options=("size",))], [], "no option"),
        ([a_mount(f"/{n}", "") for n in range(257)], [], "257 mounts"),
        ([], [a_volume(source="/etc")], "on the pod's own disk"),
        ([], [a_volume(kind="host", source="relative")], "no absolute path"),
        ([], [a_volume(kind="host", source="/nothing/here")], "/nothing/here does not exist"),
        ([], [a_volume(kind="host", source="/dev/null")], "neither a directory nor a regular file"),
        ([], [a_volume(kind="raw", source="/etc")], "not a regular file"),
        ([], [a_volume(kind="nfs", source="/export")], "SERVER:/PATH"),
        ([], [a_volume(kind="nfs", source="server:export")], "SERVER:/PATH"),
    ],
)
def test_a_volume_that_makes_no_sense_is_refused(
    mounts: list[MountSpec], pods: list[VolumeSpec], message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(*mounts, volumes=tuple(pods))
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_nfs_needs_a_network() -> None:
    export = a_volume(kind="nfs", source="server:/export")
    check(volumes=(export,))
    with pytest.raises(InvalidRequest, match="no network"):
        check(volumes=(export,), network="none")


@pytest.mark.parametrize("kind", ["host", "qcow2"])
def test_what_a_driver_cannot_do_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    spec = PodSpec(
        containers=(ContainerSpec(image="image"),),
        volumes=(a_volume(kind=kind, source=str(tmp_path)),),
    )
    with pytest.raises(Unsupported, match="volume 'data': uml"):
        plan.check_pod(spec, CAPABILITIES, "uml")


# --- What a container mounts ---


def test_mounts_come_in_the_order_of_their_depth() -> None:
    container = record(a_mount("/a/b/c"), a_mount("/z", ""), a_mount("//a/"))
    assert [m.target for m in volumes.mounts_of(container, [a_volume()])] == ["/a", "/z", "/a/b/c"]


def test_a_pod_volume_is_a_directory_of_the_pods_disk_and_begins_with_the_images_files() -> None:
    container = record(a_mount("/data"), a_mount("/ro", read_only=True, populate=False))
    assert guest(container, a_volume()) == (
        Mount(Source(0, "volumes/data"), "/data", "bind", "", populate=True),
        Mount(Source(0, "volumes/data"), "/ro", "bind", "ro", populate=False),
    )


def test_the_images_own_volumes_go_with_the_container_and_give_way_to_mounts() -> None:
    container = record(a_mount("/taken"), image={"/taken/": {}, "/db": {}, "logs": {}})
    assert container.image_volumes == ("/db", "/logs")
    own = [m for m in guest(container, a_volume()) if m.target != "/taken"]
    assert own == [
        Mount(Source(0, f"{container.id}/volumes/0"), "/db", "bind", "", populate=True),
        Mount(Source(0, f"{container.id}/volumes/1"), "/logs", "bind", "", populate=True),
    ]


def test_an_image_cannot_ask_for_a_volume_at_the_root() -> None:
    with pytest.raises(InvalidRequest, match="nothing can be mounted at /"):
        record(image={"/..": {}})


def test_a_tmpfs_has_dockers_options_unless_others_are_asked_for() -> None:
    container = record(a_mount("/t", ""), a_mount("/x", "", options=("exec", "size=1m"), read_only=True))
    first, second = guest(container)
    assert first == Mount(Source(NO_SLOT, ""), "/t", "tmpfs", "nosuid,nodev,noexec", populate=False)
    assert second.options == "nosuid,nodev,exec,size=1m,ro"


def test_an_export_is_mounted_by_its_address() -> None:
    volume = a_volume(kind="nfs", source="server:/export", options=("vers=4.2",), read_only=True)
    mounts = volumes.mounts_of(record(a_mount("/n")), [volume])
    (mount,) = volumes.guest_mounts(mounts, own=0, held={}, exports={"data": "10.0.0.1:/export"})
    assert mount == Mount(Source(NO_SLOT, "10.0.0.1:/export"), "/n", "nfs4", "vers=4.2,ro", populate=False)


# --- What a machine is shown ---


def test_what_is_only_read_is_shown_read_only() -> None:
    host = a_volume(kind="host", source="/srv")
    mounts = volumes.mounts_of(record(a_mount("/r", read_only=True)), [host])
    assert volumes.shares(mounts) == (Share(name="ro-data", path=Path("/srv"), read_only=True),)
    assert guest(record(a_mount("/r", read_only=True)), host) == (
        Mount(Source(SHARE_SLOT, "ro-data"), "/r", "bind", "ro", populate=False),
    )


def test_each_way_to_mount_a_directory_has_a_share_of_its_own() -> None:
    host = a_volume(kind="host", source="/srv")
    mounts = volumes.mounts_of(record(a_mount("/r", read_only=True), a_mount("/w"), a_mount("/v")), [host])
    assert [(s.name, s.read_only) for s in volumes.shares(mounts)] == [("ro-data", True), ("rw-data", False)]


def test_a_volume_that_is_read_only_is_so_in_every_mount() -> None:
    host = a_volume(kind="host", source="/srv", read_only=True)
    assert [s.name for s in volumes.shares(volumes.mounts_of(record(a_mount("/w")), [host]))] == ["ro-data"]


def test_volumes_that_nobody_mounts_are_not_shown() -> None:
    mounts = volumes.mounts_of(record(), [a_volume(kind="host", source="/srv"), a_volume("d", kind="raw")])
    assert volumes.shares(mounts) == ()
    assert volumes.disks(mounts) == {}


def test_a_disk_image_is_read_only_when_nobody_writes_to_it() -> None:
    image = a_volume(kind="qcow2", source="/i", cache="none")
    reading = volumes.mounts_of(record(a_mount("/r", read_only=True)), [image])
    writing = volumes.mounts_of(record(a_mount("/r", read_only=True), a_mount("/w")), [image])
    disk = Disk(path=Path("/i"), read_only=True, format=DiskFormat.QCOW2, cache="none")
    assert volumes.disks(reading) == {"data": disk}
    assert volumes.disks(writing) == {"data": replace(disk, read_only=False)}
    (mount,) = volumes.guest_mounts(reading, own=0, held={"data": 3}, exports={})
    assert mount == Mount(Source(3, ""), "/r", "bind", "ro", populate=False)


def test_two_volumes_cannot_be_one_image_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "image")
    reading = Disk(path=tmp_path / "image", read_only=True)
    again = Disk(path=tmp_path / "link", read_only=True)
    assert volumes.writers({"a": reading, "b": again}) == {str(tmp_path / "image"): False}
    with pytest.raises(Conflict, match="another volume's too"):
        volumes.writers({"a": reading, "b": replace(again, read_only=False)})


def guest(container: ContainerRecord, *pods: VolumeSpec) -> tuple[Mount, ...]:
    return volumes.guest_mounts(volumes.mounts_of(container, pods), own=0, held={}, exports={})
