"""Any bytes as a podfile; FUZZ_SECONDS for each way of making them.

Invariants: a PodSpec that hyperd takes, or InvalidRequest that names the file; nothing else, and soon.
What the CLI finds no fault with and hyperd does is a fault of the CLI's, since hyperd's error has no line.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypercontainer.cli import podfile
from hypercontainer.cli.podfile.keys import POD
from hypercontainer.cli.podfile.manifest_keys import MANIFEST
from hypercontainer.cli.podfile.shapes import Flag, Keys, Names, Number, Several, Shape, Text, Whole
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import PodSpec
from tests.fuzz.test_c import SECONDS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus/podfile"
SEEDS = sorted(
    path
    for folder in (CORPUS, ROOT / "examples", ROOT / "tests/unit/cli/podfiles")
    for path in folder.rglob("*")
    if path.is_file()
)
LONGEST_S = 20  # for one file; it is seconds where the machine is busy
PIECES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\t", b"\n", b"---\n", b"&a ", b"*a", b"!!binary ", b"? ", b"<<: ",
    b"|\n", b"[", b"]", b"{", b"}", b":", b",", b'"', b"'", b"#", b"-", b"\\u0000", b"\\ud800", b"null",
    b"true", b"1e999", b"9" * 50, b"-1", b"0x10", b".nan", b"2026-01-01", b"/", b"..", b"=", b"detail: ",
    b"apiVersion: v1\n",
)  # fmt: skip


def nothing_remote(uri: str, directory: Path, limit: int) -> bytes:
    if len(uri) % 2:
        raise InvalidRequest(f"cannot fetch {uri!r}")
    return uri.encode()


def judge(data: bytes) -> None:
    """One file, under both kinds of names."""
    for name in ("pod.yaml", "pod.json"):
        begin = time.monotonic()
        problem = problem_of(data, name)
        if problem is not None:
            assert problem.message.startswith(name)
            assert len(problem.message) < 1000
        assert time.monotonic() - begin < LONGEST_S


def problem_of(data: bytes, name: str) -> InvalidRequest | None:
    try:
        found = podfile.parse(data, name, Path("/pods"), nothing_remote)
    except InvalidRequest as problem:
        return problem
    msgspec.json.decode(json.dumps(found), type=PodSpec)
    return None


def mutated(seed: bytes, dice: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0:
                data[at:at] = dice.choice(PIECES)
            case 1:
                del data[at : at + dice.randrange(20)]
            case 2 if at < len(data):
                data[at] = dice.randrange(256)
            case 3:
                start = dice.randrange(len(data) + 1)
                data[at:at] = data[start : start + dice.randrange(200)]
            case _:
                data[at : at + 1] = dice.choice(PIECES)
    return bytes(data)


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_each_seed_is_judged(path: Path) -> None:
    judge(path.read_bytes())


@pytest.mark.timeout(SECONDS + 120)
def test_damaged_podfiles_are_read_or_refused() -> None:
    """A failure leaves its bytes in the corpus, to be committed with the repair."""
    dice = random.Random()
    stop = time.monotonic() + SECONDS
    seeds = [path.read_bytes() for path in SEEDS]
    while time.monotonic() < stop:
        data = mutated(dice.choice(seeds), dice)
        try:
            judge(data)
        except BaseException:
            (CORPUS / f"found-{hash(data) & 0xFFFFFFFF:08x}").write_bytes(data)
            raise


# --- documents of the right shape, with values that are often nearly right ---

WORDS = st.sampled_from([
    "", "a", "b", "/", "/a", "/a/", "a/..", "/a/b", "0755", "1", "80", "1-3", "65535", "99999",
    "10.0.0.1", "::1", "10.0.0.0/8", "10.0.0.1/24", "64m", "1g", "raw", "base64", "YQ==", "file:///a",
    "http://a", "nofile", "ext4", "net.core.somaxconn", "kernel.msgmax", "a:10.0.0.1", "/run:size=1m",
    "10m", "max-size", "max-file", "1:/a", "500m", "64Mi", "$(A)", "52:54:00:00:00:01", "metadata.name",
    "\u00e9", "a b", "v1", "Pod", "x" * 300,
])  # fmt: skip

_HELD = (Text, Flag, Whole, Number, Several, Names, Keys)  # of shapes: those that mean something


def documents(shape: Shape) -> st.SearchStrategy[Any]:
    match shape:
        case Text():
            return texts(shape)
        case Flag():
            return st.booleans()
        case Whole(low, high):
            return rarely(
                st.sampled_from([low - 1, high + 1]), st.sampled_from([max(low, 1), 80, 1500, high])
            )
        case Number():
            return rarely(st.sampled_from([1e9, -1]), st.sampled_from([0, 0.5, 2]))
        case Several(of):
            return st.lists(documents(of), max_size=3)
        case Names():
            return st.dictionaries(WORDS, WORDS, max_size=2)
        case Keys():
            return mappings(shape)
    return st.none()


@st.composite
def rarely(draw: st.DrawFn, wrong: st.SearchStrategy[Any], right: st.SearchStrategy[Any]) -> Any:
    """Of too many wrong values, most documents would be refused for the first of them."""
    return draw(wrong if draw(st.integers(0, 40)) == 7 else right)


def texts(shape: Text) -> st.SearchStrategy[Any]:
    wrong = WORDS | st.integers(-1, 70000)
    if shape.choices:
        return rarely(wrong, st.sampled_from(shape.choices))
    if shape.pattern:
        return rarely(wrong, st.from_regex(shape.pattern, fullmatch=True))
    return WORDS.filter(bool)


@st.composite
def mappings(draw: st.DrawFn, shape: Keys) -> dict[str, Any]:
    """What is required and a few of the others, and one container at least."""
    known = {key.name: key for key in shape.keys if isinstance(key.shape, _HELD)}
    names = [name for name, key in known.items() if key.required]
    names += draw(st.lists(st.sampled_from(sorted(known)), max_size=4))
    found = {name: draw(documents(known[name].shape)) for name in dict.fromkeys(names)}
    several = known["containers"].shape if "containers" in known else None
    if isinstance(several, Several):
        found["containers"] = draw(st.lists(documents(several.of), min_size=1, max_size=3))
    return found


@pytest.mark.timeout(SECONDS * 10 + 120)
@settings(max_examples=30 * max(1, SECONDS // 5), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(documents(POD), documents(MANIFEST)))
def test_documents_of_the_right_shape_are_read_or_refused(document: Any) -> None:
    judge(json.dumps(document).encode())
