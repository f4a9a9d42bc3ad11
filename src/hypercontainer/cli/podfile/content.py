"""What files of a podfile hold: inline, in base64, on this host or behind a URL.

It is read by the CLI, with the rights of who types, when the pod is created.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from hypercontainer.errors import InvalidRequest

MAX_SIZE = 16 << 20  # bytes of all files of a pod: they are kept with its record
_TIMEOUT_S = 20  # without a byte
_DEADLINE_S = 120  # of one file
_PIECE = 1 << 16

Fetch = Callable[[str, Path, int], bytes]  # URI, the directory of relative ones, the largest size


@dataclass(frozen=True, slots=True)
class Source:
    """Where a podfile gets from what it mentions."""

    directory: Path  # absolute: where relative paths start
    fetch: Fetch

    def path(self, written: str) -> Path:
        """A path of the host, absolute; symbolic links are left as they are."""
        return Path(os.path.normpath(self.directory / written))


def decoded(text: bytes, encoding: str) -> bytes:
    """``text`` as ``encoding`` means it; of base64, which may have line breaks, every bit has to be right."""
    if encoding != "base64":
        return text
    joined = b"".join(text.split())
    try:
        data = base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"this is corrupt base64: {error}") from error
    if base64.b64encode(data) != joined:  # the decoder overlooks a wrong end
        raise InvalidRequest("this is corrupt base64: its end does not fit its length")
    return data


def fetch(uri: str, directory: Path, limit: int) -> bytes:
    """What is at ``uri``, if it is no more than ``limit`` bytes; raises InvalidRequest."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidRequest(f"{uri[:200]!r} is no URI: {error}") from error
    match parts.scheme:
        case "file":
            here = "" if parts.netloc in {"", "localhost"} else parts.netloc
            return _read_file(directory / unquote(here + parts.path), limit)
        case "http" | "https":
            return _download(uri, limit)
    raise InvalidRequest(
        f"{uri[:200]!r} is not supported as a URI",
        hint="http://..., https://..., file:///absolute or file://relative",
    )


def _read_file(path: Path, limit: int) -> bytes:
    try:
        with os.fdopen(_without_waiting(path), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidRequest(f"{str(path)!r} is not a regular file")
            return _bounded(file, str(path), limit)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read {str(path)[:200]!r}: {_reason(error)}") from error


def _without_waiting(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for its writer


def _download(uri: str, limit: int) -> bytes:
    from http.client import HTTPException
    from urllib import request  # late: 40 ms
    from urllib.error import HTTPError

    try:
        with request.build_opener().open(uri, timeout=_TIMEOUT_S) as answer:
            data = _bounded(answer, uri, limit)
            if answer.length:  # what Content-Length promised beyond it
                raise InvalidRequest(f"cannot fetch {uri!r}: {answer.length} bytes are missing at its end")
            return data
    except HTTPError as error:
        error.close()
        raise InvalidRequest(f"{uri!r} answers {error.code} {error.reason}") from error
    except (OSError, ValueError, HTTPException) as error:
        raise InvalidRequest(f"cannot fetch {uri!r}: {_reason(error)}") from error


def _bounded(file: IO[bytes], name: str, limit: int) -> bytes:
    deadline = time.monotonic() + _DEADLINE_S
    pieces: list[bytes] = []
    size = 0
    while piece := file.read(min(_PIECE, limit + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise InvalidRequest(
                f"{name!r} is too large: the files of a pod may have {MAX_SIZE >> 20} MiB in all",
                hint="a volume holds more",
            )
        if time.monotonic() > deadline:
            raise InvalidRequest(f"{name!r} takes longer than {_DEADLINE_S} seconds")
    return b"".join(pieces)


def _reason(error: Exception) -> object:
    inner = getattr(error, "reason", error)
    return getattr(inner, "strerror", None) or inner
