"""The check that no asked kernel option was dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest.kernel import check, edits, targets
from guest.kernel.edits import x86_64

FRAGMENTS = sorted((targets.HERE / "fragments").glob("*.config"))


def test_an_option_that_kconfig_dropped_is_named_with_what_came_instead() -> None:
    lost = check.dropped(
        ["CONFIG_SQUASHFS=y\nCONFIG_HZ=100\n"], "# CONFIG_SQUASHFS is not set\nCONFIG_HZ=250\n"
    )
    assert [str(one) for one in lost] == [
        "CONFIG_SQUASHFS: asked y, got n",
        "CONFIG_HZ: asked 100, got 250",
    ]


def test_an_option_that_is_nowhere_in_the_config_counts_as_dropped() -> None:
    assert check.dropped(["CONFIG_EXT4_FS=y"], "") == [check.Dropped("EXT4_FS", "y", "n")]


def test_a_refused_option_may_be_absent_but_not_set() -> None:
    assert not check.dropped(["# CONFIG_PCI is not set"], "")
    assert check.dropped(["# CONFIG_PCI is not set"], "CONFIG_PCI=y")


def test_a_later_fragment_wins() -> None:
    assert not check.dropped(["CONFIG_SMP=y", "# CONFIG_SMP is not set"], "# CONFIG_SMP is not set")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_every_option_line_of_a_fragment_is_understood(path: Path) -> None:
    text = path.read_text()
    lines = [
        line
        for line in text.splitlines()
        if ("CONFIG_" in line and " is not set" in line) or line[:7] == "CONFIG_"
    ]
    assert lines
    assert len(check.options(text)) == len(lines)


def test_every_target_names_fragments_drivers_and_edits_that_exist() -> None:
    for target in targets.TARGETS.values():
        assert all(path.is_file() for path in (*target.fragment_paths(), *target.edit_paths()))
        assert all(any(edits.DRIVERS.glob(f"{name}*.c")) for name in target.drivers)


def test_an_edit_whose_place_is_gone_fails_with_the_file(tmp_path: Path) -> None:
    script = tmp_path / "vmlinux.lds.S"
    script.write_text("nothing of interest\n")
    with pytest.raises(edits.EditError, match=r"vmlinux\.lds\.S"):
        x86_64.pack_entry_code(script)
