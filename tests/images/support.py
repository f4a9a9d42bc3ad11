"""Verbs of the store, run to their end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from hypercontainer.images.progress import Progress
from hypercontainer.images.store import Images
from hypercontainer.model.image import Credentials


async def chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(64 << 10):
            yield data


async def load(images: Images, path: Path) -> list[Progress]:
    return [progress async for progress in images.load(chunks(path))]


async def import_(images: Images, path: Path, reference: str, changes: Sequence[str] = ()) -> list[Progress]:
    return [progress async for progress in images.import_(chunks(path), reference=reference, changes=changes)]


async def pull(
    images: Images, name: str, *, platform: str = "", credentials: Credentials | None = None
) -> list[Progress]:
    return [progress async for progress in images.pull(name, platform=platform, credentials=credentials)]


def left_over(root: Path) -> list[Path]:
    """Every file of the store but its index."""
    return [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("images.db")]
