"""What else goes wrong beside hyperd: a full disk, damaged records, a reboot, a VMM that dies or hangs."""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypercontainer.errors import Conflict, HyperError, InvalidState, PodNotFound, Unavailable
from hypercontainer.process import ProcessId
from tests.crash.conftest import LONG
from tests.crash.site import Site, cgroups, owned_machines, owned_processes, remove_cgroups
from tests.crash.verbs import kill_machine
from tests.e2e.hyper import DAEMON

PAGE = 4096


def machine_of(site: Site, name: str = "p") -> Path:
    return site.paths.machines / str(site.pods()[name].machine)


# --- A full disk ---


@contextmanager
def room_left(site: Site, pages: int) -> Iterator[None]:
    """The file system of the pods has that many pages left while the block lasts."""
    filler = site.paths.state / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - pages * PAGE))
    try:
        yield
    finally:
        filler.unlink()


@pytest.mark.timeout(900)
def test_a_disk_that_is_full_at_any_step_of_create_and_start_is_said(small: Site) -> None:
    """From no page to so many that both go well; each time nothing is left, and with room all is well."""
    succeeded = False
    for pages in range(0, 400, 2) if LONG else (0, 3, 10, 60, 120, 300):
        with room_left(small, pages):
            done = small.run(
                "create", "--network", "none", "-m", "48m", "--name", "p", "busybox", "sleep", "9"
            )
            small.settle()
            if done.status == 0:
                done = small.run("start", "p")
                small.settle()
                assert small.state("p") == ("running" if done.status == 0 else "created")
            if done.status:
                assert "full" in done.err or "space" in done.err, done.err
            succeeded = done.status == 0
        if small.state("p") == "created":
            small.hyper.ok("start", "p")
        small.clear()
        if succeeded:
            break
    assert succeeded


@pytest.mark.timeout(300)
def test_a_hyperd_that_starts_on_a_full_disk_loses_nothing(small: Site) -> None:
    small.make(name="sleeps")
    small.make(name="created", start=False)
    small.kill()
    with room_left(small, 0):
        if small.try_start():  # else it has said why not
            assert small.state("sleeps") == "running"
            small.kill()
    small.start()
    small.settle()
    assert {name: pod.state for name, pod in small.pods().items()} == {
        "sleeps": "running",
        "created": "created",
    }
    small.clear()


# --- Records ---


def refusal(site: Site) -> str:
    """What a hyperd says that does not start."""
    start = site.log.stat().st_size
    assert not site.try_start()
    return site.log.read_bytes()[start:].decode()


def copied(site: Site) -> Path:
    copy = site.hyper.root / "copy"
    shutil.copytree(site.paths.state, copy, ignore=shutil.ignore_patterns("images", "cache", "pods"))
    return copy


