"""The answers of hyperd's REST API, and the frames of its streams: the same types in the API and its clients.

Times are seconds since the epoch, UTC; sizes are bytes unless the name says otherwise.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal

import msgspec

from hypercontainer.model.network import PortMapping
from hypercontainer.model.pod import PodSpec


class View(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the API."""


class PodState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    RESTARTING = "restarting"  # it has ended, and is started again after a pause
    EXITED = "exited"


class MountView(View, frozen=True, kw_only=True):
    """A mount of a container, in the words of ``docker inspect``."""

    type: str  # "bind", "volume", "tmpfs", "disk", "nfs"
    name: str  # of a volume; empty: it has none
    source: str  # on the host, or SERVER:/PATH; empty: on the pod's own disk
    destination: str
    rw: bool


class ContainerView(View, frozen=True, kw_only=True):
    id: str
    name: str
    pod: str
    pod_name: str
    image: str  # as it was asked for
    image_id: str
    command: tuple[str, ...]  # entrypoint and arguments as run
    state: ContainerState
    paused: bool
    terminal: bool
    stdin: bool
    created: float
    started: float  # 0: never
    finished: float
    exit_code: int | None
    out_of_memory: bool
    error: str  # why it could not start
    restarts: int  # by its policy, since somebody started it
    labels: dict[str, str]
    ports: tuple[PortMapping, ...]
    mounts: tuple[MountView, ...]


class PodView(View, frozen=True, kw_only=True):
    id: str
    name: str
    state: PodState
    health: Literal["", "healthy", "unresponsive"]  # whether the guest answers; empty: none runs
    reason: str  # why it is in this state, when it did not get there by itself
    hostname: str
    hypervisor: str  # the driver that runs it, or would
    isolation: str
    vcpus: int
    memory_mib: int
    address: str  # without the prefix length; empty: no network
    ports: tuple[PortMapping, ...]
    machine: str  # empty: none
    created: float
    started: float
    labels: dict[str, str]
    containers: tuple[ContainerView, ...]


class PodDetails(View, frozen=True, kw_only=True):
    """``hyper inspect POD``."""

    pod: PodView
    spec: PodSpec
    kernel: str
    disk: str
    console: str  # path of the console log, while there is a machine


class MachineView(View, frozen=True, kw_only=True):
    id: str
    pod: str
    pod_name: str
    hypervisor: str
    isolation: str
    state: PodState
    pid: int
    vcpus: int
    memory_mib: int
    started: float


class ExecView(View, frozen=True, kw_only=True):
    id: str
    container: str
    command: tuple[str, ...]
    is_running: bool
    exit_code: int | None
    terminal: bool


class ImageView(View, frozen=True, kw_only=True):
    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    created: float
    size: int
    architecture: str
    labels: dict[str, str]


class TemplateView(View, frozen=True, kw_only=True):
    """A machine saved with its memory, that others start as copies of."""

    id: str
    hypervisor: str
    vcpus: int
    memory_mib: int
    nics: int
    size: int  # bytes on disk
    created: float
    used: float  # when a machine was last started from it


class RemovedView(View, frozen=True, kw_only=True):
    """One line of what ``rmi`` did, in Docker's words."""

    action: str  # "Untagged", "Deleted"
    subject: str


class VersionView(View, frozen=True, kw_only=True):
    version: str
    api: str
    kernel: str  # of the guests
    python: str
    platform: str


class InfoView(View, frozen=True, kw_only=True):
    version: str
    root: str
    pods: int
    running: int
    containers: int
    images: int
    templates: int
    pool_machines: int  # started ahead, waiting for pods
    pool_mib: int  # of memory that they have
    pool_memory_mib: int  # that they may have; 0: there is no pool
    hypervisor: str  # what "auto" takes here; empty: nothing works
    isolation: str
    kernel: str
    network: str
    host_kernel: str
    operating_system: str
    cpus: int
    memory: int


class DriverReport(View, frozen=True, kw_only=True):
    name: str
    isolation: str
    works: bool
    reason: str  # why not
    chosen: bool
    boot_ms: float | None  # launch to hyperstart's Welcome, measured now; None: not asked or not possible


