"""The one test in the host's own network: a pod reaches the world that the host reaches."""

from __future__ import annotations

import contextlib
import os
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.model.machine import NicKind
from hypercontainer.network.resolver import host_resolver
from tests.network.conftest import Start
from tests.network.laboratory import Laboratory, census, command

pytestmark = pytest.mark.needs_root


@pytest.fixture
def host_laboratory() -> Iterator[Laboratory]:
    if os.geteuid() != 0:
        pytest.skip("needs root for taps and nftables")
    if not host_resolver().servers or not command("ip route show default"):
        pytest.skip("this host has no way out, or no name server that a pod could reach")
    built = Laboratory()
    yield built
    built.close()


@pytest.fixture
def mirror() -> str:
    """A name that this host resolves: that of a mirror it installs packages from."""
    files = [file for file in Path("/etc/apt").glob("sources.list*/**/*") if file.is_file()]
    words = [word for file in files for word in file.read_text(errors="replace").split()]
    for host in {urllib.parse.urlsplit(word).hostname for word in words if "://" in word}:
        with contextlib.suppress(OSError):
            if host and socket.getaddrinfo(host, 80):
                return host
    pytest.skip("no mirror of /etc/apt has a name that this host resolves")


async def test_pod_resolves_and_reaches_the_mirror(
    start: Start, host_laboratory: Laboratory, mirror: str
) -> None:
    before = census()
    networks = start()
    lease = await networks.allocate("p1")
    try:
        nics = await networks.attach(lease, frozenset({NicKind.TAP}))
        await networks.ready(lease)
        pod = host_laboratory.pod(lease, nics)
        answer = command(f"getent ahostsv4 {mirror}", inside=pod)
        assert host_laboratory.connects(answer.split()[0], 80, inside=pod)
    finally:
        await networks.detach(lease)
        await networks.close()
    ours = ("hypertest", lease.nics[0].nic_name, lease.nics[0].gateway)
    assert not [line for line in census() - before if any(word in line for word in ours)]
