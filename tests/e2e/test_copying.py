"""``hyper cp``: files in and out of containers that run, and of those that do not."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.e2e.hyper import Hyper


def a_container(hyper: Hyper, *, running: bool) -> None:
    verb = ["run", "-d"] if running else ["create"]
    hyper.ok(*verb, "--network", "none", "--name", "c", "--stop-signal", "KILL", "busybox", "sleep", "1000")


@pytest.mark.every_driver
@pytest.mark.parametrize("running", [True, False])
def test_a_tree_goes_in_and_comes_out_the_same(hyper: Hyper, tmp_path: Path, running: bool) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/data").write_bytes(os.urandom(300_001))
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("/etc/passwd")
    a_container(hyper, running=running)
    hyper.ok("cp", str(tree), "c:/srv")
    hyper.ok("cp", "c:/srv", str(tmp_path / "back"))
    assert (tmp_path / "back/deep/data").read_bytes() == (tree / "deep/data").read_bytes()
    assert (tmp_path / "back/run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "back/link").readlink() == Path("/etc/passwd")
    assert hyper.state("c") == ("running" if running else "created")
    if not running:
        assert hyper.ok("list", "-q", "vm") == ""
        hyper.ok("start", "c")
    assert hyper.ok("exec", "c", "/srv/run") == "ran"


@pytest.mark.every_driver
def test_a_link_in_the_container_is_followed_inside_of_it_as_docker_does(
    hyper: Hyper, tmp_path: Path
) -> None:
    """A link to a file, with .. behind a link to a directory; one that leads nowhere; one to itself."""
    a_container(hyper, running=True)
    links = tmp_path / "links"
    (links / "real/deep").mkdir(parents=True)
    (links / "real/file").write_text("old\n")
    (links / "directory").symlink_to("/links/real/deep")
    (links / "real/deep/up").symlink_to("../file")
    (links / "new").symlink_to("../../../../links/real/made")
    (links / "loop").symlink_to("loop")
    hyper.ok("cp", str(links), "c:/")
    (tmp_path / "file").write_text("new\n")
    for target in ("/links/directory/up", "/links/new", "/links/directory/"):
        hyper.ok("cp", str(tmp_path / "file"), f"c:{target}")
    assert "too many symbolic links" in hyper("cp", str(tmp_path / "file"), "c:/links/loop").err
    hyper.ok("cp", "c:/links", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert [(back / name).is_symlink() for name in ("directory", "new", "real/deep/up")] == [True] * 3
    assert [(back / "real" / name).read_text() for name in ("file", "made", "deep/file")] == ["new\n"] * 3


def test_cp_keeps_the_end_and_the_output_of_what_ran(hyper: Hyper, tmp_path: Path) -> None:
    hyper("run", "--network", "none", "--name", "c", "busybox", "sh", "-c", "echo said; echo x > /f; exit 3")
    hyper.ok("cp", "c:/f", str(tmp_path))
    assert (tmp_path / "f").read_text() == "x\n"
    assert hyper.ok("logs", "c") == "said"
    assert hyper.ok("wait", "c") == "3"


def test_a_tar_goes_through_the_standard_streams(hyper: Hyper) -> None:
    a_container(hyper, running=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("made/file")
        info.size, info.uid = 4, 1234
        archive.addfile(info, io.BytesIO(b"data"))
    hyper.ok("cp", "-a", "-", "c:/tmp", stdin=packed.getvalue())
    assert hyper.ok("exec", "c", "stat", "-c", "%u %s", "/tmp/made/file") == "1234 4"
    out = hyper("cp", "c:/tmp/made", "-")
    with tarfile.open(fileobj=io.BytesIO(out.stdout)) as archive:
        assert archive.getnames() == ["made", "made/file"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["c:/nothing", "."], "there is no '/nothing' in the container"),
        (["/nothing", "c:/"], "No such file or directory"),
        (["/etc/hostname", "c:/no/such/place"], "there is no '/no/such' in the container"),
        (["/etc", "c:/bin/busybox"], "cannot copy a directory over the file"),
        (["c:/etc", "d:/etc"], "cannot copy between containers"),
        (["/etc", "/tmp"], "cannot copy between two places of this host"),
        (["nobody:/etc", "/tmp"], "no such container: nobody"),
    ],
)
def test_what_cannot_be_copied_is_told(hyper: Hyper, words: list[str], message: str) -> None:
    a_container(hyper, running=True)
    result = hyper("cp", *words)
    assert result.status == 1
    assert message in result.err


def test_what_fails_in_the_middle_is_told(hyper: Hyper, tmp_path: Path) -> None:
    """A file system that is full, and a program that changes what is packed."""
    hyper.ok("run", "-d", "--network", "none", "--name", "c", "busybox", "sleep", "1000")
    (tmp_path / "large").write_bytes(bytes(70 << 20))
    result = hyper("cp", str(tmp_path / "large"), "c:/dev/shm")
    assert result.status == 1
    assert "No space left on device" in result.err
    assert hyper.ok("exec", "c", "echo", "alive") == "alive"
