from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.config import Settings
from hypercontainer.images.store import Images


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    store = Images(tmp_path / "images", settings=Settings())
    yield store
    store.close()
