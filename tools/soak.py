"""Many short runs: each prints a random line, none may be lost, and nothing may be left behind.

    .venv/bin/python tools/soak.py --runs 1000 --parallel 2 --hypervisor uml --image busybox

Counts before and after: processes, mounts, network interfaces, nftables rules, files of hyper's
directories, listening sockets.  Ends with 1 and a list of what differs.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypercontainer.config import Paths

HYPER = str(Path(sys.executable).parent / "hyper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--hypervisor", default="auto")
    parser.add_argument("--network", default="default")
    parser.add_argument("--image", default="busybox")
    asked = parser.parse_args()
    flags = ["--hypervisor", asked.hypervisor, "--network", asked.network]
    one_run(asked.image, flags)  # what the first run makes for good (templates, the bridge) is no leak
    settle()
    before = inventory()
    began = time.monotonic()
    with ThreadPoolExecutor(asked.parallel) as pool:
        failures = [f for f in pool.map(lambda _: one_run(asked.image, flags), range(asked.runs)) if f]
    spent = time.monotonic() - began
    settle()
    left = difference(before, inventory())
    print(f"{asked.runs} runs in {spent:.1f} s, {spent / asked.runs * 1e3 * asked.parallel:.0f} ms each")
    for line in [*failures, *left]:
        print(line)
    print(f"{len(failures)} failed, {len(left)} left behind")
    sys.exit(bool(failures or left))


def one_run(image: str, flags: list[str]) -> str:
    """Why the run failed, or nothing."""
    line = secrets.token_hex(16)
    words = [HYPER, "run", "--rm", *flags, image, "echo", line]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout == f"{line}\n":
        return ""
    return f"status {done.returncode}, printed {done.stdout!r} for {line!r}: {done.stderr.strip()[-300:]}"


def settle() -> None:
    """Tear-down goes on after a run's exit status is known: wait until no pod is left."""
    for _ in range(300):
        listed = subprocess.run([HYPER, "list", "--format", "json"], capture_output=True, check=True).stdout
        if not json.loads(listed or b"[]") and not any(Paths.default().machines.iterdir()):
            break
        time.sleep(0.1)
    time.sleep(0.5)


def inventory() -> dict[str, Counter[str]]:
    """What runs and lies on this host, by kind."""
    paths = Paths.default()
    return {
        "process": Counter(_processes()),
        "mount": Counter(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "interface": Counter(os.listdir("/sys/class/net")),  # noqa: PTH208
        "rule": Counter(_output("nft", "--stateless", "list", "ruleset").splitlines()),
        "file": Counter(_files(paths)),
        "memory file": Counter(os.listdir("/dev/shm")),  # noqa: PTH208
        "daemon's descriptor": Counter(_descriptors(paths)),
    }


def difference(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> list[str]:
    return [
        f"left behind: {kind} {name} ({count})"
        for kind, things in after.items()
        for name, count in (things - before[kind]).items()
    ]


def _processes() -> list[str]:
    """Command lines of programs; kernel threads come and go by themselves."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if any(name in words for name in ("hyper", "qemu", "linux mem=", "passt", "sqfstar", "dnsmasq")):
                found.append(words.strip()[:120])
    return found


def _files(paths: Paths) -> list[str]:
    """Without the cache, which is meant to stay, and is bounded."""
    found = [path for root in (paths.state, paths.run) for path in root.rglob("*")]
    return [str(path) for path in found if paths.cache not in path.parents]


def _descriptors(paths: Paths) -> list[str]:
    pid = paths.lock.read_text().split()[0]
    return [f"fd {kind}" for kind in _descriptor_kinds(pid)]


def _descriptor_kinds(pid: str) -> list[str]:
    kinds = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kinds.append(os.readlink(entry).partition("[")[0])  # noqa: PTH115
        except OSError:
            continue
    return kinds


def _output(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main()
