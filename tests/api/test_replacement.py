"""A new pod in place of one that runs: the same machine, and the old pod again when it cannot be."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import recovery as recovery_module
from hypercontainer.engine import replacement as replacement_module
from hypercontainer.engine import succession as succession_module
from hypercontainer.engine.engine import Engine
from hypercontainer.errors import CommandNotFound, HyperError, InvalidState, PodNotFound, Unavailable
from hypercontainer.model.pod import ExecSpec
from hypercontainer.model.rest import ContainerState, PodState
from tests.api.engines import a_spec, added, an_engine, load, printed, shell, until, until_printed
from tests.support.images import Member, layer

pytestmark = pytest.mark.needs_machine

COUNT = "echo run >> /runs; wc -l < /runs; sleep 1000"  # prints the number of this run


async def old_and(engine: Engine, *containers: dict[str, Any], **fields: Any) -> None:
    await engine.create_pod(a_spec(shell(COUNT), name="old"))
    await engine.start_pod("old")
    await until_printed(engine, "old", "1\n")
    await engine.create_pod(a_spec(*containers, name="new", **fields))


async def deaf_and(engine: Engine) -> None:
    """An old pod that ends when its time is up, and not before."""
    script = "trap '' TERM; echo up; sleep 1000"
    await engine.create_pod(a_spec(shell(script, stop_signal="TERM"), name="old"))
    await engine.start_pod("old")
    await until_printed(engine, "old", "up\n")
    await engine.create_pod(a_spec({}, name="new"))


async def test_the_machine_stays_and_the_old_pod_keeps_its_data(engine: Engine) -> None:
    await old_and(engine, shell("cat /runs 2>&1; " + COUNT))
    before = engine.machines()[0]
    view = await engine.replace_pod("old", "new")
    after = engine.machines()[0]
    assert (after.id, after.pid, after.pod_name) == (before.id, before.pid, "new")
    assert view.state is PodState.RUNNING
    assert (engine.pod("old").state, engine.pod("old").reason) == (PodState.CREATED, "replaced by new")
    assert engine.container("old").state is ContainerState.EXITED
    await until(lambda: engine.container("new").state is ContainerState.RUNNING)
    await until_printed(engine, "new", "cat: can't open '/runs': No such file or directory\n1\n")
    await engine.stop_pod("new")
    await engine.start_pod("old")
    await until_printed(engine, "old", "1\n2\n")


async def test_a_pod_of_another_image_replaces_and_is_replaced(engine: Engine) -> None:
    await load(engine, "other", extra=layer(Member(name="marker")))
    await old_and(engine, shell("ls /marker; sleep 1000", image="other"), {})
    await engine.replace_pod("old", "new")
    await until_printed(engine, "new-0", "/marker\n")
    await engine.replace_pod("new", "old")
    await until_printed(engine, "old", "1\n2\n")
    await engine.replace_pod("old", "new")
    await until_printed(engine, "new-0", "/marker\n/marker\n")
    assert len(engine.machines()) == 1


async def test_an_image_that_was_kept_goes_with_its_last_container(engine: Engine) -> None:
    for name in ("other", "third", "fourth"):
        await load(engine, name, extra=layer(Member(name=name)))
    await old_and(engine, {}, {"image": "other"})
    await engine.replace_pod("old", "new", timeout_s=0)
    await engine.remove_container("new-0", force=True)
    for name in ("third", "fourth"):  # in the slot of the old pod's disk, and in that of the image
        command = shell(f"ls /{name}; sleep 1000", name=name, image=name)
        await engine.start_container((await engine.add_container("new", added(**command))).id)
        await until_printed(engine, name, f"/{name}\n")


async def test_a_pod_that_cannot_be_run_leaves_the_old_one_running(engine: Engine) -> None:
    await old_and(engine, {}, {"command": ("nothere",)})
    before = engine.machines()[0]
    with pytest.raises(CommandNotFound, match=r"cannot run 'nothere'.*; pod old runs again") as raised:
        await engine.replace_pod("old", "new")
    assert raised.value.exit_status == 127
    after = engine.machines()[0]
    assert (after.id, after.pid, after.pod_name) == (before.id, before.pid, "old")
    assert "nothere" in engine.pod("new").reason
    assert engine.pod("new").state is PodState.CREATED
    await until_printed(engine, "old", "1\n2\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_mib": 96}, "memory in MiB 64, and the new pod asks for 96"),
        ({"network": "default"}, "has no network"),
    ],
)
async def test_what_the_machine_is_not_is_refused_before_anything_stops(
    engine: Engine, fields: dict[str, Any], message: str
) -> None:
    await old_and(engine, {}, **fields)
    started = engine.container("old").started
    with pytest.raises(InvalidState, match=message):
        await engine.replace_pod("old", "new")
    assert engine.container("old").started == started
    assert engine.container("old").state is ContainerState.RUNNING


async def test_only_a_running_pod_is_replaced_and_only_by_a_created_one(engine: Engine) -> None:
    await old_and(engine, {})
    with pytest.raises(InvalidState, match="pod new is created"):
        await engine.replace_pod("new", "old")
    with pytest.raises(InvalidState, match="cannot replace itself"):
        await engine.replace_pod("old", "old")
    await engine.start_pod("new")
    with pytest.raises(InvalidState, match="only a created pod"):
        await engine.replace_pod("old", "new")


async def test_an_empty_machine_is_given_a_pod(engine: Engine) -> None:
    await engine.create_pod(a_spec(name="vm"))
    await engine.start_pod("vm")
    machine = engine.machines()[0].id
    await engine.create_pod(a_spec(shell("echo here"), name="new"))
    await engine.replace_pod("vm", "new")
    assert await engine.wait_pod("new") == 0
    assert await printed(engine, "new") == "here\n"
    await until(lambda: not engine.machines())
    assert machine not in [each.id for each in engine.machines()]


async def test_a_machine_that_dies_meanwhile_costs_the_old_pod_a_start(engine: Engine) -> None:
    await deaf_and(engine)
    pid = engine.machines()[0].pid
    replacing = asyncio.create_task(engine.replace_pod("old", "new", timeout_s=20))
    await until(lambda: engine.pod("new").machine != "")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(HyperError, match="pod old runs again"):
        await replacing
    assert engine.machines()[0].pid != pid
    await until_printed(engine, "old", "up\nup\n")


async def test_no_process_is_added_to_a_pod_that_is_being_replaced(engine: Engine) -> None:
    """It would have the number of a process of the new pod, and that could not be started."""
    await deaf_and(engine)
    exec_ = await engine.create_exec("old", ExecSpec(command=("yes",)))
    replacing = asyncio.create_task(engine.replace_pod("old", "new", timeout_s=1))
    await until(lambda: engine.pod("new").machine != "")
    with pytest.raises(InvalidState, match="pod old is being replaced"):
        await engine.start_exec(exec_.id)
    assert (await replacing).state is PodState.RUNNING


async def test_a_machine_remembers_no_process_of_the_pods_that_it_had(engine: Engine) -> None:
    """Not those that ran, nor those whose output nobody reads: it has room for 1,024."""
    for name in ("first", "second", "third"):
        await engine.create_pod(a_spec({}, name=name))
    await engine.start_pod("first")
    for old, new in (("first", "second"), ("second", "third")):
        for command in (("sleep", "1000"), ("yes",), ("true",)):
            await engine.start_detached_exec((await engine.create_exec(old, ExecSpec(command=command))).id)
        await engine.replace_pod(old, new, timeout_s=0)
    third = engine._pods.live()[0]
    running = third.running
    assert running is not None
    assert running.agent.processes() == {third.containers[0].record.process.number}


class KilledError(Exception):
    """hyperd has died, as far as its records can tell."""


async def killed(*_: object, **__: object) -> None:
    raise KilledError


def killed_at_once(*_: object) -> None:
    raise KilledError


async def test_what_is_left_of_the_old_pod_is_gone_when_hyperd_dies_before_it_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_engine(root) as engine:
        old = (await engine.create_pod(a_spec({}, name="old", remove=True))).id
        await engine.start_pod("old")
        new = (await engine.create_pod(a_spec({}, name="new"))).id
        with monkeypatch.context() as patch:
            patch.setattr(replacement_module, "_commit", killed_at_once)
            with pytest.raises(KilledError):
                await engine.replace_pod("old", "new", timeout_s=0)
    async with an_engine(root) as engine:
        assert engine.pod("new").state is PodState.RUNNING
        with pytest.raises(PodNotFound):
            engine.pod("old")
        assert [path.name for path in engine.host.paths.pods.iterdir()] == [new]
        assert {record.id: record.replaces for record in engine.host.records.pods()} == {new: ""}
        assert not (engine.host.paths.pods / old).exists()
        await engine.remove_pod("new", force=True)


async def test_a_replacement_that_is_typed_again_waits_for_the_one_that_is_recovered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is done when that one has failed, and the old pod runs again."""
    monkeypatch.setattr(recovery_module, "_TIMEOUT_S", 0.1)
    goes_on = asyncio.Event()

    async def fail(*_: object, **__: object) -> None:
        await goes_on.wait()
        raise Unavailable("not now")

    async with an_engine(root) as engine:
        first, second = sorted(
            [await engine.create_pod(a_spec({})) for _ in range(2)], key=lambda pod: pod.id
        )
        await engine.start_pod(first.id)
        with monkeypatch.context() as patch:
            patch.setattr(succession_module, "succeed", killed)
            patch.setattr(replacement_module, "_give_back", killed)
            with pytest.raises(KilledError):
                await engine.replace_pod(first.id, second.id, timeout_s=0)
    monkeypatch.setattr(succession_module, "_set_up_afresh", fail)
    async with an_engine(root) as engine:
        again = asyncio.create_task(engine.replace_pod(first.id, second.id, timeout_s=0))
        await asyncio.sleep(0.1)
        goes_on.set()
        async with asyncio.timeout(20):
            assert (await again).state is PodState.RUNNING
        for pod in (first, second):
            await engine.remove_pod(pod.id, force=True)