class Check(View, frozen=True, kw_only=True):
    """One line of ``hyper doctor``."""

    subject: str
    ok: bool
    found: str
    hint: str


class DoctorView(View, frozen=True, kw_only=True):
    drivers: tuple[DriverReport, ...]
    checks: tuple[Check, ...]


class PathKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    DEVICE = "device"
    FIFO = "fifo"
    OTHER = "other"


class PathView(View, frozen=True, kw_only=True):
    """What is at a path of a container."""

    name: str  # the path's last part; empty: the root
    kind: PathKind
    size: int  # of a file
    mode: int  # permissions
    modified: float
    link: str  # where a symbolic link leads


class WaitView(View, frozen=True, kw_only=True):
    exit_code: int


class TimelineMark(View, frozen=True, kw_only=True):
    name: str
    at_ns: int  # CLOCK_MONOTONIC of the host; a guest's clock is mapped to it
    inside: bool  # measured by the guest


class TimelineView(View, frozen=True, kw_only=True):
    marks: tuple[TimelineMark, ...]


class ContainerStatisticsView(View, frozen=True, kw_only=True):
    """What a running container has used since it was made."""

    id: str
    name: str
    memory_used: int  # without the page cache that could be dropped, as Docker counts
    memory_limit: int  # its own, or the machine's memory
    cpu_s: float
    cpu_user_s: float
    cpu_system_s: float
    pids: int
    read_bytes: int  # from and to block devices
    written_bytes: int
    out_of_memory_kills: int


class DiskStatisticsView(View, frozen=True, kw_only=True):
    """A slot's disk since boot, and the file system on it when it is mounted."""

    slot: int
    reads: int
    read_bytes: int
    writes: int
    written_bytes: int
    capacity: int
    used: int
    files: int


class NicStatisticsView(View, frozen=True, kw_only=True):
    """A NIC of the pod since it came up."""

    name: str
    received_bytes: int
    received_packets: int
    received_errors: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_dropped: int


class StatisticsView(View, frozen=True, kw_only=True):
    """A pod's machine, from inside and from outside; counters since its boot."""

    uptime_s: float
    memory_total: int
    memory_used: int
    vmm_rss: int
    vmm_pss: int
    vmm_private: int
    cpus: int
    cpu_s: float  # of all CPUs
    disks: tuple[DiskStatisticsView, ...]
    nics: tuple[NicStatisticsView, ...]
    containers: tuple[ContainerStatisticsView, ...]  # those that run


class ProcessView(View, frozen=True, kw_only=True):
    """A process of a pod, as ps(1) shows it inside.  ``command`` is the process's own to choose."""

    container: str  # name; empty: of none
    pid: int
    parent: int
    user: int
    state: str
    terminal: str
    cpu_s: float
    started: float
    memory: int  # resident
    command: str


class EventView(View, frozen=True, kw_only=True):
    """Something that happened, in Docker's words; an exec's is an event of its container."""

    type: str  # "pod", "container", "image"
    action: str  # "create", "start", "die", ...
    id: str
    name: str
    attributes: dict[str, str]
    time_ns: int  # since the epoch


class ErrorView(View, frozen=True, kw_only=True):
    code: str
    message: str
    hint: str


ERROR_TRAILER = "Hyper-Error"  # JSON of ErrorView behind a body of chunks that could not be finished


class StreamKind(IntEnum):
    """A frame of an attached stream: ``u8 kind | 3 zero bytes | u32 length (big-endian) | payload``.

    The header is Docker's, so that kinds 1 and 2 read the same there.
    """

    STDIN = 0  # to hyperd
    STDOUT = 1
    STDERR = 2
    EXIT = 3  # JSON of WaitView; the last frame
    RESIZE = 4  # to hyperd: u16 rows, u16 columns, big-endian
    STDIN_END = 5  # to hyperd: empty
    SIGNAL = 6  # to hyperd: one byte
    ERROR = 7  # JSON of ErrorView; the last frame
    TIMELINE = 8  # JSON of TimelineView; before EXIT, when asked for
    STDIN_TAKEN = (
        9  # u64, big-endian: so many bytes of stdin the process has for good; all ones: it reads no more
    )
