"""How large machines are, and which are to be started ahead: pure, so that a test compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypercontainer.model.pod import PodSpec


class Size(NamedTuple):
    """All that pods must have in common whose machines can take each other's place."""

    hypervisor: str
    vcpus: int
    memory_mib: int
    has_network: bool


def size_of(spec: PodSpec, hypervisor: str) -> Size | None:
    """None for a pod whose NICs are like no other's."""
    if spec.interfaces or spec.network not in {"default", "none"}:
        return None
    return Size(hypervisor, spec.vcpus, spec.memory_mib, spec.network == "default")


def ahead(lately: Sequence[Size], *, memory_mib: int) -> list[Size]:
    """The machines to be kept, in the order of their making: of each size in turn, as long as they fit.

    ``lately`` are the sizes that pods asked for, the last one first; ``memory_mib`` is what all may have.
    """
    chosen: list[Size] = []
    left = memory_mib
    while fitting := [size for size in lately if size.memory_mib <= left]:
        for size in fitting:
            if size.memory_mib <= left:
                chosen.append(size)
                left -= size.memory_mib
    return chosen


def missing(wanted: Sequence[Size], held: Sequence[Size]) -> list[Size]:
    """What of ``wanted`` is not among ``held``, where each stands for one."""
    rest = list(held)
    lacking = []
    for size in wanted:
        if size in rest:
            rest.remove(size)
        else:
            lacking.append(size)
    return lacking
