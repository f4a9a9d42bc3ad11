"""hatchling's hook: a wheel carries the kernels and hyperstart, and says for which machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Static binaries for x86_64, with no demand on the host's libc: any Linux that pip knows.
_TAG = "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64"
_NEEDED = ("hyperstart", "kernel/um/linux", "kernel/x86_64/vmlinux")


class WheelData(BuildHookInterface):  # type: ignore[type-arg]
    """Refuses to build a wheel that could not run anything."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        data = Path(self.root) / "src/hypercontainer/data"
        if missing := [name for name in _NEEDED if not (data / name).is_file()]:
            raise SystemExit(f"the wheel needs {', '.join(missing)} in {data}: make kernel guest")
        build_data["pure_python"] = False
        build_data["tag"] = _TAG
