"""A JSON or YAML file as values that know where they stand, so that an error can name file, line and key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypercontainer.errors import InvalidRequest

_DEPTH = 50  # of nesting; a podfile has 6
_NODES = 20_000  # also what aliases repeat
_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file: ``podfile.json, line 7, containers[0].image``."""

    file: str
    line: int
    path: str = ""

    def error(self, message: str, *, hint: str = "") -> InvalidRequest:
        path = f", {shortened(self.path, 200)}" if self.path else ""
        return InvalidRequest(f"{self.file}, line {self.line}{path}: {shortened(message, 500)}", hint=hint)

    def child(self, key: str, line: int) -> Where:
        return Where(self.file, line, f"{self.path}.{shortened(key)}" if self.path else shortened(key))

    def item(self, index: int, line: int) -> Where:
        return Where(self.file, line, f"{self.path}[{index}]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value: a scalar, a list of nodes, or a list of pairs of key and node in a `Pairs`."""

    value: Any
    where: Where
    source: str = ""  # of a number or a boolean, as it was written: 0755, 1.10, yes

    def mapping(self) -> list[tuple[str, Node]]:
        if not isinstance(self.value, Pairs):
            raise self.is_no("a mapping of keys to values")
        return list(self.value)

    def items(self) -> list[Node]:
        if isinstance(self.value, Pairs) or not isinstance(self.value, list):
            raise self.is_no("a list")
        return self.value

    def text(self) -> str:
        """A string; a number stands for what was written, since ``hostPort: 80`` means what it says."""
        if self.is_number():
            return self.source
        if isinstance(self.value, bool):
            raise self.where.error(f"{self.source} where text is needed", hint="quotes make it text")
        if not isinstance(self.value, str):
            raise self.is_no("text")
        return usable(self.value, self.where)

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.is_no("true or false")
        return self.value

    def integer(self, low: int, high: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.is_no("a whole number")
        return int(self._within(low, high))

    def number(self, low: float, high: float) -> float:
        if not self.is_number():
            raise self.is_no("a number")
        return float(self._within(low, high))

    def is_number(self) -> bool:
        return isinstance(self.value, (int, float)) and not isinstance(self.value, bool)

    def _within(self, low: float, high: float) -> float:
        if not low <= self.value <= high:  # false for nan too
            raise self.where.error(f"{shortened(self.source)} is not within {low} to {high}")
        number: float = self.value
        return number

    def is_no(self, wanted: str) -> InvalidRequest:
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
                return f"the text {shortened(self.value)!r}"
            case _:
                return shortened(self.source)


class Pairs(list[tuple[str, Node]]):
    """A mapping with its keys in order and as they were written."""


def shortened(text: str, characters: int = _SHOWN) -> str:
    return text if len(text) <= characters else f"{text[:characters]}..."


def usable(text: str, where: Where) -> str:
    """``text``, if it can be handed to a program and written as UTF-8."""
    if "\0" in text:
        raise where.error("text with a NUL character cannot be used")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise where.error("half of a surrogate pair is no character")
    return text


def read_nodes(text: str, file: str) -> Node:
    """The file's one document: JSON when it begins as JSON objects do, else YAML."""
    if not text.strip():
        raise InvalidRequest(f"{file} is empty")
    is_json = file.lower().endswith(".json") or text.lstrip().startswith("{")
    return _Json(text, file).document() if is_json else _read_yaml(text, file)


class Counter:
    """Bounds what one file may mean, since aliases let a short file mean a huge one."""

    def __init__(self) -> None:
        self._count = 0

    def step(self, where: Where, depth: int) -> None:
        self._count += 1
        if depth > _DEPTH:  # also an alias that holds itself
            raise where.error("this is nested too deeply")
        if self._count > _NODES:
            raise where.error(f"this is too much: a file may hold {_NODES} values")


class _Json:
    """Positions for a text that the standard library has read before, and so is known to be JSON."""

    def __init__(self, text: str, file: str) -> None:
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise InvalidRequest(
                f"{file}, line {error.lineno}, column {error.colno}: this is no JSON: {error.msg}"
            ) from error
        except RecursionError as error:
            raise InvalidRequest(f"{file} is nested too deeply") from error
        except ValueError as error:
            raise InvalidRequest(f"{file} is no usable JSON: {error}") from error
        self._text = text
        self._file = file
        self._at = 0
        self._line = 1
        self._counter = Counter()
        self._decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode

    def document(self) -> Node:
        self._skip()
        return self._value(Where(self._file, self._line), 0)

    def _value(self, where: Where, depth: int) -> Node:
        self._counter.step(where, depth)
        match self._text[self._at]:
            case "{":
                return Node(Pairs(self._pairs(where, depth + 1)), where)
            case "[":
                return Node(list(self._items(where, depth + 1)), where)
            case _:
                start, value = self._at, self._scalar()
                return Node(value, where, self._text[start : self._at])

    def _pairs(self, where: Where, depth: int) -> Iterator[tuple[str, Node]]:
        self._step()
        while self._text[self._at] != "}":
            line = self._line
            key = usable(str(self._scalar()), where)
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

    def _scalar(self) -> Any:
        value, self._at = self._decode(self._text, self._at)
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

    from hypercontainer.cli.yaml_nodes import document

    try:
        return document(text, file, Counter())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidRequest(f"{file}, line {line}: this is no YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidRequest(f"{file}, line {line}: this is no YAML: {error.reason}") from error
    except RecursionError as error:
        raise InvalidRequest(f"{file} is nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"{file} is no usable YAML: {error}") from error
