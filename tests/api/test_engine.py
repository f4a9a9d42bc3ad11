"""The whole API over a real engine and a machine: what the document says is what hyperd does."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.client import Record, ensure_daemon
from hypercontainer.client.streams import Attached
from hypercontainer.config import Paths
from hypercontainer.errors import (
    CommandNotFound,
    Conflict,
    ContainerNotFound,
    ExecNotFound,
    HyperError,
    ImageNotFound,
    InvalidRequest,
    InvalidState,
    PodNotFound,
)
from hypercontainer.guest import boot
from hypercontainer.hypervisors import base
from hypercontainer.model.json import decode
from hypercontainer.model.rest import StreamKind, WaitView
from tests.api.test_daemon import end_daemon
from tests.support.checked import CheckedClient
from tests.support.images import busybox_archive
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.needs_machine


def _driver(cache: Path) -> str:
    """The first driver that works here; without one there is nothing to test."""
    if not boot.DATA.joinpath("hyperstart").exists():
        pytest.skip("hyperstart is not built: make guest")
    reasons = []
    for name in ("uml", "tcg"):
        if not (reason := asyncio.run(base.load(name).missing(cache=cache))):
            return name
        reasons.append(f"{name}: {reason}")
    pytest.skip("; ".join(reasons))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedClient]:
    root = tmp_path_factory.mktemp("root")
    before = os.environ.get("HYPER_ROOT")
    os.environ["HYPER_ROOT"] = str(root)
    paths = Paths.default()
    (root / "etc").mkdir()
    driver = _driver(tmp_path_factory.mktemp("cache"))
    (root / "etc" / "hyperd.toml").write_text(f'hypervisor = "{driver}"\n')
    try:
        ensure_daemon(paths)
        client = CheckedClient(paths.socket)
        with busybox_archive(root / "busybox.tar").open("rb") as archive:
            assert any(line.get("image") for line in client.images.load(archive))
        yield client
        for pod in client.pods.list():
            client.pods.remove(pod.id, force=True)
    finally:
        end_daemon(paths)
        if before is None:
            del os.environ["HYPER_ROOT"]
        else:
            os.environ["HYPER_ROOT"] = before


def create(client: CheckedClient, *command: str, **fields: Any) -> Record:
    container = {"image": "busybox", "command": list(command), "stdin": True}
    return client.pods.create({"network": "none", "memory_mib": 64, "containers": [container], **fields})


def collect(attached: Attached) -> tuple[bytes, bytes, int]:
    """stdout, stderr and the exit code."""
    kept = {StreamKind.STDOUT: b"", StreamKind.STDERR: b""}
    last = (0, b"")
    for kind, payload in attached.frames():
        if kind in kept:
            kept[StreamKind(kind)] += payload
        last = kind, payload
    assert last[0] == StreamKind.EXIT, last
    exit_code = decode(last[1], WaitView, subject="exit").exit_code
    return kept[StreamKind.STDOUT], kept[StreamKind.STDERR], exit_code


def test_a_pod_lives_from_create_to_remove(client: CheckedClient) -> None:
    pod = create(client, "sh", "-c", "echo out; echo err >&2; cat; exit 17", name="life")
    assert (pod.state, pod.name, pod.containers[0].state) == ("created", "life", "created")
    with client.containers.attach("life", start=True, from_start=True, timeline=True) as attached:
        assert client.pods.get("life").pod.state == "running"
        assert [machine.pod for machine in client.machines.list()] == [pod.id]
        attached.send(StreamKind.STDIN, b"typed\n")
        attached.send(StreamKind.STDIN_END)
        assert collect(attached) == (b"out\ntyped\n", b"err\n", 17)
    assert client.pods.wait("life") == client.containers.wait(pod.containers[0].id) == 17
    container = client.containers.get("life")
    assert (container.state, container.exit_code) == ("exited", 17)
    printed = list(client.containers.logs("life"))
    # How much of a stream comes as one piece, and where the other stream comes between, is up to the host.
    assert [b"".join(piece.data for piece in printed if piece.stream == stream) for stream in (1, 2)] == [
        b"out\ntyped\n",
        b"err\n",
    ]
    assert all(abs(piece.time_ns / 1e9 - time.time()) < 60 for piece in printed)
    assert client.pods.timeline("life").marks
    client.pods.remove("life", force=True)
    with pytest.raises(PodNotFound):
        client.pods.get("life")


def test_every_question_about_the_daemon_is_answered(client: CheckedClient) -> None:
    assert client.system.ping() == "OK"
    assert client.system.version().api == "v1"
    assert client.system.info().cpus > 0
    assert any(driver.chosen for driver in client.system.doctor().drivers)
    assert [image.tags for image in client.images.list()] == [["busybox:latest"]]
    assert client.images.get("busybox:latest").layers


def test_a_running_pod_is_executed_in_measured_signalled_and_stopped(client: CheckedClient) -> None:
    pod = create(client, "sh", "-c", "trap 'echo got it' USR1; echo up; while :; do sleep 0.1; done")
    assert client.pods.start(pod.id).state == "running"
    printed = client.containers.logs(pod.id, follow=True)
    assert next(printed).data == b"up\n"  # before it, the signal would end the shell
    made = client.containers.create_exec(pod.id, {"command": ["sh", "-c", "cat; exit 3"], "stdin": True})
    with client.execs.start(made.id) as attached:
        attached.send(StreamKind.STDIN, b"in")
        attached.send(StreamKind.STDIN_END)
        assert collect(attached) == (b"in", b"", 3)
    assert client.execs.get(made.id).exit_code == 3
    assert client.pods.statistics(pod.id).memory_total > 0
    client.containers.kill(pod.id, signal=10)
    assert next(printed).data == b"got it\n"
    assert client.pods.stop(pod.id, timeout_s=0).state == "created"
    assert client.pods.wait(pod.id) in {137, 143}
    client.pods.remove(pod.id)


def test_a_terminal_has_its_size_and_one_stream(client: CheckedClient) -> None:
    container = {"image": "busybox", "command": ["sh"], "stdin": True, "terminal": True}
    pod = client.pods.create({"network": "none", "containers": [container]})
    with client.containers.attach(pod.id, start=True, from_start=True) as attached:
        attached.send(StreamKind.RESIZE, struct.pack(">HH", 33, 111))
        attached.send(StreamKind.STDIN, b"stty size; exit 5\n")
        out, err, code = collect(attached)
    assert b"33 111\r\n" in out
    assert (err, code) == (b"", 5)
    client.pods.remove(pod.id, force=True)


def test_a_wait_is_held_open_until_the_end(client: CheckedClient) -> None:
    pod = create(client, "sleep", "60")
    client.pods.start(pod.id)
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(client.pods.wait(pod.id)))
    waiter.start()
    time.sleep(0.3)
    assert not codes
    client.pods.kill(pod.id)
    waiter.join(PATIENCE_S)
    assert codes == [137]
    client.pods.remove(pod.id, force=True)


def test_detaching_leaves_the_container_and_attaching_again_finds_it(client: CheckedClient) -> None:
    pod = create(client, "cat")
    first = client.containers.attach(pod.id, start=True)
    first.send(StreamKind.STDIN, b"one\n")
    assert next(first.frames()) == (StreamKind.STDOUT, b"one\n")
    first.close()
    with client.containers.attach(pod.id, from_start=True) as second:
        second.send(StreamKind.STDIN, b"two\n")
        second.send(StreamKind.STDIN_END)
        assert collect(second) == (b"one\ntwo\n", b"", 0)
    client.pods.remove(pod.id, force=True)


def test_logs_take_a_tail_and_a_time(client: CheckedClient) -> None:
    pod = create(client, "sh", "-c", "for n in 1 2 3 4 5; do echo line $n; done")
    client.pods.start(pod.id)
    client.pods.wait(pod.id)
    assert b"".join(line.data for line in client.containers.logs(pod.id, tail=2)) == b"line 4\nline 5\n"
    assert list(client.containers.logs(pod.id, tail=0)) == []
    assert list(client.containers.logs(pod.id, since=time.time() + 60)) == []
    assert list(client.containers.logs(pod.id, until=1)) == []
    client.pods.remove(pod.id, force=True)


def test_the_wrong_name_is_not_found_by_its_kind(client: CheckedClient) -> None:
    wrong: list[tuple[type[HyperError], Any]] = [
        (PodNotFound, client.pods.get),
        (PodNotFound, client.pods.start),
        (PodNotFound, client.pods.stop),
        (PodNotFound, client.pods.remove),
        (PodNotFound, client.pods.pause),
        (PodNotFound, client.pods.unpause),
        (PodNotFound, client.pods.kill),
        (PodNotFound, client.pods.wait),
        (PodNotFound, client.pods.timeline),
        (PodNotFound, client.pods.statistics),
        (ContainerNotFound, client.containers.get),
        (ContainerNotFound, client.containers.kill),
        (ContainerNotFound, client.containers.wait),
        (ContainerNotFound, client.containers.attach),
        (ContainerNotFound, client.containers.logs),
        (ExecNotFound, client.execs.get),
        (ExecNotFound, client.execs.start),
        (ImageNotFound, client.images.get),
        (ImageNotFound, client.images.remove),
    ]
    for kind, verb in wrong:
        with pytest.raises(kind):
            verb("absent")


def test_the_wrong_time_is_an_invalid_state(client: CheckedClient) -> None:
    pod = create(client, "true")
    for verb in (
        client.pods.pause,
        client.pods.unpause,
        client.pods.kill,
        client.pods.statistics,
        client.containers.kill,
        client.containers.attach,
        lambda name: client.containers.create_exec(name, {"command": ["true"]}),
    ):
        with pytest.raises(InvalidState):
            verb(pod.id)
    client.pods.remove(pod.id)


def test_what_cannot_be_is_refused_before_anything_is_made(client: CheckedClient) -> None:
    create(client, "true", name="taken")
    before = client.pods.list()
    for kind, fields in (
        (Conflict, {"name": "taken"}),
        (InvalidRequest, {"memory_mib": 1}),
        (InvalidRequest, {"memory_mib": -5}),
        (InvalidRequest, {"hypervisor": "vmware"}),
        (ImageNotFound, {"containers": [{"image": "absent"}]}),
        (InvalidRequest, {"ports": [{"container_port": 99999}]}),
    ):
        with pytest.raises(kind):
            create(client, "true", **fields)
    assert client.pods.list() == before
    client.pods.remove("taken")


def test_a_command_that_is_not_there_is_told_as_such(client: CheckedClient) -> None:
    pod = create(client, "no-such-command")
    with pytest.raises(CommandNotFound, match="no-such-command"):
        client.pods.start(pod.id)
    client.pods.remove(pod.id, force=True)


def test_a_broken_archive_leaves_no_image(client: CheckedClient, tmp_path: Path) -> None:
    before = client.images.list()
    (tmp_path / "broken").write_bytes(os.urandom(100_000))
    with (tmp_path / "broken").open("rb") as archive, pytest.raises(HyperError):
        list(client.images.load(archive))
    assert client.images.list() == before


def test_an_image_gets_names_and_loses_them(client: CheckedClient) -> None:
    client.images.tag("busybox", "example.org:5000/a/b:1.2")
    assert "example.org:5000/a/b:1.2" in client.images.get("example.org:5000/a/b:1.2").tags
    removed = client.images.remove("example.org:5000/a/b:1.2")
    assert [line.action for line in removed] == ["Untagged"]
    with pytest.raises(ImageNotFound):
        client.images.get("example.org:5000/a/b:1.2")
