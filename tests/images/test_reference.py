"""References, platforms and documents, read as Docker reads them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.errors import HyperError, InvalidRequest
from hypercontainer.model.image import (
    Credentials,
    Image,
    ImageDocument,
    Manifest,
    Platform,
    Reference,
    decode,
)

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("team/app:v1.0_x", "docker.io/team/app:v1.0_x", "team/app:v1.0_x"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("localhost:5000/a:2", "localhost:5000/a:2", "localhost:5000/a:2"),
        ("registry.example/a/b/c", "registry.example/a/b/c:latest", "registry.example/a/b/c:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
    ],
)
def test_a_reference_has_docker_s_defaults(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert Reference.parse(full) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "Debian", "a b", "debian:", "debian:a b", f"debian:{'x' * 129}", "debian@sha256:12", "a//b",
        "/a", "a/", "-a", "a_", "a/../b", "../a", "a" * 256, "ab" * 32, "debian@", "debian@md5:00", "a\nb", "http://a/b",
        "host:port/a", "exa mple.com/a", "a:b:c", f"a@{DIGEST}@{DIGEST}", "a\0", "--help",
    ],
)  # fmt: skip
def test_a_bad_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Reference.parse(text)


@given(st.text(max_size=60))
def test_whatever_parses_says_the_same_again(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidRequest:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


def test_a_platform_accepts_its_own() -> None:
    arm = Platform.parse("linux/arm/v7")
    assert str(arm) == "linux/arm/v7"
    assert arm.accepts(Platform(architecture="arm", variant="v7"))
    assert not arm.accepts(Platform(architecture="arm", variant="v6"))
    assert Platform.parse("x86_64") == Platform.parse("linux/amd64")
    assert Platform.parse("linux/arm64").accepts(Platform(architecture="arm64", variant="v8"))
    with pytest.raises(InvalidRequest):
        Platform.parse("linux/../x")


def test_nulls_and_unknown_fields_are_as_if_absent() -> None:
    text = {
        "architecture": "amd64",
        "new": 1,
        "config": {"Cmd": None, "Env": ["A=1"], "Labels": None, "X": {}},
    }
    document = decode(json.dumps(text).encode(), ImageDocument, what="config")
    assert document.config.cmd == []
    assert document.config.env == ["A=1"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b"\xff",
        b'{"config": 1}',
        b'{"config": {}, "layers": [1]}',
        b" " * (5 << 20),
    ],
    ids=["empty", "list", "cut", "deep", "binary", "config", "layers", "huge"],
)
def test_a_bad_document_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the manifest"):
        decode(data, Manifest, what="the manifest")


def test_a_password_is_never_shown() -> None:
    credentials = Credentials(username="someone", password="secret")
    assert "secret" not in repr(credentials) + str(credentials) + f"{credentials}"


def test_an_image_is_frozen() -> None:
    assert Image.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert issubclass(InvalidRequest, HyperError)
