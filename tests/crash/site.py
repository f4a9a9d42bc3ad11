"""A root where hyperd dies again and again, and what must be true of its host whenever one runs again."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypercontainer.client import Client, Record
from hypercontainer.config import Paths
from hypercontainer.errors import HyperError
from hypercontainer.faults import written
from hypercontainer.hypervisors.namespace import cgroup_prefix
from hypercontainer.model.rest import PodState
from hypercontainer.network import subnets
from hypercontainer.process import ProcessId
from tests.e2e.hyper import DAEMON, Hyper
from tests.support.commands import Result
from tests.support.processes import see, seen

MANY = 1_000_000  # points; no verb has so many
SETTLE_S = 20.0
CGROUPS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")


@dataclass(kw_only=True)
class Site:
    """``hyper`` types commands; the daemon dies where ``arm`` says."""

    hyper: Hyper
    kills: int = 0
    daemon: subprocess.Popen[bytes] | None = None
    paths: Paths = field(init=False)
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        root = self.hyper.root
        self.paths = self.hyper.paths
        self.client = Client(self.paths.socket, timeout_s=60)
        self.fuse = root / "fuse"
        self.log = root / "hyperd.log"
        self.hyper.environment |= {"HYPER_FAULT": str(self.fuse), "HYPER_TEST_NAMESPACE": "1"}

    # --- The daemon ---

    def start(self) -> None:
        """A hyperd that answers, unless one does: a command may have started its own."""
        assert self._answers() or self.try_start(), self.last_words()

    def try_start(self) -> bool:
        """Start hyperd; whether it came to answer, or died before."""
        self.reap()
        settings = self.paths.config / "hyperd.toml"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(self.hyper._settings())
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                DAEMON, env=self.hyper.variables(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.daemon.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.last_words()
            time.sleep(0.01)
        return True

    def _answers(self) -> bool:
        try:
            return self.client.system.ping() == "OK"
        except (HyperError, OSError):
            return False

    def process(self) -> ProcessId | None:
        """The hyperd that holds the lock, whoever started it."""
        with contextlib.suppress(OSError, ValueError):
            found = see(int(self.paths.lock.read_text()))
            if found is not None and found.is_hyperd:
                return found.process
        return None

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if (process := self.process()) is not None:
            process.kill()
            while process.is_alive():
                time.sleep(0.002)
            self.kills += 1
        self.reap()

    def stop(self) -> None:
        """SIGTERM, as an upgrade would; pods run on."""
        if (process := self.process()) is not None:
            process.kill(15)
            deadline = time.monotonic() + 30
            while process.is_alive():
                assert time.monotonic() < deadline, "hyperd does not end"
                time.sleep(0.005)
        self.reap()

    def reap(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None and self.process() is None:
            self.daemon.wait(timeout=30)

    def last_words(self) -> str:
        words = ""
        for log in (self.log, self.paths.daemon_log):
            with contextlib.suppress(OSError):
                words += f"--- {log}\n" + log.read_text(errors="replace")[-2500:]
        return words

    # --- Faults ---

    def arm(self, points: int) -> None:
        """hyperd is to die at the ``points``-th point from now on."""
        draft = self.fuse.with_suffix(".draft")
        draft.write_text(written(points))
        draft.replace(self.fuse)

    def disarm(self) -> int:
        """How many points were left; 0: it died."""
        try:
            left = int(self.fuse.read_text())
        except FileNotFoundError:
            self.kills += 1
            return 0
        self.fuse.unlink(missing_ok=True)
        return left

    def points(self, act: Callable[[Site], object]) -> int:
        """How many points ``act`` passes."""
        self.arm(MANY)
        act(self)
        return MANY - self.disarm()

    # --- What is there ---

    def pods(self) -> dict[str, Record]:
        """By name."""
        return {pod.name: pod for pod in self.client.pods.list()}

    def state(self, name: str) -> str:
        """Of a pod; "absent" when there is none."""
        pod = self.pods().get(name)
        return pod.state if pod else "absent"

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout: float = SETTLE_S) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.last_words()}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Every invariant holds, at the latest when what hyperd does in the background is done."""
        found = self._complaints()
        deadline = time.monotonic() + SETTLE_S
        while found and time.monotonic() < deadline:
            time.sleep(0.05)
            found = self._complaints()
        assert not found, "\n".join(found) + "\n" + self.last_words()

    def _complaints(self) -> list[str]:
        try:
            return list(complaints(self))
        except FileNotFoundError as error:  # hyperd removed it as we looked: it isn't done
            return [f"{error.filename} was there a moment ago"]

    def clear(self) -> None:
        """Remove every pod as a user would; then the host must be as it was."""
        for pod in self.client.pods.list():
            self.client.pods.remove(pod.id, force=True)
        self.settle()
        assert not self.client.pods.list()
        assert not owned_processes(self), owned_processes(self)

    def make(self, *command: str, name: str = "p", start: bool = True, **fields: object) -> None:
        """A pod by the API, which costs less than by hyper."""
        container = {"image": "busybox", "command": command or ("sleep", "1000")}
        spec = {"name": name, "network": "none", "memory_mib": 48, "containers": [container]}
        pod = self.client.pods.create(spec | fields)
        if start:
            self.client.pods.start(pod.id)

    def run(self, *words: str, **named: Any) -> Result:
        """A command that may fail, but not by a fault of ours in hyper."""
        done = self.hyper(*words, **named)
        assert "Traceback" not in done.err, done.err + self.last_words()
        assert "internal error" not in done.err.lower(), done.err + self.last_words()
        assert done.status == 0 or done.err.strip(), f"{words}: {done.status} without a word"
        return done


# --- Invariants ---


