"""A QEMU saved with its memory, and those that go on from there: QEMU's migration, through two files.

The memory of the machine that is saved is a shared mapping of the one file; the state of its devices goes to
the other.  The memory of each copy is a private mapping (copy-on-write), so what it does not write is there
once for all.  Sources: docs/devel/migration.rst, "x-ignore-shared", and qapi/migration.json of QEMU.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from hypercontainer.errors import HypervisorError
from hypercontainer.hypervisors._qmp import Qmp
from hypercontainer.model.machine import MachineConfig

MEMORY = "memory"
STATE = "state"
BACKEND = "memory"  # what the memory is called in QEMU
_DESCRIPTOR = "state"  # what the state's file is called in QEMU
# For its state.  It announces no address: its NICs are not those that were saved.
_WAITING = ("-global", "migration.announce-rounds=0", "-incoming", "defer")
_ENDS = {"completed", "failed", "cancelled"}  # of a migration


def directory(config: MachineConfig) -> Path | None:
    """Where the machine's memory is; None when it is its own."""
    return config.template or config.save_in


def check(config: MachineConfig) -> None:
    """Raise that the template is not whole: QEMU would make the file that is missing."""
    if config.template is None:
        return
    sizes = {MEMORY: config.memory_mib << 20, STATE: 1}
    for name, least in sizes.items():
        path = config.template / name
        if not path.is_file() or path.stat().st_size < least:
            raise HypervisorError(f"the template is not whole: {path}")


def words(config: MachineConfig) -> list[str]:
    """The options that put the memory there, and make a copy wait for its state."""
    path = directory(config)
    if path is None:
        return []
    backend = {
        "qom-type": "memory-backend-file",
        "id": BACKEND,
        "size": config.memory_mib << 20,
        "mem-path": str(path / MEMORY),
        "share": config.template is None,
    }
    return ["-object", json.dumps(backend), *(_WAITING if config.template else ())]


async def save(qmp: Qmp, path: Path) -> None:
    """Write the state of the machine, which stops at its end; the memory is in its file already."""
    await _ignore_memory(qmp)
    with _opened(path / STATE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        await qmp.lend(_DESCRIPTOR, file)
        await qmp.execute("migrate", uri=f"fd:{_DESCRIPTOR}")
        answer = await qmp.wait_until("query-migrate", lambda answer: answer.get("status") in _ENDS)
    if answer["status"] != "completed":
        raise HypervisorError(
            f"QEMU could not save the machine: {answer.get('error-desc', 'it does not say')}"
        )


async def restore(qmp: Qmp, path: Path) -> None:
    """Give a machine that waits for it the state in ``path``; when this returns, it runs."""
    await _ignore_memory(qmp)
    with _opened(path / STATE, os.O_RDONLY) as file:
        await qmp.lend(_DESCRIPTOR, file)
        await qmp.execute("migrate-incoming", uri=f"fd:{_DESCRIPTOR}")
    await qmp.wait_until("query-status", lambda answer: bool(answer["running"]))


async def _ignore_memory(qmp: Qmp) -> None:
    capability = {"capability": "x-ignore-shared", "state": True}
    await qmp.execute("migrate-set-capabilities", capabilities=[capability])


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    try:
        file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HypervisorError(f"cannot open the machine's state {path}: {error.strerror}") from error
    try:
        yield file
    finally:
        os.close(file)
