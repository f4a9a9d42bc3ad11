"""What a user asks for: pods and their containers.  Frozen, checked when decoded, no state."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hypercontainer.model.network import AllowLists, InterfaceSpec, PortMapping, Protocol

Name = Annotated[str, msgspec.Meta(pattern=r"^([a-zA-Z0-9][a-zA-Z0-9_.-]*)?$", max_length=128)]
AbsolutePath = Annotated[str, msgspec.Meta(pattern=r"^/[^\x00]*$", max_length=4096)]
PathOrEmpty = Annotated[str, msgspec.Meta(pattern=r"^(/[^\x00]*)?$", max_length=4096)]
Environment = Annotated[str, msgspec.Meta(pattern=r"^[^=\x00]+=[^\x00]*$")]


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Our input: a key that is not known is an error."""


class RestartPolicy(Spec, frozen=True, kw_only=True):
    """When a container that has ended is started again, after a pause that doubles up to a bound."""

    name: Literal["no", "on-failure", "always", "unless-stopped"] = "no"
    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 0  # of on-failure; 0: without end


class LogSpec(Spec, frozen=True, kw_only=True):
    """What is kept of a container's output: Docker's json-file with its rotation, or nothing."""

    driver: Literal["json-file", "none"] = "json-file"
    max_size: Annotated[int, msgspec.Meta(ge=0)] = 0  # bytes of one file; 0: no rotation
    max_files: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    path: PathOrEmpty = ""  # of the log file on the host; empty: below the pod's directory


class ResourceLimit(Spec, frozen=True, kw_only=True):
    """One setrlimit(2): ``nofile`` and the like; -1 is unlimited."""

    name: str
    soft: Annotated[int, msgspec.Meta(ge=-1)]
    hard: Annotated[int, msgspec.Meta(ge=-1)]


class MountSpec(Spec, frozen=True, kw_only=True):
    """A volume of the pod, or with no ``volume`` a tmpfs, in a container."""

    target: AbsolutePath
    volume: Name = ""
    read_only: bool = False
    populate: bool = True  # a fresh volume of the pod gets what the image has at ``target``, as Docker's
    options: tuple[str, ...] = ()  # of a tmpfs: "size=64m", "mode=1777"


class FileSpec(Spec, frozen=True, kw_only=True):
    """A file that is written into the container's root before it starts for the first time."""

    path: AbsolutePath
    data: bytes  # base64 in JSON
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] = 0o644
    owner: str = ""  # "user[:group]", by name or number, resolved in the container


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
    mounts: tuple[MountSpec, ...] = ()
    files: tuple[FileSpec, ...] = ()
    limits: tuple[ResourceLimit, ...] = ()
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0  # of its cgroup; 0: only the machine's limit
    cpu_millis: Annotated[int, msgspec.Meta(ge=0)] = 0  # thousandths of a CPU; 0: no limit
    pids: Annotated[int, msgspec.Meta(ge=0)] = 0  # processes and threads; 0: no limit
    restart: RestartPolicy = RestartPolicy()
    log: LogSpec = LogSpec()


class VolumeSpec(Spec, frozen=True, kw_only=True):
    """Storage that containers of a pod mount by its name.

    ``pod``: a directory on the pod's own disk, gone with the pod.  ``host``: a directory or file of the
    host at ``source``.  ``raw``, ``qcow2``: a disk image of the host at ``source``, with a file system
    that the guest mounts.  ``nfs``: ``source`` is SERVER:/PATH, mounted by the guest.
    """

    name: Name
    kind: Literal["pod", "host", "raw", "qcow2", "nfs"] = "pod"
    source: str = ""
    create: bool = False  # of host: make a directory when nothing is there, as -v of Docker does
    fstype: str = ""  # of raw and qcow2; empty: found out by the guest
    read_only: bool = False
    cache: Literal["", "none", "directsync", "writeback", "unsafe", "writethrough"] = ""  # of raw and qcow2
    options: tuple[str, ...] = ()  # of nfs, as mount(8) has them


class Backend(Spec, frozen=True, kw_only=True):
    """Where a service leads."""

    ip: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class ServiceSpec(Spec, frozen=True, kw_only=True):
    """A load balancer inside the pod: connections to ``ip`` and ``port`` go to the backends in turn."""

    ip: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    protocol: Protocol = "tcp"
    backends: tuple[Backend, ...] = ()


class PodSpec(Spec, frozen=True, kw_only=True):
    """A pod.  ``remove`` makes it go away, with its storage, when its containers have ended.

    Without containers it is an empty machine, that containers are added to or that ``replace`` takes.
    """

    containers: tuple[ContainerSpec, ...] = ()
    name: Name = ""
    hostname: str = ""
    vcpus: Annotated[int, msgspec.Meta(ge=1, le=255)] = 1
    memory_mib: int = 128
    hypervisor: str = "auto"
    require_isolation: Literal["any", "hardware"] = "any"
    network: Literal["default", "none"] = "default"
    ports: tuple[PortMapping, ...] = ()
    interfaces: tuple[InterfaceSpec, ...] = ()  # empty: one, on hyper's own bridge
    services: tuple[ServiceSpec, ...] = ()
    allow: AllowLists | None = None  # None: published ports are open to everyone
    volumes: tuple[VolumeSpec, ...] = ()
    sysctls: dict[str, str] = {}
    shm_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0  # of /dev/shm; 0: 64 MiB, or half of the memory
    extra_hosts: tuple[str, ...] = ()  # "name:address", for /etc/hosts
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    stop_timeout_s: Annotated[int, msgspec.Meta(ge=0, le=86400)] | None = None  # of stop; None: 10 s
    remove: bool = False


class AddedContainer(Spec, frozen=True, kw_only=True):
    """A container for a pod that exists, with the volumes that the pod gets for it."""

    container: ContainerSpec
    volumes: tuple[VolumeSpec, ...] = ()


class ExecSpec(Spec, frozen=True, kw_only=True):
    """A further process in a running container."""

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    environment: tuple[Environment, ...] = ()
    working_directory: str = ""
    user: str = ""
    terminal: bool = False
    stdin: bool = False
    privileged: bool = False
    in_machine: bool = False  # in the machine's own namespaces, outside the pod's, with the container's root
