"""The kernel's source: a distribution's own ``linux-source`` package, fetched through its apt.

The package's checksum from the (signed) package lists names the source, so nothing is downloaded to find out
that nothing has changed.  Where the lists are empty, the newest package fetched before is used.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# 'URI' FILE SIZE SHA256:HASH, as "apt-get download --print-uris" writes it.
OFFER = re.compile(r"'[^']+' (?P<file>\S+) \d+ SHA256:(?P<sha256>[0-9a-f]{64})")

# Never read by a build for our architectures, and half of the archive. Kconfig reads all Kconfig files.
UNREAD = (
    "linux-source-*/Documentation/*",
    "linux-source-*/drivers/gpu/*.[ch]",
    "linux-source-*/sound/*.[ch]",
    "linux-source-*/tools/testing/*",
    "linux-source-*/arch/*/boot/dts/*",
)


class SourceError(Exception):
    """The kernel's source cannot be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """One version of a source package."""

    package: str
    file: str  # the package's file name
    sha256: str  # of that file

    @property
    def version(self) -> str:
        """The distribution's version, as in ``6.12.117-1~deb12u1``."""
        return self.file.split("_")[1].replace("%3a", ":")


def find(package: str, store: Path) -> Source:
    """The newest version that apt offers, else the newest one in ``store``."""
    command = ["apt-get", "download", "--print-uris", package]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if offer := OFFER.search(answer.stdout):
        return Source(package, offer["file"], offer["sha256"])
    if kept := sorted(store.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime):
        return Source(package, kept[-1].name, _sha256(kept[-1]))
    raise SourceError(f"apt offers no package {package}: {answer.stderr.strip()}")


def fetch(source: Source, store: Path) -> Path:
    """The package's file in ``store``, downloaded unless it is there, with its checksum verified."""
    store.mkdir(parents=True, exist_ok=True)
    path = store / source.file
    if not path.exists():
        for old in store.glob(f"{source.package}_*.deb"):
            old.unlink()
        # Root's apt would drop to a user who may not write here.
        command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", source.package]
        subprocess.run(command, cwd=store, check=True)
    if not path.exists() or _sha256(path) != source.sha256:
        path.unlink(missing_ok=True)
        raise SourceError(f"the download of {source.file} is not what the package lists promise")
    return path


def unpack(package: Path, directory: Path) -> Path:
    """Unpack the kernel tree out of ``package`` below ``directory``; the tree's top is returned."""
    directory.mkdir(parents=True, exist_ok=True)
    excludes = [f"--exclude={pattern}" for pattern in UNREAD]
    pipeline = (
        'set -o pipefail; package="$1" directory="$2"; shift 2;'
        ' dpkg-deb --fsys-tarfile "$package"'
        " | tar -xO --wildcards './usr/src/linux-source-*.tar.xz'"
        ' | tar -xJ -C "$directory" "$@"'
    )
    subprocess.run(["bash", "-c", pipeline, "bash", str(package), str(directory), *excludes], check=True)
    (tree,) = (path for path in directory.iterdir() if path.is_dir())
    # The top Kconfig reads this one even when nobody reads the documents.
    (tree / "Documentation").mkdir(exist_ok=True)
    (tree / "Documentation" / "Kconfig").touch()
    return tree


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
