"""The share: one directory, whose entries are files and directories of the host that a guest is shown.

The VMM has a mount namespace of its own, and the share is put together in there, from bind mounts below
``shares`` in the run directory.  So nothing of it is seen on the host, nothing is left when the VMM ends,
however it ends, and what is read-only is so for the VMM itself.  The mounts of the host go on to reach that
namespace (a slave, mount_namespaces(7)), so that it keeps no file system busy.

Nothing below a share follows a symbolic link on the host (``nosymfollow``, Linux 5.10): the guest follows
them by itself, inside what it sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from hypercontainer.errors import HypervisorError, InvalidRequest, Unsupported
from hypercontainer.hypervisors import _mounts
from hypercontainer.model.machine import Share
from hypercontainer.process import ProcessId, find_program

DIRECTORY = "shares"  # in the run directory
PACKAGE = "util-linux"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")

_FLAGS = {
    "ro": _mounts.MS_RDONLY,
    "nodev": _mounts.MS_NODEV,
    "nosuid": _mounts.MS_NOSUID,
    "nosymfollow": _mounts.MS_NOSYMFOLLOW,
}

# $1: the run directory; $2: a descriptor that becomes it, as this namespace sees it, or empty; then options,
# name and path of each share up to "--", then the VMM's command line.
_SCRIPT = r"""
set -e
cd "$1"
if [ -n "$2" ]; then eval "exec $2<."; fi
shift 2
mount -n --bind -o ro,nosymfollow shares shares
while [ "$1" != -- ]; do
    mount -n --bind -o "$1" "$3" "shares/$2"
    shift 3
done
shift
exec "$@"
"""


def prepare(run_dir: Path, shares: Sequence[Share]) -> None:
    """Make the share's directory, and what its entries are mounted on."""
    (run_dir / DIRECTORY).mkdir()
    for share in shares:
        _make_entry(run_dir, share)


def check(shares: Collection[Share]) -> None:
    """Raise what is wrong with ``shares``, or that this host does not let us make them."""
    names = [share.name for share in shares]
    for share in shares:
        if not _NAME.fullmatch(share.name) or names.count(share.name) > 1:
            raise InvalidRequest(f"{share.name!r} is no name for a share, or the name of two")
        if not (share.path.is_dir() or share.path.is_file()):
            raise HypervisorError(f"what is to be shared is no file or directory: {share.path}")
    if shares and not is_possible():
        raise Unsupported(
            "files of the host cannot be shared: this user may not make a mount namespace",
            hint="run hyperd as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)",
        )


@functools.cache
def is_possible() -> bool:
    """Whether this process may make a namespace, and mounts in it."""
    script = "mount -n --bind /bin /bin"
    probe = [*_unshare(), "/bin/sh", "-c", script]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def enter(run_dir: Path, shares: Sequence[Share]) -> None:
    """Give the calling thread a namespace with ``shares``; its descriptors lead to what the daemon sees."""
    directory = run_dir / DIRECTORY
    try:
        _mounts.unshare_mounts()
        _mounts.bind(str(directory), str(directory), _flags("ro,nosymfollow"))
        for share in shares:
            _mounts.bind(str(share.path), str(directory / share.name), _flags(_options(share)))
    except OSError as error:
        raise HypervisorError(f"cannot share {error.filename}: {error.strerror}") from error


def can_enter() -> bool:
    """Whether ``enter`` is possible: a process with threads can make no user namespace."""
    return os.geteuid() == 0 and is_possible()


def command(
    vmm: Sequence[str], run_dir: Path, shares: Sequence[Share], *, descriptor: int | None
) -> list[str]:
    """The command that becomes ``vmm``, in a namespace with ``shares``, of a daemon that is not root's.

    ``descriptor`` is made anew there: one of the daemon's leads to what the daemon sees.
    """
    opened = "" if descriptor is None else str(descriptor)
    return [*_unshare(), "/bin/sh", "-c", _SCRIPT, "sh", str(run_dir), opened, *words(shares), "--", *vmm]


def words(shares: Sequence[Share]) -> list[str]:
    """Options, name and path of each, for a script."""
    return [word for share in shares for word in (_options(share), share.name, str(share.path))]


def names(run_dir: Path) -> frozenset[str]:
    """Of the entries that there are."""
    try:
        return frozenset(entry.name for entry in (run_dir / DIRECTORY).iterdir())
    except FileNotFoundError:  # a machine of a hyperd that had no shares
        return frozenset()


async def add(process: ProcessId, run_dir: Path, share: Share) -> None:
    """Put ``share`` into the share of a VMM that runs."""
    check([share])
    _make_entry(run_dir, share)
    try:
        target = run_dir / DIRECTORY / share.name
        await _run(process, "mount", "-n", "--bind", "-o", _options(share), str(share.path), str(target))
    except BaseException:
        _remove_entry(run_dir, share.name)
        raise


async def remove(process: ProcessId, run_dir: Path, name: str) -> None:
    """Take the entry ``name`` away, also from a guest that has files of it open.  None there is no error."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} is no name for a share")
    target = run_dir / DIRECTORY / name
    if target.exists():
        with contextlib.suppress(HypervisorError):  # an add that was cut short has not mounted it
            await _run(process, "umount", "-n", "-l", str(target))
        _remove_entry(run_dir, name)


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [find_program("unshare", package=PACKAGE), *user, "--mount", "--propagation", "slave"]


def _options(share: Share) -> str:
    """Neither devices nor set-user-ID: what a guest makes there means nothing to the host's programs."""
    return ("ro," if share.read_only else "") + "nodev,nosuid,nosymfollow"


def _flags(options: str) -> int:
    """Options of mount(8) as mount(2) has them."""
    return sum(_FLAGS[option] for option in options.split(","))


def _make_entry(run_dir: Path, share: Share) -> None:
    entry = run_dir / DIRECTORY / share.name
    try:
        if share.path.is_dir():
            entry.mkdir()
        else:
            entry.touch(exist_ok=False)
    except FileExistsError as error:
        raise HypervisorError(f"the machine has a share {share.name} already") from error
    except OSError as error:
        raise HypervisorError(f"cannot share {share.path}: {entry}: {error.strerror}") from error


def _remove_entry(run_dir: Path, name: str) -> None:
    """The entry as the host sees it, which is always empty: never what is mounted on it elsewhere."""
    entry = run_dir / DIRECTORY / name
    with contextlib.suppress(OSError):
        if entry.is_dir():
            entry.rmdir()
        else:
            entry.unlink()


async def _run(process: ProcessId, *command: str) -> None:
    """Run a program in the namespaces of the VMM ``process``."""
    if not _has_namespace(process):
        raise Unsupported("the machine was started without a mount namespace of its own, so it has no share")
    user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    enter = [find_program("nsenter", package=PACKAGE), f"--target={process.pid}", "--mount", *user]
    child = await asyncio.create_subprocess_exec(
        *enter, "--", *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, words = await child.communicate()
    if child.returncode:
        raise HypervisorError(f"{command[0]} failed: {words.decode(errors='replace').strip():.300}")


def _has_namespace(process: ProcessId) -> bool:
    try:
        return Path(f"/proc/{process.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    except OSError as error:
        raise HypervisorError("the machine has ended") from error
