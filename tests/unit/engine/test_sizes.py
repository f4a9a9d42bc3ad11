"""Which machines are started ahead."""

from __future__ import annotations

from hypercontainer.engine.sizes import Size, ahead, missing, size_of
from hypercontainer.model.network import InterfaceSpec
from hypercontainer.model.pod import PodSpec

SMALL = Size("uml", 1, 64, True)
MIDDLE = Size("uml", 1, 128, False)
LARGE = Size("tcg", 2, 512, True)


def test_a_size_is_what_a_pod_asks_for() -> None:
    assert size_of(PodSpec(), "uml") == Size("uml", 1, 128, True)
    assert size_of(PodSpec(network="none", vcpus=2, memory_mib=64), "tcg") == Size("tcg", 2, 64, False)


def test_a_pod_with_nics_of_its_own_has_no_size() -> None:
    assert size_of(PodSpec(interfaces=(InterfaceSpec(),)), "uml") is None


def test_one_size_has_all_the_memory() -> None:
    assert ahead([MIDDLE], memory_mib=400) == [MIDDLE] * 3


def test_sizes_take_turns_and_the_last_one_asked_for_is_first() -> None:
    assert ahead([SMALL, MIDDLE], memory_mib=400) == [SMALL, MIDDLE, SMALL, MIDDLE]


def test_what_is_left_goes_to_what_fits_into_it() -> None:
    assert ahead([LARGE, SMALL], memory_mib=700) == [LARGE, SMALL, SMALL]


def test_what_is_larger_than_all_is_left_out() -> None:
    assert ahead([LARGE, SMALL], memory_mib=130) == [SMALL, SMALL]
    assert ahead([LARGE], memory_mib=130) == []
    assert ahead([SMALL], memory_mib=0) == []


def test_what_is_missing_is_counted_by_size() -> None:
    assert missing([SMALL, MIDDLE, SMALL], [MIDDLE, SMALL]) == [SMALL]
    assert missing([SMALL], [SMALL, SMALL]) == []
    assert missing([SMALL, SMALL], [MIDDLE]) == [SMALL, SMALL]
