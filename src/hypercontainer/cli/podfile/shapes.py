"""What a file may hold, said once: the reader checks by it, the JSON Schema and the tables are made of it.

A shape turns a `Node` into one whose keys are spelled as ours, with absent and null keys gone and every
scalar of its type.  What depends on other keys (references, duplicates, contradictions) is not a shape's.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypercontainer.cli.nodes import Node, Pairs, usable

_NOTHING: tuple[Any, ...] = ("", False, 0)


class Shape:
    """What a value may be."""

    def check(self, node: Node) -> Node:
        """``node`` as the readers take it; raises InvalidRequest."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """The same in JSON Schema, for keys in our spelling."""
        raise NotImplementedError

    def called(self) -> str:
        """The type, in the words of the documentation."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Shape):
    """Text, empty or of one form; a number counts as the text that was written."""

    pattern: str = ""
    form: str = ""  # the pattern in words
    choices: tuple[str, ...] = ()
    any_case: bool = False  # of choices
    refused: tuple[tuple[str, str], ...] = ()  # choices that are known, and why they cannot be had
    numbers: tuple[int, int] | None = None  # that are welcome where there is a pattern
    fractions: bool = False  # of numbers

    def check(self, node: Node) -> Node:
        text = node.text()
        if self.choices and text:
            return Node(self._choice(node, text), node.where)
        if self.numbers and node.is_number():
            (node.number if self.fractions else node.integer)(*self.numbers)
        if self.pattern and text and not re.fullmatch(self.pattern, text):
            raise node.where.error(f"{text[:60]!r} is no {self.form}")
        return Node(text, node.where)

    def _choice(self, node: Node, text: str) -> str:
        wanted = text.lower() if self.any_case else text
        for choice in self.choices:
            if (choice.lower() if self.any_case else choice) == wanted:
                return choice
        for choice, why in self.refused:
            if choice == text.lower():
                raise node.where.error(f"{text!r} is not supported: {why}")
        *first, last = [repr(choice) for choice in self.choices]
        words = f"{', '.join(first)} or {last}" if first else last
        raise node.where.error(f"this is {words}, not {text[:40]!r}")

    def schema(self) -> dict[str, Any]:
        if self.choices:
            return self._choices_schema()
        if not self.pattern:
            return {"type": ["string", "number"]}
        text = {"type": "string", "pattern": f"^({self.pattern})?$"}
        if not self.numbers:
            return text
        low, high = self.numbers
        kind = "number" if self.fractions else "integer"
        return {"anyOf": [text, {"type": kind, "minimum": low, "maximum": high}]}

    def _choices_schema(self) -> dict[str, Any]:
        exact = {"enum": ["", *self.choices]}
        if not self.any_case:
            return exact
        words = "|".join("".join(f"[{c.upper()}{c.lower()}]" for c in choice) for choice in self.choices)
        return {"anyOf": [exact, {"type": "string", "pattern": f"^({words})$"}]}

    def called(self) -> str:
        if self.choices:
            return ", ".join(f"`{choice}`" for choice in self.choices)
        return "number or text" if self.numbers else "text"


@dataclass(frozen=True, slots=True)
class Flag(Shape):
    def check(self, node: Node) -> Node:
        return Node(node.boolean(), node.where)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def called(self) -> str:
        return "true/false"


@dataclass(frozen=True, slots=True)
class Whole(Shape):
    """A whole number."""

    low: int
    high: int

    def check(self, node: Node) -> Node:
        return Node(node.integer(self.low, self.high), node.where)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def called(self) -> str:
        return "number"


@dataclass(frozen=True, slots=True)
class Number(Shape):
    """A number, fractions too."""

    low: float
    high: float

    def check(self, node: Node) -> Node:
        return Node(node.number(self.low, self.high), node.where)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def called(self) -> str:
        return "number"


@dataclass(frozen=True, slots=True)
class Several(Shape):
    """A list of things of one shape."""

    of: Shape

    def check(self, node: Node) -> Node:
        return Node([self.of.check(item) for item in node.items()], node.where)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.of.schema()}

    def called(self) -> str:
        return "list"


