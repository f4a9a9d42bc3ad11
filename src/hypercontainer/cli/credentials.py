"""Registry logins that ``docker login`` left: ~/.docker/config.json and its credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any

from hypercontainer.errors import InvalidRequest

_DOCKER_HUB = "https://index.docker.io/v1/"  # the key under which Docker keeps the login of docker.io


def credentials_for(image: str) -> tuple[str, str]:
    """User name and password for the registry of ``image``; empty ones when there are none."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return "", ""
    except ValueError as error:
        raise InvalidRequest(f"{path} is no JSON: {error}") from error
    return _stored(config, _key(image)) if isinstance(config, dict) else ("", "")


def _key(image: str) -> str:
    first, slash, _ = image.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_registry and first not in {"docker.io", "index.docker.io"} else _DOCKER_HUB


def _stored(config: dict[str, Any], key: str) -> tuple[str, str]:
    helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
    if helper and (found := _from_helper(str(helper), key)):
        return found
    entries = config.get("auths") or {}
    entry = entries.get(key) or entries.get(f"https://{key}") or entries.get(f"https://{key}/v1/") or {}
    try:
        user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, AttributeError):
        return "", ""
    return user, password.rstrip("\0")


def _from_helper(helper: str, key: str) -> tuple[str, str] | None:
    """What ``docker-credential-HELPER get`` says; None: it knows nothing, or is not there."""
    import subprocess

    if "/" in helper:
        return None
    command = [f"docker-credential-{helper}", "get"]
    try:
        answer = subprocess.run(
            command, input=key.encode(), capture_output=True, timeout=30, check=True
        ).stdout
        found = json.loads(answer)
        return str(found["Username"]), str(found["Secret"])
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None
