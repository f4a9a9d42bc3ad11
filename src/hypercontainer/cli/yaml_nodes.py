"""YAML as `Node`s.  Imported only for a file that is YAML: PyYAML takes 30 ms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from hypercontainer.cli.nodes import Counter, Node, Pairs, Where, usable


def document(text: str, file: str, counter: Counter) -> Node:
    """The only document of ``text``; empty ones do not count."""
    loader = _Loader(text, file, counter)
    found: Any = None
    while loader.check_node():
        node: Any = loader.get_node()
        if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
            continue
        if found is not None:
            line = node.start_mark.line + 1
            raise Where(file, line).error(
                "a second document begins here", hint="a file describes one pod; write one file for each"
            )
        found = node
    return _Reader(loader, counter).node(found, Where(file, found.start_mark.line + 1 if found else 1), 0)


_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_TYPES = {_NULL, *(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))}
# A date was meant as text by whoever writes a podfile; "=" has a tag of its own.
_TEXTS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "binary", "value")}


class _Loader(yaml.SafeLoader):
    """Composes no more than the counter lets it: a deep or long file ends early, with its line."""

    def __init__(self, text: str, file: str, counter: Counter) -> None:
        super().__init__(text)
        self._file = file
        self._counter = counter
        self._nesting = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._nesting += 1
        self._counter.step(Where(self._file, self.line + 1), self._nesting)
        try:
            return super().compose_node(parent, index)
        finally:
            self._nesting -= 1


class _Reader:
    """Counts again, because here aliases are followed."""

    def __init__(self, loader: _Loader, counter: Counter) -> None:
        self._loader = loader
        self._counter = counter

    def node(self, node: Any, where: Where, depth: int) -> Node:
        self._counter.step(where, depth)
        match node:
            case yaml.MappingNode():
                return Node(Pairs(self._pairs(node, where, depth + 1)), where)
            case yaml.SequenceNode():
                return Node(list(self._items(node, where, depth + 1)), where)
            case yaml.ScalarNode():
                return Node(self._scalar(node, where), where, str(node.value))
            case _:
                return Node(None, where)

    def _items(self, node: Any, where: Where, depth: int) -> Iterator[Node]:
        for index, item in enumerate(node.value):
            yield self.node(item, where.item(index, item.start_mark.line + 1), depth)

    def _pairs(self, node: Any, where: Where, depth: int) -> Iterator[tuple[str, Node]]:
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                raise where.child("<<", line).error("merge keys are not supported")
            if not isinstance(key, yaml.ScalarNode):
                raise Where(where.file, line, where.path).error("a key must be text")
            name = usable(str(key.value), where)
            yield name, self.node(value, where.child(name, line), depth)

    def _scalar(self, node: Any, where: Where) -> Any:
        """What the tag says; PyYAML's constructors stumble over text that an explicit tag does not fit."""
        if node.tag in _TEXTS:
            return str(node.value)
        if node.tag not in _TYPES:
            raise where.error(f"tag {node.tag[:60]!r} is not supported")
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise where.error(f"{node.value[:40]!r} is not what its tag {node.tag[:60]!r} says") from error
