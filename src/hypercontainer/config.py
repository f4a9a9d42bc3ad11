"""Where things live and how the daemon is set up: the environment, then the configuration file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from hypercontainer.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Every path that hyper uses.  ``HYPER_ROOT`` moves them all, for tests and second daemons."""

    state: Path  # survives a reboot of the host
    run: Path  # does not
    config: Path

    @classmethod
    def default(cls) -> Paths:
        if root := os.environ.get("HYPER_ROOT"):
            base = Path(root).absolute()
            return cls(state=base / "lib", run=base / "run", config=base / "etc")
        if os.geteuid() == 0:
            return cls(state=Path("/var/lib/hyper"), run=Path("/run/hyper"), config=Path("/etc/hyper"))
        home = Path.home()
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/hyper-{os.geteuid()}"  # noqa: S108
        return cls(
            state=Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "hyper",
            run=Path(runtime) / "hyper",
            config=Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "hyper",
        )

    @property
    def socket(self) -> Path:
        return self.run / "hyper.sock"

    @property
    def lock(self) -> Path:
        return self.run / "hyperd.lock"

    @property
    def daemon_log(self) -> Path:
        return self.state / "hyperd.log"

    @property
    def database(self) -> Path:
        return self.state / "state.db"

    @property
    def images(self) -> Path:
        return self.state / "images"

    @property
    def pods(self) -> Path:
        return self.state / "pods"

    @property
    def machines(self) -> Path:
        return self.run / "machines"

    @property
    def cache(self) -> Path:
        return self.state / "cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``hyperd.toml`` may say; a key that is not here is an error."""

    hypervisor: str = "auto"
    kernel: str = ""  # another kernel for every driver; empty: the one that ships with hyper
    bridge: str = "hyper0"
    subnet: str = "192.168.123.0/24"
    dns: tuple[str, ...] = ()  # empty: those of the host
    disk_size_mib: int = 10240  # of a pod's writable disk; sparse
    registry_mirrors: dict[str, list[str]] = field(default_factory=dict)  # registry host to base URLs
    insecure_registries: tuple[str, ...] = ()  # hosts spoken to by plain HTTP or unverified TLS

    @classmethod
    def load(cls, path: Path) -> Settings:
        import tomllib  # late: the CLI reads Paths from here and counts its milliseconds

        import msgspec

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
