"""What a pod asks of the network."""

from __future__ import annotations

from typing import Literal

import msgspec


class PortMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port of the host that leads into the pod."""

    container_port: int
    host_port: int = 0  # 0: hyperd chooses
    host_ip: str = ""  # empty: every address of the host
    protocol: Literal["tcp", "udp"] = "tcp"
