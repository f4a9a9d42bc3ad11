"""Every verb that changes something, as a user types it, and what must be true when hyperd died in it.

A verb is prepared by a healthy hyperd.  Then it is typed, and hyperd dies at one of its steps; the next
hyperd has settled when ``check`` looks.  What ``check`` gets is what the user saw.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypercontainer.errors import HyperError
from tests.crash.images import (
    check_pulled,
    has_image,
    import_root,
    lacks_image,
    load_other,
    load_prepared,
    pull,
    remove_images,
    remove_pulled,
)
from tests.crash.site import Site
from tests.support.commands import Result

LINES = 6
PRINT = f"for i in $(seq {LINES}); do echo out $i; echo err $i >&2; usleep 3000; done; exit 7"
OUT = [f"out {number}" for number in range(1, LINES + 1)]
ERR = [f"err {number}" for number in range(1, LINES + 1)]


def nothing(site: Site) -> None:
    """No preparation."""


@dataclass(frozen=True, kw_only=True)
class Verb:
    name: str
    act: Callable[[Site], Result]
    check: Callable[[Site, Result], None]
    prepare: Callable[[Site], None] = nothing
    clear: Callable[[Site], None] = nothing  # what ``rm -f`` of all pods does not
    driver: str = "namespace"
    registry: bool = False  # whether there must be one


def typed(*words: str) -> Callable[[Site], Result]:
    return lambda site: site.run(*words)


def made(*command: str, start: bool = True, **fields: Any) -> Callable[[Site], None]:
    """Pod p is there, created or running."""
    return lambda site: site.make(*command, start=start, **fields)


def ends_in(done: str, *others: str) -> Callable[[Site, Result], None]:
    """Pod p is ``done`` when hyper said so, else that or one of ``others``."""

    def check(site: Site, result: Result) -> None:
        state = site.state("p")
        assert state == done or (result.status != 0 and state in others), (state, result)

    return check


NEW = ("--network", "none", "-m", "48m", "--name", "p")
SLEEP = ("busybox", "sleep", "1000")
CREATED = made(start=False)
RUNNING = made()


# --- Output and exit codes ---


def printed(site: Site, name: str) -> tuple[list[str], list[str]]:
    """What is kept of both streams."""
    streams = {1: b"", 2: b""}
    for frame in site.client.containers.logs(name):
        streams[frame.stream] += frame.data
    return streams[1].decode().splitlines(), streams[2].decode().splitlines()


def check_attached(site: Site, result: Result) -> None:
    """All of it once, or as far as it came with a word of why not."""
    own = [line for line in result.err.splitlines() if line.startswith(("hyper: ", "hint: "))]
    err = [line for line in result.err.splitlines() if line not in own]
    out = result.out.splitlines()
    if result.status == 7:
        assert (out, err) == (OUT, ERR), result
    else:
        assert own, result
        assert out == OUT[: len(out)], result
        assert err == ERR[: len(err)], result


def check_run(site: Site, result: Result) -> None:
    check_attached(site, result)
    pod = site.pods().get("p")
    if pod is None:
        assert result.status != 7
        return
    if pod.containers[0].started:
        site.wait_until(lambda: site.state("p") == "created", "the pod ends with its container")
        assert site.client.pods.wait("p") == 7
        assert printed(site, "p") == (OUT, ERR)
    else:
        assert (pod.state, printed(site, "p")) == ("created", ([], []))


def act_end(site: Site) -> Result:
    """Not a verb, but as good as one: the container ends by itself."""
    done = site.run("run", "-d", *NEW, "busybox", "sh", "-c", PRINT)
    if done.status == 0:
        _watch_end(site)
    return done


def _watch_end(site: Site) -> None:
    """Until the end has been seen through, or hyperd has died of it."""
    try:
        while site.process() and site.client.pods.get("p").pod.machine:
            pass
    except HyperError:
        pass


def check_end(site: Site, result: Result) -> None:
    pod = site.pods().get("p")
    assert pod is not None or result.status != 0
    if pod is not None and pod.containers[0].started:
        site.wait_until(lambda: site.state("p") == "created", "the pod ends with its container")
        assert site.client.pods.wait("p") == 7
        assert printed(site, "p") == (OUT, ERR)


def act_rm_flag(site: Site) -> Result:
    done = site.run("run", "-d", "--rm", *NEW, "busybox", "sh", "-c", "usleep 30000")
    if done.status == 0:
        _watch_end(site)
    return done


def check_rm_flag(site: Site, result: Result) -> None:
    """It ends, and then it is not there any more; one that never ran is its creator's to see."""
    site.wait_until(
        lambda: site.state("p") == "absent" or not site.pods()["p"].containers[0].started,
        "a pod that ran with --rm is removed",
    )
    assert result.status != 0 or site.state("p") == "absent"


