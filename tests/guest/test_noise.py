"""Any message in any order: hyperstart answers each request, and goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Iterator

import pytest

from hypercontainer.guest import schema
from hypercontainer.guest.protocol import (
    PROTOCOL_VERSION,
    Hello,
    Message,
    Part,
    Ping,
    RemoveContainer,
    SetUpPod,
    ShutDown,
    StartProcess,
    Welcome,
)
from hypercontainer.guest.wire import FrameParser, encode
from tests.guest.laboratory import POD_SLOT, Pod
from tests.support.waiting import PATIENCE_S

MESSAGES = 300
# What is the end of all, or of what the test's own directories are for.
EXCLUDED = (Hello, ShutDown, RemoveContainer)
WORDS = (
    "",
    "c1",
    "c2",
    "sh",
    "true",
    "cat",
    "/",
    "/tmp/x",
    "..",
    "root",
    "joe",
    "net.core.x",
    "ro",
    "bind",
    "tmpfs",
)


def a_value(kind: schema.Kind, chance: random.Random) -> object:
    match kind:
        case schema.Integer(name):
            bits = 8 * schema.INTEGER_SIZES[name] - (name == "i32")
            return min(chance.choice((0, 1, 2, 3, chance.getrandbits(bits))), 2**bits - 1)
        case schema.Boolean():
            return chance.random() < 0.5
        case schema.Text():
            return chance.choice((*WORDS, "x" * chance.randrange(5000), "é" * 20, "%s%n"))
        case schema.Data():
            return chance.randbytes(chance.choice((0, 1, 100, 20_000)))
        case schema.Record(cls):
            return a_record(cls, chance)
        case schema.Sequence(item):
            return tuple(a_value(item, chance) for _ in range(chance.choice((0, 1, 2, 20))))


def a_record(cls: type[Message] | type[Part], chance: random.Random) -> Message | Part:
    values = {name: a_value(kind, chance) for name, kind in schema.fields(cls)}
    if "slot" in values:
        values["slot"] = chance.choice((POD_SLOT, 1, 9))  # NO_SLOT is the test's own machine
    return cls(**values)


def noise(chance: random.Random) -> Iterator[bytes]:
    kinds = [cls for cls in schema.messages() if cls not in EXCLUDED]
    for number in range(MESSAGES):
        message = a_record(chance.choice(kinds), chance)
        assert isinstance(message, Message)
        if isinstance(message, SetUpPod | StartProcess) and chance.random() < 0.7:
            message = sensible(message)
        frame = encode(message, 0 if message.number in range(40, 50) else number + 1)
        if chance.random() < 0.1:
            at = chance.randrange(len(frame))
            frame = frame[:at] + chance.randbytes(1) + frame[at + 1 :]
        yield frame


def sensible(message: SetUpPod | StartProcess) -> Message:
    if isinstance(message, SetUpPod):
        return dataclasses.replace(message, sysctls=(), hostname="x", entropy=b"")
    argv = ("sh", "-c", "head -c 100000 /dev/zero; cat")
    return dataclasses.replace(
        message, container="c1", argv=argv, user="", groups=(), limits=(), environment=()
    )


@pytest.mark.parametrize("seed", range(4))
async def test_noise_is_answered_and_survived(pod: Pod, seed: int) -> None:
    await pod.agent.close()
    channel = await pod.machine.connect()
    channel.writer.write(encode(Hello(PROTOCOL_VERSION, 1), 1))
    for frame in noise(random.Random(seed)):
        channel.writer.write(frame)
    last = encode(Ping(), 0xFFFFFFFF)
    channel.writer.write(last)
    parser = FrameParser()
    answered: list[tuple[Message, int]] = []
    async with asyncio.timeout(PATIENCE_S):
        while all(request_id != 0xFFFFFFFF for _, request_id in answered):
            answered += parser.feed(await channel.reader.read(1 << 16))
    assert isinstance(answered[0][0], Welcome)
    channel.writer.close()
    await channel.writer.wait_closed()
    await pod.reconnect()
    await pod.agent.request(Ping())
