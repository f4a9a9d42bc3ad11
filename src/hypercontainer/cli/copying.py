"""The verb ``cp``: files and directories to and from a container, by the rules of ``docker cp``.

source       destination            what becomes of it
a file       nothing                a file of that name; an error when the name ends in /
a file       a file                 overwritten
a file       a directory            in it, under its own name
a directory  nothing                a directory of that name, with what is in the source
a directory  a file                 an error
a directory  a directory            in it, under its own name; what is in it, when SOURCE ends in /.
"""

from __future__ import annotations

import argparse
import posixpath
import sys
from pathlib import Path
from typing import NamedTuple

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command
from hypercontainer.client import Client, Record
from hypercontainer.client.http import Download
from hypercontainer.errors import InvalidRequest, NotFound

_CONTENTS = "."  # packing.CONTENTS
_MAX_LINKS = 16


class Place(NamedTuple):
    """One side of a copy; ``container`` is empty for this host."""

    container: str
    path: str

    @property
    def is_stream(self) -> bool:
        return not self.container and self.path == "-"

    @property
    def is_contents(self) -> bool:
        """Whether what is in the directory is meant, and not the directory."""
        return self.path.endswith("/.") or self.path in {".", "/"}

    def __str__(self) -> str:
        return f"{self.container}:{self.path}" if self.container else self.path


def place(text: str) -> Place:
    """``CONTAINER:PATH``, or a path of this host: absolute, or ``./a:b`` when it has a colon."""
    container, colon, path = text.partition(":")
    if not colon or not container or text.startswith(("/", ".")):
        if not text:
            raise InvalidRequest("an empty path cannot be copied")
        return Place("", text)
    return Place(container, "/" + path.lstrip("/"))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-a", "--archive", action="store_true", help="keep owners (numbers) and all mode bits"
    )
    parser.add_argument("-L", "--follow-link", action="store_true", help="copy what a link SOURCE leads to")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing; so it is without a terminal")
    parser.add_argument("source", metavar="SOURCE", help="CONTAINER:PATH, PATH, or - for a tar on stdin")
    parser.add_argument("destination", metavar="DESTINATION", help="the same; - for a tar on stdout")


def _copy(arguments: argparse.Namespace) -> int:
    source, destination = place(arguments.source), place(arguments.destination)
    if bool(source.container) == bool(destination.container):
        between = "containers" if source.container else "two places of this host"
        raise InvalidRequest(
            f"cannot copy between {between}", hint="one of the two is CONTAINER:PATH, the other is not"
        )
    copy = _copy_out if source.container else _copy_in
    size = copy(Client.default(), source, destination, arguments)
    if not arguments.quiet and sys.stdout.isatty() and not destination.is_stream:
        print(f"Successfully copied {output.size(size, digits=3)} to {destination}", file=sys.stderr)
    return 0


# --- Out of a container ---


def _copy_out(client: Client, source: Place, destination: Place, arguments: argparse.Namespace) -> int:
    if destination.is_stream:
        return _stream_out(client, source, arguments)
    found = client.containers.stat(source.container, source.path, follow=arguments.follow_link)
    target = _local_target(found, source, destination.path)
    with client.containers.download(source.container, source.path, follow=arguments.follow_link) as archive:
        return _unpack(archive, target, keep_owners=arguments.archive)


def _stream_out(client: Client, source: Place, arguments: argparse.Namespace) -> int:
    if sys.stdout.isatty():
        raise InvalidRequest("a tar is nothing for a terminal", hint=f"hyper cp {source} - | tar x")
    with client.containers.download(source.container, source.path, follow=arguments.follow_link) as archive:
        while data := archive.read(1 << 18):
            sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


def _local_target(found: Record, source: Place, path: str) -> Path:
    """Where the root of what comes is to be; raises InvalidRequest by the table above."""
    target = Path(path).resolve()
    is_directory = found.kind == "directory"
    if target.is_dir():
        return target if is_directory and source.is_contents else target / _name(source, found)
    if target.exists() and is_directory:
        raise InvalidRequest(f"cannot copy a directory over the file {path}")
    if not target.exists() and path.endswith(("/", "/.")) and not is_directory:
        raise InvalidRequest(f"the directory {path} does not exist")
    if not target.parent.is_dir():
        raise InvalidRequest(f"the directory {target.parent} does not exist")
    return target


