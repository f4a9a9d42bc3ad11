"""What listing a hundred running containers costs, shell to shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.fleet import fleet
from bench.measure import ratio, side_by_side, spread, table, timed
from bench.site import Site

COUNT = 100
_DOCKER, _HYPER = "docker ps", "hyper list"


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Milliseconds by command: of the first driver's pods, and of the first peer's containers beside them."""
    hyper = site.hypers[0]
    with fleet(hyper, COUNT):
        contenders = {
            _HYPER: timed([*hyper.program, "list"], hyper.environment),
            "hyper ps": timed([*hyper.program, "ps"], hyper.environment),
        }
        if not site.peers:
            return side_by_side(contenders, rounds=rounds)
        peer = site.peers[0]
        with fleet(peer, COUNT):
            contenders[_DOCKER] = timed([*peer.program, "ps"])
            return side_by_side(contenders, rounds=rounds)


def report(figures: Mapping[str, Any]) -> str:
    rows = [(name, *spread(each), ratio(each, figures.get(_DOCKER))) for name, each in figures.items()]
    return "\n\n".join(
        (
            f"{COUNT} containers that run, milliseconds:",
            table(("", "min", "median", "max", f"of {_DOCKER}'s median"), rows),
        )
    )
