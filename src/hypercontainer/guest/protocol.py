"""What hyperd and hyperstart say to each other: one frozen dataclass for each message.

This file is the protocol.  ``tools/gen_protocol.py`` turns it into the C half
(``guest/hyperstart/protocol.gen.[ch]``) and into ``docs/protocol.md``.

Frames.  The channel is one byte stream for each machine.  A frame is byte-stuffed as in RFC 1055:
END (0xC0) stands before and after it, and inside it END is ESC ESC_END (0xDB 0xDC) and ESC is
ESC ESC_ESC (0xDB 0xDD).  So a frame that a dying hyperd left half-written ends at the END that opens
the next one and fails its checksum, nothing between two ENDs is nothing, and bytes that a container
printed can never be taken for a frame.  Unstuffed it is::

    u16 message number | u32 request id | the fields in order | u32 CRC-32 (zlib) of all before

Integers are little-endian; ``str`` and ``bytes`` are a u32 length and the bytes, with no NUL in a
``str``; ``tuple[T, ...]`` is a u32 count and the items; a Part is a u32 length and its fields; ``bool`` is
one byte, 0 or 1.  A frame is at most FRAME_SIZE bytes unstuffed, checksum included.
Either side drops a frame with a bad checksum; a frame with a good one and a bad body is a fault of
the peer: hyperd gives the machine up, hyperstart answers Failed with EBADMSG.

Requests.  A message of hyperd with a request id other than 0 is answered once, by Done, Failed, or
the reply that its docstring names, under the same id.  Messages with id 0 are not answered.
Requests run in order; hyperstart takes the next while a process that it started runs on.  CreateContainers
that follow one another run side by side, and are answered as each is done.

Connections.  hyperd opens each connection with Hello; hyperstart then drops whatever it had half-sent
or half-received, with the replies that it still owes and the windows that it was granted, answers
Welcome, and then sends one InputWindow for each process.  Output, OutputEnd and Exited of a process
come only when an OutputWindow has asked for them on this connection.  Welcome lists what lives, so that
a new hyperd goes on where the last one died.

Versions.  A machine outlives the hyperd that started it, also when the next one is of another version:
Hello and Welcome begin with the PROTOCOL_VERSION of who sends them.  The protocol only grows: numbers are
never used again, fields are only appended, and nothing changes its type or meaning.  From a peer of another
version a reader takes missing fields at the end of a message or Part as zero or empty, and ignores what
comes after those that it knows; to that end a u32 length stands before each Part, wherever it is.  A request
that hyperstart does not know is answered by Failed with ENOSYS, and hyperd does not send an older hyperstart
a field that says something which that does not know (``since``).

Streams.  Each process has stdin, and stdout and stderr (a terminal has stdin and stdout only).  Every
byte has an offset, counted from 0 for each stream.  The receiver grants windows: "I have all before
``received``; send up to ``limit``".  hyperstart keeps what it sent until it is acknowledged, at most
STREAM_BUFFER bytes a stream, and then leaves the pipe unread, so that the writer blocks.  After a new
connection it sends again from ``received`` on, and OutputEnd again when all before it is sent.  So
nothing is lost and nothing is delivered twice.  Every process has both OutputEnds: stderr of a terminal
ends at 0.  stdin has no window until hyperstart grants one, after Started and after Welcome, for every
process: also when nobody reads it.  hyperd keeps what it sent until it is acknowledged, as hyperstart
does, and sends it again from ``stdin_received`` on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, ClassVar

U8 = Annotated[int, "u8"]
U16 = Annotated[int, "u16"]
U32 = Annotated[int, "u32"]
U64 = Annotated[int, "u64"]
I32 = Annotated[int, "i32"]

PROTOCOL_VERSION = 2  # raised by one in each release that changes a message

FRAME_SIZE = 1 << 18  # bytes, unstuffed; what each side must be able to hold
STREAM_CHUNK = 1 << 15  # bytes of data in one Input or Output, at most
STREAM_BUFFER = 1 << 18  # bytes kept unacknowledged for each stream
NO_SLOT = 255  # a Source that is a path and no disk
NO_OWNER = (1 << 32) - 2  # a uid or gid in an archive beside a name that must be known
SHARE_SLOT = 254  # a Source that is a path below the machine's share, which must exist


def since(version: int, default: Any) -> Any:
    """A field that was appended in ``version``; an older guest can be sent nothing but its ``default``."""
    return field(default=default, metadata={"since": version})


class Stream(IntEnum):
    """The streams of a process, as its file descriptors."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


