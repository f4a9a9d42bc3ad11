"""Fields of podfiles as the containers see them: one pod that says many, and prints what became of each.

Those that have tests of their own elsewhere (volumes, files, interfaces, services) are not here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hyper import Hyper
from tests.e2e.servers import ask

SEEN = """
hostname
nproc
ulimit -Sn
ulimit -Hn
cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax
cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; cd - > /dev/null
df -k /dev/shm /scratch | awk 'NR > 1 { print $1, $2 }'
pwd
id -u; id -g; id -G
echo $GREETING
echo $0 $*
test -t 1 || echo no terminal
grep example /etc/resolv.conf; grep ndots /etc/resolv.conf; grep 192 /etc/resolv.conf
grep -c '^10.1.2.3.*db$' /etc/hosts
"""
WANTED = """
box
2
100
200
1024
9999
50331648
50000 100000
20
tmpfs 32768
tmpfs 8192
/made/here
65534
13
13 8 24
hello
name one two
no terminal
search a.example
options ndots:3
nameserver 192.0.2.53
1
"""


def write(path: Path, *containers: dict[str, Any], **fields: Any) -> str:
    whole = [{"image": "busybox"} | container for container in containers]
    path.write_text(json.dumps({"id": "p", "containers": whole, **fields}))
    return str(path)


@pytest.mark.every_driver
def test_what_is_said_of_the_pod_and_its_container_is_so(hyper: Hyper, tmp_path: Path) -> None:
    vcpus = 1 if hyper.driver == "uml" else 2  # UML has one CPU
    container = {
        "entrypoint": ["sh", "-c", SEEN], "command": ["name", "one", "two"], "workdir": "/made/here",
        "user": {"name": "65534", "group": "13", "additionalGroups": ["24", "8"]},
        "envs": [{"env": "GREETING", "value": "hello"}], "tmpfs": ["/scratch:size=8m"],
        "ulimits": [{"name": "nofile", "soft": 100, "hard": 200}], "sysctl": {"net.core.somaxconn": 1024},
        "resource": {"cpu": 0.5, "memory": 48, "pids": 20},
    }  # fmt: skip
    podfile = write(
        tmp_path / "pod.json", container, hostname="box", resource={"vcpu": vcpus, "memory": 160},
        sysctl={"kernel.msgmax": "9999"}, shmSize=32, dns=["192.0.2.53"], dnsSearch=["a.example"],
        dnsOptions=["ndots:3"], extraHosts=["db:10.1.2.3"],
    )  # fmt: skip
    assert hyper.ok("run", "--rm", podfile) == WANTED.strip().replace("\n2\n", f"\n{vcpus}\n", 1)


def test_what_hyper_keeps_of_a_pod_is_what_was_said(hyper: Hyper, tmp_path: Path) -> None:
    """The log at its path and rotated, labels, the signal and the time of a stop."""
    bursts = "for n in 1 2 3; do yes | head -n 1000; sleep 0.3; done; echo done"
    stubborn = f"trap 'echo quit; sleep 8; echo late; sleep 1000' QUIT; {bursts}; sleep 1000 & wait"
    loud = {
        "name": "loud", "command": ["sh", "-c", stubborn],
        "logPath": "logs/loud.log", "StopSignal": "QUIT", "labels": {"part": "loud"},
        "log": {"type": "json-file", "config": {"max-size": "10k", "max-file": "2"}},
    }  # fmt: skip
    silent = {"name": "silent", "command": ["sh", "-c", "echo lost; sleep 1000"], "log": {"type": "none"}}
    logs = tmp_path / "logs"
    logs.mkdir()
    hyper.ok("run", "-d", write(tmp_path / "pod.json", loud, silent, stopTimeout=1, labels={"team": "web"}))
    hyper.eventually("done", "logs", "--tail", "1", "loud")
    hyper.ok("stop", "p")  # its signal, and a second later the kill: before it is late
    assert {path.name for path in logs.iterdir()} == {"loud.log", "loud.log.1"}
    assert json.loads((logs / "loud.log").read_text().splitlines()[-1])["log"] == "quit\n"
    assert hyper("logs", "silent").out == ""
    (view,) = json.loads(hyper.ok("inspect", "--type", "pod", "p"))
    assert view["spec"]["labels"] == {"team": "web"}
    assert view["spec"]["containers"][0]["labels"] == {"part": "loud"}


@pytest.mark.parametrize("said", ["pod", "container"])
def test_a_restart_policy_is_the_containers_or_the_pods(hyper: Hyper, tmp_path: Path, said: str) -> None:
    script = "echo run >> /runs; test $(wc -l < /runs) -ge 3"
    policy = {"restartPolicy": "onFailure"}
    container = {"command": ["sh", "-c", script]} | (policy if said == "container" else {})
    path = write(tmp_path / "pod.json", container, network="none", **(policy if said == "pod" else {}))
    hyper.ok("run", "-d", path)
    hyper.eventually(r"Exited \(0\)", "ps", "-a")
    assert json.loads(hyper.ok("inspect", "--type", "container", "p"))[0]["restarts"] == 2


def test_no_network_is_no_nic(hyper: Hyper, tmp_path: Path) -> None:
    path = write(tmp_path / "pod.json", {"command": ["ls", "/sys/class/net"]}, network="none")
    assert hyper.ok("run", "--rm", path) == "lo"


def test_a_port_has_its_address_of_the_host_and_ports_of_containers_are_the_pods(
    hyper: Hyper, tmp_path: Path
) -> None:
    serve = "(while :; do echo one | nc -l -p 80; done) & while :; do echo two | nc -l -p 81; done"
    path = write(
        tmp_path / "pod.json", {"command": ["sh", "-c", serve], "ports": [{"containerPort": 81}]},
        portmappings=[{"containerPort": 80, "hostIP": "127.0.0.1"}],
    )  # fmt: skip
    hyper.ok("run", "-d", path)
    ports = json.loads(hyper.ok("inspect", "--type", "pod", "p"))[0]["pod"]["ports"]
    found = {port["container_port"]: (port["host_ip"], port["host_port"]) for port in ports}
    assert found[80][0] == "127.0.0.1"
    assert (ask(found[80][1]), ask(found[81][1])) == ("one", "two")


@pytest.mark.parametrize(
    ("field", "reason"),
    [({"hypervisor": "nothere"}, "nothere"), ({"requireIsolation": "hardware"}, "isolation")],
)
def test_a_hypervisor_that_cannot_be_had_is_refused(
    hyper: Hyper, tmp_path: Path, field: dict[str, str], reason: str
) -> None:
    refused = hyper("run", write(tmp_path / "pod.json", {}, **field))
    assert refused.status == 125
    assert reason in refused.err
    assert hyper.ok("list", "-q") == ""
