"""SQLite as the daemon uses it: write-ahead log, one writer, a schema that moves forward by steps."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hypercontainer import faults
from hypercontainer.errors import Unavailable

Migration = str | Callable[[sqlite3.Connection], None]


def connect(path: Path, *, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """Open ``path`` and bring it to the newest schema.

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
        _migrate(connection, path, migrations)
    except sqlite3.Error as error:
        raise Unavailable(f"cannot open the database {path}: {error}") from error
    return connection


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
