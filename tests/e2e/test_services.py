"""Services: addresses inside a pod whose connections go to backends in turn."""

from __future__ import annotations

import json

import pytest

from tests.e2e.hyper import Hyper
from tests.e2e.servers import SERVE, SERVE_UDP, install, start, udp_program

pytestmark = pytest.mark.needs_root


def require_ipvs(hyper: Hyper, pod: str) -> None:
    if hyper("exec", pod, "test", "-e", "/proc/net/ip_vs").status:
        pytest.skip("the guest's kernel was built without IPVS: make kernel")


@pytest.mark.every_driver
def test_service(hyper: Hyper) -> None:
    """Connections to a service's address go to its backends in turn: another pod, and the pod itself."""
    backend = start(hyper, "backend", SERVE.format(word="far", port=80))
    require_ipvs(hyper, "backend")
    own = f"({SERVE.format(word='near', port=8080)}) & sleep 1000"
    service = {
        "ip": "10.254.0.1", "port": 80,
        "backends": [{"ip": backend["address"], "port": 80}, {"ip": "127.0.0.1", "port": 8080}],
    }  # fmt: skip
    start(hyper, "client", own, services=[service])
    until_answered(hyper, f"nc -w 2 {backend['address']} 80 < /dev/null", "far")
    until_answered(hyper, "nc -w 2 127.0.0.1 8080 < /dev/null", "near")
    assert answers(hyper, "nc -w 2 10.254.0.1 80 < /dev/null") == {"far", "near"}
    hyper.ok("service", "set", "client", "10.254.0.1:80", f"{backend['address']}:80")
    assert answers(hyper, "nc -w 2 10.254.0.1 80 < /dev/null") == {"far"}
    hyper.ok("service", "set", "client", "10.254.0.2:99/tcp", "127.0.0.1:8080")
    assert answers(hyper, "nc -w 2 10.254.0.2 99 < /dev/null") == {"near"}
    listed = hyper.ok("service", "ls", "client").splitlines()
    assert listed[1].split() == ["10.254.0.1:80", "tcp", f"{backend['address']}:80"]
    hyper.ok("service", "rm", "client", "10.254.0.1:80")
    assert answers(hyper, "nc -w 2 10.254.0.1 80 < /dev/null") == {""}
    hyper.ok("stop", "-t", "0", "client")
    hyper.ok("start", "client")
    until_answered(hyper, "nc -w 2 127.0.0.1 8080 < /dev/null", "near")
    assert answers(hyper, "nc -w 2 10.254.0.2 99 < /dev/null") == {"near"}


def test_a_service_balances_udp_too(hyper: Hyper) -> None:
    pods = [start(hyper, word, SERVE_UDP.format(port=53, word=word)) for word in ("first", "second")]
    require_ipvs(hyper, "first")
    backends = [{"ip": pod["address"], "port": 53} for pod in pods]
    service = {"ip": "10.254.0.1", "port": 5353, "protocol": "udp", "backends": backends}
    start(hyper, "client", "sleep 1000", services=[service])
    for name in ("first", "second", "client"):
        install(hyper, name, udp_program())
    for pod, word in zip(pods, ("first", "second"), strict=True):
        until_answered(hyper, f"/udp ask {pod['address']} 53", word)
    assert answers(hyper, "/udp ask 10.254.0.1 5353") == {"first", "second"}


def until_answered(hyper: Hyper, question: str, word: str) -> None:
    """A backend serves some time after its pod has started."""
    hyper.eventually(word, "exec", "client", "sh", "-c", question)


def answers(hyper: Hyper, question: str) -> set[str]:
    """What a container of pod ``client`` is answered in six tries."""
    script = f"for i in 1 2 3 4 5 6; do ({question}) 2>/dev/null | head -n 1; sleep 0.2; done"
    return set(hyper.ok("exec", "client", "sh", "-c", script).splitlines() or [""])


def test_a_pods_own_address_is_no_service(hyper: Hyper) -> None:
    view = start(hyper, "client", "sleep 1000")
    require_ipvs(hyper, "client")
    result = hyper("service", "set", "client", f"{view['address']}:80", "127.0.0.1:80")
    assert result.status == 1
    assert json.loads(hyper.ok("inspect", "--type", "pod", "client"))[0]["spec"]["services"] == []
    assert hyper.ok("exec", "client", "ping", "-c", "1", "-W", "2", view["address"])