def trapping(site: Site) -> None:
    """Pod p runs, and hears when it is told to end."""
    site.make("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do usleep 20000; done")
    site.wait_until(lambda: printed(site, "p") == (["up"], []), "it prints")


def act_kill(site: Site) -> Result:
    done = site.run("kill", "-s", "TERM", "p")
    if done.status == 0:
        _watch_end(site)
    return done


def check_kill(site: Site, result: Result) -> None:
    if result.status == 0:
        site.wait_until(lambda: site.state("p") == "created", "it was told to end")
    else:
        assert site.state("p") in {"created", "running"}
    if site.state("p") == "created":
        assert site.client.pods.wait("p") == 9


def check_exec(site: Site, result: Result) -> None:
    assert site.state("p") == "running"
    check_attached(site, result)


def check_exec_detached(site: Site, result: Result) -> None:
    assert site.state("p") == "running"
    if result.status == 0:
        site.wait_until(
            lambda: site.run("exec", "p", "cat", "/done").out == "done\n", "what was started is done"
        )


# --- Containers of a live pod, names, copies, restarts ---


def container_state(site: Site, name: str) -> str:
    every = {c.name: str(c.state) for pod in site.pods().values() for c in pod.containers}
    return every.get(name, "absent")


def second_is(done: str, *others: str) -> Callable[[Site, Result], None]:
    """Pod p runs on, and its second container is ``done``, or one of ``others`` when hyper failed."""

    def check(site: Site, result: Result) -> None:
        state = container_state(site, "second")
        assert site.state("p") == "running"
        assert state == done or (result.status != 0 and state in others), (state, result)
        assert site.run("exec", "p", "echo", "alive").out == "alive\n"

    return check


def check_rename(site: Site, result: Result) -> None:
    assert sorted(site.pods()) in (["p"], ["q"])
    assert result.status != 0 or site.state("q") == "created"


def source_file(site: Site) -> str:
    path = site.hyper.root / "source"
    path.write_text("copied\n")
    return str(path)


def act_copy(site: Site) -> Result:
    return site.run("cp", source_file(site), "p:/copied")


def check_copy(site: Site, result: Result) -> None:
    """The file is there whole when hyper said so; and the pod's disk can be mounted."""
    if site.state("p") == "created":
        site.client.pods.start("p")
    assert site.state("p") == "running"
    seen = site.run("exec", "p", "cat", "/copied").out
    assert seen == "copied\n" or result.status != 0, result
    assert site.run("exec", "p", "echo", "alive").out == "alive\n"


TRIES = 3


def act_restarts(site: Site) -> Result:
    policy = f"on-failure:{TRIES}"
    done = site.run("run", "-d", "--restart", policy, *NEW, "busybox", "sh", "-c", "echo try; exit 5")
    if done.status == 0:
        _watch_end(site)
    return done


def check_restarts(site: Site, result: Result) -> None:
    """Whatever died meanwhile, it is tried no more often than asked, and its end is known."""
    pod = site.pods().get("p")
    assert pod is not None or result.status != 0
    if pod is not None and (pod.containers[0].started or pod.state != "created"):
        site.wait_until(lambda: site.state("p") == "created", "the tries end")
        assert site.client.pods.wait("p") == 5
        out, _ = printed(site, "p")
        assert set(out) == {"try"}
        assert 1 <= len(out) <= TRIES + 1


def check_port(*, published: bool) -> Callable[[Site, Result], None]:
    """The settled host agrees with the record already; here that what hyper said is true."""

    def check(site: Site, result: Result) -> None:
        assert site.state("p") == "running"
        assert result.status != 0 or is_port_free() != published

    return check


# --- Networks and pause, which take a machine ---

PORT = 10000 + os.getpid() % 10000  # below those that the kernel gives to clients
CONNECTED = ("-m", "48m", "--name", "p", "-p", f"{PORT}:80")


PUBLISHED: dict[str, Any] = {
    "network": "default",
    "ports": [{"container_port": 80, "host_port": PORT}],
}


def paused(site: Site) -> None:
    site.make()
    site.client.pods.pause("p")


def is_port_free() -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", PORT))
            probe.listen(1)
        except OSError:
            return False
    return True


def check_connected(done: str, *others: str) -> Callable[[Site, Result], None]:
    """As ``ends_in``; and the port is the pod's while it runs, and anybody's when not."""

    def check(site: Site, result: Result) -> None:
        ends_in(done, *others)(site, result)
        assert is_port_free() == (site.state("p") != "running")

    return check


