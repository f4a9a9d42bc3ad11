"""A mapping that its shape has checked, for the readers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hypercontainer.cli.nodes import Node, Where
from hypercontainer.errors import InvalidRequest


class Section:
    """Read key by key; what is absent is empty."""

    def __init__(self, node: Node) -> None:
        self.where = node.where
        self._nodes: dict[str, Node] = node.value

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    def node(self, key: str) -> Node:
        """The value with its place; the mapping's own place when it is absent."""
        return self._nodes.get(key) or Node("", self.where)

    def text(self, key: str, default: str = "") -> str:
        return str(self.node(key).value) or default

    def flag(self, key: str, *, default: bool = False) -> bool:
        return bool(self._nodes[key].value) if key in self._nodes else default

    def whole(self, key: str, default: int = 0) -> int:
        return int(self._nodes[key].value) if key in self._nodes else default

    def whole_or_none(self, key: str) -> int | None:
        """Where 0 is not as good as absent."""
        return int(self._nodes[key].value) if key in self._nodes else None

    def number(self, key: str) -> float:
        return float(self._nodes[key].value) if key in self._nodes else 0.0

    def nodes(self, key: str) -> list[Node]:
        return list(self._nodes[key].value) if key in self._nodes else []

    def texts(self, key: str) -> list[str]:
        return [str(node.value) for node in self.nodes(key)]

    def sections(self, key: str) -> list[Section]:
        return [Section(node) for node in self.nodes(key)]

    def section(self, key: str) -> Section:
        """The mapping of ``key``, an empty one when it is absent."""
        return Section(self._nodes[key]) if key in self._nodes else Section(Node({}, self.where))

    def names(self, key: str) -> dict[str, Node]:
        return dict(self._nodes[key].value) if key in self._nodes else {}

    def mapping(self, key: str) -> dict[str, str]:
        return {name: str(node.value) for name, node in self.names(key).items()}


@contextlib.contextmanager
def located(where: Where) -> Iterator[None]:
    """Errors of what is not about files get their place in this one."""
    try:
        yield
    except InvalidRequest as error:
        raise where.error(error.message, hint=error.hint) from error