@dataclass(frozen=True, slots=True)
class Names(Shape):
    """A mapping of free names to text."""

    def check(self, node: Node) -> Node:
        found: dict[str, Node] = {}
        for key, child in node.mapping():
            usable(key, child.where)
            if key in found:
                raise child.where.error(f"{key!r} is there twice")
            found[key] = Node(child.text(), child.where)
        return Node(found, node.where)

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"type": ["string", "number"]}}

    def called(self) -> str:
        return "mapping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Shape):
    """Known, and not to be had, with the reason; what means nothing does no harm."""

    why: str
    hint: str = ""
    harmless: tuple[Any, ...] = ()

    def check(self, node: Node) -> Node:
        if node.value in (*_NOTHING, *self.harmless) or node.value == []:
            return Node(None, node.where)
        key = node.where.path.rpartition(".")[2]
        raise node.where.error(f"{key!r} is not supported: {self.why}", hint=self.hint)

    def schema(self) -> dict[str, Any]:
        nothing = {"enum": ["", False, 0, *self.harmless]}
        return {"anyOf": [nothing, {"maxItems": 0, "type": "array"}, {"maxProperties": 0, "type": "object"}]}

    def called(self) -> str:
        return "refused"


@dataclass(frozen=True, slots=True)
class Ignored(Shape):
    """Known, and without meaning here, whatever it holds."""

    def check(self, node: Node) -> Node:
        return Node(None, node.where)

    def schema(self) -> dict[str, Any]:
        return {}

    def called(self) -> str:
        return "ignored"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a mapping, with its line in the documentation."""

    name: str
    shape: Shape
    meaning: str = ""
    absent: str = ""  # what holds without it
    required: bool = False
    other_names: tuple[str, ...] = ()


def _article(name: str) -> str:
    if name.endswith("s"):
        return ""
    return "an " if name[0] in "aeiou" else "a "


@dataclass(frozen=True, slots=True)
class Keys(Shape):
    """A mapping with known keys, matched without case, as the original's Go decoder did."""

    noun: str  # "a container", for messages
    keys: Sequence[Key]
    text: Shape | None = None  # what may stand in place of the mapping
    _by_name: dict[str, Key] = field(init=False, default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for key in self.keys:
            for name in (key.name, *key.other_names):
                self._by_name[name.lower()] = key

    def check(self, node: Node) -> Node:
        if self.text and not isinstance(node.value, (Pairs, list)):
            return self.text.check(node)
        written = self._as_written(node)
        found: dict[str, Node] = {}
        for name, child in written.items():
            if child.value is not None:  # null is as good as absent, as Go's decoder has it
                checked = self._by_name[name.lower()].shape.check(child)
                if checked.value is not None:
                    self._add(found, self._by_name[name.lower()].name, checked)
        self._require(node, found)
        return Node(found, node.where)

    def _add(self, found: dict[str, Node], name: str, node: Node) -> None:
        if name in found and found[name].value != node.value:
            raise node.where.error(f"{name!r} is said under two names, and not the same")
        found[name] = node

    def _as_written(self, node: Node) -> dict[str, Node]:
        """The mapping without keys that are not known or that are there twice."""
        written: dict[str, Node] = {}
        seen: set[str] = set()
        for name, child in node.mapping():
            if name.lower() in seen:
                raise child.where.error(f"{name!r} is there twice")
            if name.lower() not in self._by_name:
                raise child.where.error(f"unknown key {name!r}", hint=self._suggestion(name))
            seen.add(name.lower())
            written[name] = child
        return written

    def _require(self, node: Node, found: dict[str, Node]) -> None:
        for key in self.keys:
            if key.required and (key.name not in found or found[key.name].value in ("", [])):
                raise node.where.error(f"{self.noun} needs {_article(key.name)}{key.name!r}")

    def _suggestion(self, name: str) -> str:
        close = difflib.get_close_matches(name.lower()[:100], self._by_name, n=1)
        if close:
            return f"did you mean {self._by_name[close[0]].name!r}?"
        known = [key.name for key in self.keys if not isinstance(key.shape, (Refused, Ignored))]
        return f"known here: {', '.join(known)}"

    def schema(self) -> dict[str, Any]:
        properties = {name: self._property(key) for key in self.keys for name in (key.name, *key.other_names)}
        found: dict[str, Any] = {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }
        if required := [key.name for key in self.keys if key.required]:
            found["required"] = required
        return {"anyOf": [self.text.schema(), found]} if self.text else found

    def _property(self, key: Key) -> dict[str, Any]:
        schema = dict(key.shape.schema())
        if key.required:
            schema |= {"minItems": 1} if isinstance(key.shape, Several) else {"minLength": 1}
        if isinstance(key.shape, Refused):
            schema["description"] = f"Not supported: {key.shape.why}."
        elif key.meaning:
            schema["description"] = key.meaning.replace("`", "")
        return schema

    def called(self) -> str:
        return "mapping"
