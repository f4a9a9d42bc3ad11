"""What hyperd imports before it answers: whoever types the first command waits for it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("httpx", "rich", "yaml", "zstandard", "importlib.metadata", "email.message", "urllib.request")
SCRIPT = f"""
import sys
import hypercontainer.daemon, hypercontainer.api.app, hypercontainer.api.server, hypercontainer.engine.engine
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""


def test_hyperd_starts_without_what_only_some_verbs_need() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
