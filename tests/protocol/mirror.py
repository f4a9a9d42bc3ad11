"""The C half of the protocol as a program: echo.c, built with the sanitizers, in one long-lived process."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.guest.protocol import Message, Ping
from hypercontainer.guest.wire import FrameParser, encode
from hypercontainer.process import find_program
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
C_DIRECTORY = ROOT / "guest/hyperstart"
SOURCES = [C_DIRECTORY / "wire.c", C_DIRECTORY / "protocol.gen.c"]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-D_GNU_SOURCE"]
COMPILERS = {"gcc": "gcc", "clang": "clang", "musl-gcc": "musl-tools"}  # and Debian's package
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]


def build(
    source: Path, target: Path, *options: str, compiler: str = "gcc", parts: Sequence[Path] = SOURCES
) -> Path:
    """Compile ``source`` with the protocol, or other parts; skips the test without the compiler."""
    try:
        program = find_program(compiler, package=COMPILERS[compiler])
    except Unavailable as error:
        pytest.skip(f"{error}: {error.hint}")
    sources = [str(path) for path in [source, *parts]]
    command = [program, *WARNINGS, *options, f"-I{C_DIRECTORY}", *sources, "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in result.stderr and "libclang_rt" in result.stderr:
        pytest.skip("clang has no runtime for its sanitizers: apt-get install libclang-rt-14-dev")
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr
    return target


class Mirror:
    """A running echo.c.  ``exchange`` knows that all was read when its Ping comes back."""

    def __init__(self, program: Path) -> None:
        self._child = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._child.stdin
        assert self._child.stdout
        self._in, self._out = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._in, False)
        self._last_ping = 1 << 31

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        _, errors = self._child.communicate(timeout=PATIENCE_S)
        assert self._child.returncode == 0, errors.decode()

    def exchange(self, data: bytes, *, chunk: int = 65536) -> list[tuple[Message, int]]:
        """What C answers to ``data`` in chunks: it survives anything, and finds the next good frame."""
        self._last_ping += 1
        rest = memoryview(data + encode(Ping(), self._last_ping))
        parser = FrameParser()
        answers: list[tuple[Message, int]] = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_WRITE)
            selector.register(self._out, selectors.EVENT_READ)
            while (Ping(), self._last_ping) not in answers[-1:]:
                for key, _ in selector.select(timeout=PATIENCE_S) or pytest.fail("C does not answer"):
                    if key.fd == self._in:
                        rest = rest[os.write(self._in, rest[:chunk]) :]
                        if not rest:
                            selector.unregister(self._in)
                    else:
                        answers += parser.feed(self._read())
        assert parser.dropped == 0
        return answers[:-1]

    def _read(self) -> bytes:
        data = os.read(self._out, 1 << 18)
        if not data:
            assert self._child.stderr
            pytest.fail(f"C died:\n{self._child.stderr.read().decode()}")
        return data
