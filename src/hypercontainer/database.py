"""SQLite as the daemon uses it: write-ahead log, one writer, a schema that moves forward by steps."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hypercontainer import faults
from hypercontainer.errors import Unavailable

Migration = str | Callable[[sqlite3.Connection], None]


def connect(path: Path, *, migrations: Sequence[Migration], speaks_of: Path) -> sqlite3.Connection:
    """Open ``path`` and bring it to the newest schema.

    ``speaks_of`` is the directory of what the rows are about.  Raises Unavailable for a database that is
    damaged, of a newer hyper, or new beside a directory that is not empty: whoever went on without its rows
    would take all that for nobody's, and remove it.

    ``migrations`` are SQL scripts, or functions for what SQL cannot say; number N brings version N to
    N+1 (``PRAGMA user_version``).
    The connection is in autocommit mode: a change of several statements is a ``transaction``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA busy_timeout = 5000")
        _check(connection, path, speaks_of)
        _migrate(connection, path, migrations)
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"cannot open the database {path}: {error}", hint=_hint(error)) from error
    return connection


def _hint(error: sqlite3.DatabaseError) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return "is the disk full, or not to be written?"
    return "it is damaged: put a copy back, or move it away with all that it speaks of"


def _check(connection: sqlite3.Connection, path: Path, speaks_of: Path) -> None:
    found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and speaks_of.is_dir() and any(speaks_of.iterdir()):
        raise Unavailable(
            f"{path} is gone or empty, and {speaks_of} is not",
            hint=f"put it back; to start afresh instead, remove what is in {speaks_of}",
        )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of the statements in the block; raises what they raise."""
    faults.point("recording")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled it back already
            connection.execute("ROLLBACK")
        raise
    faults.point("recorded")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise Unavailable(
            f"{path} was written by a newer hyper (schema {version}, this one knows {len(migrations)})",
            hint="install that version again, or move the file away to start afresh",
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        if isinstance(script, str):
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")
        else:
            connection.execute("BEGIN")
            script(connection)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
