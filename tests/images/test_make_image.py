"""The tool that makes images out of the host's packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypercontainer.images.store import Images
from tests.images.support import load
from tests.support.squashfs import read_disk
from tools import make_image

TOOL = Path(make_image.__file__)


async def test_busybox_is_made_and_loaded(images: Images, tmp_path: Path) -> None:
    subprocess.run([sys.executable, TOOL, "busybox", tmp_path / "b.tar"], check=True)
    lines = await load(images, tmp_path / "b.tar")
    assert lines[-1].status == "Loaded image: busybox:latest"
    found = read_disk(await images.disk(images.get("busybox")))
    assert found[b"bin/busybox"].mode == 0o755
    assert found[b"bin/sh"].content == b"busybox"
    assert found[b"tmp"].mode == 0o1777
    assert images.get("busybox").config.cmd == ["sh"]


def test_busybox_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        subprocess.run([sys.executable, TOOL, "busybox", tmp_path / name, "--tag", "x:1"], check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_debian_comes_from_the_sources_of_this_host() -> None:
    command = make_image.debian_command(["python3", "nginx"], Path("layer.tar"))
    assert command[0] == "mmdebstrap"
    assert "--include=python3,nginx" in command or "--include=python3,nginx,ca-certificates" in command
    sources = [str(path) for path in make_image.apt_sources()]
    assert command[-len(sources) - 2 :] == [make_image.release(), "layer.tar", *sources]
