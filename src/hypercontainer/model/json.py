"""The one place where JSON meets types."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from hypercontainer.errors import InvalidRequest

T = TypeVar("T")


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def decode(data: bytes, kind: type[T], *, subject: str) -> T:
    """``data`` as a ``kind``; raises InvalidRequest that names ``subject`` and the offending key."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{subject}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{subject} is not valid JSON: {_where(data, str(error))}") from error


def _where(data: bytes, otherwise: str) -> str:
    try:
        json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return otherwise
