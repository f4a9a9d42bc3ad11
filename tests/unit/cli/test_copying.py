"""``hyper cp``: what it makes of its words, and tars that come from a hostile container."""

from __future__ import annotations

import contextlib
import io
import os
import random
import stat
import tarfile
from pathlib import Path

import pytest

from hypercontainer.cli import copying
from hypercontainer.cli.copying import Place, place
from hypercontainer.cli.packing import PackedFiles
from hypercontainer.cli.unpacking import Unpacker
from hypercontainer.client import Record
from hypercontainer.errors import HyperError, InvalidRequest, Unavailable
from hypercontainer.tarstream import members

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="not on this host: owners are set as root only")

# --- Words ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/etc", Place("web", "/etc")),
        ("web:etc/x", Place("web", "/etc/x")),
        ("web:", Place("web", "/")),
        ("web:/a:b", Place("web", "/a:b")),
        ("./a:b", Place("", "./a:b")),
        ("/a:b", Place("", "/a:b")),
        (":a", Place("", ":a")),
        ("-", Place("", "-")),
        ("dir/.", Place("", "dir/.")),
    ],
)
def test_a_container_stands_before_the_first_colon(text: str, expected: Place) -> None:
    assert place(text) == expected


def out(kind: str, source: str, target: Path | str) -> Path:
    found = Record(kind=kind, name="found")
    return copying._local_target(found, place(f"c:{source}"), str(target))


def test_what_comes_goes_where_docker_puts_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert out("file", "/etc/hosts", tmp_path) == tmp_path / "hosts"
    assert out("file", "/etc/hosts", tmp_path / "file") == tmp_path / "file"
    assert out("file", "/etc/hosts", tmp_path / "new") == tmp_path / "new"
    assert out("directory", "/etc", tmp_path) == tmp_path / "etc"
    assert out("directory", "/etc/", tmp_path) == tmp_path / "etc"
    assert out("directory", "/etc/.", tmp_path) == tmp_path
    assert out("directory", "/", tmp_path) == tmp_path
    assert out("directory", "/etc", f"{tmp_path}/new/") == tmp_path / "new"
    assert out("symlink", "/etc/link", tmp_path) == tmp_path / "link"


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("directory", "file", "over the file"),
        ("file", "new/", "does not exist"),
        ("file", "no/such", "does not exist"),
        ("directory", "no/such", "does not exist"),
    ],
)
def test_what_docker_refuses_is_refused(tmp_path: Path, kind: str, target: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match=message):
        out(kind, "/etc", f"{tmp_path}/{target}")


@pytest.mark.parametrize(
    ("kind", "source", "destination", "is_directory", "expected"),
    [
        ("directory", "a/x", "c:/tmp", False, ("/tmp", "x")),
        ("directory", "a/x/", "c:/tmp", True, ("/tmp", "x")),
        ("directory", "a/x/.", "c:/tmp", True, ("/tmp", ".")),
        ("file", "a/x", "c:/tmp/y", False, ("/tmp", "y")),
        (None, "a/x", "c:/tmp/y", False, ("/tmp", "y")),
        (None, "a/x", "c:/tmp/y/", True, ("/tmp", "y")),
        (None, "a/x/.", "c:y", True, ("/", "y")),
    ],
)
def test_what_goes_in_goes_where_docker_puts_it(
    kind: str | None, source: str, destination: str, is_directory: bool, expected: tuple[str, str]
) -> None:
    found = None if kind is None else Record(kind=kind)
    given = copying._container_target(found, place(source), place(destination), is_directory=is_directory)
    assert given == expected


@pytest.mark.parametrize(("kind", "is_directory"), [("file", True), (None, False)])
def test_what_cannot_go_in_is_refused(kind: str | None, is_directory: bool) -> None:
    found = None if kind is None else Record(kind=kind)
    with pytest.raises(InvalidRequest):
        copying._container_target(found, place("x"), place("c:/tmp/y/"), is_directory=is_directory)


# --- There and back ---


