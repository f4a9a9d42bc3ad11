"""docs/podfile.schema.json says what the reader does: what the reader's shapes refuse, editors mark too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hypercontainer.cli import podfile
from hypercontainer.cli.nodes import read_nodes
from hypercontainer.cli.podfile import is_manifest
from hypercontainer.cli.podfile.keys import POD
from hypercontainer.cli.podfile.manifest_keys import MANIFEST
from hypercontainer.cli.podfile.shapes import Ignored, Keys, Refused, Several, Shape
from hypercontainer.errors import InvalidRequest
from tests.unit.cli.test_podfile import CORPUS, EXAMPLES, mistakes
from tools import gen_podfile

SCHEMA = json.loads((gen_podfile.DOCS / "podfile.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

OTHER_SPELLINGS = ('"containerport"', '"readonly"', "dnssearch")  # that the reader takes, as the original did
READERS = Path(podfile.__file__).parent
MEANINGLESS = {  # or not seen by this search
    id(POD): {"internalNetworks", "externalNetworks"},  # asked for under composed names
    id(MANIFEST): {"apiVersion", "os"},
}
BEYOND_A_SCHEMA = {  # of texts and of keys, which are gone when a schema looks
    "alias-of-itself", "half-a-surrogate", "nul", "merge-key", "duplicate-key", "two-names",
    "volume-format-and-driver",
}  # fmt: skip


def refused_by_shape(text: str, name: str) -> bool:
    try:
        root = read_nodes(text, name)
        (MANIFEST if is_manifest(root) else POD).check(root)
    except InvalidRequest:
        return True
    return False


def loaded(path: Path) -> Any:
    """As an editor reads it; None when it cannot."""
    text = path.read_bytes().decode(errors="replace")
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return None


def test_the_generated_files_are_fresh() -> None:
    for path, data in gen_podfile.wanted().items():
        assert path.read_bytes() == data, "run make gen"


def names(shape: Shape) -> set[str]:
    """Every key, at every depth, that means something."""
    if isinstance(shape, Several):
        return names(shape.of)
    if not isinstance(shape, Keys):
        return set()
    known = [key for key in shape.keys if not isinstance(key.shape, (Refused, Ignored))]
    return {key.name for key in known}.union(*(names(key.shape) for key in known))


@pytest.mark.parametrize("shape", [POD, MANIFEST], ids=["podfile", "manifest"])
def test_no_key_is_accepted_that_no_reader_asks_for(shape: Shape) -> None:
    readers = [path for path in READERS.glob("*.py") if not path.name.endswith("keys.py")]
    text = "".join(path.read_text() for path in readers)
    assert {name for name in names(shape) if f'"{name}"' not in text} == MEANINGLESS[id(shape)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "path",
    [*EXAMPLES.rglob("*.json"), *EXAMPLES.rglob("*.y*ml"), *CORPUS.glob("full.*")],
    ids=lambda path: path.name,
)
def test_examples_are_valid(path: Path) -> None:
    document = {key: value for key, value in loaded(path).items() if value is not None}
    if any(word in path.read_text() for word in OTHER_SPELLINGS):
        assert list(VALIDATOR.iter_errors(document)), "editors want our spelling"
    else:
        VALIDATOR.validate(document)


@pytest.mark.parametrize("path", mistakes(), ids=lambda path: path.name)
def test_what_is_structurally_wrong_is_invalid(path: Path) -> None:
    document = loaded(path)
    text = path.read_bytes().decode(errors="replace")
    if document is None or not refused_by_shape(text, path.name):
        return  # no JSON or YAML at all, or wrong only in what it means
    if path.stem not in BEYOND_A_SCHEMA:
        assert list(VALIDATOR.iter_errors(document))


def test_the_corpus_has_both_kinds_of_mistakes() -> None:
    kinds = [refused_by_shape(path.read_bytes().decode(errors="replace"), path.name) for path in mistakes()]
    assert kinds.count(True) > 30
    assert kinds.count(False) > 30
