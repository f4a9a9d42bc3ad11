"""Disks in slots: each image once, those that are there stay where they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.engine import slots
from hypercontainer.errors import InvalidRequest


def test_containers_of_one_image_share_its_slot() -> None:
    assert slots.assign((), ["a", "b", "a"], limit=9) == ("pod", "a", "b")


def test_what_comes_later_takes_the_place_of_what_nobody_wants() -> None:
    assert slots.assign(("pod", "a", "b"), ["b", "c"], limit=9) == ("pod", "c", "b")


def test_more_disks_than_slots_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs 3 disks, and a machine has 2 slots"):
        slots.assign((), ["a", "b"], limit=2)


def test_the_slots_that_change_are_told_with_what_they_get() -> None:
    assert slots.changes(("pod", "a"), ("pod", "c", "b")) == {1: "c", 2: "b"}


def test_a_slot_that_was_emptied_is_the_next_ones() -> None:
    held = slots.without(("pod", "a", "b"), {"a"})
    assert held == ("pod", "", "b")
    assert slots.assign(held, ["b", "c"], limit=3) == ("pod", "c", "b")


def test_only_what_is_wanted_stays_and_slots_that_came_since_are_empty() -> None:
    assert slots.only(("pod", "a", "b"), ["b"], size=5) == ("pod", "", "b", "", "")
    assert slots.only(("pod", "a"), ["a"], size=1) == ("pod", "a")


keys = st.lists(st.sampled_from("abcdef"), max_size=6)


@given(st.lists(keys, max_size=6))
def test_all_that_is_wanted_is_in_one_slot_and_nothing_wanted_moves(rounds: list[list[str]]) -> None:
    held: slots.Slots = ()
    for wanted in rounds:
        after = slots.assign(held, wanted, limit=8)
        assert after[0] == slots.POD
        assert len(set(after)) == len(after)
        assert set(wanted) <= set(after)
        for key in set(wanted) & set(held):
            assert slots.find(after, key) == slots.find(held, key)
        held = after


def test_a_pod_beside_another_has_slots_that_were_empty_and_the_images_of_both() -> None:
    assert slots.beside(("pod", "a"), ["a"], limit=3) == ("", "a", "pod")
    assert slots.beside(("", "a", "pod"), ["a"], limit=3) == ("pod", "a", "")
    assert slots.beside(("pod", "a", "b"), ["b", "c"], limit=5) == ("", "", "b", "pod", "c")
    assert slots.beside(("pod", "a", "b"), ["b", "c"], limit=4) is None


def test_what_becomes_of_the_slots_from_one_pod_to_the_next() -> None:
    beside = slots.succession(("pod", "a", "b", ""), ("", "", "b", "pod", "c"), ["b", "c"])
    assert beside == slots.Succession(early={3: "pod", 4: "c"}, late={0: "", 1: ""}, kept=(2,))
    assert beside.is_beside
    in_turn = slots.succession(("pod", "a", "gone"), ("pod", "a", "b"), ["a", "b"])
    assert in_turn == slots.Succession(early={}, late={0: "pod", 2: "b"}, kept=(1,))
    assert not in_turn.is_beside


def test_of_slots_that_nobody_knows_nothing_stays() -> None:
    changes = slots.succession((), ("", "a", "pod"), ["a"])
    assert changes == slots.Succession(early={}, late={0: "", 1: "a", 2: "pod"}, kept=())


@given(st.lists(keys, min_size=1, max_size=6))
def test_pods_that_follow_each_other_share_no_slot_but_for_what_both_want(rounds: list[list[str]]) -> None:
    held = slots.assign((), rounds[0], limit=20)
    for wanted in rounds[1:]:
        after = slots.beside(held, wanted, limit=20)
        assert after is not None
        changes = slots.succession(held, after, wanted)
        assert changes.is_beside
        assert {held[slot] for slot in changes.early if slot < len(held)} <= {slots.NOTHING}
        assert {key for key in after if key} == {slots.POD, *wanted}
        assert {held[slot] for slot in changes.kept} == {*wanted} & {*held}
        assert slots.find(after, slots.POD) in changes.early
        held = after
