"""What the docs tell to type works: blocks marked ``sh tested`` are run in order, a document at a time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.hyper import Hyper

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```sh tested\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)\)")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(document: Path) -> list[str]:
    return _BLOCK.findall(document.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path)], ids=name)
def test_what_a_document_tells_to_type_works(hyper: Hyper, document: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin/hyper"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hypercontainer "$@"\n')
    program.chmod(0o755)
    hyper.ok("tag", "busybox", "debian")  # any image with a shell will do
    script = "set -eu\n" + "\n".join(blocks(document))
    environment = hyper.variables() | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    shell = shutil.which("bash") or "/bin/sh"
    try:
        done = subprocess.run(
            [shell, "-x", "-c", script],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    finally:
        hyper.remove_all()
        hyper("rmi", "debian")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text()):
        assert (document.parent / link).exists(), link