class Part:
    """A field's type that is no message by itself."""


class Message:
    """A message; the class keyword ``number`` is its number on the wire."""

    number: ClassVar[int]
    registry: ClassVar[dict[int, type[Message]]] = {}

    def __init_subclass__(cls, number: int | None = None) -> None:
        if number is None:  # dataclass(slots=True) makes the class a second time
            return
        cls.number = number
        Message.registry[number] = cls


# --- Connection ---


@dataclass(frozen=True)
class Hello(Message, number=1):
    """hyperd opens a connection.  Reply: Welcome."""

    version: U32  # PROTOCOL_VERSION
    session: U64  # random; Welcome repeats it, so that an answer to an earlier Hello is told apart


@dataclass(frozen=True)
class ProcessState(Part):
    """A process that hyperd has not told hyperstart to forget."""

    process: U32
    container: str
    is_running: bool
    status: I32  # as in Exited; 0 while it runs
    stdin_received: U64  # offsets
    stdout_produced: U64
    stderr_produced: U64


@dataclass(frozen=True)
class Welcome(Message, number=2):
    """Who answers, and what lives in the guest."""

    version: U32  # PROTOCOL_VERSION
    session: U64
    kernel_release: str  # uname -r
    started_ns: U64  # CLOCK_BOOTTIME when hyperstart's main began
    now_ns: U64  # CLOCK_BOOTTIME
    has_pod: bool
    containers: tuple[str, ...]
    processes: tuple[ProcessState, ...]


@dataclass(frozen=True)
class Done(Message, number=3):
    """The request was carried out."""


@dataclass(frozen=True)
class Failed(Message, number=4):
    """The request was not carried out, and what it had begun is undone."""

    errno: I32
    operation: str  # what was tried: "mount", "execve", ...
    subject: str  # on what


@dataclass(frozen=True)
class Ping(Message, number=5):
    """Is hyperstart alive?  Reply: Done."""


@dataclass(frozen=True)
class Diagnostic(Message, number=6):
    """A line of hyperstart for hyperd's log.  Never answered; may be dropped when the channel is full."""

    text: str


# --- Pod ---


@dataclass(frozen=True)
class File(Part):
    """A file that is laid over a container's root: /etc/hosts and the like."""

    path: str
    mode: U32
    owner: str  # "user[:group]" as in StartProcess; empty: root
    data: bytes


@dataclass(frozen=True)
class Setting(Part):
    """A name and its value: a sysctl (dots or slashes) and the like."""

    name: str
    value: str


@dataclass(frozen=True)
class SetUpPod(Message, number=10):
    """Make the pod: entropy and clock, then its namespaces, its init, /dev/shm.  Reply: Done."""

    hostname: str
    clock_ns: U64  # CLOCK_REALTIME; 0 leaves the clock alone
    entropy: bytes  # credited to the guest's pool
    sysctls: tuple[Setting, ...]
    shm_bytes: U64
    share_type: str  # "hostfs", "9p", "bind"; empty: the machine has no share
    share_options: str  # data of mount(2); for "bind" the path


@dataclass(frozen=True)
class TearDownPod(Message, number=11):
    """Kill every process of the pod, unmount its disks, and be as after boot.  Reply: Done.

    Disks in the slots ``keep`` stay mounted, for a next pod that has the same ones there.  What is asked next
    does not wait for the reply, but for what starts processes: all are killed, while disks are written.  No
    container may have one of these disks (EBUSY).
    """

    keep: tuple[U8, ...] = since(2, ())


@dataclass(frozen=True)
class ConfigureNic(Message, number=12):
    """Move the NIC that has ``mac`` to the pod, name it and bring it up (loopback too).  Reply: Done."""

    mac: str
    name: str
    mtu: U32
    addresses: tuple[str, ...]  # CIDR, IPv4 or IPv6
    gateways: tuple[str, ...]  # default routes, at most one for each family


@dataclass(frozen=True)
class Service(Part):
    """A virtual address inside the pod, whose connections go to its backends in turn."""

    address: str
    port: U16
    protocol: str  # "tcp", "udp"


@dataclass(frozen=True)
class Backend(Part):
    """Where a service leads."""

    service: U16  # index into the services of the message
    address: str
    port: U16


@dataclass(frozen=True)
class SetServices(Message, number=14):
    """The services that the pod has from now on, in place of those before.  Reply: Done."""

    services: tuple[Service, ...]
    backends: tuple[Backend, ...]


@dataclass(frozen=True)
class ShutDown(Message, number=13):
    """Kill, unmount, sync, answer Done, power off."""


