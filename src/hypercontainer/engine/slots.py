"""Which disk is in which slot of a machine: the pod's own, in slot 0 after a boot, and each image once.

A tuple of keys, one for each slot: ``POD``, an image's id, that of a volume, or ``NOTHING``.  It is recorded
before the machine has it so, and says what every slot must hold.  A slot whose image nobody wants any more
keeps its disk until another needs its place; a volume's is emptied, as the file is the user's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hypercontainer.errors import InvalidRequest

POD = "pod"  # the key of the pod's own disk
NOTHING = ""  # the key of an empty slot
_PREDECESSORS = "predecessor"  # in place of POD: the disk of the pod before

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


def beside(held: Slots, wanted: Sequence[str], *, limit: int) -> Slots | None:
    """Slots of a pod that is set up while those of another, ``held``, are still in use.

    What both have stays where it is, and all else of the new pod, its own disk first, gets slots that hold
    nothing.  None when these do not suffice.
    """
    keys: list[str | None] = [key if key in wanted or not key else None for key in held]
    for key in dict.fromkeys((POD, *wanted)):
        if key in keys:
            continue
        place = keys.index(NOTHING) if NOTHING in keys else len(keys)
        if place >= limit:
            return None
        keys[place : place + 1] = [key]
    return tuple(key or NOTHING for key in keys)


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


@dataclass(frozen=True, slots=True)
class Succession:
    """What becomes of the slots of a machine that goes from one pod to the next."""

    early: dict[int, str]  # slots that are empty, with what they get
    late: dict[int, str]  # slots with a disk that the guest may have mounted, with what they get
    kept: tuple[int, ...]  # slots whose disk stays mounted, with what the guest has read of it

    @property
    def is_beside(self) -> bool:
        """Whether the next pod has all its disks before the one before has let go of its own."""
        return not any(self.late.values())


def succession(before: Slots, after: Slots, wanted: Collection[str]) -> Succession:
    """From ``before``, which the slots surely hold, to ``after``, of which the next pod needs ``wanted``.

    What nobody needs may stay: an image that has gone from the store meanwhile.
    """
    held = tuple(_PREDECESSORS if key == POD else key for key in before)
    needed = {NOTHING, POD, *wanted}
    new = {slot: key for slot, key in changes(held, after).items() if key in needed}
    # Without ``before`` nobody knows what is in slots.
    empty = {slot for slot in new if held and (slot >= len(held) or held[slot] == NOTHING)}
    return Succession(
        early={slot: new[slot] for slot in new if slot in empty},
        late={slot: new[slot] for slot in new if slot not in empty},
        kept=tuple(slot for slot, key in enumerate(held) if key in wanted and after[slot] == key),
    )
