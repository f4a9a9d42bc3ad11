"""What ``rmi NAME`` takes away, by Docker's rules: names first, the image with its last name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from hypercontainer.errors import Conflict
from hypercontainer.model.image import Digest, Image, Reference, short


class Removed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """One line of ``rmi``: a name taken away, or an image deleted."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    names: tuple[Reference, ...]
    deletes: bool

    def lines(self, image: Digest) -> list[Removed]:
        lines = [Removed(untagged=name.familiar) for name in self.names]
        return [*lines, Removed(deleted=image)] if self.deletes else lines


def plan(
    image: Image,
    names: Sequence[Reference],
    asked: Reference | None,
    *,
    force: bool,
    in_use: Collection[str],
) -> Removal:
    """What goes when the image is removed by the name ``asked``, or by its id (None).

    A name of several only goes itself.  An image that pods use keeps its disk, even with ``force``:
    then it loses its names, and stays until the last of its pods is gone.
    """
    if asked is not None and (rest := _left_without(names, asked)):
        gone = tuple(name for name in names if name not in rest)
        return Removal(names=gone, deletes=False)
    repositories = {name.name for name in names if name.digest is None}
    if asked is None and len(repositories) > 1 and not force:
        raise Conflict(
            f"image {short(image.id)} has names in several repositories: {', '.join(sorted(repositories))}",
            hint="remove it name by name, or all at once with --force",
        )
    if image.id in in_use:
        if not force:
            raise Conflict(
                f"image {asked.familiar if asked else short(image.id)} is used by a pod",
                hint="remove the pod first (hyper list shows it), or take the name away with --force",
            )
        return Removal(names=tuple(names), deletes=False)
    return Removal(names=tuple(names), deletes=True)


def _left_without(names: Sequence[Reference], asked: Reference) -> list[Reference]:
    """The names that stay: digests of a repository go with its last tag."""
    rest = [name for name in names if name != asked]
    tagged = {name.name for name in rest if name.digest is None}
    if asked.digest is None:
        rest = [
            name for name in rest if name.digest is None or name.name != asked.name or name.name in tagged
        ]
    return rest
