"""Logins that ``docker login`` left are found, for the registry that an image names."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from hypercontainer.cli.credentials import credentials_for
from hypercontainer.errors import InvalidRequest


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


@pytest.mark.parametrize(
    ("image", "user"),
    [
        ("debian", "hub"),
        ("someone/app:1", "hub"),
        ("docker.io/library/debian", "hub"),
        ("registry.example.org/app", "example"),
        ("localhost:5000/app@sha256:abc", "local"),
        ("localhost/app", ""),
        ("other.example.org/app", ""),
    ],
)
def test_each_registry_has_its_own(config: Path, image: str, user: str) -> None:
    auths = {
        "https://index.docker.io/v1/": auth("hub", "p"),
        "registry.example.org": auth("example", "p:with:colons"),
        "https://localhost:5000": auth("local", "p"),
    }
    config.write_text(json.dumps({"auths": auths}))
    assert credentials_for(image)[0] == user


def test_a_password_may_hold_colons(config: Path) -> None:
    config.write_text(json.dumps({"auths": {"a.b": auth("me", "p:q:r")}}))
    assert credentials_for("a.b/c") == ("me", "p:q:r")


def test_a_helper_is_asked(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread registry; echo "{\\"Username\\": \\"of $registry\\", \\"Secret\\": \\"s\\"}"\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config.write_text(json.dumps({"credHelpers": {"a.b": "test"}}))
    assert credentials_for("a.b/c") == ("of a.b", "s")
    assert credentials_for("debian") == ("", "")


@pytest.mark.parametrize("helper", ["nothere", "../evil", "false"])
def test_a_helper_that_fails_is_as_good_as_none(config: Path, helper: str) -> None:
    config.write_text(json.dumps({"credsStore": helper, "auths": {"a.b": auth("me", "p")}}))
    assert credentials_for("a.b/c") == ("me", "p")


@pytest.mark.parametrize("text", ['{"auths": {"a.b": {"auth": "!!"}}}', "{}", "[]", '{"auths": null}'])
def test_odd_files_hold_no_logins(config: Path, text: str) -> None:
    config.write_text(text)
    assert credentials_for("a.b/c") == ("", "")


def test_no_file_is_no_login(config: Path) -> None:
    assert credentials_for("a.b/c") == ("", "")


def test_a_broken_file_is_named(config: Path) -> None:
    config.write_text("{")
    with pytest.raises(InvalidRequest, match=r"config\.json is no JSON"):
        credentials_for("a.b/c")
