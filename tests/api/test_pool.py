"""The pool, seen from inside hyperd: machines wait, pods take them, and nobody can tell the difference."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.engine.sizes import Size
from hypercontainer.errors import Unavailable
from hypercontainer.guest import boot
from hypercontainer.model.pod import ExecSpec
from hypercontainer.model.rest import PodState
from hypercontainer.network import subnets
from tests.api.engines import SLEEP, a_spec, an_engine, printed, shell, until
from tests.hypervisors.machines import processes_of

# Machines of the pool are made at low priority: on a busy host that takes minutes.
pytestmark = [pytest.mark.needs_machine, pytest.mark.timeout(600)]

MEMORY_MIB = 64
OWN = "cat /proc/sys/kernel/random/boot_id; hostname; head -c 32 /dev/urandom | sha256sum"
PING_GATEWAY = "ping -c 1 $(route -n | awk '/^0.0.0.0/{print $2}')"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a bridge is root's")


@pytest.fixture
async def pooled(root: Path) -> AsyncIterator[Engine]:
    """With a machine that waits, for a pod without a network."""
    async with pooled_engine(root, "uml") as engine:
        yield engine


@pytest.fixture(params=["uml", "tcg"])
async def each_pooled(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Engine]:
    """The same, of each driver."""
    async with pooled_engine(root, request.param) as engine:
        yield engine


@contextlib.asynccontextmanager
async def pooled_engine(root: Path, driver: str) -> AsyncIterator[Engine]:
    async with an_engine(root, hypervisor=driver, pool_memory_mib=MEMORY_MIB) as engine:
        await fill(engine)
        yield engine
        for pod in engine.pods():
            await engine.remove_pod(pod.id, force=True)


async def fill(engine: Engine, *, network: str = "none") -> None:
    """A first pod says which size is wanted, and goes."""
    pod = await engine.create_pod(a_spec({"command": SLEEP}, memory_mib=MEMORY_MIB, network=network))
    await engine.start_pod(pod.id)
    await engine.remove_pod(pod.id, force=True)
    await filled(engine, has_network=network != "none")


async def filled(engine: Engine, *, has_network: bool = False) -> None:
    size = Size(engine.host.settings.hypervisor, 1, MEMORY_MIB, has_network)
    await until(lambda: size in engine.host.pool.waiting, seconds=300)


async def started(engine: Engine, script: str = "", **fields: object) -> str:
    container = shell(script) if script else {"command": SLEEP}
    pod = await engine.create_pod(a_spec(container, **{"memory_mib": MEMORY_MIB, **fields}))
    await engine.start_pod(pod.id)
    return pod.id


def waiting(engine: Engine) -> set[str]:
    """The ids of the machines that no pod has."""
    every = {path.name for path in engine.host.paths.machines.iterdir()}
    return every - {engine.pod(pod.id).machine for pod in engine.pods()}


def was_taken(engine: Engine, pod: str) -> bool:
    return "machine taken" in [mark.name for mark in engine.timeline(pod).marks]


async def executed(engine: Engine, pod: str, *command: str) -> int:
    exec_ = await engine.create_exec(pod, ExecSpec(command=command))
    await engine.start_detached_exec(exec_.id)
    return await engine.wait_exec(exec_.id)


async def test_a_pod_takes_the_machine_that_waits_and_another_one_is_started(each_pooled: Engine) -> None:
    [machine] = waiting(each_pooled)
    pod = await started(each_pooled)
    assert each_pooled.pod(pod).machine == machine
    await filled(each_pooled)
    assert waiting(each_pooled) != {machine}
    assert await executed(each_pooled, pod, "true") == 0


async def test_containers_have_nothing_of_their_own_in_common(each_pooled: Engine) -> None:
    said = []
    for _ in range(3):
        await filled(each_pooled)
        pod = await started(each_pooled, OWN)
        assert was_taken(each_pooled, pod)
        await each_pooled.wait_container(pod)
        said += (await printed(each_pooled, pod)).replace("-\n", "\n").split()
    assert len(said) == len(set(said)) == 9


async def test_nothing_is_left_of_the_rehearsal(pooled: Engine) -> None:
    count = "ps >/ps; wc -l </ps; rm /ps"  # in a pipe, wc may be there already, or not yet
    script = f"echo $$; {count}; grep -c rehearsal /proc/mounts; find / -xdev -name '*rehears*'; ls /"
    pod = await started(pooled, script)
    await pooled.wait_container(pod)
    fresh = await started(pooled, script, memory_mib=MEMORY_MIB + 1)
    await pooled.wait_container(fresh)
    assert (was_taken(pooled, pod), was_taken(pooled, fresh)) == (True, False)
    assert await printed(pooled, pod) == await printed(pooled, fresh)


async def test_it_is_a_machine_like_any_other(each_pooled: Engine) -> None:
    pod = await started(each_pooled)
    await each_pooled.pause_pod(pod)
    assert each_pooled.pod(pod).state is PodState.PAUSED
    await each_pooled.unpause_pod(pod)
    new = await each_pooled.create_pod(a_spec({}, memory_mib=MEMORY_MIB))
    await each_pooled.replace_pod(pod, new.id)
    assert await executed(each_pooled, new.id, "true") == 0
    await each_pooled.stop_pod(new.id)
    assert each_pooled.pod(new.id).state is PodState.CREATED


async def test_the_next_hyperd_finds_it(root: Path) -> None:
    async with an_engine(root, pool_memory_mib=MEMORY_MIB) as engine:
        await fill(engine)
        pod = await started(engine)
        assert was_taken(engine, pod)
    async with an_engine(root) as engine:
        assert engine.pod(pod).state is PodState.RUNNING
        assert await executed(engine, pod, "true") == 0
        await engine.remove_pod(pod, force=True)


async def test_it_is_shown_what_a_pod_shares_with_its_host(pooled: Engine, tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown/file").write_text("from the host\n")
    volume = {"name": "own", "kind": "host", "source": str(tmp_path / "shown")}
    container = shell("cat /mnt/file", mounts=({"volume": "own", "target": "/mnt"},))
    pod = await pooled.create_pod(a_spec(container, memory_mib=MEMORY_MIB, volumes=(volume,)))
    await pooled.start_pod(pod.id)
    await pooled.wait_container(pod.id)
    assert was_taken(pooled, pod.id)
    assert await printed(pooled, pod.id) == "from the host\n"


async def test_one_that_ends_by_itself_is_replaced(pooled: Engine) -> None:
    [machine] = waiting(pooled)
    for pid in processes_of(pooled.host.paths.machines / machine):
        with contextlib.suppress(ProcessLookupError):  # it went with another
            os.kill(pid, signal.SIGKILL)
    await until(lambda: machine not in waiting(pooled))
    await filled(pooled)
    assert was_taken(pooled, await started(pooled))


async def test_where_one_cannot_be_used_the_pod_gets_its_own(each_pooled: Engine) -> None:
    """Its control socket has gone, so it can be given no disks."""
    [machine] = waiting(each_pooled)
    run_dir = each_pooled.host.paths.machines / machine
    for path in [*run_dir.glob("qmp.sock"), *run_dir.glob("uml/mconsole")]:
        path.unlink()
    pod = await started(each_pooled)
    assert each_pooled.pod(pod).machine != machine
    assert each_pooled.pod(pod).state is PodState.RUNNING
    assert machine not in waiting(each_pooled)


async def test_those_of_another_kernel_are_not_taken(root: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "linux"
    shutil.copy(boot.find_kernel("um").path, kernel)
    async with an_engine(root, pool_memory_mib=MEMORY_MIB, kernel=str(kernel)) as engine:
        await fill(engine)
        [machine] = waiting(engine)
        os.utime(kernel, (1, 1))
        pod = await started(engine)
        assert engine.pod(pod).machine != machine
        await until(lambda: machine not in waiting(engine))
        await engine.remove_pod(pod, force=True)


async def test_those_of_a_template_that_was_removed_are_not_taken(root: Path) -> None:
    settings = {"hypervisor": "tcg", "template_delay_s": 0, "pool_memory_mib": MEMORY_MIB}
    async with an_engine(root, **settings) as engine:
        await fill(engine)
        await until(lambda: bool(engine.host.templates.all()), seconds=300)
        booted = await started(engine)
        await filled(engine)
        engine.host.templates.prune()
        pod = await started(engine)
        assert (was_taken(engine, booted), was_taken(engine, pod)) == (True, False)
        for each in (booted, pod):
            await engine.remove_pod(each, force=True)


@needs_root
async def test_a_pod_has_the_address_and_the_tap_that_were_made_ahead(root: Path) -> None:
    async with an_engine(root, pool_memory_mib=MEMORY_MIB) as engine:
        await fill(engine, network="default")
        pod = await started(engine, network="default", ports=({"container_port": 80},))
        assert was_taken(engine, pod)
        view = engine.pod(pod)
        assert view.ports[0].host_port
        nic = subnets.nic_name(str(engine.host.paths.state), view.machine)
        assert nic in [name for _, name in socket.if_nameindex()]
        assert await executed(engine, pod, "sh", "-c", PING_GATEWAY) == 0
        await engine.stop_pod(pod)
        await filled(engine, has_network=True)
        await engine.start_pod(pod)
        assert engine.pod(pod).address == view.address  # its own again, though that takes a boot
        await engine.remove_pod(pod, force=True)


@needs_root
async def test_no_two_machines_have_the_same_address(root: Path) -> None:
    async with an_engine(root, pool_memory_mib=4 * MEMORY_MIB) as engine:
        await fill(engine, network="default")
        await until(lambda: len(engine.host.pool.waiting) == 3, seconds=300)
        pods = [await started(engine, network="default") for _ in range(5)]
        assert len({engine.pod(pod).address for pod in pods}) == 5
        for pod in pods:
            await engine.remove_pod(pod, force=True)


async def test_a_hyperd_that_ends_leaves_none(root: Path) -> None:
    async with an_engine(root, pool_memory_mib=3 * MEMORY_MIB) as engine:
        await fill(engine)
        machines, owner = engine.host.paths.machines, str(engine.host.paths.state)
    assert list(machines.iterdir()) == []
    assert not processes_of(machines)
    prefix = subnets.nic_prefix(owner)
    assert not [name for _, name in socket.if_nameindex() if name.startswith(prefix)]


async def test_by_default_there_is_none(root: Path) -> None:
    async with an_engine(root) as engine:
        await engine.remove_pod(await started(engine), force=True)
        assert not engine.host.pool.is_on
        assert not waiting(engine)


async def test_a_size_that_cannot_be_started_and_is_forgotten_meanwhile_ends_no_pool(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails, goes_on = asyncio.Event(), asyncio.Event()

    async def fail(*_: object) -> None:
        fails.set()
        await goes_on.wait()
        raise Unavailable("not now")

    async with an_engine(root, pool_memory_mib=MEMORY_MIB) as engine:
        pool, driver = engine.host.pool, engine.host.drivers.get("uml")
        with monkeypatch.context() as patch:
            patch.setattr(pool, "_add", fail)
            await pool.take(driver, Size("uml", 1, MEMORY_MIB, False))
            await fails.wait()
            for more in range(4):
                await pool.take(driver, Size("uml", 1, MEMORY_MIB + 1 + more, False))
            goes_on.set()
            await asyncio.sleep(0.1)
        await fill(engine)
