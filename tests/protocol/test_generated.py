"""What tools/gen_protocol.py wrote is committed and fresh, and compiles everywhere without a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.guest.protocol import Message
from tests.protocol.mirror import build
from tools import gen_protocol


@pytest.mark.parametrize("path", gen_protocol.outputs(), ids=lambda path: path.name)
def test_a_generated_file_is_fresh(path: Path) -> None:
    assert path.read_text() == gen_protocol.outputs()[path], "Run make gen."


@pytest.mark.parametrize(
    ("compiler", "options"), [("gcc", ["-O2"]), ("clang", ["-O2"]), ("musl-gcc", ["-Os", "-static"])]
)
def test_the_c_half_compiles_without_warnings(compiler: str, options: list[str], tmp_path: Path) -> None:
    build(Path(__file__).with_name("echo.c"), tmp_path / "echo", *options, compiler=compiler)


def test_every_message_has_a_number_of_its_own_and_a_docstring() -> None:
    for number, cls in Message.registry.items():
        assert cls.number == number
        assert cls.__doc__
        assert not cls.__doc__.startswith(f"{cls.__name__}("), "dataclass made that docstring"
