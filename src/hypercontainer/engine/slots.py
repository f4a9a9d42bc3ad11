"""Which disk is in which slot of a machine: the pod's writable one in slot 0, then each image once.

A tuple of keys, one for each slot: ``POD``, an image's id, that of a volume, or ``NOTHING``.  It is recorded
before the machine has it so, and says what every slot must hold.  A slot whose image nobody wants any more
keeps its disk until another needs its place; a volume's is emptied, as the file is the user's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hypercontainer.errors import InvalidRequest

WRITABLE = 0
POD = "pod"  # the key of the pod's own disk
NOTHING = ""  # the key of an empty slot

Slots = tuple[str, ...]


def assign(held: Slots, wanted: Sequence[str], *, limit: int) -> Slots:
    """``held``, changed so that each key of ``wanted`` has a slot: those that have one keep it.

    Raises InvalidRequest when they do not fit in ``limit`` slots.
    """
    keys = list(held or (POD,))
    keep = {POD, *wanted}
    for key in dict.fromkeys(wanted):
        if key in keys:
            continue
        place = next((slot for slot, old in enumerate(keys) if old not in keep), len(keys))
        if place >= limit:
            raise InvalidRequest(
                f"the pod needs {len(keep)} disks, and a machine has {limit} slots for them",
                hint="use fewer images or volumes of disk images in one pod, or another --hypervisor",
            )
        keys[place : place + 1] = [key]
    return tuple(keys)


def without(held: Slots, keys: Collection[str]) -> Slots:
    """``held`` with nothing where one of ``keys`` is."""
    return tuple(NOTHING if key in keys else key for key in held)


def only(held: Slots, wanted: Collection[str], *, size: int) -> Slots:
    """The pod's disk and ``wanted`` where ``held`` has them, and else nothing, in at least ``size`` slots."""
    kept = tuple(key if key == POD or key in wanted else NOTHING for key in held)
    return kept + (NOTHING,) * (size - len(kept))


def find(held: Slots, key: str) -> int:
    """The slot that holds ``key``, which must be assigned."""
    return held.index(key)


def changes(before: Slots, after: Slots) -> dict[int, str]:
    """The slots that hold another disk in ``after``, with its key."""
    return {slot: key for slot, key in enumerate(after) if slot >= len(before) or before[slot] != key}


def unchanged(before: Slots, after: Slots, keys: Collection[str]) -> tuple[int, ...]:
    """The slots that hold the same one of ``keys`` in both."""
    both = enumerate(zip(before, after, strict=False))
    return tuple(slot for slot, (old, new) in both if old == new and new in keys)