def a_tree(root: Path) -> Path:
    """Files of all kinds, with long and odd names and several modes."""
    (root / "deep" / ("d" * 120)).mkdir(parents=True)
    (root / "deep" / ("d" * 120) / ("f" * 200)).write_bytes(random.Random(1).randbytes(700_001))
    (root / "empty").touch(mode=0o600)
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o755)
    (root / "näme\nwith").write_text("odd")
    (root / "link").symlink_to("/etc/passwd")
    (root / "hard").hardlink_to(root / "script")
    os.mkfifo(root / "fifo")
    (root / "closed").mkdir(mode=0o500)
    os.utime(root / "script", (1, 1_000_000_000))
    return root


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        mode = 0 if path.is_symlink() else status.st_mode
        found[str(path.relative_to(root))] = (mode, int(status.st_mtime), content)
    return found


def unpack(data: bytes, target: Path, *, keep_owners: bool = False) -> Unpacker:
    archive = io.BytesIO(data)
    unpacker = Unpacker(target, keep_owners=keep_owners)
    unpacker.unpack(archive, members(archive))
    return unpacker


def packed(source: Path, name: str = "tree", *, piece: int = 1000, **options: bool) -> bytes:
    files = PackedFiles(source, name=name, **({"follow": False, "keep_owners": False} | options))
    return b"".join(iter(lambda: files.read(piece), b""))


def test_a_tree_goes_there_and_comes_back_the_same(tmp_path: Path) -> None:
    source = a_tree(tmp_path / "source")
    unpacker = unpack(packed(source), tmp_path / "copy")
    assert listing(tmp_path / "copy") == listing(source)
    assert unpacker.size == 700_001 + 10 + 3  # the hard link is no second file


def test_any_tar_program_reads_what_is_packed(tmp_path: Path) -> None:
    source = a_tree(tmp_path / "source")
    with tarfile.open(fileobj=io.BytesIO(packed(source))) as archive:
        names = {member.name for member in archive}
        assert {(m.uid, m.gid, m.uname) for m in archive} == {(0, 0, "")}
    assert names == {"tree", *(f"tree/{path.relative_to(source)}" for path in source.rglob("*"))}


def test_what_is_in_a_directory_is_packed_without_the_directory(tmp_path: Path) -> None:
    source = a_tree(tmp_path / "source")
    with tarfile.open(fileobj=io.BytesIO(packed(source, "."))) as archive:
        names = {member.name for member in archive}
    assert names == {f"./{path.relative_to(source)}" for path in source.rglob("*")}


def test_a_link_is_packed_as_a_link_or_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    unpack(packed(tmp_path / "link"), tmp_path / "one")
    unpack(packed(tmp_path / "link", follow=True), tmp_path / "two")
    assert (tmp_path / "one").readlink() == Path("file")
    assert (tmp_path / "two").read_text() == "content"
    assert not (tmp_path / "two").is_symlink()


def test_a_file_that_shrinks_while_it_is_read_ends_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    files = PackedFiles(path, name="file", follow=False, keep_owners=False)
    files.read(512)
    path.write_bytes(b"")
    with pytest.raises(InvalidRequest, match="shorter"):
        list(iter(lambda: files.read(1 << 20), b""))


@as_root
def test_owners_are_kept_when_asked_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.chown(tmp_path / "file", 1234, 5678)
    (tmp_path / "file").chmod(0o4755)
    data = packed(tmp_path / "file", keep_owners=True)
    unpack(data, tmp_path / "mine")
    unpack(data, tmp_path / "theirs", keep_owners=True)
    mine, theirs = (tmp_path / "mine").stat(), (tmp_path / "theirs").stat()
    assert (mine.st_uid, mine.st_gid, stat.S_IMODE(mine.st_mode)) == (os.getuid(), os.getgid(), 0o755)
    assert (theirs.st_uid, theirs.st_gid, stat.S_IMODE(theirs.st_mode)) == (1234, 5678, 0o4755)


def test_existing_files_are_replaced_and_directories_are_merged(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir(mode=0o755)
    (source / "file").write_text("new")
    copy.mkdir(mode=0o711)
    (copy / "kept").write_text("kept")
    (tmp_path / "victim").write_text("safe")
    (copy / "file").symlink_to(tmp_path / "victim")
    unpack(packed(source), copy)
    assert (copy / "file").read_text() == "new"
    assert (tmp_path / "victim").read_text() == "safe"
    assert (copy / "kept").read_text() == "kept"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o711


def test_a_directory_in_the_place_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "copy").mkdir()
    with pytest.raises(Unavailable, match="a directory is in the way"):
        unpack(packed(tmp_path / "file"), tmp_path / "copy")