@dataclass(frozen=True)
class BecomeTemplate(Message, number=15):
    """Let go of what copies of this machine must have for themselves; it has no pod.  Reply: Done.

    What follows SetUpPod's entropy in a copy is made anew: NICs, boot id.
    """


# --- Containers ---


@dataclass(frozen=True)
class Source(Part):
    """A disk by its slot, or with NO_SLOT a directory of the guest itself."""

    slot: U8
    path: str  # below the disk's root, or absolute with NO_SLOT


@dataclass(frozen=True)
class Mount(Part):
    """A mount into a container: bind of ``source`` when fstype is "bind"; else a new file system.

    "nfs4" is mounted in the pod's network, with ``source.path`` SERVER:/PATH.
    """

    source: Source
    target: str  # absolute, resolved inside the container's root
    fstype: str  # "bind", "tmpfs", "nfs4"
    options: str  # as in mount(8): "ro,nosuid,size=64m"
    populate: bool  # a source directory that is not there yet begins with what the root has at ``target``


@dataclass(frozen=True)
class CreateContainer(Message, number=20):
    """Mount a root: the image below, the writable directory above.  Starts nothing.  Reply: Done."""

    container: str
    image: Source  # read-only file system of the image
    writable: Source  # directory for upper and work; made when absent
    read_only: bool
    mounts: tuple[Mount, ...]
    files: tuple[File, ...]
    memory_bytes: U64  # cgroup limits; 0 is none
    cpu_millis: U32  # thousandths of a CPU
    pids: U32


@dataclass(frozen=True)
class RemoveContainer(Message, number=21):
    """Kill what runs in it and unmount it; ``erase`` removes its writable directory too.  Reply: Done."""

    container: str
    erase: bool


# --- Processes ---


@dataclass(frozen=True)
class ResourceLimit(Part):
    """One setrlimit(2), by its lower-case name: "nofile"."""

    name: str
    soft: U64
    hard: U64


@dataclass(frozen=True)
class StartProcess(Message, number=30):
    """Start a process.  Reply: Started once execve has succeeded, else Failed with execve's errno."""

    process: U32  # chosen by hyperd, never used twice in a machine's life
    container: str  # empty: in the machine itself, beside hyperstart
    is_main: bool  # the container lives as long as this process; its end kills the container's others
    argv: tuple[str, ...]
    environment: tuple[str, ...]  # NAME=value; PATH decides where argv[0] is looked up
    working_directory: str  # made when absent
    user: str  # "", "name", "uid", "name:group", "uid:gid": resolved in the container's /etc/passwd
    groups: tuple[str, ...]  # additional ones, names or numbers
    terminal: bool
    rows: U16
    columns: U16
    stdin: bool  # false: /dev/null
    limits: tuple[ResourceLimit, ...]
    privileged: bool  # every capability; else Docker's default set
    in_machine: bool  # in the machine's own namespaces, with the root of ``container``


@dataclass(frozen=True)
class StartArchive(Message, number=36):
    """Start a process of hyperstart's own that reads or writes a tar stream.  Reply: Started.

    Its streams and end are as any process's: what went wrong stands on stderr, and the status is 1.
    Paths are resolved inside the container's root, where nothing need be running.  Entries are named from
    the last name of ``path`` on: ``log/x`` for /var/log, ``./x`` when it ends in "/", "." or "..".
    """

    process: U32  # as in StartProcess
    container: str
    path: str  # to pack: a file or directory; to unpack: a directory that is there
    unpack: bool  # the tar comes on stdin; else it goes to stdout
    follow: bool  # to pack: what a symbolic link at ``path`` leads to
    keep_owners: bool  # to unpack: owners as the tar says, by name first; else the user of ``path``


@dataclass(frozen=True)
class Started(Message, number=31):
    """The process runs."""

    pid: U32  # in the pod's PID namespace
    at_ns: U64  # CLOCK_BOOTTIME of the execve


@dataclass(frozen=True)
class SignalProcess(Message, number=32):
    """Signal a process, or all of its container.  Reply: Done; Failed ESRCH when it has ended."""

    process: U32
    signal: U32
    whole_container: bool


@dataclass(frozen=True)
class ResizeTerminal(Message, number=33):
    """Set the window size of a process's terminal.  Reply: Done."""

    process: U32
    rows: U16
    columns: U16


@dataclass(frozen=True)
class Exited(Message, number=34):
    """A process has ended, and its OutputEnds were sent on this connection.  Sent on each until forgotten."""

    process: U32
    status: I32  # exit status, or 128 + signal
    out_of_memory: bool  # killed by the cgroup's limit or the machine's
    at_ns: U64


