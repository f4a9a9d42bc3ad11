"""The protocol only grows: what was released is still there, so machines outlive an upgrade of hyperd."""

from __future__ import annotations

import copy
import dataclasses
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest import protocol, schema, wire
from hypercontainer.guest.protocol import PROTOCOL_VERSION, U8, U32, Message, Ping, Source, since
from tools.gen_protocol import RELEASED

ADVICE = "append, and raise PROTOCOL_VERSION; before a release: python tools/gen_protocol.py --release"


def breaches(released: dict[str, Any], present: dict[str, Any]) -> Iterator[str]:
    """Where ``present`` is more than ``released`` and things appended to it."""
    numbers = {each["number"]: name for name, each in present["classes"].items() if each["number"]}
    for name, value in released["constants"].items():
        if name != "PROTOCOL_VERSION" and present["constants"].get(name) != value:
            yield f"{name} was {value}"
    for name, old in released["classes"].items():
        new = present["classes"].get(name)
        if old["number"] and numbers.get(old["number"]) != name:
            yield f"message number {old['number']} was {name}"
        if new is None:
            yield f"{name} is gone"
        elif new["fields"][: len(old["fields"])] != old["fields"]:
            yield f"{name} began with {old['fields']}"


def appended(released: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, old in released["classes"].items():
        for field, _ in schema.layout()["classes"][name]["fields"][len(old["fields"]) :]:
            yield name, field


def releases() -> list[Path]:
    return sorted(RELEASED.glob("*.json"), key=lambda path: int(path.stem))


@pytest.mark.parametrize("path", releases(), ids=lambda path: path.stem)
def test_what_was_released_is_still_there(path: Path) -> None:
    assert list(breaches(json.loads(path.read_text()), schema.layout())) == [], ADVICE


@pytest.mark.parametrize("path", releases(), ids=lambda path: path.stem)
def test_what_was_appended_since_a_release_says_so(path: Path) -> None:
    for name, field in appended(json.loads(path.read_text())):
        assert schema.since(getattr(protocol, name), field) > int(path.stem), f"{name}.{field}: {ADVICE}"


def test_a_change_has_a_version_of_its_own() -> None:
    newest = json.loads(releases()[-1].read_text())
    version = newest["constants"]["PROTOCOL_VERSION"]
    assert version == PROTOCOL_VERSION - (newest != schema.layout()), ADVICE


def _changed(change: str) -> dict[str, Any]:
    layout = copy.deepcopy(schema.layout())
    fields = layout["classes"]["Mount"]["fields"]
    match change:
        case "appended":
            fields.append(["propagation", "str"])
        case "inserted":
            fields.insert(0, ["propagation", "str"])
        case "removed":
            fields.pop()
        case "retyped":
            fields[0][1] = "u8"
        case "renumbered":
            layout["classes"]["Ping"]["number"] = 99
        case "reused":
            layout["classes"]["Pong"] = layout["classes"].pop("Ping")
        case "added":
            layout["classes"]["Pong"] = {"number": 99, "fields": []}
        case "constant":
            layout["constants"]["FRAME_SIZE"] += 1
    return layout


@pytest.mark.parametrize(
    ("change", "is_growth"),
    [
        ("appended", True),
        ("added", True),
        ("inserted", False),
        ("removed", False),
        ("retyped", False),
        ("renumbered", False),
        ("reused", False),
        ("constant", False),
    ],
)
def test_the_rules_tell_growth_from_a_break(change: str, is_growth: bool) -> None:
    assert (not list(breaches(schema.layout(), _changed(change)))) == is_growth


# --- Reading what another version sent ---


@dataclasses.dataclass(frozen=True)
class Grown(protocol.Part):
    slot: U8
    path: str
    label: str = since(2, "")
    weight: U32 = since(3, 0)


def test_fields_that_an_older_peer_lacks_are_empty_and_those_of_a_newer_one_are_passed_over() -> None:
    write_new, read_new = wire._part_codec(Grown, False)
    write_old, read_old = wire._part_codec(Source, False)
    sent: list[bytes] = []
    write_old(sent, Source(1, "a"))
    write_new(sent, Grown(2, "b", "label", 7))
    body = b"".join(sent)
    first, middle = read_new(body, 0)
    second, end = read_new(body, middle)
    assert (first, second, end) == (Grown(1, "a", "", 0), Grown(2, "b", "label", 7), len(body))
    third, end = read_old(body, middle)
    assert (third, end) == (Source(2, "b"), len(body))


@pytest.mark.parametrize("exact", [True, False])
def test_a_field_that_was_always_there_must_come(exact: bool) -> None:
    _, read = wire._part_codec(Grown, exact)
    for short in (b"\0\0\0\0", b"\1\0\0\0\7", b"\3\0\0\0\7\1\0"):
        with pytest.raises((ValueError, struct.error)):
            read(short, 0)


def test_a_message_of_a_newer_guest_that_is_not_known_is_passed_over() -> None:
    unknown = wire.stuff(_with_checksum(b"\x90\x01\0\0\0\0whatever"))
    parser = wire.FrameParser()
    parser.exact = False
    assert parser.feed(unknown + wire.encode(Ping(), 3)) == [(Ping(), 3)]
    with pytest.raises(GuestError):
        wire.FrameParser().feed(unknown)


def test_what_an_older_guest_would_not_see_is_found() -> None:
    @dataclasses.dataclass(frozen=True)
    class Wanted:
        parts: tuple[Grown, ...]
        other: int = since(2, 0)

    wanted = Wanted((Grown(1, "a"), Grown(1, "b", "label")), 5)
    assert list(schema.newer_fields(wanted, 1)) == ["Grown.label", "Wanted.other"]
    assert list(schema.newer_fields(wanted, 2)) == []
    assert list(schema.newer_fields(Wanted((Grown(1, "a"),)), 1)) == []


def _with_checksum(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_every_message_is_in_the_layout() -> None:
    assert {cls.__name__ for cls in Message.registry.values()} <= set(schema.layout()["classes"])
