"""What is left when the daemon is killed, the disk is full, or the user is nobody in particular."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.config import Settings
from hypercontainer.errors import Unavailable
from hypercontainer.images.store import Images
from tests.images.support import import_, left_over, load, pull
from tests.support.faulty import Faulty, slow
from tests.support.images import Member, docker_archive, layer
from tests.support.registry import RegistryServer
from tests.support.squashfs import read_disk

LAYERS = [layer(Member(name=f"file-{n}", content=os.urandom(400_000))) for n in range(4)]

# A daemon that does one thing, to be killed while it does.
LOADER = """
import asyncio, concurrent.futures.thread, os, sys
from pathlib import Path
from hypercontainer.config import Settings
from hypercontainer.images.store import Images
from tests.images.support import load, pull

async def main(root, verb, what):
    images = Images(Path(root), settings=Settings())
    print("ready", flush=True)
    await (load(images, Path(what)) if verb == "load" else pull(images, what))
    print("done", flush=True)

if user := int(sys.argv[1]):  # only now: this checkout may be closed to others
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
asyncio.run(main(*sys.argv[2:]))
"""


def daemon(*arguments: str, user: int = 0) -> subprocess.Popen[bytes]:
    source = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{source}:{source / 'src'}"}
    return subprocess.Popen(
        [sys.executable, "-c", LOADER, str(user), *arguments], stdout=subprocess.PIPE, env=environment
    )


async def check(root: Path) -> bool:
    """After a kill: a new store is consistent, has no litter, and each image in it is whole."""
    store = Images(root, settings=Settings())
    await store.collect()
    found = store.list()
    for image in found:
        assert read_disk(await store.disk(image)).keys() == {b"file-%d" % n for n in range(4)}
    kept = [path for path in left_over(root) if path.parent.name != "downloads"]
    assert len(kept) == (5 if found else 0)  # four layers and a disk
    store.close()
    return bool(found)


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 10, 15, 20, 25, 30, 40, 60, 100])
async def test_a_daemon_killed_while_it_loads_leaves_all_or_nothing(
    root: Path, tmp_path: Path, delay_ms: int
) -> None:
    path = docker_archive(tmp_path / "x.tar", layers=LAYERS, tags=["x:1"])
    child = daemon(str(root), "load", str(path))
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        await asyncio.sleep(delay_ms / 1000)
        child.send_signal(signal.SIGKILL)
        was_done = b"done" in child.stdout.read()
    child.wait()
    assert await check(root) or not was_done


async def test_a_daemon_killed_while_it_pulls_goes_on_with_what_it_had(
    root: Path, tmp_path: Path, registry: RegistryServer, proxy: Faulty
) -> None:
    path = docker_archive(tmp_path / "x.tar", layers=LAYERS, tags=["x:1"])
    registry.push(path, "killed:1")
    proxy.faults = [slow("/blobs/", 0.05)]
    child = daemon(str(root), "pull", f"{proxy.host}/killed:1")
    assert child.stdout is not None
    with child.stdout:
        while not list(root.glob("downloads/*")):  # noqa: ASYNC110  (it is another process that makes them)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        child.kill()
    child.wait()
    assert not await check(root)
    proxy.faults = []
    store = Images(root, settings=Settings())
    await pull(store, f"{proxy.host}/killed:1")
    store.close()
    assert await check(root)
    assert not list((root / "downloads").iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount], check=True)
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.mark.parametrize("size", [200_000, 1_045_000, 1_500_000, 4_000_000])
async def test_a_full_disk_is_told_and_nothing_is_left(small_disk: Path, tmp_path: Path, size: int) -> None:
    """Each size runs out of room at another step: the disk, the layers, the archive."""
    store = Images(small_disk, settings=Settings())
    path = tmp_path / "x.tar"
    docker_archive(path, layers=[layer(Member(name="a", content=os.urandom(size)))], tags=["x"])
    if size == 200_000:
        await load(store, path)
        await store.remove("x")
    else:
        with pytest.raises(Unavailable, match="no space left") as caught:
            await load(store, path)
        assert "free some space" in caught.value.hint
        assert store.list() == []
    assert left_over(small_disk) == []
    assert list((small_disk / "tmp").iterdir()) == []
    store.close()


async def test_a_full_disk_is_told_by_import_and_pull(
    small_disk: Path, tmp_path: Path, registry: RegistryServer, proxy: Faulty
) -> None:
    store = Images(small_disk, settings=Settings())
    root = tmp_path / "root.tar"
    root.write_bytes(layer(Member(name="a", content=os.urandom(1_600_000))))
    with pytest.raises(Unavailable, match="no space left"):
        await import_(store, root, "x:1")
    assert left_over(small_disk) == []
    content = [os.urandom(1_900_000), os.urandom(1_900_000)]
    big = docker_archive(
        tmp_path / "x.tar", layers=[layer(Member(name="a", content=data)) for data in content]
    )
    registry.push(big, "big:1")
    with pytest.raises(Unavailable, match="no space left"):
        await pull(store, f"{proxy.host}/big:1")
    assert store.list() == []
    assert list((small_disk / "tmp").iterdir()) == []
    store.close()


async def test_a_plain_user_loads_images_too() -> None:
    if os.geteuid() != 0:
        pytest.skip("already tested: this whole suite runs as a plain user")
    base = Path(f"/tmp/hyper-test-{os.getpid()}")
    base.mkdir()
    try:
        path = docker_archive(base / "x.tar", layers=LAYERS, tags=["x:1"])
        base.chmod(0o755)
        root = base / "images"
        root.mkdir()
        os.chown(root, 65534, 65534)
        child = daemon(str(root), "load", str(path), user=65534)
        assert b"done" in child.communicate()[0]
        assert await check(root)
    finally:
        subprocess.run(["rm", "-rf", base], check=True)
