"""Volumes of machines that run: with another pod in place of one, and with containers that come and go."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.errors import CommandNotFound, Conflict, GuestError, InvalidRequest, Unsupported
from tests.api.engines import a_spec, added, an_engine, printed, shell, until_printed

pytestmark = pytest.mark.needs_machine


def host(source: Path, name: str = "host", **fields: Any) -> dict[str, Any]:
    source.mkdir(exist_ok=True)
    return {"name": name, "kind": "host", "source": str(source), **fields}


def raw(source: Path, name: str = "raw") -> dict[str, Any]:
    if not source.exists():
        subprocess.run([e2fs("mke2fs"), "-q", "-F", "-t", "ext4", str(source), "8M"], check=True)
    return {"name": name, "kind": "raw", "source": str(source)}


def e2fs(name: str) -> str:
    return shutil.which(name) or f"/sbin/{name}"


def mounts(**targets: str) -> tuple[dict[str, Any], ...]:
    """Of volumes by name, each at a target."""
    return tuple({"target": target, "volume": name} for name, target in targets.items())


def shared(engine: Engine) -> set[str]:
    """What the only machine is shown of the host."""
    (machine,) = engine.machines()
    return {entry.name for entry in (engine.host.paths.machines / machine.id / "shares").iterdir()}


def opened(engine: Engine, path: Path) -> bool:
    """Whether the only machine's VMM has ``path`` open."""
    (machine,) = engine.machines()
    files = Path(f"/proc/{machine.pid}/fd")
    return any(is_same(fd, path) for fd in files.iterdir())


