"""What is kept of a container's output: for flags and podfiles."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hypercontainer.cli.sizes import size_bytes
from hypercontainer.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYS = {"max-size": "max_size", "max-file": "max_files"}


def log(driver: str, options: Mapping[str, str]) -> dict[str, Any]:
    """A model.pod.LogSpec of Docker's words; empty when nothing is said."""
    driver = driver or "json-file"
    if driver not in {"json-file", "none"}:
        raise InvalidRequest(f"unknown log driver {driver[:40]!r}", hint="json-file or none")
    if driver == "none" and options:
        raise InvalidRequest("log driver 'none' keeps nothing and has no options")
    found: dict[str, Any] = {} if driver == "json-file" else {"driver": driver}
    found |= {_KEYS[option]: check(option, value) for option, value in options.items()}
    if found.get("max_files", 1) > 1 and not found.get("max_size"):
        raise InvalidRequest("log option 'max-file' needs 'max-size': else the first file is never full")
    return found


def check(option: str, value: str) -> int:
    """The number that an option of json-file is."""
    if option not in _KEYS:
        raise InvalidRequest(f"unknown log option {option[:40]!r}", hint=f"known: {', '.join(_KEYS)}")
    return _max_size(value) if option == "max-size" else _max_files(value)


def _max_size(text: str) -> int:
    return 0 if text == "-1" else size_bytes(text, "log option 'max-size'")  # -1: Docker's "unlimited"


def _max_files(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
        raise InvalidRequest(f"invalid log option 'max-file' {text[:40]!r}: it is 1 to 1000")
    return int(text)
