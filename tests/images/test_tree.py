"""Layers over one another: stories of single rules, and any mix of them against a model of dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercontainer.errors import InvalidRequest
from hypercontainer.images import tar
from hypercontainer.images.tree import Directory, Tree
from tests.support.images import Member, directory, hard_link, layer, symlink


def merged(*layers: bytes) -> dict[str, str]:
    """Each name with ``dir`` or ``LAYER:SIZE`` of the file that it is."""
    tree: Tree[int] = Tree()
    for number, data in enumerate(layers):
        tree.add(tar.entries(data), number)
    return {
        name.decode(): "dir" if isinstance(node, Directory) else f"{node.source}:{node.entry.size}"
        for name, node in tree.walk()
    }


def file(name: str, size: int = 0) -> Member:
    return Member(name=name, content=b"x" * size)


def test_a_whiteout_hides_what_is_below_and_nothing_of_its_own_layer() -> None:
    below = layer(directory("d"), file("d/a"), file("d/b"), file("c"))
    assert merged(below, layer(file("d/.wh.a"), file(".wh.c"))) == {"d": "dir", "d/b": "0:0"}
    assert merged(below, layer(file("c", 5), file(".wh.c")))["c"] == "1:5"
    assert merged(below, layer(file(".wh.c"), file("c", 5)))["c"] == "1:5"
    assert "d" not in merged(below, layer(file(".wh.d")))


def test_an_opaque_directory_hides_all_below_it() -> None:
    below = layer(directory("d"), file("d/a"), directory("d/e"), file("d/e/x"))
    assert merged(below, layer(file("d/new"), file("d/.wh..wh..opq"))) == {"d": "dir", "d/new": "1:0"}
    assert merged(below, layer(file(".wh..wh..opq"), file("z"))) == {"z": "1:0"}


def test_what_came_back_after_a_whiteout_is_new() -> None:
    layers = [layer(directory("d"), file("d/a")), layer(file(".wh.d")), layer(directory("d"), file("d/b"))]
    assert merged(*layers) == {"d": "dir", "d/b": "2:0"}


def test_kinds_replace_one_another() -> None:
    a_file, a_directory = layer(file("x", 1)), layer(directory("x"), file("x/y"))
    assert merged(a_directory, a_file) == {"x": "1:1"}
    assert merged(a_file, a_directory) == {"x": "dir", "x/y": "1:0"}
    assert merged(layer(symlink("x", "/etc")), a_directory) == {"x": "dir", "x/y": "1:0"}


def test_a_parent_that_is_not_listed_keeps_what_it_was_like() -> None:
    tree: Tree[int] = Tree()
    tree.add(tar.entries(layer(directory("d", 0o700))), 0)
    tree.add(tar.entries(layer(file("d/a"))), 1)
    (_, node), _ = tree.walk()
    assert node.entry is not None
    assert node.entry.mode == 0o700


def test_a_hard_link_keeps_its_content_when_the_target_goes() -> None:
    below = layer(file("a", 3), hard_link("b", "a"))
    assert merged(below, layer(file("a", 9))) == {"a": "1:9", "b": "0:3"}
    assert merged(below, layer(file(".wh.a"))) == {"b": "0:3"}
    assert merged(layer(file("a", 3)), layer(hard_link("b", "a"), file(".wh.a"))) == {"b": "0:3"}
    assert merged(layer(file("a", 3)), layer(hard_link("b", "/./a"), file("a", 7))) == {
        "a": "1:7",
        "b": "0:3",
    }


def test_a_hard_link_to_nothing_or_to_a_directory_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is missing"):
        merged(layer(hard_link("b", "a")))
    with pytest.raises(InvalidRequest, match="is a directory"):
        merged(layer(directory("a"), hard_link("b", "a")))


def test_names_are_within_the_image() -> None:
    assert merged(layer(file("/etc/x"), file("./y"), file("a/../z"))) == {
        "etc": "dir", "etc/x": "0:0", "y": "0:0", "z": "0:0",
    }  # fmt: skip
    for name in ("../x", "../../etc/x", "a/../../x", "/.."):
        with pytest.raises(InvalidRequest, match="climbs out"):
            merged(layer(file(name)))
    with pytest.raises(InvalidRequest, match="climbs out"):
        merged(layer(hard_link("x", "../../etc/passwd")))


def test_symbolic_links_in_a_name_lead_within_the_image() -> None:
    up = layer(directory("etc"), symlink("out", "../../../../etc"), symlink("abs", "/etc"))
    for name in ("out/x", "abs/x"):
        same = layer(directory("etc"), symlink("out", "../../../../etc"), symlink("abs", "/etc"), file(name))
        assert merged(same)["etc/x"] == "0:0"
        above = merged(up, layer(file(name)))  # another layer's link is not followed: overlayfs can't either
        assert above[name] == "1:0"
        assert "etc/x" not in above


def test_a_name_below_a_file_or_a_loop_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is no directory"):
        merged(layer(file("a"), file("a/b")))
    with pytest.raises(InvalidRequest, match="is no directory"):
        merged(layer(symlink("a", "b"), symlink("b", "a"), file("a/x")))


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.."])
def test_a_whiteout_of_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="hides nothing"):
        merged(layer(directory("d"), file(name)))


def test_aufs_own_files_are_no_part_of_the_image() -> None:
    assert merged(layer(file(".wh..wh.aufs"), directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"))) == {}


def test_long_and_deep_names_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="longer than 255"):
        merged(layer(file("n" * 256)))
    assert len(merged(layer(file("a/" * 255 + "b")))) == 256
    with pytest.raises(InvalidRequest, match="deeper than 256"):
        merged(layer(file("a/" * 256 + "b")))
    climb = [directory("a/" * 200), symlink("s", "a/" * 200), file("s/" + "b/" * 100 + "c")]
    with pytest.raises(InvalidRequest, match="deeper than 256"):
        merged(layer(*climb))
    deep = "/".join(["d" * 250] * 15)
    links = [directory(deep), symlink("s", deep), directory(f"s/{deep}")]
    with pytest.raises(InvalidRequest, match="longer than 4095"):
        merged(layer(*links))


def test_a_flood_of_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercontainer.images.tree.MAX_NODES", 1000)
    with pytest.raises(InvalidRequest, match="more than 1000 files"):
        merged(layer(*(file(f"{n}/" + "a/" * 250 + "b") for n in range(5))))


def test_a_flood_of_attributes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercontainer.images.tree.MAX_METADATA", 100_000)
    heavy = {"SCHILY.xattr.user.a": "x" * 1000}
    with pytest.raises(InvalidRequest, match="bytes of names and attributes"):
        merged(*(layer(*(Member(name=f"{n}", pax=heavy) for n in range(60))) for _ in range(2)))


# The model: an image is a dictionary of paths; a layer is applied by the words of the specification.

Operation = tuple[str, tuple[str, ...], int]
Tree_ = dict[tuple[str, ...], str]

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
OPERATIONS = st.tuples(st.sampled_from(["dir", "file", "hide", "opaque"]), PATHS, st.integers(0, 9))


def _without(tree: Tree_, path: tuple[str, ...]) -> Tree_:
    return {name: what for name, what in tree.items() if name[: len(path)] != path}


def _model_layer(
    operations: Sequence[Operation], number: int
) -> tuple[Tree_, set[tuple[str, ...]], set[tuple[str, ...]]]:
    """The layer's own files, what it hides, and its opaque directories."""
    own: Tree_ = {}
    hidden: set[tuple[str, ...]] = set()
    opaque: set[tuple[str, ...]] = set()
    for kind, path, size in operations:
        parent = path if kind == "opaque" else path[:-1]
        for length in range(1, len(parent) + 1):
            own.setdefault(parent[:length], "dir")
        if kind == "dir":
            if own.get(path) != "dir":
                own[path] = "dir"
        elif kind == "file":
            lost = {name for name in own if name[: len(path)] == path}
            own = {name: what for name, what in own.items() if name not in lost}
            hidden = {name for name in hidden if name[: len(path)] != path or name == path}
            opaque = {name for name in opaque if name[: len(path)] != path}
            own[path] = f"{number}:{size}"
        elif kind == "hide":
            hidden.add(path)
        else:
            opaque.add(path)
    return own, hidden, opaque