def is_same(descriptor: Path, path: Path) -> bool:
    """False for one that was closed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return descriptor.samefile(path)
    return False


# --- Disk images ---


async def test_an_image_that_was_not_unmounted_can_be_read(engine: Engine, tmp_path: Path) -> None:
    """Its journal cannot be replayed, as nothing may be written to it."""
    volume = raw(tmp_path / "image")
    feature = [e2fs("debugfs"), "-w", "-R", "feature needs_recovery", str(tmp_path / "image")]
    subprocess.run(feature, check=True, capture_output=True)
    before = (tmp_path / "image").read_bytes()
    reader = shell("ls /r", mounts=({"target": "/r", "volume": "raw", "read_only": True},))
    await engine.create_pod(a_spec(reader, name="p", volumes=[volume]))
    await engine.start_pod("p")
    assert await engine.wait_pod("p") == 0
    assert await printed(engine, "p") == "lost+found\n"
    assert (tmp_path / "image").read_bytes() == before


async def test_an_image_of_a_container_that_cannot_be_mounted_is_let_go(
    engine: Engine, tmp_path: Path
) -> None:
    await engine.create_pod(a_spec({"name": "stays"}, name="p"))
    await engine.start_pod("p")
    bad = (*mounts(raw="/r"), {"target": "/bin/sh/no", "options": ["size=1m"]})
    await engine.add_container("p", added(raw(tmp_path / "image"), name="c", mounts=bad))
    with pytest.raises(GuestError, match="/bin/sh/no"):
        await engine.start_container("c")
    await engine.remove_container("c")
    assert not opened(engine, tmp_path / "image")


# --- Another pod in place of one ---

COUNT = "echo run >> {0}/runs; wc -l < {0}/runs; exec sleep 1000"


async def an_old_pod(engine: Engine, tmp_path: Path) -> None:
    """With a directory of the host and an image, which it writes to at every start."""
    script = f"dd if=/dev/zero of=/h/large bs=1k count=3000 2>/dev/null; {COUNT.format('/h')}"
    containers = (
        shell(script, name="dir", mounts=mounts(host="/h")),
        shell(COUNT.format("/r"), name="disk", mounts=mounts(raw="/r")),
    )
    volumes = [host(tmp_path / "old"), raw(tmp_path / "old.img")]
    await engine.create_pod(a_spec(*containers, name="old", volumes=volumes))
    await engine.start_pod("old")
    await until_printed(engine, "dir", "1\n")
    await until_printed(engine, "disk", "1\n")


async def test_a_new_pod_has_its_own_volumes_and_the_old_one_lets_go_of_its(
    engine: Engine, tmp_path: Path
) -> None:
    await an_old_pod(engine, tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/file").write_text("more\n")
    script = "cat /more/file; echo out > /h/out; ls /r; echo x > /r/x; exec sleep 1000"
    new = shell(script, name="n", mounts=mounts(host="/h", more="/more", raw="/r"))
    volumes = [host(tmp_path / "new"), host(tmp_path / "more", "more"), raw(tmp_path / "new.img")]
    await engine.create_pod(a_spec(new, name="new", volumes=volumes))
    await engine.replace_pod("old", "new")
    await until_printed(engine, "n", "more\nlost+found\n")
    assert (tmp_path / "new/out").read_text() == "out\n"
    assert (tmp_path / "old/large").stat().st_size == 3000 * 1024  # nobody has synced it
    assert not (tmp_path / "old/out").exists()
    assert shared(engine) == {"rw-host", "rw-more"}
    assert not opened(engine, tmp_path / "old.img")
    await engine.create_pod(
        a_spec(
            shell("cat /r/runs", mounts=mounts(raw="/r")), name="third", volumes=[raw(tmp_path / "old.img")]
        )
    )
    await engine.start_pod("third")
    assert await engine.wait_pod("third") == 0
    assert await printed(engine, "third") == "run\n"


async def test_an_image_of_the_old_pod_can_be_the_new_ones(engine: Engine, tmp_path: Path) -> None:
    await an_old_pod(engine, tmp_path)
    new = shell(
        "cat /r/runs; exec sleep 1000",
        name="n",
        mounts=({"target": "/r", "volume": "raw", "read_only": True},),
    )
    await engine.create_pod(a_spec(new, name="new", volumes=[raw(tmp_path / "old.img")]))
    await engine.replace_pod("old", "new")
    await until_printed(engine, "n", "run\n")
    await engine.replace_pod("new", "old")
    await until_printed(engine, "disk", "1\n2\n")
    assert shared(engine) == {"rw-host"}


async def test_an_old_pod_that_runs_again_has_its_volumes_again(engine: Engine, tmp_path: Path) -> None:
    await an_old_pod(engine, tmp_path)
    new = {"command": ("nothere",), "mounts": mounts(host="/h", one="/r", two="/s")}
    images = [raw(tmp_path / f"{name}.img", name) for name in ("one", "two")]
    await engine.create_pod(a_spec(new, {}, name="new", volumes=[host(tmp_path / "new"), *images]))
    with pytest.raises(CommandNotFound, match="pod old runs again"):
        await engine.replace_pod("old", "new")
    await until_printed(engine, "dir", "1\n2\n")
    await until_printed(engine, "disk", "1\n2\n")
    assert (tmp_path / "old/runs").read_text() == "run\nrun\n"
    assert shared(engine) == {"rw-host"}
    assert not any(opened(engine, tmp_path / f"{name}.img") for name in ("one", "two"))


async def test_an_image_that_a_third_pod_writes_is_refused_before_anything_stops(
    engine: Engine, tmp_path: Path
) -> None:
    await an_old_pod(engine, tmp_path)
    user = {"mounts": mounts(raw="/r")}
    for name in ("third", "new"):
        await engine.create_pod(a_spec(user, name=name, volumes=[raw(tmp_path / "image")]))
    await engine.start_pod("third")
    started = engine.container("dir").started
    with pytest.raises(Conflict, match="in use: pod third writes to it"):
        await engine.replace_pod("old", "new")
    assert engine.container("dir").started == started


# --- Containers that come and go ---


async def test_a_container_brings_its_volumes_and_takes_them_away(engine: Engine, tmp_path: Path) -> None:
    await engine.create_pod(a_spec({"name": "stays"}, name="p"))
    await engine.start_pod("p")
    volumes = [host(tmp_path / "dir"), raw(tmp_path / "image")]
    script = "echo h >> /h/file; echo r >> /r/file; cat /h/file /r/file; exec sleep 1000"
    await engine.add_container(
        "p", added(*volumes, **shell(script, name="c", mounts=mounts(host="/h", raw="/r")))
    )
    await engine.start_container("c")
    await until_printed(engine, "c", "h\nr\n")
    assert shared(engine) == {"rw-host"}
    assert opened(engine, tmp_path / "image")
    await engine.remove_container("c", force=True)
    assert shared(engine) == set()
    assert not opened(engine, tmp_path / "image")
    assert (tmp_path / "dir/file").read_text() == "h\n"
    again = shell("cat /r/file; exec sleep 1000", name="d", mounts=mounts(raw="/r"))
    await engine.add_container("p", added(volumes[1], **again))
    await engine.start_container("d")
    await until_printed(engine, "d", "r\n")


async def test_what_another_container_mounts_stays(engine: Engine, tmp_path: Path) -> None:
    volumes = [host(tmp_path / "dir"), raw(tmp_path / "image")]
    both = mounts(host="/h", raw="/r")
    await engine.create_pod(a_spec({"name": "stays", "mounts": both}, name="p", volumes=volumes))
    await engine.start_pod("p")
    await engine.add_container("p", added(*volumes, name="goes", mounts=both))
    await engine.start_container("goes")
    await engine.remove_container("goes", force=True)
    assert shared(engine) == {"rw-host"}
    assert opened(engine, tmp_path / "image")


async def test_a_container_that_came_has_its_volumes_after_a_stop(engine: Engine, tmp_path: Path) -> None:
    await engine.create_pod(a_spec({"name": "stays"}, name="p"))
    await engine.start_pod("p")
    volumes = [host(tmp_path / "dir"), raw(tmp_path / "image"), {"name": "own"}]
    script = "for d in /h /r /o; do echo x >> $d/f; cat $d/f; done; exec sleep 1000"
    own = mounts(host="/h", raw="/r", own="/o")
    await engine.add_container("p", added(*volumes, **shell(script, name="c", mounts=own)))
    await engine.start_container("c")
    await until_printed(engine, "c", "x\n" * 3)
    await engine.stop_pod("p")
    await engine.start_pod("p")
    await until_printed(engine, "c", "x\n" * 9)


async def test_the_same_by_another_name_is_the_pods_volume(engine: Engine, tmp_path: Path) -> None:
    volumes = [host(tmp_path / "dir", "mine"), raw(tmp_path / "image", "disk")]
    await engine.create_pod(
        a_spec({"name": "stays", "mounts": mounts(mine="/m", disk="/d")}, name="p", volumes=volumes)
    )
    await engine.start_pod("p")
    others = [host(tmp_path / "dir", "other", create=True), raw(tmp_path / "image", "other-disk")]
    both = {"other": "/h", "other-disk": "/r"}
    await engine.add_container("p", added(*others, name="c", mounts=mounts(**both)))
    await engine.start_container("c")
    assert [m.name for m in engine.container("c").mounts] == ["mine", "disk"]
    assert shared(engine) == {"rw-mine"}


async def test_a_volume_that_cannot_be_is_refused_when_a_container_brings_it(
    engine: Engine, tmp_path: Path
) -> None:
    await engine.create_pod(a_spec({"name": "stays"}, name="p", volumes=[{"name": "own"}]))
    missing = {"name": "v", "kind": "host", "source": str(tmp_path / "missing")}
    with pytest.raises(InvalidRequest, match="does not exist on the host"):
        await engine.add_container("p", added(missing, mounts=mounts(v="/v")))
    qcow2 = {"name": "v", "kind": "qcow2", "source": str(tmp_path / "missing")}
    with pytest.raises(Unsupported, match="uml has no qcow2 disks"):
        await engine.add_container("p", added(qcow2, mounts=mounts(v="/v")))
    with pytest.raises(Conflict, match="another volume 'own'"):
        await engine.add_container("p", added(host(tmp_path / "dir", "own"), mounts=mounts(own="/v")))
    assert [c.name for c in engine.containers()] == ["stays"]
    images = [
        raw(tmp_path / f"{n}.img", f"v{n}")
        for n in range(engine.host.drivers.get("uml").capabilities.disk_slots)
    ]
    with pytest.raises(InvalidRequest, match="slots"):
        await engine.add_container(
            "p", added(*images, mounts=mounts(**{v["name"]: f"/{v['name']}" for v in images}))
        )


async def test_a_container_that_was_removed_by_a_dead_hyperd_gives_its_volumes_back(
    root: Path, tmp_path: Path
) -> None:
    volumes = [host(tmp_path / "dir"), raw(tmp_path / "image")]
    goes = {"name": "goes", "mounts": mounts(host="/h", raw="/r")}
    async with an_engine(root) as engine:
        await engine.create_pod(a_spec({"name": "stays"}, goes, name="p", volumes=volumes))
        await engine.start_pod("p")
        await engine.stop_container("goes")
        (pod,) = engine._pods.live()
        pod.forget(pod.containers[1])  # and then it dies
    async with an_engine(root) as engine:
        assert shared(engine) == set()
        assert not opened(engine, tmp_path / "image")
        await engine.remove_pod("p", force=True)
