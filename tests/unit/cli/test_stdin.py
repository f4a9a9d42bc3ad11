"""Input that is kept until the process has it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.cli.stdin import LIMIT, NOBODY_READS, KeptInput


@given(
    before=st.integers(0, 1000),
    chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=10),
    taken=st.lists(st.integers(0, 300), max_size=5),
)
def test_what_was_not_taken_is_what_is_sent_again(before: int, chunks: list[bytes], taken: list[int]) -> None:
    kept = KeptInput(before)
    for chunk in chunks:
        kept.add(chunk)
    text = b"".join(chunks)
    for offset in taken:
        kept.taken(before + min(offset, len(text)))
    done = min(max([0, *taken]), len(text))
    assert b"".join(kept.again(before)) == text[done:]
    assert kept.size == len(text) - done


def test_a_process_that_reads_no_more_needs_nothing_kept() -> None:
    kept = KeptInput(0)
    kept.add(b"x" * LIMIT)
    assert kept.is_full
    kept.taken(NOBODY_READS)
    kept.add(b"more")
    assert not kept.is_full
    assert kept.again(0) == []