def _possible(operations: Sequence[Operation]) -> list[Operation]:
    """Without those that a tar can't hold: names below a file of the same layer."""
    kept: list[Operation] = []
    files: set[tuple[str, ...]] = set()
    for kind, path, size in operations:
        parent = path if kind == "opaque" else path[:-1]
        if any(parent[:length] in files for length in range(1, len(parent) + 1)):
            continue
        if kind == "file":
            files.add(path)
        elif kind == "dir":
            files.discard(path)
        kept.append((kind, path, size))
    return kept


def _model(layers: Sequence[Sequence[Operation]]) -> Tree_:
    tree: Tree_ = {}
    for number, operations in enumerate(layers):
        own, hidden, opaque = _model_layer(operations, number)
        for path in opaque:
            tree = {name: what for name, what in tree.items() if name[: len(path)] != path or name == path}
        for path in hidden:
            tree = _without(tree, path)
        for path, what in own.items():
            if what != "dir" or tree.get(path, "dir") != "dir":
                tree = _without(tree, path)
        for path, what in own.items():
            tree[path] = what
    return tree


def _members(operations: Sequence[Operation]) -> list[Member]:
    made = []
    for kind, path, size in operations:
        name = "/".join(path)
        if kind == "dir":
            made.append(directory(name))
        elif kind == "file":
            made.append(file(name, size))
        elif kind == "hide":
            made.append(file("/".join([*path[:-1], f".wh.{path[-1]}"])))
        else:
            made.append(file(f"{name}/.wh..wh..opq"))
    return made


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(OPERATIONS, max_size=8), min_size=1, max_size=4))
def test_any_mix_of_layers_is_as_the_specification_says(layers: list[list[Operation]]) -> None:
    possible = [_possible(operations) for operations in layers]
    expected = {"/".join(path): what for path, what in _model(possible).items()}
    assert merged(*(layer(*_members(operations)) for operations in possible)) == expected
