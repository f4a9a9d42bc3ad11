"""Write ``docs/podfile.schema.json`` and the tables of ``docs/podfile.md`` from the keys that podfiles have.

python tools/gen_podfile.py           write them
python tools/gen_podfile.py --check   exit 1 when they are stale
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypercontainer.cli.podfile import keys, manifest_keys
from hypercontainer.cli.podfile.shapes import Ignored, Key, Keys, Refused

DOCS = Path(__file__).parent.parent / "docs"
_TABLE = re.compile(r"(<!-- keys (\w+)\.(\w+) -->\n).*?(<!-- end of keys -->\n)", re.DOTALL)
_MODULES = {"podfile": keys, "manifest": manifest_keys}


def schema() -> bytes:
    """JSON Schema 2020-12 of both formats; keys in our spelling, which editors complete."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A podfile of HyperContainer, or a Kubernetes Pod manifest",
        "type": "object",
        "if": {"anyOf": [{"required": ["apiVersion"]}, {"required": ["kind"]}]},
        "then": {"$ref": "#/$defs/manifest"},
        "else": {"$ref": "#/$defs/podfile"},
        "$defs": {"podfile": _podfile(), "manifest": manifest_keys.MANIFEST.schema()},
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _podfile() -> dict[str, Any]:
    found = keys.POD.schema()
    return found | {"required": ["containers"]}


def _tables(page: str) -> str:
    def written(match: re.Match[str]) -> str:
        begin, module, name, end = match.groups()
        return begin + "\n".join(_table(getattr(_MODULES[module], name))) + "\n" + end

    return _TABLE.sub(written, page)


def _table(shape: Keys) -> Iterator[str]:
    yield "| key | type | meaning | when absent |"
    yield "|---|---|---|---|"
    for key in shape.keys:
        if not isinstance(key.shape, (Refused, Ignored)):
            names = " or ".join(f"`{name}`" for name in (key.name, *key.other_names))
            yield f"| {names} | {key.shape.called()} | {key.meaning} | {key.absent} |"
    if refused := list(_refused(shape)):
        yield ""
        yield f"Known, and refused with the reason: {'; '.join(refused)}."
    if ignored := [f"`{key.name}`" for key in shape.keys if isinstance(key.shape, Ignored)]:
        yield ""
        yield f"Ignored, since it means nothing here: {', '.join(ignored)}."


def _refused(shape: Keys) -> Iterator[str]:
    by_reason: dict[str, list[Key]] = {}
    for key in shape.keys:
        if isinstance(key.shape, Refused):
            by_reason.setdefault(key.shape.why, []).append(key)
    for why, refused in by_reason.items():
        yield f"{', '.join(f'`{key.name}`' for key in refused)} ({why})"


def wanted() -> dict[Path, bytes]:
    """What the files should hold."""
    page = DOCS / "podfile.md"
    return {page: _tables(page.read_text()).encode(), DOCS / "podfile.schema.json": schema()}


def main() -> int:
    stale = {path: data for path, data in wanted().items() if not path.exists() or path.read_bytes() != data}
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is stale: run make gen", file=sys.stderr)
        return 1 if stale else 0
    for path, data in stale.items():
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
