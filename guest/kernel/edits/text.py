"""How a file of the kernel's tree is changed: by what it has, and what it gets instead."""

from __future__ import annotations

from pathlib import Path


class EditError(Exception):
    """The tree is not as an edit expects it; the message says where."""


def append(path: Path, addition: str) -> None:
    path.write_text(f"{path.read_text()}\n{addition}")


def change(path: Path, edits: dict[str, str]) -> None:
    """Replace in ``path`` the first of each text that is asked for."""
    text = path.read_text()
    for asked, put in edits.items():
        text = removed(text, asked, path, put=put)
    path.write_text(text)


def removed(text: str, asked: str, path: Path, *, put: str = "") -> str:
    """``text`` with the first ``asked`` replaced; ``path`` is for the error."""
    if asked not in text:
        raise EditError(f"{path}: expected '{asked.strip()}'")
    return text.replace(asked, put, 1)
