"""Build hyperkernel: a distribution's kernel source, our config fragments, our drivers.

    python3 -m guest.kernel.build --target um --target x86_64 --output src/hypercontainer/data/kernel

Each target leaves its kernel and a ``kernel.json`` in a directory of its own below the output.  Finished
kernels are kept by the hash of everything that went into them, so a second run only copies.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guest.kernel import check, edits, source
from guest.kernel.targets import TARGETS, Target

HERE = Path(__file__).parent
PACKAGE = "linux-source-6.12"
RECIPE = ("build.py", "edits/__init__.py", "edits/text.py")
_SCRATCH_SIZE = 4 << 30  # bytes: the unpacked source and the objects of a target


class BuildError(Exception):
    """The kernel was not built; the message says why."""


def cache_directory() -> Path:
    """``$HYPER_CACHE``, else the user's cache directory (XDG Base Directory Specification)."""
    if chosen := os.environ.get("HYPER_CACHE"):
        return Path(chosen) / "kernel"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hypercontainer" / "kernel"


def key(target: Target, kernel_source: source.Source) -> str:
    """The hash of everything that decides what comes out: source, fragments, drivers, recipe, compiler."""
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
    made = f"{target.name} {target.architecture} {target.product}"
    digest = hashlib.sha256(f"{made} {kernel_source.sha256} {compiler}".encode())
    own = (*target.fragment_paths(), *target.driver_paths(), *target.edit_paths())
    for path in (*own, *(HERE / name for name in RECIPE)):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def build(target: Target, kernel_source: source.Source, tree: Path, directory: Path, *, jobs: int) -> None:
    """Build ``target`` from ``tree``; kernel, config and ``kernel.json`` go to ``directory``."""
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=tree.parent) as objects:
        make = ["make", "-C", str(tree), f"O={objects}", f"ARCH={target.architecture}"]
        # Unwind tables are read by nobody; User-Mode Linux would keep a megabyte of them in memory.
        make += ["KCFLAGS=-fno-asynchronous-unwind-tables"]
        configure(target, make, Path(objects))
        compile_kernel(target, [*make, f"-j{jobs}"], log=directory.parent / f"{target.name}.log")
        subprocess.run(
            ["strip", "--strip-all", "-o", directory / target.product, f"{objects}/{target.product}"],
            check=True,
        )
        shutil.copy(f"{objects}/.config", directory / "config")
        release = (Path(objects) / "include/config/kernel.release").read_text().strip()
    write_manifest(target, kernel_source, directory, release)


def configure(target: Target, make: list[str], objects: Path) -> None:
    """Nothing but what the fragments ask for, and all of that, or an error that names what was dropped."""
    fragments = [path.read_text() for path in target.fragment_paths()]
    asked = objects / "asked.config"
    asked.write_text("".join(fragments))
    run_quietly([*make, f"KCONFIG_ALLCONFIG={asked}", "allnoconfig"])
    if lost := check.dropped(fragments, (objects / ".config").read_text()):
        raise BuildError("Kconfig dropped what was asked for:\n" + "\n".join(f"  {one}" for one in lost))


