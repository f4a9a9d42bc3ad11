"""Where things live (here, from the environment) and how the daemon is set up (`settings`, from its file).

The CLI imports this in every command and counts its milliseconds: a dataclass would cost it 8 (inspect), TOML
and msgspec 25, pathlib with the urllib that it imports 6.  So `Paths` is a plain class, `Settings` is
imported when it is asked for, and who only connects asks for `default_socket`, which is text.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from hypercontainer.config.settings import Settings

__all__ = ["Paths", "Settings", "default_socket"]

_SOCKET = "hyper.sock"


class Paths:
    """Every path that hyper uses.  ``HYPER_ROOT`` moves them all, for tests and second daemons."""

    def __init__(self, *, state: Path, run: Path, config: Path) -> None:
        self.state = state  # survives a reboot of the host
        self.run = run  # does not
        self.config = config

    @classmethod
    def default(cls) -> Paths:
        from pathlib import Path

        state, run, config = map(Path, _directories())
        return cls(state=state, run=run, config=config)

    @property
    def socket(self) -> Path:
        return self.run / _SOCKET

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


def default_socket() -> str:
    """What `Paths.default` has as ``socket``."""
    return os.path.join(_directories()[1], _SOCKET)  # noqa: PTH118


def _directories() -> tuple[str, str, str]:
    """State, run and configuration, as the environment says."""
    if root := os.environ.get("HYPER_ROOT"):
        base = os.path.abspath(root)  # noqa: PTH100
        return f"{base}/lib", f"{base}/run", f"{base}/etc"
    if os.geteuid() == 0:
        return "/var/lib/hyper", "/run/hyper", "/etc/hyper"
    home = os.path.expanduser("~")  # noqa: PTH111
    state = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    run = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/hyper-{os.geteuid()}"  # noqa: S108
    config = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    return f"{state}/hyper", f"{run}/hyper", f"{config}/hyper"


def __getattr__(name: str) -> object:
    if name != "Settings":
        raise AttributeError(name)
    from hypercontainer.config.settings import Settings

    return Settings
