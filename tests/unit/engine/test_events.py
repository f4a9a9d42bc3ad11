"""Events: the difference between a record and the one before it, told to who listens."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

import msgspec
import pytest

from hypercontainer.engine.events import KEPT, Events, matches, parse_filter
from hypercontainer.engine.records import ContainerRecord, ExecRecord, PodRecord, ProcessRecord, Record
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import ContainerSpec, ExecSpec, PodSpec
from hypercontainer.model.rest import ContainerState, EventView
from tests.support.waiting import PATIENCE_S

POD = PodRecord(id="p1", name="web", spec=PodSpec(), created=1, hypervisor="uml")
CONTAINER = ContainerRecord(
    id="c1", pod="p1", index=0, name="nginx", spec=ContainerSpec(image="nginx"), image_id="i", argv=("x",),
    environment=(), working_directory="/", user="", stop_signal=15, created=1,
)  # fmt: skip
EXEC = ExecRecord(id="e1", container="c1", spec=ExecSpec(command=("sh", "-c", "ls")))


R = TypeVar("R", bound=Record)


def changed(record: R, **changes: object) -> R:
    return msgspec.structs.replace(record, **changes)


async def told(events: Events) -> list[EventView]:
    return [event async for event in events.listen(since=1, until=time.time())]


async def actions(events: Events) -> list[str]:
    return [f"{event.type} {event.action}" for event in await told(events)]


def a_pod(*records: PodRecord | ContainerRecord | ExecRecord) -> Events:
    events = Events()
    for record in (POD, CONTAINER, *records):
        events.record(record)
    return events


async def test_a_life_is_told_in_dockers_words() -> None:
    running = changed(POD, machine="m1", target="running")
    started = changed(CONTAINER, state=ContainerState.RUNNING, process=ProcessRecord(number=1, started=5))
    ended = changed(
        started,
        state=ContainerState.EXITED,
        process=ProcessRecord(number=1, started=5, exit_code=137, out_of_memory=True),
    )
    events = a_pod(running, changed(running, next_process=2), started, ended, changed(running, machine=""))
    events.gone("p1")
    assert await actions(events) == [
        "pod create", "container create", "pod start", "container start", "container oom", "container die",
        "pod stop", "container destroy", "pod destroy",
    ]  # fmt: skip
    (die,) = [event for event in await told(events) if event.action == "die"]
    assert die.attributes == {"image": "nginx", "pod": "web", "podID": "p1", "exitCode": "137"}


async def test_pause_rename_and_a_second_run_are_told() -> None:
    running = changed(POD, machine="m1")
    paused = changed(running, paused=True)
    first = changed(CONTAINER, state=ContainerState.RUNNING, process=ProcessRecord(number=1, started=5))
    second = changed(first, process=ProcessRecord(number=2, started=6))
    events = a_pod(running, paused, running, first, second, changed(second, name="other"))
    assert (await actions(events))[2:] == [
        "pod start", "pod pause", "pod unpause", "container start", "container start", "container rename",
    ]  # fmt: skip


async def test_a_machine_that_another_pod_had_is_a_replacement() -> None:
    new = changed(POD, id="p2", name="new")
    events = a_pod(changed(POD, machine="m1"), new)
    events.record(changed(POD, machine=""))
    events.record(changed(new, machine="m1"))
    last = (await told(events))[-1]
    assert (last.action, last.name, last.attributes) == ("replace", "new", {"old": "web"})


async def test_execs_are_events_of_their_container() -> None:
    started = changed(EXEC, process=ProcessRecord(number=2, started=5))
    ended = changed(EXEC, process=ProcessRecord(number=2, started=5, exit_code=3))
    events = a_pod(EXEC, started, ended)
    found = (await told(events))[2:]
    assert [event.action for event in found] == ["exec_create", "exec_start", "exec_die"]
    assert {event.id for event in found} == {"c1"}
    assert found[2].attributes["exitCode"] == "3"
    assert found[2].attributes["command"] == "sh -c ls"


async def test_what_an_earlier_daemon_wrote_is_no_news() -> None:
    events = Events()
    events.known(POD)
    events.known(CONTAINER)
    assert await told(events) == []
    events.record(changed(CONTAINER, state=ContainerState.EXITED, process=ProcessRecord(exit_code=0)))
    assert await actions(events) == ["container die"]


async def test_a_listener_gets_what_comes_and_one_too_slow_is_let_go() -> None:
    events = Events()
    fast: list[str] = []

    async def listen() -> None:
        async for event in events.listen():
            fast.append(event.name)

    slow = events.listen()
    waiting = asyncio.ensure_future(anext(slow))
    task = asyncio.create_task(listen())
    await asyncio.sleep(0.01)
    for number in range(6000):
        events.publish("image", "tag", "i", str(number))
        if number % 100 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        while len(fast) < 6000:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert fast == [str(number) for number in range(6000)]
    assert (await waiting).name == "0"
    rest = [event.name async for event in slow]
    assert 1000 < len(rest) < 6000
    assert rest == [str(number) for number in range(1, len(rest) + 1)]
    task.cancel()


async def test_the_newest_are_kept_and_no_more() -> None:
    events = Events()
    for number in range(KEPT + 10):
        events.publish("image", "tag", "i", str(number))
    assert [event.name for event in await told(events)] == [str(number) for number in range(10, KEPT + 10)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["event=die"], True), (["event=start"], False), (["event=start", "event=die"], True),
        (["type=container", "event=die"], True), (["type=pod", "event=die"], False), (["pod=web"], True),
        (["pod=p1"], True), (["container=nginx"], True), (["container=c"], True), (["image=nginx"], True),
        (["image=other"], False),
    ],
)  # fmt: skip
def test_filters_are_combined_as_dockers(filters: list[str], expected: bool) -> None:
    event = EventView(
        type="container", action="die", id="c1", name="nginx", time_ns=1,
        attributes={"image": "nginx:latest", "pod": "web", "podID": "p1"},
    )  # fmt: skip
    assert matches(event, [parse_filter(text) for text in filters]) is expected


@pytest.mark.parametrize("text", ["", "event", "nothing=x", "=x"])
def test_a_filter_of_an_unknown_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid filter"):
        parse_filter(text)