# --- Hostile archives ---


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)
ROOT = entry("r", tarfile.DIRTYPE, mode=0o755)


@pytest.mark.parametrize(
    "data",
    [
        ROOT + entry("/etc/evil", data=b"x") + END,
        ROOT + entry("r/../../evil", data=b"x") + END,
        ROOT + entry("../evil", data=b"x") + END,
        ROOT + entry("other/evil", data=b"x") + END,
        ROOT + entry("evil", data=b"x") + END,
        entry("..", tarfile.DIRTYPE) + END,
        ROOT + entry("r/s", tarfile.SYMTYPE, linkname="..") + entry("r/s/evil", data=b"x") + END,
        ROOT + entry("r/s", tarfile.SYMTYPE, linkname="/") + entry("r/s/evil", tarfile.DIRTYPE) + END,
        ROOT + entry("r/evil", tarfile.LNKTYPE, linkname="/etc/passwd") + END,
        ROOT + entry("r/evil", tarfile.LNKTYPE, linkname="r/../../victim") + END,
        ROOT + entry("r/evil", tarfile.LNKTYPE, linkname="victim") + END,
        entry("r", tarfile.LNKTYPE, linkname="victim") + END,
        entry("r", tarfile.SYMTYPE, linkname="/etc") + entry("r/evil", data=b"x") + END,
        ROOT + entry("r/x" * 2000, data=b"x") + END,
    ],
)
def test_an_archive_cannot_reach_outside(tmp_path: Path, data: bytes) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "victim").write_text("safe")
    (inside / "victim").write_text("safe")
    with pytest.raises(HyperError):
        unpack(data, inside / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inside", "victim"]
    assert {p.name for p in inside.iterdir()} <= {"target", "victim"}
    assert (inside / "victim").read_text() == (tmp_path / "victim").read_text() == "safe"
    assert (tmp_path / "victim").stat().st_nlink == (inside / "victim").stat().st_nlink == 1


def test_devices_are_left_out(tmp_path: Path) -> None:
    data = ROOT + entry("r/sda", tarfile.BLKTYPE, devmajor=8) + entry("r/file", data=b"x") + END
    assert unpack(data, tmp_path / "target").skipped == ["sda"]
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["file"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ROOT,
        ROOT[:100],
        ROOT + entry("r/f", data=b"x" * 1000)[:-512] + END[:0],
        ROOT + entry("r/f", data=b"x" * 1000)[:700],
    ],
)
def test_an_archive_that_is_cut_off_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unavailable, match="ends early"):
        unpack(data, tmp_path / "target")


@pytest.mark.parametrize(
    "record",
    [
        b"9 path=\n",
        b"99999 path=a\n",
        b"path=a\n",
        b"-5 path=a\n",
        b"6 path",
        b"0 path=a\n",
        b"14 size=-1\n   ",
    ],
)
def test_damaged_records_are_errors(tmp_path: Path, record: bytes) -> None:
    with pytest.raises(HyperError):
        unpack(entry("x", b"x", record) + ROOT + END, tmp_path / "target")


def test_a_record_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 32
    with pytest.raises(InvalidRequest, match="a record of 4294967296 bytes"):
        unpack(info.tobuf(tarfile.GNU_FORMAT) + END, tmp_path / "target")


@pytest.mark.parametrize("seed", range(300))
def test_no_damage_makes_it_fail_otherwise_than_with_a_message(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(packed(a_tree(tmp_path / "source")) if seed < 3 else SMALL)
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with contextlib.suppress(HyperError):
        unpack(bytes(data), tmp_path / "target")


SMALL = (
    ROOT
    + entry("r/" + "n" * 150, data=b"x" * 600)
    + entry("r/s", tarfile.SYMTYPE, linkname="a")
    + entry("r/d", tarfile.DIRTYPE)
    + entry("r/h", tarfile.LNKTYPE, linkname="r/s")
    + END
)