def complaints(site: Site) -> Iterator[str]:
    """What is not as it must be while a hyperd runs and nobody asks it for anything."""
    pods = site.client.pods.list()
    by_machine = {pod.machine: pod for pod in pods if pod.machine}
    yield from _states(pods)
    yield from _differ("machine directories", _names(site.paths.machines), set(by_machine))
    yield from _differ("machines that live", owned_machines(site), set(by_machine))
    yield from _differ("pods' directories", _names(site.paths.pods), {pod.id for pod in pods})
    yield from _differ("pods on record", recorded_pods(site), {pod.id for pod in pods})
    yield from _pod_files(site, pods)
    yield from _leftover_files(site)
    yield from _kernel_objects(site, pods)
    yield from _network(site, pods)


def _states(pods: list[Record]) -> Iterator[str]:
    for pod in pods:
        if pod.state not in set(PodState):
            yield f"pod {pod.name} is {pod.state!r}"
        if bool(pod.machine) != (pod.state != PodState.CREATED):
            yield f"pod {pod.name} is {pod.state} with machine {pod.machine!r}"
        for container in pod.containers:
            if container.state == "running" and pod.state == PodState.CREATED:
                yield f"container {container.name} runs in pod {pod.name}, which does not"


def _differ(what: str, found: set[str], expected: set[str]) -> Iterator[str]:
    if found - expected:
        yield f"{what}: {sorted(found - expected)} of nobody"
    if expected - found:
        yield f"{what}: {sorted(expected - found)} missing"


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def recorded_pods(site: Site) -> set[str]:
    """What the next hyperd will read."""
    connection = sqlite3.connect(f"file:{site.paths.database}?mode=ro", uri=True, timeout=10)
    try:
        return {row[0] for row in connection.execute("SELECT id FROM pods")}
    finally:
        connection.close()


def _pod_files(site: Site, pods: list[Record]) -> Iterator[str]:
    for pod in pods:
        names = _names(site.paths.pods / pod.id) if (site.paths.pods / pod.id).is_dir() else set()
        if "disk.img" not in names:
            yield f"pod {pod.name} has lost its disk"
        if partial := [name for name in names if name.startswith(".") or name.endswith(".tmp")]:
            yield f"pod {pod.name} has unfinished files: {partial}"


def _leftover_files(site: Site) -> Iterator[str]:
    for path in (site.paths.images / "tmp").iterdir():
        yield f"{path} is left of work on images"
    for path in [*site.paths.cache.rglob(".*"), *site.paths.state.glob(".*"), *site.paths.run.glob(".*")]:
        yield f"{path} is unfinished"


def _kernel_objects(site: Site, pods: list[Record]) -> Iterator[str]:
    """Mounts of the host, loop devices and cgroups."""
    root = str(site.hyper.root)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if root in line and f" {root}/lib tmpfs " not in line:
            yield f"a mount is left: {line}"
    running = any(pod.machine for pod in pods)
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if not running and root in (text := file.read_text()):
                yield f"a loop device holds {text.strip()}"
    for path in cgroups(site):
        if path.name.rpartition("-")[2] not in {pod.machine for pod in pods}:
            yield f"cgroup {path} is left"


def cgroups(site: Site) -> list[Path]:
    """Those of machines of the namespace driver."""
    prefix = cgroup_prefix(site.paths.machines)
    return [path for top in CGROUPS for path in Path(top).glob(f"{prefix}*")]


def remove_cgroups(site: Site) -> None:
    """As a reboot would; one is busy until the last process in it has been reaped."""
    deadline = time.monotonic() + 10
    while (groups := cgroups(site)) and time.monotonic() < deadline:
        for directory in (each for group in groups for each, _, _ in os.walk(group, topdown=False)):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        time.sleep(0.02)


def _network(site: Site, pods: list[Record]) -> Iterator[str]:
    owner = str(site.paths.state)
    prefix = subnets.nic_prefix(owner)
    taps = {name for _, name in socket.if_nameindex() if name.startswith(prefix)}
    connected = [pod for pod in pods if pod.address]
    running = [pod for pod in connected if pod.machine]
    yield from _differ("taps", taps, {subnets.nic_name(owner, pod.machine) for pod in running})
    bridge = _bridge(site)
    if bridge:
        expected = {
            f"{port.protocol}/{port.host_port} {pod.address}:{port.container_port}"
            for pod in running
            for port in pod.ports
        }
        yield from _differ("published ports", _published(bridge), expected)


def _bridge(site: Site) -> str:
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    return next((link["ifname"] for link in links if link.get("ifalias") == f"hyper {site.paths.state}"), "")


def _published(bridge: str) -> set[str]:
    done = subprocess.run(
        ["nft", "-j", "list", "map", "ip", bridge, "published"], capture_output=True, check=False
    )
    if done.returncode != 0:
        return {f"no table {bridge}"}
    elements = next(
        item["map"].get("elem", []) for item in json.loads(done.stdout)["nftables"] if "map" in item
    )
    return {
        f"{key['concat'][0]}/{key['concat'][1]} {value['concat'][0]}:{value['concat'][1]}"
        for key, value in elements
    }


def owned_machines(site: Site) -> set[str]:
    """Ids of the machines of which any process lives."""
    places = [Path(each.machine) for each in seen()]
    return {place.name for place in places if place.parent == site.paths.machines}


def owned_processes(site: Site) -> list[str]:
    """Every process that has to do with this root, but the daemon itself."""
    root = str(site.hyper.root)
    daemon = site.process()
    return [
        str(each)
        for each in seen()
        if each.process != daemon
        and each.process.pid != os.getpid()
        and any(root in text for text in (each.command, *each.environment.values()))
    ]