@dataclass(frozen=True)
class ForgetProcess(Message, number=35):
    """hyperd has recorded the end of the process.  Reply: Done, also when it is not known."""

    process: U32


# --- Streams (never answered) ---


@dataclass(frozen=True)
class Input(Message, number=40):
    """Bytes for stdin; within the window that InputWindow granted."""

    process: U32
    offset: U64
    data: bytes


@dataclass(frozen=True)
class InputEnd(Message, number=41):
    """stdin ends at ``offset``.  A terminal gets VEOF (Ctrl-D)."""

    process: U32
    offset: U64


@dataclass(frozen=True)
class InputWindow(Message, number=42):
    """hyperstart has all of stdin before ``received``, and room up to ``limit``.

    ``limit`` equal to the largest u64 means that nobody reads stdin any more: drop the rest.
    """

    process: U32
    received: U64
    limit: U64


@dataclass(frozen=True)
class Output(Message, number=43):
    """Bytes that a process wrote; within the window that OutputWindow granted."""

    process: U32
    stream: U8
    offset: U64
    data: bytes


@dataclass(frozen=True)
class OutputEnd(Message, number=44):
    """The stream ended at ``offset``: every writer has closed it."""

    process: U32
    stream: U8
    offset: U64


@dataclass(frozen=True)
class OutputWindow(Message, number=45):
    """hyperd has stored all before ``received`` and takes more up to ``limit``.

    The first one after a Welcome starts the stream at ``received``.  A stream that has ended is ended
    for good when ``received`` reaches its end.
    """

    process: U32
    stream: U8
    received: U64
    limit: U64


# --- Looking in ---


@dataclass(frozen=True)
class GetStatistics(Message, number=50):
    """Reply: Statistics."""


@dataclass(frozen=True)
class ContainerStatistics(Part):
    container: str
    memory_bytes: U64
    memory_limit_bytes: U64  # 0: the machine's
    cpu_ns: U64
    cpu_user_ns: U64
    cpu_system_ns: U64
    pids: U32
    read_bytes: U64  # from and to block devices
    written_bytes: U64
    out_of_memory_kills: U32


@dataclass(frozen=True)
class DiskStatistics(Part):
    """A slot's block device since boot, and the file system on it when it is mounted (else zeros)."""

    slot: U8
    reads: U64
    read_bytes: U64
    writes: U64
    written_bytes: U64
    capacity_bytes: U64
    used_bytes: U64
    files: U64  # inodes in use


@dataclass(frozen=True)
class NicStatistics(Part):
    """A network interface of the pod, since it came up."""

    name: str
    received_bytes: U64
    received_packets: U64
    received_errors: U64
    received_dropped: U64
    sent_bytes: U64
    sent_packets: U64
    sent_errors: U64
    sent_dropped: U64


@dataclass(frozen=True)
class Statistics(Message, number=51):
    """The machine from inside, and each container's cgroup."""

    uptime_ns: U64
    memory_total_bytes: U64
    memory_available_bytes: U64
    memory_used_bytes: U64  # total less free less caches that can be dropped: what free(1) calls used
    containers: tuple[ContainerStatistics, ...]
    cpus: U32
    cpu_ns: U64  # of all CPUs, not idle
    disks: tuple[DiskStatistics, ...]
    nics: tuple[NicStatistics, ...]


@dataclass(frozen=True)
class GetTimeline(Message, number=52):
    """Reply: Timeline."""


@dataclass(frozen=True)
class Mark(Part):
    name: str
    at_ns: U64  # CLOCK_BOOTTIME


@dataclass(frozen=True)
class Timeline(Message, number=53):
    """When hyperstart reached each step of its start, of the pod's and of each container's; the newest 64."""

    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class GetProcesses(Message, number=54):
    """The processes of a container, or of the whole pod when it is empty.  Reply: Processes."""

    container: str


@dataclass(frozen=True)
class ProcessEntry(Part):
    container: str
    pid: U32  # in the pod's PID namespace
    parent: U32
    user: U32
    state: str  # a letter, as ps(1) has it
    terminal: str  # "pts/0", or empty
    cpu_ns: U64
    started_ns: U64  # CLOCK_BOOTTIME
    memory_bytes: U64  # resident
    command: str  # the arguments, blanks between


@dataclass(frozen=True)
class Processes(Message, number=55):
    """At most the first 1,000."""

    processes: tuple[ProcessEntry, ...]
