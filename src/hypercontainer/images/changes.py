"""``import --change``: Dockerfile instructions that set an image's configuration."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from hypercontainer.errors import InvalidRequest
from hypercontainer.model.image import ImageConfig

_PAIRS = re.compile(r"[^\s=]+=")


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """``config`` with each of ``changes``, such as ``CMD ["/bin/sh"]`` or ``ENV A=1``, done in order."""
    for change in changes:
        instruction, _, rest = change.strip().partition(" ")
        make = _INSTRUCTIONS.get(instruction.upper())
        if make is None or not rest.strip():
            raise InvalidRequest(
                f"--change {change[:200]!r} is no instruction that an import takes",
                hint=f"an instruction with its arguments: {', '.join(_INSTRUCTIONS)}",
            )
        config = make(config, rest.strip())
    return config


def _cmd(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, cmd=_command(text))


def _entrypoint(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, entrypoint=_command(text))


def _env(config: ImageConfig, text: str) -> ImageConfig:
    env = list(config.env)
    for key, value in _pairs("ENV", text):
        env = [item for item in env if not item.startswith(f"{key}=")] + [f"{key}={value}"]
    return replace(config, env=env)


def _label(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, labels={**config.labels, **dict(_pairs("LABEL", text))})


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports = dict(config.exposed_ports)
    for word in text.split():
        number, _, protocol = word.partition("/")
        if not re.fullmatch(r"\d{1,5}", number) or protocol not in {"", "tcp", "udp", "sctp"}:
            raise InvalidRequest(f"EXPOSE {word!r} is no port", hint="for example 80 or 53/udp")
        ports[f"{number}/{protocol or 'tcp'}"] = {}
    return replace(config, exposed_ports=ports)


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    paths = _json_list(text) or shlex.split(text)
    return replace(config, volumes={**config.volumes, **{path: {} for path in paths}})


def _user(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, user=text)


def _workdir(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, working_dir=text)


def _stop_signal(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, stop_signal=text)


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "LABEL": _label,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "USER": _user,
    "WORKDIR": _workdir,
    "STOPSIGNAL": _stop_signal,
}


def _command(text: str) -> list[str]:
    words = _json_list(text)
    return ["/bin/sh", "-c", text] if words is None else words


def _json_list(text: str) -> list[str] | None:
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _pairs(instruction: str, text: str) -> list[tuple[str, str]]:
    """``A=1 B="x y"``, or the old form ``A the rest``."""
    if not _PAIRS.match(text):
        key, _, value = text.partition(" ")
        return [(key, value.strip())]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidRequest(f"{instruction} {text[:200]!r}: {error}") from error
    if bad := [word for word in words if "=" not in word]:
        raise InvalidRequest(f"{instruction} {bad[0]!r} is not NAME=VALUE")
    return [(word.partition("=")[0], word.partition("=")[2]) for word in words]