@pytest.mark.timeout(300)
def test_damaged_records_are_refused_and_nothing_is_lost(small: Site) -> None:
    """The machine runs on meanwhile, and with the records put back all is as before."""
    small.make()
    small.stop()
    database, copy = small.paths.database, copied(small)

    def damages() -> Iterator[tuple[str, Callable[[], object]]]:
        yield "gone or empty", database.unlink
        yield "gone or empty", lambda: os.truncate(database, 0)
        yield "state.db", lambda: os.truncate(database, database.stat().st_size // 2)
        yield "not a database", lambda: database.write_bytes(b"no database at all" * 1000)

    for expected, damage in damages():
        damage()
        said = refusal(small)
        assert expected in said, said
        assert "Traceback" not in said
        for path in small.paths.state.glob("state.db*"):
            path.unlink()
        shutil.copy(copy / "state.db", database)
    small.start()
    small.settle()
    assert small.state("p") == "running"
    assert small.run("exec", "p", "echo", "alive").out == "alive\n"


@pytest.mark.timeout(300)
def test_a_lost_index_of_images_is_refused_and_the_images_are_kept(small: Site) -> None:
    small.stop()
    index, copy = small.paths.images / "images.db", small.hyper.root / "images.db"
    shutil.copy(index, copy)
    index.unlink()
    assert "gone or empty" in refusal(small)
    for path in small.paths.images.glob("images.db*"):
        path.unlink()
    shutil.copy(copy, index)
    small.start()
    assert small.run("run", "--rm", "--network", "none", "busybox", "echo", "whole").out == "whole\n"


# --- A reboot ---


def test_after_a_reboot_pods_are_created_and_can_be_started(site: Site) -> None:
    """All processes are gone, and so is what is below the run directory."""
    site.make("sh", "-c", "echo line; sleep 1000")
    site.make(name="created", start=False)
    machine = machine_of(site)
    site.wait_until(lambda: bool(site.run("logs", "p").out), "it prints")
    site.kill()
    kill_machine(machine)
    site.wait_until(lambda: not owned_machines(site), "the machine ends")
    remove_cgroups(site)
    shutil.rmtree(site.paths.run)
    site.start()
    site.settle()
    assert {name: pod.state for name, pod in site.pods().items()} == {"p": "created", "created": "created"}
    assert site.pods()["p"].reason
    site.hyper.ok("start", "p", "created")
    site.wait_until(lambda: site.run("logs", "p").out == "line\nline\n", "it prints again, behind the first")
    site.clear()


# --- VMMs ---


@pytest.mark.timeout(300)
def test_a_vmm_killed_at_random_moments_leaves_a_legal_pod(site: Site) -> None:
    """While it starts, runs a command, or is stopped: the verb ends, and the pod can be started again."""
    moments = random.Random(1)
    verbs = [("start", "p"), ("exec", "p", "sleep", "0.3"), ("stop", "-t", "2", "p")]
    site.make(start=False)
    for number in range(60 if LONG else 6):
        verb = verbs[number % len(verbs)]
        if verb[0] != "start" and site.state("p") == "created":
            site.client.pods.start("p")
        elif verb[0] == "start" and site.state("p") == "running":
            site.client.pods.stop("p", timeout_s=1)
        child = site.hyper.spawn(*verb)
        time.sleep(moments.uniform(0.05, 0.5))
        for run_dir in site.paths.machines.iterdir():
            try:
                kill_machine(run_dir)
            except (OSError, ValueError):  # not yet noted, or gone
                continue
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0 or err, verb
        assert b"Traceback" not in err
        site.settle()
        assert site.state("p") in {"created", "running"}
    site.clear()


def stopped_process(site: Site) -> ProcessId:
    note = json.loads((machine_of(site) / "machine.json").read_bytes())
    process = ProcessId.of(note["pid"])
    assert process is not None
    process.kill(signal.SIGSTOP)
    return process


@pytest.mark.timeout(300)
@pytest.mark.parametrize("verb", [("stop", "-t", "1", "p"), ("rm", "-f", "p")], ids=["stop", "rm"])
def test_a_guest_that_hangs_is_stopped_and_removed_in_bounded_time(uml: Site, verb: tuple[str, ...]) -> None:
    uml.make()
    stopped_process(uml)
    began = time.monotonic()
    uml.hyper.ok(*verb)
    assert time.monotonic() - began < 60  # a third of it, where nothing else runs
    uml.settle()
    assert uml.state("p") in {"created", "absent"}
    uml.clear()


@pytest.mark.timeout(300)
def test_a_guest_that_hangs_keeps_no_hyperd_from_serving_the_others(uml: Site) -> None:
    uml.make()
    uml.make(name="other")
    hung = stopped_process(uml)
    uml.kill()
    began = time.monotonic()
    uml.start()
    assert time.monotonic() - began < 20
    assert uml.run("exec", "other", "echo", "alive").out == "alive\n"
    hung.kill(signal.SIGCONT)
    uml.wait_until(lambda: uml.state("p") == "running", "it goes on when the guest does", timeout=60)
    assert uml.run("exec", "p", "echo", "alive").out == "alive\n"
    uml.clear()


# --- Two at once ---


def both(*verbs: Callable[[], object]) -> list[type[BaseException] | None]:
    """What each raised; they begin together."""
    barrier = threading.Barrier(len(verbs))

    def one(verb: Callable[[], object]) -> type[BaseException] | None:
        barrier.wait()
        try:
            verb()
        except HyperError as error:
            return type(error)
        return None

    with concurrent.futures.ThreadPoolExecutor(len(verbs)) as pool:
        return list(pool.map(one, verbs))


@pytest.mark.timeout(300)
def test_two_verbs_at_once_on_one_pod_come_one_after_the_other(site: Site) -> None:
    pods = site.client.pods
    for _ in range(20 if LONG else 2):
        assert set(both(lambda: site.make(start=False), lambda: site.make(start=False))) == {None, Conflict}
        assert set(both(lambda: pods.start("p"), lambda: pods.start("p"))) == {None, InvalidState}
        assert both(lambda: pods.stop("p", timeout_s=1), lambda: pods.stop("p", timeout_s=1)) == [None, None]
        started, removed = both(lambda: pods.start("p"), lambda: pods.remove("p", force=True))
        assert removed is None
        assert started in {None, InvalidState, PodNotFound, Unavailable}
        site.wait_until(lambda: site.state("p") == "absent", "it is removed")
        site.settle()
        site.make()
        assert set(both(*[lambda: pods.remove("p", force=True)] * 2)) <= {None, PodNotFound}
        site.settle()
        assert site.state("p") == "absent"


# --- hyperd itself ---


def test_a_second_hyperd_of_one_root_ends_and_the_first_serves_on(site: Site) -> None:
    site.make()
    first = site.process()
    second = subprocess.run(DAEMON, env=site.hyper.variables(), capture_output=True, timeout=60, check=False)
    assert second.returncode != 0
    assert b"runs already" in second.stderr
    assert site.process() == first
    assert site.run("exec", "p", "echo", "alive").out == "alive\n"
    site.clear()


def test_a_socket_that_a_dead_hyperd_left_is_in_nobodys_way(site: Site) -> None:
    site.kill()
    assert site.paths.socket.is_socket()
    assert site.hyper.ok("list", "-q") == ""


# --- Files that somebody removes ---


def test_what_runs_ends_with_a_root_that_is_removed(own: Site) -> None:
    """As ``rm -rf`` does: nobody could find it any more."""
    own.make()
    daemon = own.process()
    assert daemon is not None
    shutil.rmtree(own.hyper.root)
    own.wait_until(lambda: not daemon.is_alive(), "hyperd ends by itself")
    own.wait_until(lambda: not owned_processes(own), "the machine ends")
    own.wait_until(lambda: not cgroups(own), "its cgroup goes")


def test_what_runs_goes_on_when_only_the_way_to_hyperd_is_removed(own: Site) -> None:
    own.make()
    daemon = own.process()
    assert daemon is not None
    own.paths.socket.unlink()
    own.paths.lock.unlink()
    own.wait_until(lambda: not daemon.is_alive(), "hyperd ends by itself")
    assert own.run("exec", "p", "echo", "alive").out == "alive\n"
    own.settle()


def test_a_pod_whose_machine_lost_its_directory_is_created_again(own: Site) -> None:
    own.make()
    daemon = own.process()
    assert daemon is not None
    shutil.rmtree(own.paths.run)
    own.wait_until(lambda: not daemon.is_alive(), "hyperd ends by itself")
    own.start()
    assert own.state("p") == "created"
    own.settle()
    own.client.pods.start("p")
    assert own.run("exec", "p", "echo", "alive").out == "alive\n"
