"""What a user asks for: pods and their containers.  Frozen, checked when decoded, no state."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hypercontainer.model.network import PortMapping

Name = Annotated[str, msgspec.Meta(pattern=r"^([a-zA-Z0-9][a-zA-Z0-9_.-]*)?$", max_length=128)]
Environment = Annotated[str, msgspec.Meta(pattern=r"^[^=\x00]+=[^\x00]*$")]


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Our input: a key that is not known is an error."""


class ContainerSpec(Spec, frozen=True, kw_only=True):
    """One container of a pod; what is empty or None comes from the image."""

    image: str
    name: Name = ""
    command: tuple[str, ...] | None = None  # Docker's CMD
    entrypoint: tuple[str, ...] | None = None
    working_directory: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    environment: tuple[Environment, ...] = ()
    terminal: bool = False
    stdin: bool = False  # keep stdin open; else it is /dev/null
    read_only: bool = False
    stop_signal: str = ""
    labels: dict[str, str] = {}


class PodSpec(Spec, frozen=True, kw_only=True):
    """A pod.  ``remove`` makes it go away, with its storage, when its containers have ended."""

    containers: Annotated[tuple[ContainerSpec, ...], msgspec.Meta(min_length=1)]
    name: Name = ""
    hostname: str = ""
    vcpus: Annotated[int, msgspec.Meta(ge=1, le=255)] = 1
    memory_mib: int = 128
    hypervisor: str = "auto"
    require_isolation: Literal["any", "hardware"] = "any"
    network: Literal["default", "none"] = "default"
    ports: tuple[PortMapping, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    remove: bool = False


class ExecSpec(Spec, frozen=True, kw_only=True):
    """A further process in a running container."""

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    environment: tuple[Environment, ...] = ()
    working_directory: str = ""
    user: str = ""
    terminal: bool = False
    stdin: bool = False
    privileged: bool = False
