"""What survives hyperd: pods, containers and execs, each written whole and read back strictly.

``PodRecord.target`` is what was decided; a new daemon brings every pod there (engine/recovery).
A machine is recorded before it is launched and struck off after it has ended, so that none is ever
unaccounted for.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from hypercontainer import database
from hypercontainer.errors import Conflict, Unavailable
from hypercontainer.model.network import Lease, PortMapping
from hypercontainer.model.pod import ContainerSpec, ExecSpec, PodSpec
from hypercontainer.model.rest import ContainerState

logger = logging.getLogger(__name__)


def _lease_of_several_nics(connection: sqlite3.Connection) -> None:
    """A lease was one NIC's; it has a tuple of them."""
    for row in connection.execute("SELECT id, body FROM pods").fetchall():
        pod = msgspec.msgpack.decode(row["body"])
        if (lease := pod.get("lease")) and "nics" not in lease:
            fields = ("nic_name", "mac", "address", "gateway", "mtu")
            lease["nics"] = [{field: lease.pop(field) for field in fields}]
            connection.execute(
                "UPDATE pods SET body = ? WHERE id = ?", (msgspec.msgpack.encode(pod), row["id"])
            )


_MIGRATIONS = (
    """
    CREATE TABLE pods (id TEXT PRIMARY KEY, name TEXT UNIQUE, body BLOB NOT NULL);
    CREATE TABLE containers (
        id TEXT PRIMARY KEY, pod TEXT NOT NULL REFERENCES pods(id) ON DELETE CASCADE,
        name TEXT UNIQUE, body BLOB NOT NULL);
    CREATE TABLE execs (
        id TEXT PRIMARY KEY, container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
        body BLOB NOT NULL);
    """,
    _lease_of_several_nics,
)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A row; changed by ``msgspec.structs.replace`` and written again whole."""


class ProcessRecord(Record, frozen=True, kw_only=True):
    """One run of a process in a machine.  ``number`` is the guest protocol's."""

    number: int = 0  # 0: never started
    started: float = 0
    finished: float = 0
    exit_code: int | None = None
    out_of_memory: bool = False
    error: str = ""


class Pause(Record, frozen=True, kw_only=True):
    """Before something is started again."""

    length_s: float = 0
    until: float = 0  # seconds since the epoch; 0: nothing waits


class PodRecord(Record, frozen=True, kw_only=True):
    id: str
    name: str
    spec: PodSpec
    created: float
    hypervisor: str
    target: Literal["created", "running", "removed"] = "created"
    machine: str = ""  # id of the machine that exists, or may exist
    next_process: int = 1
    slots: tuple[str, ...] = ()  # what each slot of the machine holds, by its key (engine/slots)
    lease: Lease | None = None
    ports: tuple[PortMapping, ...] = ()
    paused: bool = False
    started: float = 0
    pause: Pause = Pause()  # before it is started again, after its machine was lost
    installing: bool = False  # the machine was another pod's, and the guest may hold anything
    replaces: str = ""  # the pod that gets the machine back if this one cannot be run on it
    erase: tuple[str, ...] = ()  # containers that are gone, and whose directories on the disk are not
    reason: str = ""


class ContainerRecord(Record, frozen=True, kw_only=True):
    id: str
    pod: str
    index: int
    name: str
    spec: ContainerSpec
    image_id: str
    argv: tuple[str, ...]
    environment: tuple[str, ...]
    working_directory: str
    user: str
    stop_signal: int
    created: float
    image_volumes: tuple[str, ...] = ()  # where the image wants volumes of the container's own
    files_written: bool = False  # the spec's files are in its root
    state: ContainerState = ContainerState.CREATED
    target: Literal["created", "running"] = "created"  # whether it is to run while its pod does
    process: ProcessRecord = ProcessRecord()
    restarts: int = 0  # by its policy, since somebody started it
    pause: Pause = Pause()


