"""Write ``docs/openapi.json`` and the table of routes in ``docs/api.md`` from the routes.

python tools/gen_api.py           write them
python tools/gen_api.py --check   exit 1 when they are stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from hypercontainer.api import openapi

DOCS = Path(__file__).parent.parent / "docs"
BEGIN = "<!-- routes: written by tools/gen_api.py -->\n"
END = "<!-- end of routes -->\n"


def wanted() -> dict[Path, bytes]:
    """What the files should hold."""
    page = DOCS / "api.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    text = before + BEGIN + openapi.markdown_table() + END + after
    return {page: text.encode(), DOCS / "openapi.json": openapi.document()}


def main() -> int:
    stale = {path: data for path, data in wanted().items() if not path.exists() or path.read_bytes() != data}
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is stale: run python tools/gen_api.py", file=sys.stderr)
        return 1 if stale else 0
    for path, data in stale.items():
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
