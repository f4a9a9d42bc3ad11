"""Volumes: the share, the pod's own, which begin with the image's files, disks, and file servers."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.protocol import (
    NO_SLOT,
    SHARE_SLOT,
    Mount,
    Source,
    TearDownPod,
)
from tests.guest.laboratory import POD_SLOT, Pod, a_bind, a_file, a_tmpfs, as_root

VOLUME = Source(POD_SLOT, "volumes/v1")
FILL = r"""
set -e; cd /data; echo one >one; chmod 4750 one; chown 1000:10 one; touch -d '2001-02-03 04:05:06' one
mkdir -m 700 deep; ln one deep/twin; ln -s ../one deep/link; mkfifo fifo; mknod null c 1 3
chown 1000:1000 deep; touch -d '2001-02-03 04:05:06' deep; chmod 1777 .
"""


def a_populated(target: str, source: Source = VOLUME) -> Mount:
    return a_bind(source, target, populate=True)


# --- The share ---


@pytest.fixture
async def shared(machine: Pod) -> Pod:
    """A pod whose machine has a share: a directory of the first disk."""
    share = machine.writable / "share"
    (share / "directory").mkdir(parents=True)
    (share / "directory/x").write_text("x\n")
    (share / "file").write_text("file\n")
    (share / "away").symlink_to("/etc")
    await machine.set_up(share_type="bind", share_options="/disks/0/share")
    return machine


async def test_files_and_directories_of_the_share_are_mounted(shared: Pod) -> None:
    mounts = (
        a_bind(Source(SHARE_SLOT, "directory"), "/d"),
        a_bind(Source(SHARE_SLOT, "file"), "/etc/one", "ro"),
    )
    await shared.create(mounts=mounts)
    assert await shared.output("cat /d/x /etc/one; echo new >/d/new") == "x\nfile\n"
    assert (shared.writable / "share/directory/new").read_text() == "new\n"
    assert (await shared.shell("echo x >/etc/one")).status != 0


@pytest.mark.parametrize("path", ["missing", "directory/missing", "file/x"])
async def test_what_is_not_in_the_share_is_told_and_not_made(shared: Pod, path: str) -> None:
    with pytest.raises(GuestError, match=path) as caught:
        await shared.create(mounts=(a_bind(Source(SHARE_SLOT, path), "/d"),))
    assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR)
    assert caught.value.operation == "open in the share"
    assert not (shared.writable / "share" / path).exists()


async def test_a_link_in_the_share_leads_to_nothing_outside_of_it(shared: Pod) -> None:
    with pytest.raises(GuestError):
        await shared.create(mounts=(a_bind(Source(SHARE_SLOT, "away"), "/d"),))


async def test_without_a_share_nothing_of_it_can_be_mounted(bare: Pod) -> None:
    with pytest.raises(GuestError) as caught:
        await bare.create(mounts=(a_bind(Source(SHARE_SLOT, "x"), "/d"),))
    assert caught.value.errno == errno.ENOENT


async def test_the_next_pod_has_its_own_share_or_none(shared: Pod) -> None:
    mount = a_bind(Source(SHARE_SLOT, "directory"), "/d")
    await shared.create(mounts=(mount,))
    await shared.agent.request(TearDownPod())
    await shared.set_up()
    with pytest.raises(GuestError):
        await shared.create(mounts=(mount,))
    await shared.agent.request(TearDownPod())
    (shared.writable / "other/directory").mkdir(parents=True)
    await shared.set_up(share_type="bind", share_options="/disks/0/other")
    await shared.create(mounts=(mount,))
    assert await shared.output("ls /d") == ""


async def test_a_share_that_cannot_be_mounted_fails_the_set_up_and_leaves_nothing(machine: Pod) -> None:
    for kind, options in (("bind", "/nowhere"), ("no-such-type", "")):
        with pytest.raises(GuestError):
            await machine.set_up(share_type=kind, share_options=options)
    await machine.set_up()


async def test_a_tmpfs_has_the_access_times_that_are_asked(bare: Pod) -> None:
    await bare.create(mounts=(a_tmpfs("/no", "noatime"), a_tmpfs("/yes", "noatime,relatime")))
    mounts = await bare.output("grep -E '/(no|yes) ' /proc/mounts")
    assert [("noatime" in line, "relatime" in line) for line in mounts.splitlines()] == [
        (True, False),
        (False, True),
    ]


# --- Volumes that begin with the image's files ---


@as_root
async def test_a_new_volume_begins_with_all_that_the_image_has_there(bare: Pod) -> None:
    await bare.create("c0", writable=Source(POD_SLOT, "made"))
    await bare.output(f"mkdir /data; {FILL}", container="c0")
    model = bare.writable / "made/upper/data"
    os.setxattr(model / "one", "user.note", b"kept")
    await _create_over(bare, "c1", model.parent, (a_populated("/data"),))
    volume = bare.writable / "volumes/v1"
    listing = ["find", ".", "-printf", "%p %y %m %U %G %n %l %T@\\n"]
    listings = [
        sorted(subprocess.run(listing, cwd=where, check=True, capture_output=True).stdout.splitlines())
        for where in (model, volume)
    ]
    assert listings[0] == listings[1]
    assert len(listings[0]) == 7
    assert os.getxattr(volume / "one", "user.note") == b"kept"
    assert (volume / "one").stat().st_ino == (volume / "deep/twin").stat().st_ino
    assert _names(volume.parent) == ["v1"]


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def _create_over(pod: Pod, name: str, image: Path, mounts: tuple[Mount, ...]) -> None:
    """A container whose image is a directory of the pod's disk."""
    source = Source(POD_SLOT, str(image.relative_to(pod.writable)))
    await pod.create(name, image=source, writable=Source(POD_SLOT, f"{name}-writable"), mounts=mounts)


