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
        assert after[slots.WRITABLE] == slots.POD
        assert len(set(after)) == len(after)
        assert set(wanted) <= set(after)
        for key in set(wanted) & set(held):
            assert slots.find(after, key) == slots.find(held, key)
        held = after


def test_what_stays_where_it_is_is_known() -> None:
    before, after = (slots.POD, "a", "b", "", "c"), (slots.POD, "a", "d", "", "c", "b")
    assert slots.unchanged(before, after, {"a", "b", "d"}) == (1,)
    assert slots.unchanged(before, after, {"a", "c"}) == (1, 4)
    assert slots.unchanged((), after, {"a"}) == ()
