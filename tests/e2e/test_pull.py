"""Images from a real registry: pull, its progress, its logins, and ``run`` that pulls by itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hyper import Hyper
from tests.support.images import cached_busybox_layer, docker_archive, tar_of
from tests.support.registry import PASSWORD, USER, RegistryServer, running_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    root = tmp_path_factory.mktemp("registry")
    with running_registry(root) as server:
        layers = [cached_busybox_layer(), tar_of({"of-the-registry": b"yes\n"})]
        image = docker_archive(root / "box.tar", layers=layers, config={"Cmd": ["sh"]}, tags=["box:1"])
        server.push(image, "team/box:1")
        yield server


@pytest.fixture
def name(hyper: Hyper, registry: RegistryServer) -> Iterator[str]:
    """The pushed image, at a registry that hyper trusts; gone again afterwards."""
    trusted = hyper.root / "etc/certs.d" / registry.host
    trusted.mkdir(parents=True, exist_ok=True)
    (trusted / "ca.crt").write_bytes(registry.certificate.read_bytes())
    name = f"{registry.host}/team/box:1"
    yield name
    hyper.remove_all()
    hyper("rmi", "-f", name)


@pytest.fixture
def login(hyper: Hyper, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``docker login`` leaves."""
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config = {"auths": {registry.host: {"auth": secret}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setitem(hyper.environment, "DOCKER_CONFIG", str(tmp_path))


@pytest.mark.usefixtures("login")
def test_pull_says_what_it_does_in_lines(hyper: Hyper, name: str) -> None:
    lines = hyper.ok("pull", name).splitlines()
    assert any(line.endswith(": Pull complete") for line in lines)
    assert any(line.startswith("Digest: sha256:") for line in lines)
    assert "\x1b" not in "".join(lines)
    assert name.rpartition(":")[0] in hyper.ok("images")
    assert hyper.ok("pull", "-q", name) == name


@pytest.mark.usefixtures("login")
def test_run_pulls_what_is_not_here_and_keeps_stdout_for_the_program(hyper: Hyper, name: str) -> None:
    result = hyper.run(name, "cat", "/of-the-registry")
    assert (result.status, result.out) == (0, "yes\n")
    assert f"Unable to find image '{name}' locally" in result.err
    assert hyper.run(name, "echo", "again").err == ""


@pytest.mark.usefixtures("login")
def test_bars_are_drawn_on_a_terminal(hyper: Hyper, name: str) -> None:
    with hyper.terminal("pull", name, columns=100) as screen:
        screen.wait_for("Pull complete")
        assert screen.wait() == 0


def test_a_password_may_come_from_stdin(hyper: Hyper, name: str) -> None:
    assert (
        hyper.ok("pull", "-q", "-u", USER, "--password-stdin", name, stdin=PASSWORD.encode() + b"\n") == name
    )


def test_no_or_a_wrong_password_is_said(hyper: Hyper, name: str) -> None:
    for result in (
        hyper("pull", name),
        hyper("pull", "-u", USER, "--password-stdin", name, stdin=b"wrong\n"),
    ):
        assert result.status == 1
        assert name.partition("/")[0] in result.err
    assert hyper.run(name, "true").status == 125


@pytest.mark.usefixtures("login")
def test_an_image_that_the_registry_has_not_is_said(hyper: Hyper, name: str) -> None:
    result = hyper("pull", name.replace("box", "nothing"))
    assert result.status == 1
    assert "nothing" in result.err