def check_paused(done: str, *others: str) -> Callable[[Site, Result], None]:
    """As ``ends_in``; and the guest, let go, answers."""

    def check(site: Site, result: Result) -> None:
        ends_in(done, *others)(site, result)
        if site.state("p") == "paused":
            site.hyper.ok("unpause", "p")
        assert site.run("exec", "p", "echo", "alive").out == "alive\n"

    return check


# --- Replace, and containers of a pod that runs ---


def old_and_new(site: Site) -> None:
    """Pod p runs, and pod q may take its machine."""
    site.make()
    site.make(name="q", start=False)


def old_and_broken(site: Site) -> None:
    """Pod p runs, and pod q cannot."""
    site.make()
    site.make("nothere", name="q", start=False)


def check_replaced(site: Site, result: Result) -> None:
    """One of both has the machine, or after a failure none."""
    states = site.state("p"), site.state("q")
    if result.status == 0:
        assert states == ("created", "running"), (states, result)
    legal = {("created", "running"), ("running", "created"), ("created", "created")}
    assert states in legal, (states, result)


def check_given_back(site: Site, result: Result) -> None:
    assert result.status != 0, result
    assert site.state("q") == "created", result
    assert site.state("p") in {"running", "created"}, result


def helped(*, start: bool) -> Callable[[Site], None]:
    """Pod p runs, with a container h that was added to it."""

    def prepare(site: Site) -> None:
        site.make()
        container = {"name": "h", "image": "busybox", "command": ["sleep", "1000"]}
        site.client.pods.add_container("p", {"container": container})
        if start:
            site.client.containers.start("h")

    return prepare


def helper_in(done: str, *others: str) -> Callable[[Site, Result], None]:
    """Container h is ``done`` when hyper said so, else that or one of ``others``; pod p runs on."""

    def check(site: Site, result: Result) -> None:
        names = {container.name: container.state for container in site.client.containers.list()}
        state = names.get("h", "absent")
        assert state == done or (result.status != 0 and state in others), (state, result)
        assert site.state("p") == "running"

    return check


# --- The start of hyperd itself ---


def die_among_pods(site: Site) -> None:
    """hyperd is killed with a pod in every state, and some change while nobody looks."""
    site.make(name="created", start=False)
    site.make(name="sleeps")
    site.make(name="lost")
    site.make("sh", "-c", f"usleep 300000; {PRINT}", name="prints")
    machine = site.paths.machines / site.pods()["lost"].machine
    site.kill()
    kill_machine(machine)
    time.sleep(0.4)


def kill_machine(run_dir: Path) -> None:
    pid = json.loads((run_dir / "machine.json").read_bytes())["pid"]
    os.kill(pid, signal.SIGKILL)


def act_restart(site: Site) -> Result:
    return Result(0 if site.try_start() else 1, b"", b"")


def check_restart(site: Site, result: Result) -> None:
    site.wait_until(lambda: site.state("prints") == "created", "the pod ends with its container")
    states = {name: site.state(name) for name in ("created", "sleeps", "lost")}
    assert states == {"created": "created", "sleeps": "running", "lost": "created"}
    assert "machine ended" in site.pods()["lost"].reason
    assert site.client.pods.wait("prints") == 7
    assert printed(site, "prints") == (OUT, ERR)
    assert site.run("exec", "sleeps", "echo", "alive").out == "alive\n"
    site.kill()  # for the try again


