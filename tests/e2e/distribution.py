"""Images of a real distribution, made from Debian's packages once for each recipe."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools/make_image.py"


def debian_archive(tag: str, packages: str) -> Path:
    """An archive with an image called ``tag`` that has ``packages`` (with commas); kept for later runs."""
    key = hashlib.sha256(TOOL.read_bytes() + f"{tag} {packages}".encode()).hexdigest()[:16]
    path = _cache() / f"{tag}-{key}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            command = [sys.executable, str(TOOL), "debian", str(draft), "--tag", tag, "--packages", packages]
            subprocess.run(command, check=True)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)
    return path


def _cache() -> Path:
    base = os.environ.get("HYPER_CACHE") or Path.home() / ".cache/hypercontainer"
    return Path(base) / "test-images"
