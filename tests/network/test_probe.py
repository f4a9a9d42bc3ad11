"""What ``hyper doctor`` is told about networks."""

from __future__ import annotations

import pytest

from hypercontainer.config import Settings
from hypercontainer.network.probe import probe
from tests.network.laboratory import Laboratory, command

pytestmark = pytest.mark.needs_root


async def test_this_host_has_what_a_bridge_needs(laboratory: Laboratory) -> None:
    laboratory.outside()
    bad = [check for check in await probe(Settings()) if not check.is_good and check.name != "DNS"]
    assert bad == []


async def test_firewall_that_would_drop_our_packets_is_named(laboratory: Laboratory) -> None:
    chain = "{ type filter hook forward priority 0; policy drop; }"
    command(f"nft add table inet filter; add chain inet filter forward {chain}")
    (check,) = [check for check in await probe(Settings()) if check.name == "forwarding"]
    assert not check.is_good
    assert "inet filter forward" in check.detail
    assert "nft insert rule inet filter forward iifname hyper0 accept" in check.hint


async def test_bad_subnet_is_named(laboratory: Laboratory) -> None:
    (check,) = [check for check in await probe(Settings(subnet="10.0.0.1/24")) if check.name == "subnet"]
    assert not check.is_good
    assert check.hint
