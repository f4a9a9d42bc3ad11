"""A pod in time, seen from inside hyperd: its containers, restart policies, containers that come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import conduct
from hypercontainer.engine import endings as endings_module
from hypercontainer.engine import execs as execs_module
from hypercontainer.engine import output as output_module
from hypercontainer.engine import recovery as recovery_module
from hypercontainer.engine.engine import Engine
from hypercontainer.errors import (
    Conflict,
    ContainerNotFound,
    ExecNotFound,
    HypervisorError,
    InvalidRequest,
    InvalidState,
    Unavailable,
)
from hypercontainer.model.pod import ExecSpec
from hypercontainer.model.rest import ContainerState, PodState
from tests.api.engines import SLEEP, a_spec, added, an_engine, load, printed, shell, until, until_printed
from tests.support.images import Member, layer
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.needs_machine

COUNT = "echo run >> /runs; wc -l < /runs; "  # prints the number of this run


async def running(engine: Engine, *containers: dict[str, Any], **fields: Any) -> str:
    pod = await engine.create_pod(a_spec(*containers, **fields))
    await engine.start_pod(pod.id)
    return pod.id


# --- Several containers ---


async def test_containers_of_a_pod_share_its_processes_and_know_each_others_names(engine: Engine) -> None:
    script = "ls -d /proc/[0-9]* | wc -l; grep -c 'one two$' /etc/hosts"
    await running(engine, {"name": "one"}, shell(script, name="two"))
    assert await engine.wait_container("two") == 0
    processes, names = (await printed(engine, "two")).split()
    assert int(processes) >= 4  # the pod's init, the sleeper, the shell and ls
    assert names == "1"


async def test_a_pod_ends_when_the_last_of_its_containers_has_ended(engine: Engine) -> None:
    pod = await running(engine, shell("exit 3"), shell("cat; exit 4", stdin=True))
    first, last = (f"{engine.pod(pod).name}-{index}" for index in range(2))
    assert await engine.wait_container(first) == 3
    assert engine.pod(pod).state is PodState.RUNNING
    attachment = await engine.attach(last)
    await attachment.write_end()
    assert await engine.wait_container(last) == 4
    attachment.close()
    await until(lambda: not engine.machines())
    assert engine.pod(pod).state is PodState.CREATED
    assert await engine.wait_pod(pod) == 3


# --- How long a stop waits ---


STUBBORN = shell("trap '' TERM; echo up; while :; do sleep 0.1; done", stop_signal="TERM")


async def test_a_stop_waits_as_long_as_the_pod_asks_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings_module, "_GRACE_S", 86400)  # of those who ask for nothing
    pod = await running(engine, STUBBORN, name="stubborn", stop_timeout_s=1)
    await until_printed(engine, pod, "up\n")
    began = time.monotonic()
    await engine.stop_pod(pod)
    assert time.monotonic() - began >= 1


async def test_who_stops_it_may_wait_for_another_time(engine: Engine) -> None:
    pod = await running(
        engine, {**STUBBORN, "name": "one"}, {**STUBBORN, "name": "two"}, stop_timeout_s=86400
    )
    await until_printed(engine, "one", "up\n")
    await engine.stop_container("one", timeout_s=0)
    await engine.stop_pod(pod, timeout_s=0)
    assert engine.pod(pod).state is PodState.CREATED


# --- Restart policies ---


async def test_on_failure_starts_a_container_again_until_it_succeeds(engine: Engine) -> None:
    script = COUNT + "test $(wc -l < /runs) = 3"
    pod = await running(engine, shell(script, restart={"name": "on-failure"}))
    await until(lambda: engine.pod(pod).state is PodState.CREATED)
    assert await printed(engine, pod) == "1\n2\n3\n"
    container = engine.container(pod)
    assert (container.restarts, container.exit_code) == (2, 0)


async def test_on_failure_has_an_end_when_it_is_given_one(engine: Engine) -> None:
    pod = await running(engine, shell(COUNT + "exit 7", restart={"name": "on-failure", "max_retries": 2}))
    await until(lambda: engine.pod(pod).state is PodState.CREATED)
    assert await printed(engine, pod) == "1\n2\n3\n"
    assert engine.container(pod).exit_code == 7


async def test_always_starts_it_again_and_who_is_attached_sees_one_run(engine: Engine) -> None:
    pod = await engine.create_pod(a_spec(shell(COUNT, restart={"name": "always"})))
    attachment = await engine.attach(pod.id, start=True)
    output = [data async for _, data in attachment.output()]
    assert (b"".join(output), await attachment.exit_code()) == (b"1\n", 0)
    attachment.close()
    await until(lambda: engine.container(pod.id).restarts >= 2)
    await engine.stop_pod(pod.id)
    assert engine.container(pod.id).state is ContainerState.EXITED
    assert engine.pod(pod.id).state is PodState.CREATED


async def test_a_process_that_has_ended_before_it_is_told_is_resized_and_signalled_in_vain(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_module, "FOLLOWER_LAG", 1000)  # its end is told when its output is read
    pod = await running(engine, {})
    script = "head -c 50000 /dev/zero"
    exec_ = await engine.create_exec(pod, ExecSpec(command=("sh", "-c", script), terminal=True))
    attachment = await engine.start_exec(exec_.id)
    await until_gone(engine, pod, script)
    await attachment.resize(rows=24, columns=80)
    await attachment.signal(signal.SIGTERM)
    assert sum([len(data) async for _, data in attachment.output()]) == 50000
    assert await attachment.exit_code() == 0
    attachment.close()


async def until_gone(engine: Engine, pod: str, script: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while any(script in process.command for process in await engine.pod_processes(pod)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_stop_ends_a_container_that_waits_to_be_started_again(engine: Engine) -> None:
    pod = await running(engine, shell("exit 1", restart={"name": "always"}), {})
    name = f"{engine.pod(pod).name}-0"
    await until(lambda: engine.container(name).state is ContainerState.RESTARTING)
    await engine.stop_container(name)
    restarts = engine.container(name).restarts
    assert engine.container(name).state is ContainerState.EXITED
    await until(lambda: engine.container(name).restarts == restarts)


async def test_a_kill_by_the_user_is_no_failure(engine: Engine) -> None:
    pod = await running(engine, {"restart": {"name": "always"}}, {})
    name = f"{engine.pod(pod).name}-0"
    await engine.signal_container(name, signal.SIGKILL)
    assert await engine.wait_container(name) == 137
    assert engine.container(name).state is ContainerState.EXITED


async def test_a_pod_whose_machine_was_killed_is_started_again_if_its_policy_says_so(engine: Engine) -> None:
    pod = await running(
        engine, shell(COUNT + "sleep 1000", restart={"name": "always"}), shell(COUNT + "sleep 1000")
    )
    first, second = engine.pod(pod).containers
    before = engine.machines()[0]
    os.kill(before.pid, signal.SIGKILL)
    await until(lambda: any(machine.id != before.id for machine in engine.machines()))
    await until(lambda: engine.container(first.id).state is ContainerState.RUNNING)
    assert engine.container(first.id).restarts == 1
    assert engine.container(second.id).state is ContainerState.EXITED
    assert engine.container(second.id).exit_code == 137
    assert engine.pod(pod).state is PodState.RUNNING


async def test_a_pod_whose_machine_was_killed_is_created_and_says_why(engine: Engine) -> None:
    pod = await running(engine, {}, remove=False)
    os.kill(engine.machines()[0].pid, signal.SIGKILL)
    await until(lambda: engine.pod(pod).state is PodState.CREATED)
    assert "the machine ended by itself" in engine.pod(pod).reason
    assert engine.container(pod).exit_code == 137
    assert "the machine ended by itself" in engine.container(pod).error


async def test_a_policy_outlives_the_daemon(root: Path) -> None:
    async with an_engine(root) as engine:
        pod = await running(engine, {"restart": {"name": "unless-stopped"}})
        pid = engine.machines()[0].pid
    os.kill(pid, signal.SIGKILL)
    async with an_engine(root) as engine:
        await until(lambda: engine.pod(pod).state is PodState.RUNNING)
        assert engine.machines()[0].pid != pid
        await engine.stop_pod(pod)
    async with an_engine(root) as engine:
        assert engine.pod(pod).state is PodState.CREATED
        await engine.remove_pod(pod)


async def test_what_is_removed_at_its_end_has_no_restart_policy(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="restart policy is always"):
        await engine.create_pod(a_spec({"restart": {"name": "always"}}, remove=True))


# --- Containers of a live pod ---


async def test_a_container_is_given_to_a_running_pod_and_stays_over_stop_and_start(engine: Engine) -> None:
    pod = await running(engine, {})
    container = await engine.add_container(
        pod, added(**shell(COUNT + "test $(wc -l < /runs) = 2 || sleep 1000", name="late"))
    )
    assert engine.container("late").state is ContainerState.CREATED
    await engine.start_container(container.id)
    await until_printed(engine, "late", "1\n")
    await engine.stop_pod(pod)
    await engine.start_pod(pod)
    await engine.wait_container("late")
    assert await printed(engine, "late") == "1\n2\n"


async def test_a_container_of_another_image_gets_a_slot_of_the_running_machine(engine: Engine) -> None:
    pod = await running(engine, {})
    await load(engine, "other", extra=layer(Member(name="marker")))
    await engine.add_container(pod, added(image="other", name="late", **shell("ls /marker")))
    await engine.start_container("late")
    assert await engine.wait_container("late") == 0


async def test_an_ended_container_of_a_running_pod_is_started_again(engine: Engine) -> None:
    await running(engine, {}, shell(COUNT, name="again"))
    assert await engine.wait_container("again") == 0
    await engine.start_container("again")
    assert await engine.wait_container("again") == 0
    assert await printed(engine, "again") == "1\n2\n"


@pytest.mark.parametrize("is_running", [True, False])
async def test_what_a_removed_container_wrote_is_erased(engine: Engine, is_running: bool) -> None:
    pod = await running(engine, {}, shell("echo secret > /file", name="gone"))
    await engine.wait_container("gone")
    container = engine.container("gone").id
    if not is_running:
        await engine.stop_pod(pod)
    await engine.remove_container("gone")
    assert len(engine.pod(pod).containers) == 1
    if not is_running:
        await engine.start_pod(pod)
    spec = ExecSpec(command=("sh", "-c", f"ls -d /disks/0/{container}"), in_machine=True)
    exec_ = await engine.create_exec(pod, spec)
    attachment = await engine.start_exec(exec_.id)
    assert await attachment.exit_code() != 0
    attachment.close()


async def test_a_running_container_is_removed_only_by_force(engine: Engine) -> None:
    pod = await running(engine, {}, {"name": "busy"})
    with pytest.raises(InvalidState, match="busy is running"):
        await engine.remove_container("busy")
    await engine.remove_container("busy", force=True)
    assert len(engine.pod(pod).containers) == 1
    assert engine.pod(pod).state is PodState.RUNNING


async def test_names_change_and_those_that_are_taken_are_refused(engine: Engine) -> None:
    pod = await running(engine, {}, name="old")
    await engine.create_pod(a_spec({}, name="taken"))
    with pytest.raises(Conflict, match="'taken' is taken"):
        engine.rename_pod(pod, "taken")
    with pytest.raises(InvalidRequest, match="no name"):
        engine.rename_pod(pod, "a b")
    engine.rename_pod("old", "new")
    assert engine.container("new").pod_name == "new"
    engine.rename_container("new", "web")
    assert (engine.pod("new").id, engine.container("web").pod) == (pod, pod)


# --- A machine without containers ---


async def test_an_empty_machine_runs_until_it_is_stopped(engine: Engine) -> None:
    pod = await running(engine)
    await engine.add_container(pod, added(name="guest", **shell("exit 5")))
    await engine.start_container("guest")
    assert await engine.wait_container("guest") == 5
    assert engine.pod(pod).state is PodState.RUNNING
    await engine.stop_pod(pod)
    assert not engine.machines()


async def test_a_container_is_not_started_while_it_is_removed(engine: Engine) -> None:
    pod = await running(engine, {})
    await engine.add_container(pod, added(**shell("sleep 1234", name="gone")))
    await engine.start_container("gone")
    removed, started = await asyncio.gather(
        engine.remove_container("gone", force=True), engine.start_container("gone"), return_exceptions=True
    )
    assert removed is None
    assert isinstance(started, ContainerNotFound)
    assert not [each for each in await engine.pod_processes(pod) if "1234" in each.command]


async def test_an_exec_is_started_once_though_two_ask_for_it_at_once(engine: Engine) -> None:
    pod = await running(engine, {})
    exec_ = await engine.create_exec(pod, ExecSpec(command=("sleep", "1234")))
    both = [engine.start_detached_exec(exec_.id) for _ in range(2)]
    _, second = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(second, InvalidState)
    assert len([each for each in await engine.pod_processes(pod) if "1234" in each.command]) == 1


async def test_execs_that_nobody_starts_make_room_for_new_ones(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs_module, "_WAITING", 3)
    pod = await running(engine, {})
    started = await engine.create_exec(pod, ExecSpec(command=("sleep", "1234")))
    await engine.start_detached_exec(started.id)
    made = [(await engine.create_exec(pod, ExecSpec(command=("true",)))).id for _ in range(5)]
    for forgotten in made[:2]:
        with pytest.raises(ExecNotFound):
            engine.exec(forgotten)
    assert engine.exec(started.id).is_running
    assert [engine.exec(each).id for each in made[2:]] == made[2:]
    kept = {record.id for record in engine.host.records.execs()}
    assert kept == {started.id, *made[2:]}


# --- Recovery ---


async def test_verbs_wait_for_a_pod_that_the_new_daemon_has_not_reached_yet(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "_TIMEOUT_S", 0.1)
    async with an_engine(root) as engine:
        pod = await running(engine, shell("cat; exit 7", stdin=True))
        exec_ = await engine.create_exec(pod, ExecSpec(command=("sh", "-c", "sleep 1; exit 3")))
        await engine.start_detached_exec(exec_.id)
        machine = engine.machines()[0].pid
        os.kill(machine, signal.SIGSTOP)
    async with an_engine(root) as engine:
        assert engine.pod(pod).state is PodState.RUNNING
        attaching = asyncio.ensure_future(engine.attach(pod))
        ends = asyncio.gather(engine.wait_pod(pod), engine.wait_container(pod))
        exec_end = asyncio.ensure_future(engine.wait_exec(exec_.id))
        others = asyncio.gather(
            engine.pod_processes(pod),
            engine.statistics(pod),
            engine.create_exec(pod, ExecSpec(command=("true",))),
            engine.signal_container(pod, signal.SIGWINCH),
        )
        await asyncio.sleep(0.5)
        assert not any(each.done() for each in (attaching, ends, exec_end, others))
        os.kill(machine, signal.SIGCONT)
        await others
        assert await exec_end == 3
        attachment = await attaching
        await attachment.write_end()
        assert set(await ends) == {7}
        attachment.close()
        await engine.remove_pod(pod)


async def test_who_waits_for_what_is_lost_in_recovery_is_told_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "_TIMEOUT_S", 0.1)
    async with an_engine(root) as engine:
        pod = await running(engine, {})
        exec_ = await engine.create_exec(pod, ExecSpec(command=SLEEP))
        await engine.start_detached_exec(exec_.id)
        machine = engine.machines()[0].pid
        os.kill(machine, signal.SIGSTOP)
    async with an_engine(root) as engine:
        ends = asyncio.gather(engine.wait_pod(pod), engine.wait_exec(exec_.id), return_exceptions=True)
        await asyncio.sleep(0.2)
        os.kill(machine, signal.SIGKILL)
        of_pod, of_exec = await ends
        assert isinstance(of_pod, HypervisorError)
        assert "the machine ended" in of_pod.message
        assert isinstance(of_exec, ExecNotFound)
        await engine.remove_pod(pod)


# --- Health ---


async def test_a_frozen_guest_is_unresponsive_and_is_stopped_in_bounded_time(root: Path) -> None:
    async with an_engine(root, health_interval_s=0.2) as engine:
        pod = await running(engine, {})
        assert engine.pod(pod).health == "healthy"
        os.killpg(engine.machines()[0].pid, signal.SIGSTOP)
        await until(lambda: engine.pod(pod).health == "unresponsive")
        exec_ = await engine.create_exec(pod, ExecSpec(command=("true",)))
        with pytest.raises(Unavailable, match="does not answer"):
            await engine.start_exec(exec_.id)
        async with asyncio.timeout(PATIENCE_S):
            await engine.stop_pod(pod, timeout_s=1)
        assert engine.pod(pod).state is PodState.CREATED
        assert not engine.machines()
        await engine.remove_pod(pod)


async def test_who_asks_a_frozen_guest_for_something_keeps_nobody_from_removing_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_CREATE_TIMEOUT_S", "_ERASE_TIMEOUT_S"):
        monkeypatch.setattr(conduct, limit, 0.5)
    pod = await running(engine, {})
    for name in ("new", "gone"):
        await engine.add_container(pod, added(name=name))
    await engine.start_container("gone")
    await engine.stop_container("gone", timeout_s=0)
    os.killpg(engine.machines()[0].pid, signal.SIGSTOP)
    asked = [engine.start_container("new"), engine.remove_container("gone")]
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await engine.remove_pod(pod, force=True)
    assert [type(answer) for answer in answers] == [HypervisorError, HypervisorError]
