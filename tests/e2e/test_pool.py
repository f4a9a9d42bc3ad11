"""The pool, typed: `hyperd --pool-memory`, what is told of it, and pods that take what waits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from hypercontainer.network import links
from tests.e2e.hyper import DAEMON, Hyper
from tests.support.images import busybox_archive
from tests.support.processes import new_root


@pytest.fixture
def pooled(daemon: Hyper) -> Iterator[Hyper]:
    """A hyperd that has two machines of the default size ready."""
    hyper = Hyper(root=new_root(), driver=daemon.driver, settings={"pool_memory_mib": 256})
    try:
        hyper.start_daemon()
        hyper.ok("load", "-q", "-i", str(busybox_archive(hyper.root / "busybox.tar")))
        hyper.eventually("Pool: 2 machines wait", "info")
        yield hyper
        hyper.remove_all()
    finally:
        hyper.stop_daemon()
        shutil.rmtree(hyper.root, ignore_errors=True)


@pytest.mark.every_driver
def test_a_run_takes_a_machine_that_waits_before_any_pod_was(pooled: Hyper) -> None:
    done = pooled("run", "--rm", "--timeline", "busybox", "hostname")
    assert re.fullmatch(r"[0-9a-f]{12}\n", done.out)
    assert "machine taken" in done.err
    pooled.eventually(r"Pool: 2 machines wait \(256 of 256 MiB\)", "info")
    assert re.search(r"pool +2 machines wait, 256 of 256 MiB", pooled.ok("doctor", "--quick"))


@pytest.mark.every_driver
def test_an_ordered_stop_leaves_pods_and_no_machine_that_waits(pooled: Hyper) -> None:
    pooled.ok("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    pooled.stop_daemon()
    assert len([*(pooled.root / "run/machines").iterdir()]) == 1
    pooled.start_daemon()
    assert pooled.ok("exec", "stays", "echo", "works") == "works"


def test_a_stop_ends_machines_though_something_else_of_theirs_cannot_go(daemon: Hyper) -> None:
    root = new_root()
    for part in ("bin", "refusals"):
        (root / part).mkdir()
    ip = f'for one in {root}/refusals/*; do rm "$one" 2>&- && exit 1; done; exec {links.program()} "$@"'
    (root / "bin/ip").write_text(f"#!/bin/sh\n{ip}\n")
    (root / "bin/ip").chmod(0o755)
    path = {"PATH": f"{root}/bin:{os.environ['PATH']}"}
    hyper = Hyper(root=root, driver=daemon.driver, environment=path, settings={"pool_memory_mib": 256})
    try:
        hyper.start_daemon()
        hyper.eventually("Pool: 2 machines wait", "info")
        for one in ("1", "2"):
            (root / "refusals" / one).touch()
        hyper.stop_daemon()
        assert [*(root / "run/machines").iterdir()] == []
        assert (root / "hyperd.log").read_text().count("has left something: ip failed") == 2
        hyper.start_daemon()  # and takes away what is left
        hyper.eventually("Pool: 2 machines wait", "info")
    finally:
        hyper.stop_daemon()
        shutil.rmtree(root, ignore_errors=True)


def test_without_one_that_is_said(hyper: Hyper) -> None:
    assert "Pool: off" in hyper.ok("info")
    assert "off: no machine is started ahead" in hyper.ok("doctor", "--quick")


def test_hyperd_is_told_on_its_command_line(hyper: Hyper) -> None:
    done = subprocess.run([*DAEMON, "--help"], capture_output=True, text=True, check=True)
    assert "--pool-memory MIB" in done.stdout
    wrong = subprocess.run([*DAEMON, "--pool-memory", "much"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
