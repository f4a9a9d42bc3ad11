"""QEMU's control protocol, as much as a driver needs: one connection, commands one after another.

A QEMU that its guest has broken out of may answer anything, so each line is bounded, each command has
a deadline, and what does not parse ends the connection.  Source: docs/interop/qmp-spec.rst of QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from hypercontainer.errors import HypervisorError
from hypercontainer.hypervisors import _processes

LINE_SIZE = 1 << 20  # bytes of one answer
INTERVAL = 0.001  # seconds between two looks
TIMEOUT = 30.0  # seconds for one command


class Qmp:
    """A connection that has negotiated its capabilities; ``open_qmp`` makes one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def execute(self, command: str, **arguments: object) -> Any:
        """Carry out ``command`` and return its answer; raises HypervisorError with QEMU's reason."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._execute(command, arguments)
        except TimeoutError as error:
            raise HypervisorError(f"QEMU did not answer {command} in {TIMEOUT:.0f} s") from error
        except OSError as error:
            raise HypervisorError(f"QEMU closed its control socket during {command}") from error

    async def lend(self, name: str, descriptor: int) -> None:
        """Give QEMU a copy of ``descriptor``, which the next command knows as ``name``."""
        request = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}).encode() + b"\n"
        with self._writer.get_extra_info("socket").dup() as connection:  # nothing waits to be written now
            socket.send_fds(connection, [request], [descriptor])
        await self._answer("getfd")

    async def wait_until(self, query: str, is_met: Callable[[Any], bool]) -> Any:
        """Ask again and again until the answer is as wanted, and return it."""
        while True:
            if is_met(answer := await self.execute(query)):
                return answer
            await asyncio.sleep(INTERVAL)

    async def _execute(self, command: str, arguments: dict[str, object]) -> Any:
        request = {"execute": command, "arguments": _with_dashes(arguments)}
        self._writer.write(json.dumps(request).encode() + b"\n")
        await self._writer.drain()
        return await self._answer(command)

    async def _answer(self, command: str) -> Any:
        while True:  # events stand between the command and its answer
            answer = await self.read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                error = answer["error"]
                reason = error.get("desc") if isinstance(error, dict) else error
                raise HypervisorError(f"QEMU refused {command}: {reason!s:.300}")

    async def read(self) -> dict[str, Any]:
        """The next object that QEMU sends."""
        try:
            line = await self._reader.readline()
            if not line:
                raise HypervisorError("QEMU closed its control socket")
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:  # readline: the line is too long
            raise HypervisorError(f"QEMU's control socket sent no QMP: {error!s:.100}") from error
        if not isinstance(answer, dict):
            raise HypervisorError("QEMU's control socket sent no QMP object")
        return answer


def _with_dashes(value: Any) -> Any:
    """QMP writes its names with dashes, Python its keywords without."""
    if isinstance(value, dict):
        return {name.replace("_", "-"): _with_dashes(item) for name, item in value.items()}
    return [_with_dashes(item) for item in value] if isinstance(value, list) else value


@contextlib.asynccontextmanager
async def open_qmp(path: Path) -> AsyncIterator[Qmp]:
    """A connection to the QEMU that listens on ``path``; waits until it has come up."""
    connection = await _processes.connect(path)
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_SIZE)
    try:
        qmp = Qmp(reader, writer)
        await _greet(qmp)
        yield qmp
    finally:
        writer.close()


async def _greet(qmp: Qmp) -> None:
    try:
        async with asyncio.timeout(TIMEOUT):
            greeting = await qmp.read()
    except TimeoutError as error:
        raise HypervisorError(f"QEMU did not come up in {TIMEOUT:.0f} s") from error
    except OSError as error:
        raise HypervisorError("QEMU closed its control socket") from error
    if "QMP" not in greeting:
        raise HypervisorError("QEMU's control socket sent no greeting")
    await qmp.execute("qmp_capabilities")
