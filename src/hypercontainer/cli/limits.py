"""Limits of processes, kernel parameters and restarts: for flags, podfiles and manifests."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hypercontainer.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
_SYSCTL = re.compile(r"[a-zA-Z0-9_-]+([./][a-zA-Z0-9_-]+)+")


def limit(name: str, soft: int | None, hard: int | None) -> dict[str, Any]:
    """A model.pod.ResourceLimit; -1 is unlimited, and one value is both."""
    known = name.lower().removeprefix("rlimit_")
    if known not in LIMITS:
        raise InvalidRequest(f"unknown limit {name[:40]!r}", hint=f"known: {', '.join(LIMITS)}")
    if soft is None and hard is None:
        raise InvalidRequest(f"limit {name!r} has no value")
    low = hard if soft is None else soft
    high = soft if hard is None else hard
    assert low is not None
    assert high is not None
    if high != -1 and not -1 < low <= high:
        raise InvalidRequest(f"limit {name!r}: the soft limit {low} is above the hard limit {high}")
    return {"name": known, "soft": low, "hard": high}


def parse_limit(text: str) -> dict[str, Any]:
    """Docker's ``--ulimit NAME=SOFT[:HARD]``."""
    match = re.fullmatch(r"([^=]+)=(-1|[0-9]{1,18})(?::(-1|[0-9]{1,18}))?", text)
    if not match:
        raise InvalidRequest(
            f"invalid limit {text[:60]!r}", hint="for example nofile=1024 or nofile=1024:2048"
        )
    name, soft, hard = match.groups()
    return limit(name, int(soft), int(hard) if hard else None)


def sysctl(name: str) -> str:
    """The name of a kernel parameter, with dots."""
    if not _SYSCTL.fullmatch(name):
        raise InvalidRequest(f"{name[:60]!r} is no kernel parameter", hint="for example net.core.somaxconn")
    return name.replace("/", ".") if "." not in name else name


def merge_sysctls(into: dict[str, str], more: Mapping[str, str]) -> None:
    """Kernel parameters are the pod's: its containers share the namespaces that have them."""
    for written, value in more.items():
        name = sysctl(written)
        if into.setdefault(name, value) != value:
            raise InvalidRequest(
                f"kernel parameter {name!r} is to be both {into[name]!r} and {value!r}",
                hint="the containers of a pod share it",
            )


def parse_restart(text: str) -> dict[str, Any]:
    """Docker's ``--restart``: ``no``, ``always``, ``unless-stopped``, ``on-failure[:N]``."""
    name, colon, retries = text.partition(":")
    if name not in {"no", "always", "unless-stopped", "on-failure"} or (colon and name != "on-failure"):
        raise InvalidRequest(
            f"invalid restart policy {text[:60]!r}", hint="no, on-failure[:N], always or unless-stopped"
        )
    if colon and not re.fullmatch("[0-9]{1,9}", retries):
        raise InvalidRequest(
            f"invalid restart policy {text[:60]!r}: {retries[:40]!r} is no number of retries"
        )
    return {"name": name, "max_retries": int(retries) if colon else 0}
