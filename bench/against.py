"""This tree against another revision of it, in turns: ratios that say what a change did."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.measure import median, ratio, side_by_side, table, timed
from bench.runtimes import IMAGE, HyperRuntime
from bench.site import ROOT, hyper, make_image

_MAKE = ("make", "--silent", "guest", "kernel")  # the kernel comes from the cache


def compare(revision: str, rounds: int) -> str:
    """A report: medians of both, and what is now of what was."""
    with contextlib.ExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="hyper-bench-")))
        image = directory / "busybox.tar"
        make_image(image)
        then = held.enter_context(_worktree(directory / "tree", revision)) / ".venv/bin/hyper"
        now = held.enter_context(hyper(directory / "now", number=0))
        before = held.enter_context(hyper(directory / "then", program=then, number=1))
        for runtimes in (now, before):
            runtimes[0].call("load", "--quiet", "--input", str(image))
        return _report(revision, _rows(now, before, rounds))


@contextlib.contextmanager
def _worktree(path: Path, revision: str) -> Iterator[Path]:
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "--detach", "--quiet", path, revision], check=True)
    try:
        subprocess.run([*_MAKE, "--directory", path], check=True, stdout=subprocess.DEVNULL)
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", path], check=True)


def _rows(
    now: tuple[HyperRuntime, ...], before: tuple[HyperRuntime, ...], rounds: int
) -> list[tuple[str, list[float], list[float]]]:
    """What was measured, now and before."""
    contenders = {}
    for side, runtimes in (("now", now), ("then", before)):
        for runtime in runtimes:
            runtime.warm(network="none")
            runtime.warm()
            for network in ("none", "default"):
                words = runtime.run("--rm", "--network", network, IMAGE, "true")
                contenders[f"{runtime.name}, network {network}/{side}"] = timed(words, runtime.environment)
        words = [*runtimes[0].program, "list"]
        contenders[f"hyper list/{side}"] = timed(words, runtimes[0].environment)
    ordered = dict(sorted(contenders.items()))  # both of one kind next to each other
    found = side_by_side(ordered, rounds=rounds)
    kinds = [name.removesuffix("/now") for name in found if name.endswith("/now")]
    return [(kind, found[f"{kind}/now"], found[f"{kind}/then"]) for kind in kinds if f"{kind}/then" in found]


def _report(revision: str, rows: list[tuple[str, list[float], list[float]]]) -> str:
    lines = [
        (name, f"{median(then):.0f}", f"{median(now):.0f}", ratio(now, then)) for name, now, then in rows
    ]
    return f"Medians, milliseconds, shell to shell:\n\n{table(('', revision, 'now', 'ratio'), lines)}"
