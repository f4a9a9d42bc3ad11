"""Verbs about images: images, pull, load, import, tag, rmi."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import IO, TextIO

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command
from hypercontainer.client import Client, Record
from hypercontainer.errors import HyperError, InvalidRequest

_NONE = "<none>"


# --- images ---


def _images_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-a", "--all", action="store_true", help=argparse.SUPPRESS
    )  # there are no hidden ones
    parser.add_argument("--digests", action="store_true", help="a column for the manifest's digest")
    parser.add_argument("-q", "--quiet", action="store_true", help="only the ids")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="'json': one line each")
    parser.add_argument("name", nargs="?", default="", metavar="NAME[:TAG]", help="only these")


def _images(arguments: argparse.Namespace) -> int:
    records = sorted(Client.default().images.list(), key=lambda image: -image.created)
    rows = [row for image in records for row in _rows(image, whole=arguments.no_trunc)]
    if arguments.name:
        rows = [row for row in rows if _is_named(row, arguments.name)]
    if arguments.format == "json":
        output.json_lines(dict(zip(_JSON_KEYS, row, strict=True)) for row in rows)
    elif arguments.quiet:
        for identifier in dict.fromkeys(row[3] for row in rows):
            print(identifier)
    else:
        keep = [index for index in range(len(_HEADER)) if index != _DIGEST or arguments.digests]
        output.table([_HEADER[i] for i in keep], [[row[i] for i in keep] for row in rows])
    return 0


_HEADER = ("REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE")
_JSON_KEYS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")  # those of docker images
_DIGEST = 2


def _rows(image: Record, *, whole: bool) -> Iterator[Sequence[str]]:
    """A row for each name of the image, as Docker has it."""
    digests = dict(text.partition("@")[::2] for text in image.digests)
    names = [_split(tag) for tag in image.tags] or [(name, _NONE) for name in digests] or [(_NONE, _NONE)]
    for repository, tag in names:
        yield (
            repository,
            tag,
            digests.get(repository, _NONE),
            image.id if whole else output.short(image.id),
            output.ago(image.created) if image.created > 0 else "N/A",
            output.size(image.size, digits=3),
        )


def _split(tag: str) -> tuple[str, str]:
    repository, _, name = tag.rpartition(":")
    return repository, name


def _is_named(row: Sequence[str], name: str) -> bool:
    repository, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return (row[0], row[1]) == (repository, tag)
    return row[0] == name


# --- pull, load, import ---


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="only the image's name at the end")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="such as linux/arm64 (this host's)")
    parser.add_argument("-u", "--username", default="", metavar="NAME", help="for the registry")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    parser.add_argument("name", metavar="NAME[:TAG|@DIGEST]")


def _pull(arguments: argparse.Namespace) -> int:
    password = sys.stdin.readline().rstrip("\r\n") if arguments.password_stdin else ""
    if bool(arguments.username) != arguments.password_stdin:
        raise InvalidRequest("--username and --password-stdin go together")
    name = pull_image(
        Client.default(),
        arguments.name,
        platform=arguments.platform,
        login=(arguments.username, password) if arguments.username else None,
        file=None if arguments.quiet else sys.stdout,
    )
    if arguments.quiet:
        print(name)
    return 0


def pull_image(
    client: Client,
    name: str,
    *,
    platform: str = "",
    login: tuple[str, str] | None = None,
    file: TextIO | None = None,
) -> str:
    """Pull ``name``, showing progress on ``file``; the full name of what came."""
    from hypercontainer.cli import progress
    from hypercontainer.cli.credentials import credentials_for

    username, password = login or credentials_for(name)
    steps = client.images.pull(name, platform=platform, username=username, password=password)
    done = progress.show(steps, file=file)
    return next((step.reference for step in reversed(done) if step.get("reference")), name)


def _load_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", default="-", metavar="FILE", help="the archive (stdin)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _load(arguments: argparse.Namespace) -> int:
    from hypercontainer.cli import progress

    with _archive(arguments.input) as archive:
        file = None if arguments.quiet else sys.stderr
        done = progress.show(Client.default().images.load(archive), file=file)
    for step in done:
        if step.get("reference"):
            print(f"Loaded image: {_familiar(step.reference)}")
        elif step.get("image"):
            print(f"Loaded image ID: {step.image}")
    return 0


def _familiar(reference: str) -> str:
    return reference.removeprefix("docker.io/").removeprefix("library/")


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--change", action="append", default=[], metavar="LINE", help="of a Dockerfile: 'CMD [\"sh\"]'"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("file", metavar="FILE|-", help="a tar, plain or compressed; - is stdin")
    parser.add_argument("name", nargs="?", default="", metavar="NAME[:TAG]", help="of the new image")


def _import(arguments: argparse.Namespace) -> int:
    from hypercontainer.cli import progress

    with _archive(arguments.file) as archive:
        steps = Client.default().images.import_(archive, reference=arguments.name, changes=arguments.change)
        done = progress.show(steps, file=None if arguments.quiet else sys.stderr)
    for step in done:
        if step.get("image"):
            print(step.image)
    return 0


def _archive(name: str) -> IO[bytes]:
    if name != "-":
        try:
            return open(name, "rb")  # noqa: PTH123  # closed by who asks
        except OSError as error:
            raise InvalidRequest(f"cannot read {name!r}: {error.strerror}") from error
    if sys.stdin.isatty():
        raise InvalidRequest("stdin is a terminal and no archive", hint="name a file, or: hyper ... < FILE")
    return sys.stdin.buffer


# --- tag, rmi ---


def _tag_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="IMAGE", help="a name or an id")
    parser.add_argument("reference", metavar="NAME[:TAG]", help="the new name")


def _tag(arguments: argparse.Namespace) -> int:
    Client.default().images.tag(arguments.name, arguments.reference)
    return 0


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--force", action="store_true", help="also when it has several names or created pods"
    )
    parser.add_argument("names", nargs="+", metavar="IMAGE", help="names, ids, or beginnings of ids")


def _remove(arguments: argparse.Namespace) -> int:
    client = Client.default()
    status = 0
    for name in arguments.names:
        try:
            removed = client.images.remove(name, force=arguments.force)
        except HyperError as problem:
            output.error(problem)
            status = 1
        else:
            for line in removed:
                print(f"{line.action}: {line.subject}")
    return status


COMMANDS = {
    "images": Command(
        usage="images [OPTIONS] [NAME[:TAG]]",
        description="List images with the columns of `docker images`.",
        arguments=_images_arguments,
        run=_images,
        examples="hyper images\nhyper images --digests debian\nhyper rmi $(hyper images -q)",
    ),
    "pull": Command(
        usage="pull [OPTIONS] NAME[:TAG|@DIGEST]",
        description="Download an image. Names and passwords that `docker login` has stored are used.",
        arguments=_pull_arguments,
        run=_pull,
        examples="hyper pull debian\nhyper pull registry.example.org/team/app:1.2\n"
        "hyper pull -u me --password-stdin registry.example.org/app < password",
    ),
    "load": Command(
        usage="load [-i FILE]",
        description="Load the images of an archive that `docker save`, skopeo or podman wrote: Docker's\n"
        "form or an OCI layout, plain or compressed.",
        arguments=_load_arguments,
        run=_load,
        examples="hyper load -i app.tar\ndocker save app | hyper load",
    ),
    "import": Command(
        usage="import [OPTIONS] FILE|- [NAME[:TAG]]",
        description="Make an image of one layer of the tar of a root file system.",
        arguments=_import_arguments,
        run=_import,
        examples="hyper import -c 'CMD [\"bash\"]' rootfs.tar.gz debian\n"
        "mmdebstrap stable - | hyper import - debian",
    ),
    "tag": Command(
        usage="tag IMAGE NAME[:TAG]",
        description="Give an image a further name.",
        arguments=_tag_arguments,
        run=_tag,
        examples="hyper tag debian registry.example.org/base:1",
    ),
    "rmi": Command(
        usage="rmi [-f] IMAGE...",
        description="Remove names of images, and images that have no name left.",
        arguments=_remove_arguments,
        run=_remove,
    ),
}
