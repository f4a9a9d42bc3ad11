"""libFuzzer on what reads foreign bytes in hyperstart; FUZZ_SECONDS for each target, a few by default."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.seeds import CORPUS, seeds
from tests.protocol.mirror import C_DIRECTORY, SOURCES, build

SECONDS = int(os.environ.get("FUZZ_SECONDS", "5"))
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]


TAR = [C_DIRECTORY / "tar.c", C_DIRECTORY / "tar_writer.c"]


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize(("target", "parts"), [("reader", SOURCES), ("frames", SOURCES), ("tar", TAR)])
def test_the_c_half_keeps_its_promises_whatever_comes(target: str, parts: list[Path], tmp_path: Path) -> None:
    source = Path(__file__).with_name(f"{target}.c")
    program = build(source, tmp_path / target, *SANITIZERS, compiler="clang", parts=parts)
    found = tmp_path / "found"
    found.mkdir()
    run = subprocess.run(
        [
            program,
            f"-max_total_time={SECONDS}",
            "-max_len=8192",
            "-rss_limit_mb=512",
            f"-artifact_prefix={tmp_path}/",
            "-print_final_stats=1",
            found,
            CORPUS / target,
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-6000:]


@pytest.mark.parametrize("path", seeds(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_seed_is_committed(path: Path) -> None:
    assert path.read_bytes() == seeds()[path], "run python -m tests.fuzz.seeds"
