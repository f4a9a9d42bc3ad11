"""Copying into and out of containers: hyperstart's tar against Python's tarfile and GNU tar."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.protocol import NO_SLOT, RemoveContainer, SignalProcess, Source, StartArchive
from tests.guest.laboratory import POD_SLOT, Pod, a_bind, a_file, a_tmpfs, as_root, finish

OTHERS = ("dangling", "fifo", "open", "empty")
TREE = r"""
mkdir -p /tree/deep/er && cd /tree
printf 'hello\n' >file; chmod 4755 file; touch -d '2001-02-03 04:05:06' file
ln file deep/twin; ln -s ../file deep/link; ln -s /nowhere dangling; mkfifo fifo; mkdir -m 1777 open
head -c 100000 /dev/urandom >deep/er/blob; : >empty
chown 1000:10 deep; touch -d '1999-12-31 23:59:59' deep
"""


# --- Making tar streams ---


def a_tar(
    *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT
) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as tar:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def a_member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def file_(name: str, data: bytes = b"data", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return a_member(name, **fields), data


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return a_member(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    return a_member(name, tarfile.LNKTYPE, linkname=target)


def directory(name: str, **fields: Any) -> tarfile.TarInfo:
    return a_member(name, tarfile.DIRTYPE, **fields)


def opened(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar.getmembers()}


def content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


async def packed(pod: Pod, path: str, **options: object) -> bytes:
    result = await pod.pack(path, **options)  # type: ignore[arg-type]
    assert (result.status, result.errors) == (0, b"")
    return result.output


async def unpacked(pod: Pod, path: str, *members: object, **options: object) -> None:
    result = await pod.unpack(path, a_tar(*members), **options)  # type: ignore[arg-type]
    assert (result.status, result.errors) == (0, b"")


async def refused(pod: Pod, path: str, *members: object) -> bytes:
    result = await pod.unpack(path, a_tar(*members))  # type: ignore[arg-type]
    assert result.status == 1
    assert result.errors
    return result.errors


# --- Packing ---


@as_root
async def test_a_tree_is_packed_with_all_that_it_is(pod: Pod) -> None:
    await pod.output(TREE)
    data = await packed(pod, "/tree")
    members = opened(data)
    assert set(members) == {"tree"} | {
        f"tree/{name}"
        for name in (*("file", "deep", "deep/twin", "deep/link", "deep/er", "deep/er/blob"), *OTHERS)
    }
    file, twin = members["tree/file"], members["tree/deep/twin"]
    first, second = (file, twin) if file.isreg() else (twin, file)
    assert (first.mode, first.size, first.mtime) == (0o4755, 6, 981173106)
    assert (second.type, second.linkname) == (tarfile.LNKTYPE, first.name)
    assert members["tree/deep/link"].linkname == "../file"
    assert members["tree/dangling"].linkname == "/nowhere"
    assert members["tree/fifo"].isfifo()
    assert members["tree/open"].mode == 0o1777
    deep = members["tree/deep"]
    assert (deep.uid, deep.gid, deep.mtime) == (1000, 10, 946684799)
    assert content(data, first.name) == b"hello\n"
    assert len(content(data, "tree/deep/er/blob")) == 100000


@as_root
async def test_gnu_tar_unpacks_what_was_packed_and_finds_no_fault(pod: Pod, tmp_path: Path) -> None:
    await pod.output(TREE)
    await pod.output(
        "cd /tree/deep; d=$(printf '%0200d' 1)/$(printf '%0200d' 2); mkdir -p $d; echo x >$d/long"
    )
    data = await packed(pod, "/tree")
    run = subprocess.run(
        ["tar", "-C", tmp_path, "-xp", "--numeric-owner"], input=data, capture_output=True, check=True
    )
    assert run.stderr == b""
    upper = pod.writable / "c1/upper/tree"
    comparison = ["tar", "-C", str(upper.parent), "--compare", "--numeric-owner"]
    differences = subprocess.run(comparison, input=data, capture_output=True).stdout.splitlines()
    assert all(line.endswith(b": Mod time differs") for line in differences), differences  # of whole seconds
    assert (tmp_path / "tree/deep/twin").stat().st_nlink == 2
    assert next((tmp_path / "tree/deep").rglob("long")).read_text() == "x\n"


async def test_what_ustar_has_no_room_for_is_in_pax_records(pod: Pod) -> None:
    name, target = "n" * 150, "t" * 150
    await pod.output(f"mkdir /d; : >/d/{name}; ln -s {target} /d/link; touch -d @-5 /d/old; ls /d")
    members = opened(await packed(pod, "/d"))
    assert f"d/{name}" in members
    assert members["d/link"].linkname == target


@as_root
async def test_large_ids_and_attributes_are_packed_and_unpacked(pod: Pod) -> None:
    await pod.output("mkdir /d; echo x >/d/x; chown 3000000:4000000 /d/x")
    upper = pod.writable / "c1/upper"
    os.setxattr(upper / "d/x", "user.note", b"a=b\n\0binary")
    os.setxattr(upper / "d", "user.directory", b"1")
    data = await packed(pod, "/d")
    member = opened(data)["d/x"]
    assert (member.uid, member.gid) == (3000000, 4000000)
    assert "SCHILY.xattr.user.note" in member.pax_headers
    await pod.output("mkdir /copy")
    assert (await pod.unpack("/copy", data)).status == 0
    copy = upper / "copy/d/x"
    assert os.getxattr(copy, "user.note") == b"a=b\n\0binary"
    assert os.getxattr(upper / "copy/d", "user.directory") == b"1"
    assert (copy.stat().st_uid, copy.stat().st_gid) == (3000000, 4000000)


async def test_a_file_is_packed_by_its_own_name_and_a_link_as_a_link_unless_followed(pod: Pod) -> None:
    await pod.output("echo one >/etc/one; ln -s one /etc/link; mkdir /etc/d; ln -s d /etc/to-d; : >/etc/d/x")
    assert content(await packed(pod, "/etc/one"), "one") == b"one\n"
    assert opened(await packed(pod, "/etc/link"))["link"].linkname == "one"
    assert content(await packed(pod, "/etc/link", follow=True), "link") == b"one\n"
    assert set(opened(await packed(pod, "/etc/to-d", follow=True))) == {"to-d", "to-d/x"}
    assert set(opened(await packed(pod, "/etc/to-d/."))) == {".", "./x"}
    assert set(opened(await packed(pod, "/../etc/d"))) == {"d", "d/x"}


@as_root
async def test_the_root_is_packed_without_what_the_kernel_shows_in_it(bare: Pod) -> None:
    mounts = (a_tmpfs("/scratch"), a_bind(Source(POD_SLOT, "volumes/v"), "/volume"))
    await bare.create(mounts=mounts, files=(a_file("/etc/hosts", b"hosts\n"),))
    await bare.output("echo s >/scratch/s; echo v >/volume/v")
    data = await packed(bare, "/")
    names = set(opened(data))
    assert {".", "./proc", "./sys", "./dev", "./bin/busybox", "./scratch/s", "./volume/v"} <= names
    assert not any(name.startswith(("./proc/", "./sys/", "./dev/")) for name in names)
    assert content(data, "./etc/hosts") == b"hosts\n"


async def test_a_file_that_shrinks_or_grows_meanwhile_leaves_a_good_tar(pod: Pod) -> None:
    await pod.output("mkdir /d; head -c 8000000 /dev/zero >/d/a; echo last >/d/z")
    script = "while :; do head -c 9000000 /dev/zero >>/d/a; : >/d/a; done"
    process = await pod.start("sh", "-c", script)
    for _ in range(5):
        result = await pod.pack("/d")
        members = opened(result.output)
        assert content(result.output, "d/z") == b"last\n"
        assert members["d/a"].size == len(content(result.output, "d/a"))
        assert (result.status == 1) == (b"No data available" in result.errors)
    await pod.agent.request(SignalProcess(process.number, 9, False))


@pytest.mark.parametrize("path", ["/nothing", "/etc/passwd/x", "/nothing/x", "x" * 5000])
async def test_what_is_not_there_is_told_before_it_starts(pod: Pod, path: str) -> None:
    for unpack in (True, False):
        with pytest.raises(GuestError) as caught:
            await pod.agent.start_process(StartArchive(4_000_000, "c1", path, unpack, False, True))
        assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
        assert caught.value.operation == "open"
    with pytest.raises(GuestError) as caught:
        await pod.agent.start_process(StartArchive(4_000_000, "c2", "/", True, False, True))
    assert caught.value.errno == errno.ENOENT


# --- Unpacking ---


@as_root
@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "pax"])
async def test_a_tree_of_gnu_tar_comes_out_the_same(pod: Pod, tmp_path: Path, format: str) -> None:
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "file").write_bytes(os.urandom(70000))
    os.chown(tree / "file", 1000, 10)
    (tree / "file").chmod(0o4750)
    os.link(tree / "file", tree / "deep/twin")
    (tree / "deep/link").symlink_to("../file")
    if format not in ("v7", "ustar"):
        (tree / "deep" / ("long" * 60)).write_text("long\n")
    if format != "v7":
        os.mkfifo(tree / "fifo")
        os.mknod(tree / "null", 0o020666, os.makedev(1, 3))
    os.utime(tree / "deep", (1, 978307200))
    os.utime(tree / "file", (1, 978307200))
    command = ["tar", "-C", str(tmp_path), f"--format={format}", "-c", "tree"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    result = await pod.unpack("/tmp", data)
    assert (result.status, result.errors) == (0, b"")
    comparison = ["tar", "-C", str(pod.writable / "c1/upper/tmp"), "--compare"]
    compared = subprocess.run(comparison, input=data, capture_output=True)
    assert (compared.returncode, compared.stdout, compared.stderr) == (0, b"", b"")
    copy = pod.writable / "c1/upper/tmp/tree"
    assert (copy / "deep").stat().st_mtime == 978307200


@as_root
async def test_owners_are_found_by_name_then_by_number_or_are_those_of_the_directory(pod: Pod) -> None:
    await pod.output("mkdir /joes /named; chown joe:joe /joes")
    members = (
        file_("by-name", uid=5, gid=6, uname="joe", gname="wheel"),
        file_("by-number", uid=5, gid=6, uname="nobody-here", gname=""),
    )
    await unpacked(pod, "/named", *members)
    assert await pod.output("cd /named; stat -c '%u %g' by-name by-number") == "1000 10\n5 6\n"
    await unpacked(pod, "/joes", *members, directory("made/here"), keep_owners=False)
    await unpacked(pod, "/joes", file_("implied/x"), keep_owners=False)
    names = "by-name by-number made made/here implied implied/x"
    assert await pod.output(f"cd /joes; stat -c '%u %g' {names}") == "1000 1000\n" * 6


@as_root
async def test_a_directory_that_is_there_is_merged_and_the_target_stays_as_it_is(pod: Pod) -> None:
    await pod.output("mkdir -m 700 /tmp/d; chown joe /tmp/d; echo old >/tmp/d/old")
    members = (directory(".", mode=0o700), directory("d", mode=0o750), file_("d/new"))
    await unpacked(pod, "/tmp", *members, keep_owners=False)
    assert await pod.output("stat -c '%a %u' /tmp /tmp/d; cat /tmp/d/old /tmp/d/new") == (
        "1777 0\n750 1000\nold\ndata"
    )


async def test_fields_of_pax_records_count(pod: Pod) -> None:
    info = a_member("short", pax_headers={"path": "long/" + "x" * 120, "mtime": "1000000000.25"})
    await unpacked(pod, "/tmp", (info, b"data"))
    path = "/tmp/long/" + "x" * 120
    assert await pod.output(f"stat -c '%s %Y' {path}; stat -c %y {path}") == (
        "4 1000000000\n2001-09-09 01:46:40.250000000 +0000\n"
    )


async def test_what_is_there_is_replaced_and_never_written_through(pod: Pod) -> None:
    await pod.output(
        "cd /tmp; echo keep >kept; ln kept twin; ln -s kept link; echo out >/outside; ln -s /outside away"
    )
    await unpacked(pod, "/tmp", file_("twin", b"new"), file_("link", b"new"), file_("away", b"new"))
    assert await pod.output(
        "cd /tmp; cat kept /outside; cat twin link away; test ! -h link && echo file"
    ) == ("keep\nout\nnewnewnewfile\n")


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
async def test_a_directory_does_not_take_the_place_of_something_else_nor_the_reverse(
    pod: Pod, kind: str
) -> None:
    makers = {
        "file": file_("here"),
        "link": symlink("here", "etc"),
        "fifo": a_member("here", tarfile.FIFOTYPE),
    }
    await pod.output("mkdir -p /a/here/x /b/etc")
    assert b"Is a directory" in await refused(pod, "/a", makers[kind])
    await unpacked(pod, "/b", makers[kind])
    assert b"Not a directory" in await refused(pod, "/b", directory("here"))
    assert await pod.output("ls /a/here") == "x\n"


# --- Hostile streams ---


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "a/b/../../../x", ".."])
async def test_a_name_that_leads_above_the_target_is_refused(pod: Pod, name: str) -> None:
    assert name.encode() in await refused(pod, "/tmp", file_(name))
    assert "x" not in (await pod.output("ls / /tmp")).split()


async def test_an_absolute_name_stays_below_the_target(pod: Pod) -> None:
    await unpacked(pod, "/tmp", file_("/etc/x"), file_("./a/../b//c"), symlink("to", "/etc"))
    assert await pod.output("cd /tmp; cat etc/x b/c; readlink to; ls /etc") == "datadata/etc\ngroup\npasswd\n"


@pytest.mark.parametrize("target", ["/etc", "../etc", "/", "..", "/proc/1/root/etc", "../../../../../etc"])
async def test_a_link_of_the_stream_is_not_followed(pod: Pod, target: str) -> None:
    for victim in (
        file_("link/new"),
        directory("link/new"),
        hard_link("link/new", "ok"),
        symlink("link/new", "x"),
    ):
        await refused(pod, "/tmp", file_("ok"), symlink("link", target), victim)
    await refused(pod, "/tmp", symlink("link", target), hard_link("stolen", "link/passwd"))
    # by another name of the same link
    await refused(pod, "/tmp", symlink("one", target), hard_link("two", "one"), file_("two/new"))
    assert await pod.output("ls /etc; ls -d /new 2>&1 | grep -c No") == "group\npasswd\n1\n"


async def test_a_link_that_was_there_is_followed_inside_the_root(pod: Pod, tmp_path: Path) -> None:
    await pod.output(
        "mkdir -p /usr/lib /data; ln -s usr/lib /lib; ln -s /../../../data /up; ln -s ../up /data/round"
    )
    await unpacked(pod, "/", file_("lib/x"), file_("up/y"), file_("data/round/z"))
    assert await pod.output("cd /; cat usr/lib/x data/y data/z; ls data") == "datadatadataround\ny\nz\n"


async def test_a_hard_link_leads_nowhere_else(pod: Pod) -> None:
    for target in ("../etc/passwd", "missing", "", "/../etc/passwd"):
        await refused(pod, "/tmp", hard_link("link", target))
    await refused(pod, "/tmp", hard_link("link", "/etc/passwd"))  # below the target
    await unpacked(pod, "/tmp", file_("one"), hard_link("two", "one"), hard_link("one", "one"))
    assert await pod.output("cat /tmp/one /tmp/two") == "datadata"


@as_root
async def test_attributes_that_are_the_kernels_are_left_out(pod: Pod) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.fine": "1"}
    await unpacked(pod, "/tmp", (directory("d", pax_headers=headers), b""))
    assert os.listxattr(pod.writable / "c1/upper/tmp/d") in (
        ["user.fine"],
        ["user.fine", "trusted.overlay.opaque"],  # overlayfs' own, of a directory that the image has not
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda tar: tar[:700],
        lambda tar: tar[:100],
        lambda tar: b"\x1f\x8b" + tar[2:],
        lambda tar: tar[:148] + b"0000000\0" + tar[156:],
        lambda tar: b"junk" * 300,
    ],
)
async def test_a_damaged_stream_is_told(pod: Pod, damage: object) -> None:
    tar = damage(a_tar(file_("x", b"y" * 1000)))  # type: ignore[operator]
    result = await pod.unpack("/tmp", tar)
    assert result.status == 1
    assert b"tar" in result.errors or b"Bad message" in result.errors


@pytest.mark.parametrize("tar", [b"", bytes(1024), a_tar(file_("x"))[:1024], a_tar(file_("x")) + b"junk"])
async def test_an_end_without_zeros_and_zeros_without_an_end_are_fine(pod: Pod, tar: bytes) -> None:
    result = await pod.unpack("/tmp", tar)
    assert (result.status, result.errors) == (0, b"")


async def test_sparse_archives_are_refused_rather_than_misread(pod: Pod, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x")
    for format in ("gnu", "pax"):
        command = ["tar", "-C", str(tmp_path), f"--format={format}", "-Sc", "sparse"]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        assert (await pod.unpack("/tmp", data)).status == 1


# --- As processes ---


async def test_a_large_tree_passes_with_credit_and_a_reader_that_reconnects(pod: Pod) -> None:
    await pod.output("mkdir /big; head -c 3000000 /dev/urandom >/big/blob")
    before = await pod.output("sha256sum </big/blob")
    data = await packed(pod, "/big")
    await pod.output("rm -r /big")
    result = await pod.unpack("/", data)
    assert (result.status, result.errors) == (0, b"")
    assert await pod.output("sha256sum </big/blob") == before


async def test_a_container_whose_main_process_ended_can_be_copied_from_and_to(pod: Pod) -> None:
    await pod.run("sh", "-c", "echo x >/result", is_main=True)
    assert content(await packed(pod, "/result"), "result") == b"x\n"
    await unpacked(pod, "/", file_("added"))
    assert await pod.output("cat /added") == "data"


async def test_an_archive_outlives_the_main_process_and_ends_with_the_container(pod: Pod) -> None:
    main = await pod.start("sleep", "100", is_main=True)
    unpacking = await pod.agent.start_process(StartArchive(4_000_001, "c1", "/tmp", True, False, True))
    await pod.agent.request(SignalProcess(main.number, 9, True))
    await finish(main)
    tar = a_tar(file_("x"))
    await unpacking.write(tar[:600])
    await pod.agent.request(RemoveContainer("c1", erase=True))
    assert (await finish(unpacking)).status == 137


async def test_an_archive_is_signalled_as_any_process(pod: Pod) -> None:
    process = await pod.agent.start_process(StartArchive(4_000_002, "c1", "/tmp", True, False, True))
    await pod.agent.request(SignalProcess(process.number, 15, False))
    assert (await finish(process)).status == 143


async def test_a_container_does_not_see_who_copies(pod: Pod) -> None:
    await pod.start("sleep", "100", is_main=True)
    process = await pod.agent.start_process(StartArchive(4_000_003, "c1", "/tmp", True, False, True))
    assert "hyperstart" not in "".join((await pod.output("ps")).splitlines(keepends=True)[2:])
    await process.write_end()
    assert (await finish(process)).status == 0


async def test_memory_is_a_place_too(bare: Pod) -> None:
    await bare.create(writable=Source(NO_SLOT, ""))
    await unpacked(bare, "/tmp", file_("x"))
    assert content(await packed(bare, "/tmp"), "tmp/x") == b"data"
