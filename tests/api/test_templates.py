"""Templates, seen from inside hyperd: made after a first start, used by the next ones, kept within bounds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.errors import NotFound
from hypercontainer.model.pod import ExecSpec
from hypercontainer.model.rest import PodState
from tests.api.engines import SLEEP, a_spec, an_engine, printed, shell, until
from tests.hypervisors.machines import processes_of

# Templates are made at low priority: on a busy host that takes minutes.
pytestmark = [pytest.mark.needs_machine, pytest.mark.timeout(600)]

OWN = "cat /proc/sys/kernel/random/boot_id; hostname; head -c 32 /dev/urandom | sha256sum"
MEMORY_MIB = 48


@pytest.fixture
async def tcg(root: Path) -> AsyncIterator[Engine]:
    async with an_engine(root, hypervisor="tcg", template_delay_s=0) as engine:
        yield engine
        for pod in engine.pods():
            await engine.remove_pod(pod.id, force=True)


async def started(engine: Engine, script: str = "", *, memory_mib: int = MEMORY_MIB) -> str:
    container = shell(script) if script else {"command": SLEEP}
    pod = await engine.create_pod(a_spec(container, memory_mib=memory_mib))
    await engine.start_pod(pod.id)
    return pod.id


async def with_template(engine: Engine) -> str:
    """A pod that booted, and whose size has a template now; the template's id."""
    pod = await started(engine)
    await until(lambda: bool(engine.host.templates.all()), seconds=300)
    await engine.remove_pod(pod, force=True)
    return engine.host.templates.all()[0].id


def is_copy(engine: Engine, pod: str) -> bool:
    """Whether the machine of ``pod`` has been started from a template."""
    machine = next(machine for machine in engine.machines() if machine.pod == pod)
    return b"-incoming" in Path(f"/proc/{machine.pid}/cmdline").read_bytes().split(b"\0")


async def test_the_first_machine_of_a_size_boots_and_the_next_ones_are_copies(tcg: Engine) -> None:
    pod = await started(tcg)
    assert not is_copy(tcg, pod)
    await until(lambda: bool(tcg.host.templates.all()), seconds=300)
    template = tcg.host.templates.all()[0]
    assert (template.hypervisor, template.vcpus, template.memory_mib, template.nics) == (
        "tcg",
        1,
        MEMORY_MIB,
        0,
    )
    assert 0 < template.size < MEMORY_MIB << 20
    copies = [await started(tcg) for _ in range(2)]
    assert all(is_copy(tcg, copy) for copy in copies)
    assert tcg.host.templates.all()[0].used > template.used
    other = await started(tcg, memory_mib=MEMORY_MIB + 16)
    assert not is_copy(tcg, other)
    await until(lambda: not any((tcg.host.paths.run / "templates").iterdir()), seconds=300)


async def test_containers_of_copies_have_nothing_of_their_own_in_common(tcg: Engine) -> None:
    await with_template(tcg)
    said = []
    for _ in range(3):
        pod = await started(tcg, OWN)
        await tcg.wait_container(pod)
        said += (await printed(tcg, pod)).replace("-\n", "\n").split()
    assert len(said) == len(set(said)) == 9


async def test_a_copy_is_a_machine_like_any_other(tcg: Engine) -> None:
    await with_template(tcg)
    pod = await started(tcg)
    await tcg.pause_pod(pod)
    assert tcg.pod(pod).state is PodState.PAUSED
    await tcg.unpause_pod(pod)
    new = await tcg.create_pod(a_spec({}, memory_mib=MEMORY_MIB))
    await tcg.replace_pod(pod, new.id)
    assert is_copy(tcg, new.id)
    assert await executed(tcg, new.id, "true") == 0
    marks = [mark.name for mark in tcg.timeline(new.id).marks]
    assert "kernel begins" not in marks
    await tcg.stop_pod(new.id)
    assert tcg.pod(new.id).state is PodState.CREATED


