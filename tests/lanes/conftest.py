"""A hyperd of a lane."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.hyper import Hyper
from tests.support.images import busybox_archive
from tests.support.processes import new_root


@pytest.fixture(scope="session")
def automatic() -> Iterator[Hyper]:
    """A hyperd that chooses its driver by itself."""
    hyper = Hyper(root=new_root(), driver="auto")
    try:
        hyper.start_daemon()
        hyper.ok("load", "-q", "-i", str(busybox_archive(hyper.root / "busybox.tar")))
        yield hyper
        hyper.remove_all()
    finally:
        hyper.stop_daemon()
        shutil.rmtree(hyper.root, ignore_errors=True)
