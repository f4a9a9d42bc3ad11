"""Any message, for hypothesis: made from the schema, so that a new message is tested unasked."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from hypercontainer.guest import schema
from hypercontainer.guest.protocol import PROTOCOL_VERSION, Hello, Message, Welcome
from hypercontainer.guest.schema import Boolean, Data, Integer, Kind, Record, Sequence, Text

MESSAGES = [cls for cls in schema.messages() if cls.__module__ == Message.__module__]
LIMITS = {"u8": (0, 2**8), "u16": (0, 2**16), "u32": (0, 2**32), "u64": (0, 2**64), "i32": (-(2**31), 2**31)}
REQUEST_IDS = st.integers(0, 2**31 - 1)


def messages(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of one class; Hello and Welcome are of this version: of others more is accepted."""
    fields = {name: _values(kind) for name, kind in schema.fields(cls)}
    if cls in (Hello, Welcome):
        fields["version"] = st.just(PROTOCOL_VERSION)
    return st.builds(cls, **fields)


def any_message() -> st.SearchStrategy[Message]:
    return st.sampled_from(MESSAGES).flatmap(messages)


def _values(kind: Kind) -> st.SearchStrategy[Any]:
    match kind:
        case Integer(name):
            low, high = LIMITS[name]
            return st.integers(low, high - 1)
        case Boolean():
            return st.booleans()
        case Text():
            return st.text(
                st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20
            ) | st.sampled_from(["\u00c0\u00db", "x" * 300])
        case Data():
            return st.binary(max_size=64) | st.sampled_from(
                [b"\xc0" * 20, b"\xdb" * 20, b"\xdb\xdc\xdb\xdd\xc0"]
            )
        case Record(cls):
            return st.builds(cls, **{name: _values(inner) for name, inner in schema.fields(cls)})
        case Sequence(item):
            return st.lists(_values(item), max_size=4).map(tuple)