class ExecRecord(Record, frozen=True, kw_only=True):
    id: str
    container: str
    spec: ExecSpec
    detached: bool = False  # nobody is to be told what it prints
    process: ProcessRecord = ProcessRecord()


R = TypeVar("R", bound=Record)


class Listener(Protocol):
    """Who hears of records: one that was read at the start, one that was written, one that is gone."""

    def known(self, record: Record) -> None: ...
    def record(self, after: Record) -> None: ...
    def gone(self, subject: str) -> None: ...


class _Nobody:
    def known(self, record: Record) -> None: ...
    def record(self, after: Record) -> None: ...
    def gone(self, subject: str) -> None: ...


class Records:
    """The daemon's tables.  Each method is one transaction, and told to ``listener`` when it is done."""

    def __init__(self, path: Path, *, pods: Path, listener: Listener | None = None) -> None:
        """``pods`` is the directory of the storage of those on record."""
        self._path = path
        self._database = database.connect(path, migrations=_MIGRATIONS, speaks_of=pods)
        self._listener = listener or _Nobody()

    def close(self) -> None:
        self._database.close()

    def add_pod(self, pod: PodRecord, containers: list[ContainerRecord]) -> None:
        """Conflict when one of the names is taken."""
        try:
            with self._writing():
                self._insert_pod(pod)
                for container in containers:
                    self._insert_container(container)
        except sqlite3.IntegrityError as error:
            raise self._taken(pod, containers) from error
        for record in (pod, *containers):
            self._listener.record(record)

    def save_pod(self, pod: PodRecord) -> None:
        """A removed pod gives its names free at once, though its storage may still be going away."""
        self.save_pods(pod)

    def save_pods(self, *pods: PodRecord) -> None:
        """As ``save_pod``, of several at once."""
        with self._writing():
            for pod in pods:
                self._update_pod(pod)
        for pod in pods:
            self._listener.record(pod)

    def rename(self, *records: PodRecord | ContainerRecord) -> None:
        """Save records that have another name now.  Conflict when it is taken."""
        try:
            with self._writing():
                for record in records:
                    table = "pods" if isinstance(record, PodRecord) else "containers"
                    body = msgspec.msgpack.encode(record)
                    self._database.execute(
                        f"UPDATE {table} SET name = ?, body = ? WHERE id = ?",  # noqa: S608
                        (record.name, body, record.id),
                    )
        except sqlite3.IntegrityError as error:
            raise Conflict(f"the name {records[0].name!r} is taken", hint="choose another name") from error
        for record in records:
            self._listener.record(record)

    def save_containers(self, *containers: ContainerRecord, pod: PodRecord | None = None) -> None:
        """All at once, and with them their pod.

        A name that was given free, as the pod is being removed, stays free: another may have it by now.
        """
        with self._writing():
            for container in containers:
                self._update_container(container)
            if pod is not None:
                self._update_pod(pod)
        for record in (*containers, *([pod] if pod is not None else [])):
            self._listener.record(record)

    def add_exec(self, exec_: ExecRecord) -> None:
        body = msgspec.msgpack.encode(exec_)
        self._execute("INSERT INTO execs VALUES (?, ?, ?)", exec_.id, exec_.container, body)
        self._listener.record(exec_)

    def save_exec(self, exec_: ExecRecord) -> None:
        self._execute("UPDATE execs SET body = ? WHERE id = ?", msgspec.msgpack.encode(exec_), exec_.id)
        self._listener.record(exec_)

    def remove_execs(self, execs: Sequence[str]) -> None:
        with self._writing():
            self._database.executemany("DELETE FROM execs WHERE id = ?", [(exec_,) for exec_ in execs])
        for exec_ in execs:
            self._listener.gone(exec_)

    def add_container(self, container: ContainerRecord, pod: PodRecord) -> None:
        """Another container of ``pod``, which is saved with it.  Conflict when its name is taken."""
        try:
            with self._writing():
                self._insert_container(container)
                self._update_pod(pod)
        except sqlite3.IntegrityError as error:
            raise self._taken(pod, [container]) from error
        self._listener.record(container)
        self._listener.record(pod)

    def remove_container(self, container: str, pod: PodRecord) -> None:
        """Forget a container with its execs, and save ``pod`` with it."""
        with self._writing():
            self._database.execute("DELETE FROM containers WHERE id = ?", (container,))
            self._update_pod(pod)
        self._listener.gone(container)
        self._listener.record(pod)

    def remove_pod(self, pod: str) -> None:
        self._execute("DELETE FROM pods WHERE id = ?", pod)
        self._listener.gone(pod)

    def pods(self) -> list[PodRecord]:
        return self._all("SELECT body FROM pods", PodRecord)

    def containers(self) -> list[ContainerRecord]:
        return self._all("SELECT body FROM containers", ContainerRecord)

    def execs(self) -> list[ExecRecord]:
        return self._all("SELECT body FROM execs", ExecRecord)

    def _insert_pod(self, pod: PodRecord) -> None:
        body = msgspec.msgpack.encode(pod)
        self._database.execute("INSERT INTO pods VALUES (?, ?, ?)", (pod.id, pod.name, body))

    def _update_pod(self, pod: PodRecord) -> None:
        name = None if pod.target == "removed" else pod.name
        body = msgspec.msgpack.encode(pod)
        self._database.execute("UPDATE pods SET name = ?, body = ? WHERE id = ?", (name, body, pod.id))
        if pod.target == "removed":
            self._database.execute("UPDATE containers SET name = NULL WHERE pod = ?", (pod.id,))

    def _update_container(self, container: ContainerRecord) -> None:
        self._database.execute(
            "UPDATE containers SET name = iif(name IS NULL, NULL, ?), body = ? WHERE id = ?",
            (container.name, msgspec.msgpack.encode(container), container.id),
        )

    def _insert_container(self, container: ContainerRecord) -> None:
        row = (container.id, container.pod, container.name, msgspec.msgpack.encode(container))
        self._database.execute("INSERT INTO containers VALUES (?, ?, ?, ?)", row)

    def _taken(self, pod: PodRecord, containers: list[ContainerRecord]) -> Conflict:
        row = self._database.execute("SELECT id FROM pods WHERE name = ?", (pod.name,)).fetchone()
        if row is not None:
            return Conflict(
                f"the name {pod.name!r} is taken by pod {row['id'][:12]}",
                hint=f"hyper rm {pod.name}, or choose another name",
            )
        names = ", ".join(repr(container.name) for container in containers)
        return Conflict(f"a container name of this pod is taken: {names}", hint="choose other names")

    def _all(self, query: str, kind: type[R]) -> list[R]:
        """Raises Unavailable for what cannot be read: to go on without it would lose what it speaks of."""
        try:
            rows = self._database.execute(query).fetchall()
            records = [msgspec.msgpack.decode(row["body"], type=kind) for row in rows]
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise Unavailable(
                f"a record in {self._path} cannot be read: {error}",
                hint="it is damaged, or of another version of hyper: use that one, or move the file away",
            ) from error
        for record in records:
            self._listener.known(record)
        return records

    def _execute(self, statement: str, *values: object) -> None:
        with self._writing():
            self._database.execute(statement, values)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction; Unavailable when it cannot be written."""
        try:
            with database.transaction(self._database):
                yield
        except sqlite3.OperationalError as error:
            raise _unwritable(error) from error


@contextlib.contextmanager
def despite_full_disk() -> Iterator[None]:
    """Around a record of what has happened: it has, whether or not the disk has room for it."""
    try:
        yield
    except Unavailable as error:
        logger.error("%s", error.message)


def _unwritable(error: sqlite3.OperationalError) -> Unavailable:
    return Unavailable(f"cannot write the daemon's records: {error}", hint="is the disk full?")
