"""Tars of every format, good and bad, against Python's and GNU's own."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercontainer.errors import InvalidRequest
from hypercontainer.images import tar
from tests.support.images import Member, directory, hard_link, layer, symlink

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_every_format_is_read(format: int) -> None:
    data = layer(
        directory("d/"),
        Member(name="d/file", content=b"hello", mode=0o4755, uid=1000, gid=50),
        symlink("link", "d/file"),
        hard_link("hard", "d/file"),
        Member(name="null", kind=tarfile.CHRTYPE, device=(1, 3)),
        Member(name="pipe", kind=tarfile.FIFOTYPE),
        Member(name=f"{'l' * 90}/{'n' * 60}", content=b"long"),
        format=format,
    )
    found = list(tar.entries(data))
    kinds = [tar.DIRECTORY, tar.FILE, tar.SYMLINK, tar.HARD_LINK, tar.CHARACTER, tar.FIFO, tar.FILE]
    assert [entry.kind for entry in found] == kinds
    assert found[1] == tar.Entry(
        b"d/file", tar.FILE, 0o4755, 1000, 50, 5, 1_600_000_000, b"", 0, 0, found[1].data
    )
    assert data[found[1].data :][:5] == b"hello"
    assert found[2].link == found[3].link == b"d/file"
    assert (found[4].major, found[4].minor) == (1, 3)
    assert found[6].name == b"l" * 90 + b"/" + b"n" * 60


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_large_numbers_and_long_names_are_read(format: str) -> None:
    member = Member(name="x" * 200, uid=4_000_000_000, gid=3_000_000_000)
    data = layer(member, symlink("s", "y" * 300), format=FORMATS[format])
    file, link = tar.entries(data)
    assert (file.name, file.uid, file.gid) == (b"x" * 200, 4_000_000_000, 3_000_000_000)
    assert link.link == b"y" * 300


def test_times_are_brought_to_what_a_disk_can_keep() -> None:
    times = (-5, 5, 1 << 40)
    data = layer(*(Member(name=f"f{n}", mtime=time) for n, time in enumerate(times)))
    assert [entry.mtime for entry in tar.entries(data)] == [0, 5, (1 << 32) - 1]


def test_extended_attributes_are_kept_where_a_disk_has_them() -> None:
    pax = {
        "SCHILY.xattr.security.capability": "\x01\0\0\2\0\x20\0\0",
        "SCHILY.xattr.user.two": "a=b\nc",
        "SCHILY.xattr.system.posix_acl_access": "no",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    (entry,) = tar.entries(layer(Member(name="f", pax=pax)))
    assert entry.xattrs == (
        (b"security.capability", b"\x01\0\0\2\0\x20\0\0"),
        (b"user.two", b"a=b\nc"),
    )


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], ["--format=posix", "--sparse-version=0.0"], ["--format=posix", "--sparse-version=0.1"],
     ["--format=posix", "--sparse-version=1.0"]],
    ids=["gnu", "0.0", "0.1", "1.0"],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 40])
def test_sparse_files_of_gnu_tar_are_read(tmp_path: Path, options: list[str], pieces: int) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for piece in range(1, pieces + 1):
            file.seek(piece << 18)
            file.write(bytes([piece]) * 4096)
        file.truncate((pieces + 1) << 18)
    command: list[str | Path] = [
        "tar",
        "-C",
        tmp_path,
        "--sparse",
        "--hole-detection=seek",
        *options,
        "-cf",
        "-",
        "sparse",
    ]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    (entry,) = tar.entries(data)
    assert entry.name == b"sparse"
    content = bytearray(entry.size)
    assert entry.segments is not None
    for offset, start, length in entry.segments:
        content[offset : offset + length] = data[start : start + length]
    assert content == path.read_bytes()


@given(
    name=st.binary(min_size=1, max_size=300).map(lambda raw: raw.replace(b"\0", b"_").strip(b"/") or b"_"),
    uid=st.integers(0, tar.MAX_ID),
    size=st.integers(0, 1 << 40),
    mtime=st.integers(0, tar.MAX_MTIME),
    value=st.binary(max_size=200),
)
def test_what_is_written_is_read_alike_by_us_and_by_python(
    name: bytes, uid: int, size: int, mtime: int, value: bytes
) -> None:
    xattrs = ((b"user.any", value),)
    entry = tar.Entry(b"", tar.FILE, 0o640, uid, 7, size, mtime, b"", 0, 0, 0, xattrs)
    head = tar.header(entry, name=name, kind=tar.FILE, link=b"")
    with tarfile.open(fileobj=io.BytesIO(head + tar.END)) as archive:
        info = archive.next()
    assert info is not None
    assert info.name.encode("utf-8", "surrogateescape") == name
    assert (info.size, info.uid, int(info.mtime), info.mode) == (size, uid, mtime, 0o640)
    if size == 0:
        (again,) = tar.entries(head + tar.END)
        assert (again.name, again.uid, again.mtime, again.xattrs) == (name, uid, mtime, xattrs)


GOOD = layer(
    directory("d"),
    Member(name="f" * 150, content=b"content" * 100, pax={"SCHILY.xattr.user.a": "b"}),
    symlink("s", "f"),
)


@pytest.mark.parametrize("size", [100, 512, 700, 1600, len(GOOD) - 9000])
def test_an_archive_that_is_cut_off_is_refused(size: int) -> None:
    cut = GOOD[: size if size % 512 else size + 1]
    with pytest.raises(InvalidRequest):
        list(tar.entries(cut))


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255)), max_size=6), st.booleans())
def test_a_damaged_archive_gives_entries_or_a_fault_and_nothing_else(
    changes: list[tuple[int, int]], repair: bool
) -> None:
    data = bytearray(GOOD[:5120])
    for at, value in changes:
        data[at] = value
    if repair:  # so that the change isn't caught by the checksum alone
        for at in range(0, len(data), 512):
            block = data[at : at + 512]
            data[at + 148 : at + 156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    try:
        for entry in tar.entries(bytes(data)):
            assert 0 <= entry.data <= len(data) + 512
            assert 0 <= entry.size <= len(data) or entry.segments is not None
    except InvalidRequest:
        pass


def test_a_global_record_sets_owners_and_nothing_that_multiplies() -> None:
    output = io.BytesIO()
    records = {"uid": "7", "SCHILY.xattr.user.bomb": "x" * 9000, "path": "all-alike", "size": "1"}
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT, pax_headers=records) as archive:
        archive.addfile(tarfile.TarInfo("f"))
    (entry,) = tar.entries(output.getvalue())
    assert (entry.name, entry.uid, entry.xattrs) == (b"f", 7, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "99999999999999999999"),
        ("uid", "-1"),
        ("path", "a\0b"),
        ("mtime", "now"),
        ("gid", "4294967295"),
    ],
)
def test_impossible_values_are_refused(name: str, value: str) -> None:
    pax = {name: value}
    with pytest.raises(InvalidRequest):
        list(tar.entries(layer(Member(name="f", pax=pax))))


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.size": str(1 << 60), "GNU.sparse.map": "0,1"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,400"},
        {"GNU.sparse.size": "100000", "GNU.sparse.map": "9000,5,0,5"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
    ],
    ids=["huge", "beyond", "backwards", "no-map"],
)
def test_a_lying_sparse_map_is_refused(records: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        list(tar.entries(layer(Member(name="f", content=b"x" * 20, pax=records))))
