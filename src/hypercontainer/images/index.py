"""Which images there are, in SQLite.  A row is written last, so what it speaks of is there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypercontainer import database
from hypercontainer.errors import Unavailable
from hypercontainer.model.image import (
    Digest,
    Image,
    ImageDocument,
    Reference,
    decode,
)

_MIGRATIONS = [
    """
    CREATE TABLE image (
        id TEXT PRIMARY KEY,
        document BLOB NOT NULL,     -- the config as it came; id is its digest
        size INTEGER NOT NULL,
        disk_size INTEGER NOT NULL,
        added REAL NOT NULL
    );
    CREATE TABLE layer (
        image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        blob TEXT NOT NULL,
        PRIMARY KEY (image, position)
    );
    CREATE INDEX layer_blob ON layer(blob);
    CREATE TABLE tag (
        reference TEXT PRIMARY KEY,
        image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE
    );
    CREATE TABLE digest (
        reference TEXT PRIMARY KEY,  -- repository@digest
        image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE
    );
    """
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the index keeps of a new image."""

    id: Digest
    document: bytes
    size: int
    disk_size: int
    blobs: tuple[Digest, ...]  # of the layers, lowest first


class Index:
    def __init__(self, path: Path, *, disks: Path) -> None:
        """``disks`` is the directory of the disks of those in the index."""
        self._database = database.connect(path, migrations=_MIGRATIONS, speaks_of=disks)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """All or nothing of the statements in the block."""
        try:
            with database.transaction(self._database):
                yield
        except sqlite3.Error as error:
            raise Unavailable(f"cannot write the index of images: {error}") from error

    def has(self, image: Digest) -> bool:
        return self._one("SELECT 1 FROM image WHERE id = ?", image) is not None

    def image(self, image: Digest) -> Image:
        row = self._one("SELECT * FROM image WHERE id = ?", image)
        assert row is not None
        return self._image(row)

    def document(self, image: Digest) -> bytes:
        """The image's config, byte by byte as it came."""
        row = self._one("SELECT document FROM image WHERE id = ?", image)
        assert row is not None
        return bytes(row["document"])

    def images(self) -> list[Image]:
        """All, the newest first by when the image was made, as Docker lists them."""
        images = [
            self._image(row) for row in self._database.execute("SELECT * FROM image ORDER BY added DESC")
        ]
        return sorted(images, key=lambda image: image.created[:19], reverse=True)

    def by_reference(self, reference: Reference) -> Digest | None:
        """The image that ``reference`` names; its digest counts when it has one, as with Docker."""
        if reference.digest is not None:
            row = self._one("SELECT image FROM digest WHERE reference = ?", digest_name(reference))
        else:
            row = self._one("SELECT image FROM tag WHERE reference = ?", str(reference))
        return Digest(row["image"]) if row else None

    def by_prefix(self, prefix: str) -> list[Digest]:
        """At most two images whose id begins with ``prefix``, which is hexadecimal."""
        rows = self._database.execute("SELECT id FROM image WHERE id GLOB ? LIMIT 2", (f"sha256:{prefix}*",))
        return [Digest(row["id"]) for row in rows]

    def add(self, record: Record) -> None:
        self._database.execute(
            "INSERT INTO image VALUES (?, ?, ?, ?, ?)",
            (record.id, record.document, record.size, record.disk_size, time.time()),
        )
        self._database.executemany(
            "INSERT INTO layer VALUES (?, ?, ?)",
            [(record.id, position, blob) for position, blob in enumerate(record.blobs)],
        )

    def set_disk_size(self, image: Digest, size: int) -> None:
        self._database.execute("UPDATE image SET disk_size = ? WHERE id = ?", (size, image))

    def remove(self, image: Digest) -> None:
        self._database.execute("DELETE FROM image WHERE id = ?", (image,))

    def name(self, image: Digest, reference: Reference) -> None:
        """Give ``image`` a tag or digest; one that another image has moves over."""
        if reference.digest is not None:
            row = ("INSERT OR REPLACE INTO digest VALUES (?, ?)", digest_name(reference))
        else:
            row = ("INSERT OR REPLACE INTO tag VALUES (?, ?)", str(reference))
        self._database.execute(row[0], (row[1], image))

    def unname(self, reference: Reference) -> None:
        if reference.digest is not None:
            self._database.execute("DELETE FROM digest WHERE reference = ?", (digest_name(reference),))
        else:
            self._database.execute("DELETE FROM tag WHERE reference = ?", (str(reference),))

    def names(self, image: Digest) -> list[Reference]:
        """Tags, then digests."""
        rows: list[sqlite3.Row] = []
        for table in ("tag", "digest"):
            query = f"SELECT reference FROM {table} WHERE image = ? ORDER BY reference"  # noqa: S608
            rows += self._database.execute(query, (image,))
        return [Reference.parse(row["reference"]) for row in rows]

    def blobs(self, image: Digest) -> tuple[Digest, ...]:
        rows = self._database.execute("SELECT blob FROM layer WHERE image = ? ORDER BY position", (image,))
        return tuple(Digest(row["blob"]) for row in rows)

    def all_blobs(self) -> set[Digest]:
        return {Digest(row["blob"]) for row in self._database.execute("SELECT DISTINCT blob FROM layer")}

    def unused(self, blobs: Sequence[Digest]) -> list[Digest]:
        """Those of ``blobs`` that no image has."""
        return [
            blob for blob in blobs if self._one("SELECT 1 FROM layer WHERE blob = ? LIMIT 1", blob) is None
        ]

    def _one(self, query: str, value: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(query, (value,)).fetchone()
        return row

    def _image(self, row: sqlite3.Row) -> Image:
        identity = Digest(row["id"])
        document = decode(row["document"], ImageDocument, what=f"the config of {identity}")
        names = self.names(identity)
        return Image(
            id=identity,
            tags=tuple(name.familiar for name in names if name.digest is None),
            digests=tuple(name.familiar for name in names if name.digest is not None),
            config=document.config,
            created=document.created,
            size=row["size"],
            disk_size=row["disk_size"],
            platform=document.platform,
            layers=tuple(Digest(diff_id) for diff_id in document.rootfs.diff_ids),
            history=tuple(document.history),
        )


def digest_name(reference: Reference) -> str:
    """``repository@digest``: a digest names the same image whatever tag stands beside it."""
    return f"{reference.name}@{reference.digest}"
