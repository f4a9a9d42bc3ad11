"""What dom0 of Xen has of its domains: in XenStore, in its kernel, and in xl's list."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


def domains() -> list[str]:
    """All that XenStore knows but this one."""
    return [name for name in _output("xenstore-list", "/local/domain").split() if name != "0"]


def nothing_is_left() -> bool:
    """No domain, no backend of one, and no loop device or NIC."""
    devices = Path("/sys/bus/xen-backend/devices").iterdir()
    backends = [path for path in devices if path.name[:3] in ("vbd", "vif")]
    files = list(Path("/sys/block").glob("loop*/loop/backing_file"))
    vifs = list(Path("/sys/class/net").glob("vif*"))
    return not (domains() or backends or files or vifs or _output("xl", "list").splitlines()[2:])


def kind_of(domain: str) -> str:
    """Of its virtualization: "pv" or "pvh"."""
    (listed,) = json.loads(_output("xl", "list", "-l", domain))
    return str(listed["config"]["c_info"]["type"])


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