async def executed(engine: Engine, pod: str, *command: str) -> int:
    exec_ = await engine.create_exec(pod, ExecSpec(command=command))
    await engine.start_detached_exec(exec_.id)
    return await engine.wait_exec(exec_.id)


async def test_the_next_hyperd_finds_the_copies_and_the_templates(root: Path) -> None:
    async with an_engine(root, hypervisor="tcg", template_delay_s=0) as engine:
        template = await with_template(engine)
        pod = await started(engine)
    async with an_engine(root, hypervisor="tcg") as engine:
        assert engine.pod(pod).state is PodState.RUNNING
        assert await executed(engine, pod, "true") == 0
        assert [view.id for view in engine.host.templates.all()] == [template]
        await engine.remove_pod(pod, force=True)


async def test_a_hyperd_that_ends_leaves_no_half_of_a_template(root: Path) -> None:
    async with an_engine(root, hypervisor="tcg", template_delay_s=0) as engine:
        starting = asyncio.ensure_future(started(engine))
        await until(lambda: any((engine.host.paths.run / "templates").glob("*/machine.json")))
        making = next(task for task in asyncio.all_tasks() if task.get_name().startswith("template "))
        making.cancel()  # as the end of hyperd does
        await engine.remove_pod(await starting, force=True)
        await asyncio.wait([making])
        kept, run = engine.host.paths.cache / "templates", engine.host.paths.run / "templates"
    assert list(kept.iterdir()) == list(run.iterdir()) == []
    assert not processes_of(run)


@pytest.mark.parametrize("file", ["state", "memory"])
async def test_a_template_that_does_not_work_is_removed_and_nobody_waits_for_another(
    tcg: Engine, file: str
) -> None:
    template = await with_template(tcg)
    os.truncate(tcg.host.paths.cache / "templates" / template / file, 1000)
    pod = await started(tcg)
    assert not is_copy(tcg, pod)
    await until(lambda: bool(tcg.host.templates.all()), seconds=300)
    assert is_copy(tcg, await started(tcg))


async def test_no_more_templates_are_kept_than_asked(root: Path) -> None:
    settings = {"hypervisor": "tcg", "template_delay_s": 0, "template_count": 1}
    async with an_engine(root, **settings) as engine:
        first = await with_template(engine)
        pod = await started(engine, memory_mib=MEMORY_MIB + 16)
        await until(lambda: [view.id for view in engine.host.templates.all()] != [first], seconds=300)
        await until(lambda: len(engine.host.templates.all()) == 1)
        assert engine.host.templates.all()[0].memory_mib == MEMORY_MIB + 16
        await engine.remove_pod(pod, force=True)


async def test_where_none_can_be_kept_machines_boot(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with an_engine(root, hypervisor="tcg", template_delay_s=0) as engine:
        (engine.host.paths.cache / "templates").write_text("in the way")
        pods = [await started(engine) for _ in range(2)]
        await until(lambda: "no template was made" in caplog.text, seconds=300)
        assert not any(is_copy(engine, pod) for pod in pods)
        assert engine.host.templates.all() == []
        for pod in pods:
            await engine.remove_pod(pod, force=True)


async def test_who_wants_none_has_none(root: Path) -> None:
    async with an_engine(root, hypervisor="tcg", templates=False, template_delay_s=0) as engine:
        pod = await started(engine)
        await asyncio.sleep(0.3)
        assert not (engine.host.paths.cache / "templates").exists()
        await engine.remove_pod(pod, force=True)


async def test_templates_are_removed_by_the_beginning_of_their_id_or_all_at_once(tcg: Engine) -> None:
    template = await with_template(tcg)
    copy = await started(tcg)
    with pytest.raises(NotFound, match="no template"):
        tcg.host.templates.remove("nothing")
    tcg.host.templates.remove(template[:4])
    assert tcg.host.templates.all() == tcg.host.templates.prune() == []
    assert await executed(tcg, copy, "true") == 0  # it has its memory all the same
