"""One C mirror for all tests of the ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocol.mirror import SANITIZERS, Mirror, build


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    program = tmp_path_factory.mktemp("mirror") / "echo"
    build(Path(__file__).with_name("echo.c"), program, *SANITIZERS)
    with Mirror(program) as mirror:
        yield mirror
