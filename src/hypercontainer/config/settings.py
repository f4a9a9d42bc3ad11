"""How the daemon is set up: ``hyperd.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hypercontainer.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``hyperd.toml`` may say; a key that is not here is an error."""

    hypervisor: str = "auto"
    kernel: str = ""  # another kernel for every driver; empty: the one that ships with hyper
    bridge: str = "hyper0"
    subnet: str = "192.168.123.0/24"
    dns: tuple[str, ...] = ()  # empty: those of the host
    disk_size_mib: int = 10240  # of a pod's writable disk; sparse
    health_interval_s: float = 10  # between two questions to a guest whether it answers
    copy_stall_s: float = 60  # that a client of cp may do nothing while a pod that does not run waits for it
    templates: bool = True  # machines are started as copies of saved ones, where a driver can
    template_count: int = 16  # that are kept
    template_space_mib: int = 2048  # that they may take on disk
    template_delay_s: float = 2  # from the first start of a size to the making of its template
    pool_memory_mib: int = 0  # of machines that are started ahead and wait for pods; 0: none
    registry_mirrors: dict[str, list[str]] = field(default_factory=dict)  # registry host to base URLs
    insecure_registries: tuple[str, ...] = ()  # hosts spoken to by plain HTTP or unverified TLS

    @classmethod
    def load(cls, path: Path) -> Settings:
        try:
            raw = tomllib.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} is not valid TOML: {error}") from error
        for key in raw:
            if key not in cls.__dataclass_fields__:
                raise InvalidRequest(
                    f"{path}: unknown key {key!r}", hint=f"known keys: {', '.join(cls.__dataclass_fields__)}"
                )
        try:
            return msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"{path}: {error}") from error
