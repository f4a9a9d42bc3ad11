"""Disks made of layers, read back by unsquashfs, against what Python's own tar unpacker makes of them."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidRequest, Unavailable
from hypercontainer.images import disks, tar
from hypercontainer.images.layers import PlainLayer
from hypercontainer.images.work import Stop, Stopped
from hypercontainer.model.image import Digest
from tests.support.images import Member, directory, hard_link, layer, symlink
from tests.support.squashfs import Node, read_disk

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices are read back as root only")


def make(path: Path, *layers: bytes) -> Path:
    target = path / "disk"
    plains = []
    for number, data in enumerate(layers):
        file = path / f"layer-{number}"
        file.write_bytes(data)
        plains.append(PlainLayer(path=file, size=len(data), diff_id=Digest("")))
    disks.make(Stop(), plains, target)
    return target


def read(path: Path, *layers: bytes) -> dict[bytes, Node]:
    return read_disk(make(path, *layers))


@as_root
def test_one_of_everything_comes_back(tmp_path: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": "\x01\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}
    names = ["with\nnewline", "with space", "d/" + "n" * 200, "\udcff\udcfe", "-rf", "a'\"$`", "=", "%s"]
    found = read(
        tmp_path,
        layer(
            directory("d", 0o2750),
            *(Member(name=name, content=name.encode("utf-8", "surrogateescape")) for name in names),
            Member(
                name="setuid", content=b"x", mode=0o4755, uid=70_000, gid=4_000_000_000, mtime=4_294_967_295
            ),
            Member(name="capable", content=b"x", pax=capability),
            Member(name="pipe", kind=tarfile.FIFOTYPE),
            Member(name="null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
            Member(name="disk", kind=tarfile.BLKTYPE, device=(254, 300)),
            symlink("link", "../../etc/passwd"),
            symlink("long", "x/" * 1000),
            hard_link("again", "setuid"),
            hard_link("link-again", "link"),
            Member(name="empty"),
        ),
    )
    for name in names:
        raw = name.encode("utf-8", "surrogateescape")
        assert found[raw].content == raw
    assert found[b"d"].mode == 0o2750
    assert (found[b"setuid"].uid, found[b"setuid"].gid) == (70_000, 4_000_000_000)
    assert (found[b"setuid"].mode, found[b"setuid"].mtime) == (0o4755, 4_294_967_295)
    assert found[b"setuid"].links == 2
    assert found[b"again"] == found[b"setuid"]
    assert [name for name, _ in found[b"capable"].xattrs] == ["security.capability"]
    assert found[b"pipe"].kind == "p"
    assert (found[b"null"].kind, found[b"null"].device, found[b"null"].mode) == ("c", (1, 3), 0o666)
    assert (found[b"disk"].kind, found[b"disk"].device) == ("b", (254, 300))
    assert found[b"link"].content == found[b"link-again"].content == b"../../etc/passwd"
    assert found[b"long"].content == b"x/" * 1000


@as_root
def test_layers_unpacked_by_python_and_merged_by_us_are_alike(tmp_path: Path) -> None:
    lower = layer(
        directory("usr"),
        directory("usr/bin"),
        *(
            Member(name=f"usr/bin/p{n}", content=os.urandom(n * 7919 % 300_000), mode=0o755)
            for n in range(60)
        ),
        *(hard_link(f"usr/bin/h{n}", f"usr/bin/p{n}") for n in range(0, 60, 7)),
        symlink("bin", "usr/bin"),
        Member(name="bin/through", content=b"through a link"),
        Member(name="etc/gone", content=b"x"),
        Member(name="etc/kept", content=b"y", uid=100_000),
    )
    upper = layer(
        Member(name="etc/.wh.gone"),
        Member(name="usr/bin/p7", content=b"new"),
        directory("etc", 0o711),
        hard_link("usr/bin/h-late", "usr/bin/p7"),
    )
    expected = _unpacked(tmp_path / "model", [lower, upper])
    found = read(tmp_path, lower, upper)
    assert found.keys() == expected.keys()
    for name, node in expected.items():
        assert _alike(found[name], node), name


def _alike(one: Node, other: Node) -> bool:
    """All but times of directories, which unpacking changes."""
    fields = ("kind", "mode", "uid", "gid", "content", "size", "device", "links", "xattrs")
    return all(getattr(one, field) == getattr(other, field) for field in fields)


def _unpacked(root: Path, layers: Iterable[bytes]) -> dict[bytes, Node]:
    from tests.support import squashfs

    root.mkdir()
    for number, data in enumerate(layers):
        path = root.parent / f"model-{number}.tar"
        path.write_bytes(data)
        subprocess.run(["tar", "-C", root, "--keep-directory-symlink", "-xpf", path], check=True)
        for hidden in list(root.rglob(".wh.*")):
            hidden.unlink()
            (hidden.parent / hidden.name.removeprefix(".wh.")).unlink(missing_ok=True)
    found: dict[bytes, Node] = {}
    squashfs.walk(os.fsencode(root), found)
    return found


def test_a_file_of_another_layer_s_link_has_that_layer_s_content(tmp_path: Path) -> None:
    big = os.urandom(200_000)
    found = read(
        tmp_path,
        layer(Member(name="a", content=big), hard_link("b", "a")),
        layer(Member(name="a", content=b"new")),
        layer(hard_link("c", "b"), Member(name=".wh.b")),
    )
    assert found[b"a"].content == b"new"
    assert found[b"c"].content == big
    assert found.keys() == {b"a", b"c"}


def test_sparse_files_become_whole(tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"middle")
    for options in (["--format=gnu"], ["--format=posix"]):
        command = ["tar", "-C", str(tmp_path), "--sparse", *options, "-cf", "-", "sparse"]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        assert len(data) < 1 << 20
        assert read(tmp_path, data)[b"sparse"].content == source.read_bytes()


def test_a_file_of_more_than_eight_gigabytes_fits(tmp_path: Path) -> None:
    source = tmp_path / "huge"
    size = (8 << 30) + 12345
    with source.open("wb") as file:
        file.truncate(size)
    command = ["tar", "-C", str(tmp_path), "--sparse", "--format=posix", "-cf", "-", "huge"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    (entry,) = tar.entries(data)
    assert entry.size == size
    head = tar.header(entry, name=b"huge", kind=tar.FILE, link=b"")
    with tarfile.open(fileobj=io.BytesIO(head)) as archive:
        member = archive.next()
    assert member is not None
    assert member.size == size


def test_an_image_without_layers_or_files_has_an_empty_disk(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    assert read(tmp_path, layer(), b"") == {}


def test_the_same_layers_make_the_same_disk_but_for_the_time_of_its_root(tmp_path: Path) -> None:
    data = layer(directory("d"), *(Member(name=f"d/{n}", content=os.urandom(5000)) for n in range(50)))
    first = make(tmp_path, data).read_bytes()
    second = make(tmp_path, data).read_bytes()
    (inodes,) = struct.unpack_from("<Q", first, 64)  # where the inode table begins (squashfs_fs.h)
    assert second[:inodes] == first[:inodes]
    assert len(second) == len(first)


def test_the_mode_of_the_root_is_kept(tmp_path: Path) -> None:
    disk = make(tmp_path, layer(directory("./", 0o711)))
    listed = subprocess.run(["unsquashfs", "-lln", disk], check=True, capture_output=True, text=True).stdout
    assert listed.startswith("drwx--x--x")


def test_nothing_is_left_when_the_work_is_stopped_or_a_layer_is_bad(tmp_path: Path) -> None:
    stop = Stop()
    stop.set()
    data = layer(Member(name="a", content=b"x" * 1_000_000))
    path = tmp_path / "layer"
    path.write_bytes(data)
    with pytest.raises(Stopped):
        disks.make(stop, [PlainLayer(path=path, size=len(data), diff_id=Digest(""))], tmp_path / "disk")
    with pytest.raises(InvalidRequest):
        make(tmp_path, data[:-11_000])
    assert not (tmp_path / "disk").exists()


def test_a_missing_mksquashfs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercontainer.process.shutil.which", lambda *_args, **_named: None)
    with pytest.raises(Unavailable, match="mksquashfs") as caught:
        make(tmp_path, layer())
    assert "squashfs-tools" in caught.value.hint