async def test_a_volume_that_is_there_stays_as_it_is(bare: Pod) -> None:
    await bare.create("c1", mounts=(a_populated("/etc"),))
    await bare.output("rm /etc/group; echo mine >/etc/mine")
    await bare.create("c2", mounts=(a_populated("/etc"), a_populated("/bin", Source(POD_SLOT, "made"))))
    assert await bare.output("ls /etc", container="c2") == "mine\npasswd\n"
    (bare.writable / "made").mkdir(exist_ok=True)
    assert "busybox" in await bare.output("ls /bin", container="c2")


async def test_an_empty_volume_that_is_there_is_not_filled(bare: Pod) -> None:
    (bare.writable / "volumes/v1").mkdir(parents=True)
    await bare.create(mounts=(a_populated("/etc"),))
    assert await bare.output("ls /etc") == ""


async def test_a_volume_where_the_image_has_nothing_is_empty(bare: Pod) -> None:
    await bare.create(mounts=(a_populated("/new/place"),))
    assert await bare.output("ls /new/place; stat -c %a /new/place") == "755\n"


async def test_what_a_power_cut_left_half_copied_is_not_used(bare: Pod) -> None:
    half = bare.writable / "volumes/.v1.new"
    half.mkdir(parents=True)
    (half / "half").write_text("half")
    await bare.create(mounts=(a_populated("/etc"),))
    assert await bare.output("ls /etc") == "group\npasswd\n"
    assert not half.exists()


async def test_a_volume_that_cannot_be_copied_is_not_there(bare: Pod) -> None:
    deep = bare.writable / "image/data"
    deep.mkdir(parents=True)
    subprocess.run(
        ["sh", "-c", "for i in $(seq 1 30); do d=$(printf '%0200d' $i); mkdir $d; cd -P $d; done"],
        cwd=deep,
        check=True,
    )
    with pytest.raises(GuestError, match="copy"):
        await _create_over(bare, "c1", deep.parent, (a_populated("/data"),))
    assert _names(bare.writable / "volumes") == []