VERBS = (
    Verb(name="create", act=typed("create", *NEW, *SLEEP), check=ends_in("created", "absent")),
    Verb(
        name="run-detached",
        act=typed("run", "-d", *NEW, *SLEEP),
        check=ends_in("running", "created", "absent"),
    ),
    Verb(name="run-attached", act=typed("run", *NEW, "busybox", "sh", "-c", PRINT), check=check_run),
    Verb(name="end", act=act_end, check=check_end),
    Verb(name="run-rm", act=act_rm_flag, check=check_rm_flag),
    Verb(name="start", prepare=CREATED, act=typed("start", "p"), check=ends_in("running", "created")),
    Verb(
        name="stop", prepare=RUNNING, act=typed("stop", "-t", "2", "p"), check=ends_in("created", "running")
    ),
    Verb(name="rm", prepare=CREATED, act=typed("rm", "p"), check=ends_in("absent", "created")),
    Verb(name="rm-force", prepare=RUNNING, act=typed("rm", "-f", "p"), check=ends_in("absent", "running")),
    Verb(
        name="kill",
        prepare=trapping,
        act=act_kill,
        check=check_kill,
    ),
    Verb(name="exec", prepare=RUNNING, act=typed("exec", "p", "sh", "-c", PRINT), check=check_exec),
    Verb(
        name="exec-detached",
        prepare=RUNNING,
        act=typed("exec", "-d", "p", "sh", "-c", "usleep 50000; echo done >/done"),
        check=check_exec_detached,
    ),
    Verb(name="load", act=load_other, check=has_image("other:latest"), clear=remove_images("other:latest")),
    Verb(name="pull", act=pull, check=check_pulled, clear=remove_pulled, registry=True),
    Verb(
        name="import",
        act=import_root,
        check=has_image("imported:latest"),
        clear=remove_images("imported:latest"),
    ),
    Verb(
        name="tag",
        act=typed("tag", "busybox", "again:1"),
        check=has_image("again:1"),
        clear=remove_images("again:1"),
    ),
    Verb(
        name="rmi",
        prepare=load_prepared,
        act=typed("rmi", "other"),
        check=lacks_image("other:latest"),
        clear=remove_images("other:latest"),
    ),
    Verb(
        name="start-container",
        prepare=helped(start=False),
        act=typed("start", "-c", "h"),
        check=helper_in("running", "created"),
    ),
    Verb(
        name="stop-container",
        prepare=helped(start=True),
        act=typed("stop", "-t", "0", "-c", "h"),
        check=helper_in("exited", "running"),
    ),
    Verb(
        name="rm-container",
        prepare=helped(start=True),
        act=typed("rm", "-f", "-c", "h"),
        check=helper_in("absent", "exited", "running"),
    ),
    Verb(
        name="replace",
        driver="uml",
        prepare=old_and_new,
        act=typed("replace", "-t", "1", "-o", "p", "-n", "q"),
        check=check_replaced,
    ),
    Verb(
        name="replace-at-once",
        driver="uml",
        prepare=old_and_new,
        act=typed("replace", "-t", "0", "-o", "p", "-n", "q"),
        check=check_replaced,
    ),
    Verb(
        name="replace-fails",
        driver="uml",
        prepare=old_and_broken,
        act=typed("replace", "-t", "1", "-o", "p", "-n", "q"),
        check=check_given_back,
    ),
    Verb(
        name="create-container",
        prepare=RUNNING,
        act=typed("create", "-c", "p", "--name", "second", *SLEEP),
        check=second_is("created", "absent"),
    ),
    Verb(name="rename", prepare=CREATED, act=typed("rename", "p", "q"), check=check_rename),
    Verb(
        name="vm",
        act=typed("vm", "--network", "none", "-m", "48m", "--name", "p"),
        check=ends_in("running", "created", "absent"),
    ),
    Verb(name="cp", prepare=RUNNING, act=act_copy, check=check_copy),
    Verb(name="cp-created", prepare=CREATED, act=act_copy, check=check_copy),
    Verb(name="restarts", act=act_restarts, check=check_restarts),
    Verb(name="restart of hyperd", prepare=die_among_pods, act=act_restart, check=check_restart),
    Verb(
        name="run-port",
        driver="uml",
        act=typed("run", "-d", *CONNECTED, *SLEEP),
        check=check_connected("running", "created", "absent"),
    ),
    Verb(
        name="start-port",
        driver="uml",
        prepare=made(start=False, **PUBLISHED),
        act=typed("start", "p"),
        check=check_connected("running", "created"),
    ),
    Verb(
        name="stop-port",
        driver="uml",
        prepare=made(**PUBLISHED),
        act=typed("stop", "-t", "2", "p"),
        check=check_connected("created", "running"),
    ),
    Verb(
        name="rm-port",
        driver="uml",
        prepare=made(**PUBLISHED),
        act=typed("rm", "-f", "p"),
        check=check_connected("absent", "running"),
    ),
    Verb(
        name="ports-add",
        driver="uml",
        prepare=made(network="default"),
        act=typed("ports", "add", "p", "-p", f"{PORT}:80"),
        check=check_port(published=True),
    ),
    Verb(
        name="ports-delete",
        driver="uml",
        prepare=made(**PUBLISHED),
        act=typed("ports", "delete", "p", "-p", f"{PORT}:80"),
        check=check_port(published=False),
    ),
    Verb(
        name="pause",
        driver="uml",
        prepare=RUNNING,
        act=typed("pause", "p"),
        check=check_paused("paused", "running"),
    ),
    Verb(
        name="unpause",
        driver="uml",
        prepare=paused,
        act=typed("unpause", "p"),
        check=check_paused("running", "paused"),
    ),
)
