"""What a lane needs and takes long to make, kept by the hash of what it is made of."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path

from guest.kernel.build import cache_directory


def find_or_make(key: str, make: Callable[[Path, Path], None]) -> tuple[Path, bool]:
    """The directory of ``key``, and whether it had to be made.

    ``make`` gets a directory to work in, and the one to fill.  One is made at a time: who asks for the same
    meanwhile waits, and finds it.
    """
    place = cache_directory().parent / "lanes" / key
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            return place, False
        with tempfile.TemporaryDirectory(dir=place.parent, prefix="new-") as directory:
            new = Path(directory) / "made"
            new.mkdir()
            make(Path(directory), new)
            new.rename(place)
    return place, True
