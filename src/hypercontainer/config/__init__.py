"""Where things live (here, from the environment) and how the daemon is set up (`settings`, from its file).

The CLI imports this in every command and counts its milliseconds: a dataclass would cost it 8 (inspect), and
TOML and msgspec 25.  So `Paths` is a NamedTuple, and `Settings` is imported when it is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hypercontainer.config.settings import Settings

__all__ = ["Paths", "Settings"]


class Paths(NamedTuple):
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


def __getattr__(name: str) -> object:
    if name != "Settings":
        raise AttributeError(name)
    from hypercontainer.config.settings import Settings

    return Settings
