"""Layers laid over one another, in memory: which entry of which layer each name of the image is.

A layer's tar is read into a tree of its own, in order, as an unpacker would make it in an empty directory
that is its root; then the tree is laid over those below it.  What that means (OCI layer.md, and overlayfs,
which is how Docker shows layers):

- ``.wh.NAME`` hides NAME of lower layers; ``.wh..wh..opq`` hides all that lower layers have in its directory.
  Neither hides what the same layer brings, wherever in the tar it stands.
- A directory over a directory: the upper's attributes, the contents of both.  Anything else replaces.
- A parent that the layer doesn't list is a directory: the lower one when there is one, else a new one.
- A hard link shares the file that its target names now, in this layer or below, and keeps it whatever
  becomes of the target's name.
- Names are within the image by construction.  One that climbs out (``../../etc/x``) is refused; a symbolic
  link of the same layer in the middle of a name is followed with the image as root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from hypercontainer.errors import InvalidRequest
from hypercontainer.images import tar
from hypercontainer.images.tar import Entry

MAX_NODES = 2_000_000  # names in one image; each costs some 300 bytes while the disk is made
MAX_METADATA = 256 << 20  # bytes of names, links and attributes in one image
MAX_DEPTH = 256  # components in one name
MAX_NAME = 255  # bytes of one component (NAME_MAX)
MAX_PATH = 4095  # bytes of a whole name (PATH_MAX - 1)
MAX_SYMLINKS = 40  # followed in one name, as the kernel does (path_resolution(7))

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # aufs' own bookkeeping: no part of the image

Source = TypeVar("Source")


class File(Generic[Source]):
    """Anything but a directory; several names share one File when they are hard links."""

    __slots__ = ("entry", "source", "written_as")

    def __init__(self, entry: Entry, source: Source) -> None:
        self.entry = entry
        self.source = source
        self.written_as = b""  # its first name in the output


class Directory(Generic[Source]):
    __slots__ = ("children", "entry", "hidden", "is_opaque")

    def __init__(self, entry: Entry | None = None) -> None:
        self.entry = entry  # None: no layer says what it is like
        self.children: dict[bytes, Directory[Source] | File[Source]] = {}
        self.hidden: list[bytes] = []
        self.is_opaque = False


class Tree(Generic[Source]):
    """The image so far; layers are added lowest first."""

    def __init__(self) -> None:
        self.root: Directory[Source] = Directory()
        self._nodes = 0
        self._bytes = 0

    def add(self, entries: Iterable[Entry], source: Source) -> None:
        """Lay a layer over what is there; raises InvalidRequest, and the tree is of no use then."""
        layer = _Layer(self.root, source, _Limits(MAX_NODES - self._nodes, MAX_METADATA - self._bytes))
        for entry in entries:
            layer.add(entry)
        self._nodes += layer.nodes
        self._bytes += layer.bytes
        _lay(layer.root, self.root)

    def walk(self) -> Iterator[tuple[bytes, Directory[Source] | File[Source]]]:
        """Each name below the root with what it is, directories before what they hold."""
        stack = [(b"", iter(self.root.children.items()))]
        while stack:
            prefix, items = stack[-1]
            for base, node in items:
                name = prefix + base
                if len(name) > MAX_PATH:
                    raise InvalidRequest(f"a name is longer than {MAX_PATH} bytes: {name[:100]!r}...")
                yield name, node
                if isinstance(node, Directory):
                    stack.append((name + b"/", iter(node.children.items())))
                    break
            else:
                stack.pop()


def _lay(upper: Directory[Source], lower: Directory[Source]) -> None:
    stack = [(upper, lower)]
    while stack:
        above, below = stack.pop()
        if above.is_opaque:
            below.children = {}
        for name in above.hidden:
            below.children.pop(name, None)
        below.entry = above.entry or below.entry
        for name, node in above.children.items():
            old = below.children.get(name)
            if isinstance(node, Directory) and isinstance(old, Directory):
                stack.append((node, old))
            else:
                below.children[name] = node


class _Limits(NamedTuple):
    """What is left for the layers to come."""

    nodes: int
    bytes: int


class _Layer(Generic[Source]):
    def __init__(self, below: Directory[Source], source: Source, limits: _Limits) -> None:
        self.root: Directory[Source] = Directory()
        self.nodes = 0
        self.bytes = 0
        self._below = below
        self._source = source
        self._limits = limits
        self._parents: dict[
            bytes, Directory[Source]
        ] = {}  # of names as they stand, while nothing is replaced

    def add(self, entry: Entry) -> None:
        self._weigh(entry)
        parent_name, _, base = entry.name.rstrip(b"/").rpartition(b"/")
        parent = self._parents.get(parent_name)
        if parent is None or base in (b"", b".", b".."):
            parts = components(entry.name)
            if not parts:
                self.root.entry = entry if entry.kind == tar.DIRECTORY else self.root.entry
                return
            if any(part.startswith(_AUFS) for part in parts[:-1]):
                return
            base = parts.pop()
            parent = self._parent(parts, entry.name)
            self._parents[parent_name] = parent
        self._put(parent, base, entry)

    def _weigh(self, entry: Entry) -> None:
        self.bytes += len(entry.name) + len(entry.link)
        for key, value in entry.xattrs:
            self.bytes += len(key) + len(value)
        if self.bytes > self._limits.bytes:
            raise InvalidRequest(f"the image has more than {MAX_METADATA} bytes of names and attributes")

    def _put(self, parent: Directory[Source], base: bytes, entry: Entry) -> None:
        if base.startswith(_WHITEOUT):
            self._hide(parent, base, entry)
            return
        old = parent.children.get(base)
        if entry.kind == tar.DIRECTORY and isinstance(old, Directory):
            old.entry = entry
            return
        node = self._node(entry, base)
        if old is not None:
            self._parents.clear()
        parent.children[base] = node

    def _hide(self, parent: Directory[Source], base: bytes, entry: Entry) -> None:
        if base == _OPAQUE:
            parent.is_opaque = True
        elif not base.startswith(_AUFS):
            name = base.removeprefix(_WHITEOUT)
            if name in (b"", b".", b".."):
                raise InvalidRequest(f"{entry.name[:200]!r} hides nothing that can be hidden")
            parent.hidden.append(name)

    def _node(self, entry: Entry, base: bytes) -> Directory[Source] | File[Source]:
        self._count(base)
        if entry.kind == tar.HARD_LINK:
            return self._target(entry)
        return Directory(entry) if entry.kind == tar.DIRECTORY else File(entry, self._source)

    def _count(self, base: bytes) -> None:
        self.nodes += 1
        if self.nodes > self._limits.nodes:
            raise InvalidRequest(f"the image has more than {MAX_NODES} files")
        if len(base) > MAX_NAME:
            raise InvalidRequest(f"a name is longer than {MAX_NAME} bytes: {base[:80]!r}...")

    def _target(self, entry: Entry) -> File[Source]:
        parts = components(entry.link)
        target = _find(self.root, parts) or _find(self._below, parts)
        if not isinstance(target, File):
            why = "is missing" if target is None else "is a directory"
            raise InvalidRequest(f"{entry.name[:200]!r} is a hard link to {entry.link[:200]!r}, which {why}")
        return target

    def _parent(self, parts: list[bytes], name: bytes) -> Directory[Source]:
        """The directory that ``parts`` lead to, made where it isn't there yet."""
        path: list[Directory[Source]] = [self.root]
        todo = parts[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del path[max(1, len(path) - 1) :]
                continue
            node = path[-1].children.get(part)
            if node is None:
                self._count(part)
                node = path[-1].children[part] = Directory()
            if isinstance(node, Directory):
                path.append(node)
                if len(path) > MAX_DEPTH:
                    raise InvalidRequest(f"{name[:80]!r}... is deeper than {MAX_DEPTH} directories")
                continue
            links += 1
            if node.entry.kind != tar.SYMLINK or links > MAX_SYMLINKS:
                raise InvalidRequest(f"{name[:200]!r} is below {part[:200]!r}, which is no directory")
            _follow(node.entry.link, path, todo)
        return path[-1]


def _find(root: Directory[Source], parts: list[bytes]) -> Directory[Source] | File[Source] | None:
    """What ``parts`` name below ``root``; a symbolic link is followed but when it is the last part."""
    path = [root]
    todo = parts[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == b"..":
            del path[max(1, len(path) - 1) :]
            continue
        node = path[-1].children.get(part)
        if isinstance(node, Directory):
            path.append(node)
        elif node is None or not todo:
            return node
        else:
            links += 1
            if node.entry.kind != tar.SYMLINK or links > MAX_SYMLINKS:
                return None
            _follow(node.entry.link, path, todo)
    return path[-1]


def _follow(link: bytes, path: list[Directory[Source]], todo: list[bytes]) -> None:
    """Walk on through ``link``, with the image's root as ``/`` and as the parent of itself."""
    if link.startswith(b"/"):
        del path[1:]
    todo.extend(part for part in reversed(link.split(b"/")) if part not in (b"", b"."))


def components(name: bytes) -> list[bytes]:
    """The parts of an entry's name from the image's root; raises InvalidRequest when it climbs out of it."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise InvalidRequest(f"the entry {name[:200]!r} climbs out of the image")
            parts.pop()
        else:
            parts.append(part)
    if len(parts) > MAX_DEPTH:
        raise InvalidRequest(f"a name is deeper than {MAX_DEPTH} directories: {name[:80]!r}...")
    return parts
