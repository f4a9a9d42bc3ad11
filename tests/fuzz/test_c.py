"""libFuzzer on the C half of the protocol; FUZZ_SECONDS for each target, a few by default."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.seeds import CORPUS, seeds
from tests.protocol.mirror import build

SECONDS = int(os.environ.get("FUZZ_SECONDS", "5"))
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", ["reader", "frames"])
def test_the_c_half_keeps_its_promises_whatever_comes(target: str, tmp_path: Path) -> None:
    program = build(Path(__file__).with_name(f"{target}.c"), tmp_path / target, *SANITIZERS, compiler="clang")
    found = tmp_path / "found"
    found.mkdir()
    run = subprocess.run(
        [
            program,
            f"-max_total_time={SECONDS}",
            "-max_len=4096",
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
def test_every_message_has_its_seed(path: Path) -> None:
    assert path.read_bytes() == seeds()[path], "run python -m tests.fuzz.seeds"