def _name(source: Place, found: Record) -> str:
    """Under which it lies in a directory: the name that was asked for, not that of a link's target."""
    name = posixpath.basename(posixpath.normpath(source.path))
    return name if name not in {"", "..", "."} else Path(found.name).name or "root"


def _unpack(archive: Download, target: Path, *, keep_owners: bool) -> int:
    from hypercontainer.cli.unpacking import Unpacker
    from hypercontainer.tarstream import members

    unpacker = Unpacker(target, keep_owners=keep_owners)
    unpacker.unpack(archive, members(archive))
    while archive.read(1 << 16):  # what failed after the last file is told in the end
        pass
    if unpacker.skipped:
        output.note(f"left out {len(unpacker.skipped)} devices, such as {unpacker.skipped[0]!r}")
    return unpacker.size


# --- Into a container ---


def _copy_in(client: Client, source: Place, destination: Place, arguments: argparse.Namespace) -> int:
    destination, found = _followed(client, destination)
    if source.is_stream:
        if found is None or found.kind != "directory":
            raise InvalidRequest(f"{destination} is no directory: a tar goes into one")
        client.containers.upload(
            destination.container, destination.path, sys.stdin.buffer, keep_owners=arguments.archive
        )
        return 0
    return _pack(client, Path(source.path), source, destination, found, arguments)


def _followed(client: Client, place: Place) -> tuple[Place, Record | None]:
    """Where a link at the end of ``place`` leads to inside the container, and what is there, if anything."""
    for _ in range(_MAX_LINKS):
        found = _stat_or_none(client, place)
        if found is None or found.kind != "symlink":
            return place, found
        above = posixpath.dirname(place.path.rstrip("/"))
        place = Place(place.container, posixpath.join(above, found.link))
    raise InvalidRequest(f"cannot copy to {place}: too many symbolic links")


def _stat_or_none(client: Client, place: Place) -> Record | None:
    try:
        return client.containers.stat(place.container, place.path, follow=False)
    except NotFound as error:
        if error.code != NotFound.code:  # no such container
            raise
        return None


def _pack(
    client: Client,
    path: Path,
    source: Place,
    destination: Place,
    found: Record | None,
    arguments: argparse.Namespace,
) -> int:
    from hypercontainer.cli.packing import PackedFiles, is_directory

    follow = arguments.follow_link or source.path.endswith(("/", "/."))
    directory, name = _container_target(
        found, source, destination, is_directory=is_directory(path, follow=follow)
    )
    files = PackedFiles(path, name=name, follow=follow, keep_owners=arguments.archive)
    client.containers.upload(destination.container, directory, files, keep_owners=arguments.archive)
    return files.size


def _container_target(
    found: Record | None, source: Place, destination: Place, *, is_directory: bool
) -> tuple[str, str]:
    """The container's directory to unpack in, and the root's name there, by the table above."""
    path = _clean(destination.path)
    if found is not None and found.kind == "directory":
        if is_directory and source.is_contents:
            return path, _CONTENTS
        return path, _local_name(source)
    if found is not None and is_directory:
        raise InvalidRequest(f"cannot copy a directory over the file {destination}")
    if found is None and destination.path.endswith(("/", "/.")) and not is_directory:
        raise InvalidRequest(f"the directory {destination} does not exist")
    return posixpath.split(path)


def _clean(path: str) -> str:
    """Without doubled slashes and dots; what ``..`` means behind a link is for the container to say."""
    return "/" + "/".join(part for part in path.split("/") if part not in {"", "."})


def _local_name(source: Place) -> str:
    path = Path(source.path)
    return path.name if path.name not in {"", ".."} else path.resolve().name


COMMANDS = {
    "cp": Command(
        usage="cp [OPTIONS] CONTAINER:PATH PATH|-\n       hyper cp [OPTIONS] PATH|- CONTAINER:PATH",
        description="Copy files between a container and this host, by the rules of `docker cp`.\n"
        "The container need not run.",
        arguments=_arguments,
        run=_copy,
        examples="hyper cp web:/etc/nginx .\nhyper cp site/. web:/usr/share/nginx/html\n"
        "hyper cp web:/var/log - | tar t",
    ),
}