def run_quietly(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def compile_kernel(target: Target, make: list[str], *, log: Path) -> None:
    """Run make for the target's product, with progress; what went wrong is shown from the log's end."""
    # Two builds of the same inputs are the same bytes.
    stamps = {
        "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
        "KBUILD_BUILD_USER": "hyper",
        "KBUILD_BUILD_HOST": "hyper",
    }
    with log.open("w") as log_file:
        process = subprocess.Popen(
            [*make, target.product],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | stamps,
        )
        with process:
            assert process.stdout is not None
            show_progress(target, lines_to(process.stdout, log_file))
    if process.returncode:
        raise BuildError(f"make {target.product} failed; the end of {log}:\n{tail(log)}")
    log.unlink()


def lines_to(lines: Iterator[str], log_file: object) -> Iterator[str]:
    for line in lines:
        print(line, end="", file=log_file)  # type: ignore[call-overload]
        yield line


def show_progress(target: Target, lines: Iterator[str]) -> None:
    step = re.compile(r"^  (CC|AS|AR|LD)\s")
    terminal, began, shown, steps = sys.stderr.isatty(), time.monotonic(), 0.0, 0
    for line in lines:
        steps += bool(step.match(line))
        now = time.monotonic()
        if now - shown < (0.2 if terminal else 15):
            continue
        shown = now
        percent = min(99, steps * 100 // target.compile_steps)
        message = f"kernel {target.name}: compiled {steps} files, about {percent} %, {now - began:.0f} s"
        print(
            f"\r{message}" if terminal else message, end="" if terminal else "\n", file=sys.stderr, flush=True
        )
    if terminal:
        print(file=sys.stderr)


def tail(path: Path, count: int = 30) -> str:
    return "\n".join(path.read_text().splitlines()[-count:])


def write_manifest(target: Target, kernel_source: source.Source, directory: Path, release: str) -> None:
    manifest = {
        "target": target.name,
        "file": target.product,
        "release": release,
        "source": kernel_source.package,
        "source_version": kernel_source.version,
        "source_sha256": kernel_source.sha256,
        "sha256": file_sha256(directory / target.product),
        "config_sha256": file_sha256(directory / "config"),
    }
    (directory / "kernel.json").write_text(json.dumps(manifest, indent=2) + "\n")


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(target: Target, finished: Path, output: Path) -> None:
    """Copy a finished kernel to ``output``; a reader sees the old file or the new one, whole."""
    place = output / target.name
    place.mkdir(parents=True, exist_ok=True)
    for name in (target.product, "kernel.json"):
        fresh = place / f".{name}.new"
        shutil.copy(finished / name, fresh)
        fresh.replace(place / name)


@contextmanager
def exclusive(cache: Path) -> Iterator[None]:
    """One build at a time: the second finds the first one's result."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def memory_directory() -> Path | None:
    """A tmpfs with room for the tree and its objects; None is the default temporary directory.

    The tree has 80,000 files: on a disk that discards what it frees, removing them takes half an hour.
    """
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir():
        return None
    status = os.statvfs(memory)
    is_large = status.f_bavail * status.f_frsize > _SCRATCH_SIZE
    return memory if is_large and not status.f_flag & os.ST_NOEXEC else None


def make_missing(
    missing: dict[Target, Path], kernel_source: source.Source, cache: Path, *, jobs: int
) -> None:
    """Build each missing target into its place in the cache, all from one unpacked tree."""
    if not missing:
        return
    print(f"kernel: source {kernel_source.file}", file=sys.stderr)
    package = source.fetch(kernel_source, cache / "source")
    for abandoned in cache.glob("tree-*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix="hyperkernel-", dir=memory_directory()) as scratch,
        tempfile.TemporaryDirectory(prefix="tree-", dir=cache) as finished,
    ):
        tree = source.unpack(package, Path(scratch) / "source")
        edits.apply(tree)
        for target, place in missing.items():
            began = time.monotonic()
            fresh = Path(finished) / target.name
            fresh.mkdir()
            build(target, kernel_source, tree, fresh, jobs=jobs)
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh.rename(place)
            print(f"kernel {target.name}: built in {time.monotonic() - began:.0f} s", file=sys.stderr)


def run(targets: list[Target], output: Path, *, jobs: int) -> None:
    cache = cache_directory()
    kernel_source = source.find(PACKAGE, cache / "source")
    # The keys are taken before anybody is waited for: later the files may be others than this program.
    places = {target: cache / key(target, kernel_source)[:32] for target in targets}
    if not all(place.exists() for place in places.values()):
        with exclusive(cache):
            missing = {target: place for target, place in places.items() if not place.exists()}
            make_missing(missing, kernel_source, cache, jobs=jobs)
    for target, place in places.items():
        install(target, place, output)
        print(f"kernel {target.name}: {output / target.name / target.product}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build hyperkernel.")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="default: all; may be repeated"
    )
    parser.add_argument("--output", type=Path, required=True, help="each target gets a directory below it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    try:
        run([TARGETS[name] for name in arguments.target or TARGETS], arguments.output, jobs=arguments.jobs)
    except (BuildError, edits.EditError, source.SourceError, subprocess.CalledProcessError) as error:
        print(f"kernel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
