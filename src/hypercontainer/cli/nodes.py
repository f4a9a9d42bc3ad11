"""A JSON or YAML file as values that know where they stand, so that an error can name file, line and key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypercontainer.errors import InvalidRequest

_DEPTH = 50  # of nesting; a podfile has 6
_NODES = 100_000


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file: ``podfile.json, line 7, containers[0].image``."""

    file: str
    line: int
    path: str = ""

    def error(self, message: str, *, hint: str = "") -> InvalidRequest:
        path = f", {self.path}" if self.path else ""
        return InvalidRequest(f"{self.file}, line {self.line}{path}: {message}", hint=hint)

    def child(self, key: str, line: int) -> Where:
        return Where(self.file, line, f"{self.path}.{key}" if self.path else key)

    def item(self, index: int, line: int) -> Where:
        return Where(self.file, line, f"{self.path}[{index}]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value: a scalar, a list of nodes, or a list of pairs of key and node in a `Pairs`."""

    value: Any
    where: Where

    def mapping(self) -> list[tuple[str, Node]]:
        if not isinstance(self.value, Pairs):
            raise self._is_no("mapping of keys to values")
        return list(self.value)

    def items(self) -> list[Node]:
        if isinstance(self.value, Pairs) or not isinstance(self.value, list):
            raise self._is_no("list")
        return self.value

    def text(self) -> str:
        """A string; a number stands for itself, since ``hostPort: 80`` means what it says."""
        if isinstance(self.value, (int, float)) and not isinstance(self.value, bool):
            return str(self.value)
        if not isinstance(self.value, str):
            raise self._is_no("text")
        if "\0" in self.value:
            raise self.where.error("text with a NUL character cannot be used")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self._is_no("true or false")
        return self.value

    def integer(self, low: int, high: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self._is_no("whole number")
        if not low <= self.value <= high:
            raise self.where.error(f"{self.value} is not within {low} to {high}")
        return self.value

    def _is_no(self, wanted: str) -> InvalidRequest:
        return self.where.error(f"{self._kind()} where {wanted} is needed")

    def _kind(self) -> str:
        match self.value:
            case None:
                return "nothing"
            case Pairs():
                return "a mapping"
            case list():
                return "a list"
            case str():
                return f"the text {self.value[:40]!r}"
            case bool():
                return str(self.value).lower()
            case _:
                return f"{self.value}"


class Pairs(list[tuple[str, Node]]):
    """A mapping with its keys in order and as they were written."""


def read_nodes(text: str, file: str) -> Node:
    """The file's one document: JSON when it begins as JSON objects do, else YAML."""
    if not text.strip():
        raise InvalidRequest(f"{file} is empty")
    is_json = file.lower().endswith(".json") or text.lstrip().startswith("{")
    return _Json(text, file).document() if is_json else _read_yaml(text, file)


class _Json:
    """Positions for a text that the standard library has read before, and so is known to be JSON."""

    def __init__(self, text: str, file: str) -> None:
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise InvalidRequest(
                f"{file}, line {error.lineno}, column {error.colno}: this is no JSON: {error.msg}"
            ) from error
        except (RecursionError, ValueError) as error:
            raise InvalidRequest(f"{file} is no usable JSON: {error}") from error
        self._text = text
        self._file = file
        self._at = 0
        self._line = 1

    def document(self) -> Node:
        self._skip()
        return self._value(Where(self._file, self._line), 0)

    def _value(self, where: Where, depth: int) -> Node:
        if depth > _DEPTH:
            raise where.error("this is nested too deeply")
        match self._text[self._at]:
            case "{":
                return Node(Pairs(self._pairs(where, depth + 1)), where)
            case "[":
                return Node(list(self._items(where, depth + 1)), where)
            case '"':
                return Node(self._string(), where)
            case _:
                return Node(self._scalar(), where)

    def _pairs(self, where: Where, depth: int) -> Iterator[tuple[str, Node]]:
        self._step()
        while self._text[self._at] != "}":
            line = self._line
            key = self._string()
            self._skip()
            self._step()  # the colon
            yield key, self._value(where.child(key, line), depth)
            self._skip_comma()
        self._at += 1

    def _items(self, where: Where, depth: int) -> Iterator[Node]:
        self._step()
        index = 0
        while self._text[self._at] != "]":
            yield self._value(where.item(index, self._line), depth)
            index += 1
            self._skip_comma()
        self._at += 1

    def _string(self) -> str:
        return str(self._scalar())

    def _scalar(self) -> Any:
        value, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
        return value

    def _step(self) -> None:
        self._at += 1
        self._skip()

    def _skip_comma(self) -> None:
        self._skip()
        if self._text[self._at] == ",":
            self._step()

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
            self._line += self._text[self._at] == "\n"
            self._at += 1


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _read_yaml(text: str, file: str) -> Node:
    import yaml  # late: 30 ms

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return _Yaml().node(root, Where(file, 1), 0)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidRequest(f"{file}, line {line}: this is no YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidRequest(f"{file} is no usable YAML: {error}") from error


class _Yaml:
    """PyYAML's nodes as ours; counted, because aliases let a short file mean a huge one."""

    def __init__(self) -> None:
        import yaml

        self._yaml = yaml
        self._loader = yaml.SafeLoader("")
        self._count = 0

    def node(self, node: Any, where: Where, depth: int) -> Node:
        self._count += 1
        if depth > _DEPTH or self._count > _NODES:  # also an alias that holds itself
            raise where.error("this is nested too deeply, or too much of it")
        match node:
            case self._yaml.MappingNode():
                return Node(Pairs(self._pairs(node, where, depth + 1)), where)
            case self._yaml.SequenceNode():
                lines = [item.start_mark.line + 1 for item in node.value]
                return Node(
                    [
                        self.node(item, where.item(index, lines[index]), depth + 1)
                        for index, item in enumerate(node.value)
                    ],
                    where,
                )
            case _:
                return Node(self._scalar(node), where)

    def _pairs(self, node: Any, where: Where, depth: int) -> Iterator[tuple[str, Node]]:
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                raise where.child("<<", line).error("merge keys are not supported")
            name = str(key.value)
            yield name, self.node(value, where.child(name, line), depth)

    def _scalar(self, node: Any) -> Any:
        value = None if node is None else self._loader.construct_object(node)
        # A date was meant as text by whoever writes a podfile.
        return value if value is None or isinstance(value, (str, bool, int, float)) else str(node.value)