@pytest.mark.parametrize("path", ["volumes/.", "volumes/..", "volumes/.hidden", "volumes/"])
async def test_a_volume_needs_a_name(bare: Pod, path: str) -> None:
    (bare.writable / "volumes").mkdir()
    with pytest.raises(GuestError) as caught:
        await bare.create(mounts=(a_populated("/etc", Source(POD_SLOT, f"new/{path}")),))
    assert caught.value.errno == errno.EINVAL


async def test_mounts_inside_one_another_are_made_in_order(bare: Pod) -> None:
    mounts = (a_populated("/etc"), a_tmpfs("/etc/inner"), a_bind(Source(POD_SLOT, "b"), "/etc/inner/bind"))
    await bare.create(mounts=mounts)
    assert await bare.output("ls /etc /etc/inner") == "/etc:\ngroup\ninner\npasswd\n\n/etc/inner:\nbind\n"
    assert _names(bare.writable / "volumes/v1") == ["group", "inner", "passwd"]


# --- Others ---


async def test_a_mount_in_one_container_is_not_seen_in_another(bare: Pod) -> None:
    await bare.create("c1", mounts=(a_bind(Source(POD_SLOT, "shared"), "/shared"),))
    await bare.create("c2", mounts=(a_bind(Source(POD_SLOT, "shared"), "/shared"),))
    await bare.output("mkdir /shared/m; mount -t tmpfs none /shared/m; echo x >/shared/m/x", privileged=True)
    assert await bare.output("ls /shared/m") == "x\n"
    assert await bare.output("ls /shared/m", container="c2") == ""


@pytest.mark.parametrize("options", ["size=1m", "nonsense", "ro,mode=755"])
async def test_a_bind_has_no_options_of_a_file_system(bare: Pod, options: str) -> None:
    with pytest.raises(GuestError, match="mount option of a bind") as caught:
        await bare.create(mounts=(a_bind(VOLUME, "/v", options),))
    assert caught.value.errno == errno.EINVAL


async def test_a_tmpfs_has_the_size_and_words_that_it_was_given(bare: Pod) -> None:
    await bare.create(mounts=(a_tmpfs("/t", "nosuid,nodev,noexec,size=64k,mode=1700"),))
    mounted = await bare.output("grep ' /t ' /proc/mounts")
    assert all(word in mounted for word in ("nosuid", "nodev", "noexec", "size=64k", "mode=1700"))
    assert (await bare.shell("head -c 100000 /dev/zero >/t/x")).status != 0


@pytest.mark.parametrize(
    ("owner", "operation"), [("nobody-here", "find user"), ("root:nobody", "find group")]
)
async def test_a_file_of_an_unknown_owner_is_told(bare: Pod, owner: str, operation: str) -> None:
    with pytest.raises(GuestError, match=owner.split(":")[-1]) as caught:
        await bare.create(files=(a_file("/etc/x", b"", owner=owner),))
    assert (caught.value.errno, caught.value.operation) == (errno.ENOENT, operation)


@as_root
async def test_a_file_belongs_to_who_is_named(bare: Pod) -> None:
    await bare.create(files=(a_file("/a", b"", owner="joe"), a_file("/b", b"", owner="joe:audio")))
    assert await bare.output("stat -c '%u %g' /a /b") == "1000 1000\n1000 63\n"


# --- File servers ---


def an_nfs(source: str, options: str = "") -> Mount:
    return Mount(Source(NO_SLOT, source), "/nfs", "nfs4", options, populate=False)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("127.0.0.1:/x", errno.ECONNREFUSED),
        ("[::1]:/x", errno.ECONNREFUSED),
        ("192.0.2.1:/x", errno.ENETUNREACH),
        ("server.example:/x", errno.EINVAL),
        ("127.0.0.1", errno.EINVAL),
        ("", errno.EINVAL),
    ],
)
async def test_a_server_that_is_not_there_is_told_at_once(bare: Pod, source: str, expected: int) -> None:
    async with asyncio.timeout(30):  # half of what a container's making has
        with pytest.raises(GuestError) as caught:
            await bare.create(mounts=(an_nfs(source),))
    assert caught.value.errno == expected
    await bare.create()
