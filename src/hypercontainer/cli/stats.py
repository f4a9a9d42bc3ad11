"""``stats``: what containers use, in Docker's columns, or what pods and their machines do; time and again."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterable, Sequence

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command
from hypercontainer.cli.pods import pod_id
from hypercontainer.client import Client, Record
from hypercontainer.errors import ContainerNotFound, InvalidState, PodNotFound

_PERIOD_S = 1.0  # between two samples, of which a rate is the difference
_HOME_AND_CLEAR = "\033[H\033[J"

_CONTAINER = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
_CONTAINER_KEYS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")  # docker stats
_POD = (
    "POD ID", "NAME", "UP", "CPU %", "GUEST MEM USAGE / LIMIT", "VMM RSS", "VMM PSS", "VMM PRIVATE",
    "NET I/O", "BLOCK I/O", "DISK USAGE / LIMIT", "FILES",
)  # fmt: skip

Sample = dict[str, Record]  # StatisticsView by pod id


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--pods", action="store_true", help="pods and their machines, not containers")
    parser.add_argument("--no-stream", action="store_true", help="once")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="'json': one line each")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="containers or pods; by default all that run"
    )


def _stats(arguments: argparse.Namespace) -> int:
    client = Client.default()
    before = _sample(client, arguments)
    while True:
        time.sleep(_PERIOD_S)
        now = _sample(client, arguments)
        _show(_rows(now, before, arguments), arguments)
        if arguments.no_stream:
            return 0
        before = now


def _sample(client: Client, arguments: argparse.Namespace) -> Sample:
    wanted = {_pod_of(client, name) for name in arguments.names}
    running = {pod.id: pod for pod in client.pods.list() if pod.state == "running"}
    for pod in wanted - set(running):
        raise InvalidState(f"pod {pod[: output.SHORT]} does not run", hint="hyper list shows the states")
    sample = {}
    for pod, view in running.items():
        if not arguments.names or pod in wanted:
            with contextlib.suppress(PodNotFound, InvalidState):  # it has just ended
                sample[pod] = Record(view | client.pods.statistics(pod))  # containers: of the statistics
    return sample


def _pod_of(client: Client, name: str) -> str:
    try:
        return str(client.containers.get(name).pod)
    except ContainerNotFound:
        return pod_id(client, name)


def _rows(now: Sample, before: Sample, arguments: argparse.Namespace) -> list[Sequence[str]]:
    if arguments.pods:
        return [_pod_row(pod, before.get(key), arguments) for key, pod in now.items()]
    return [
        _container_row(container, pod, before.get(key), arguments)
        for key, pod in now.items()
        for container in _asked(pod, arguments.names)
    ]


def _asked(pod: Record, names: Sequence[str]) -> Iterable[Record]:
    """The containers that were named, or all of a pod that was."""
    containers: list[Record] = pod.containers
    named = [c for c in containers if any(c.name == name or c.id.startswith(name) for name in names)]
    is_named = not names or any(pod.name == name or pod.id.startswith(name) for name in names)
    return named or (containers if is_named else [])


def _share(now: Record, before: Record | None, pod: Record, pod_before: Record | None) -> str:
    """CPU time in percent of one CPU, as Docker counts."""
    if before is None or pod_before is None or pod.uptime_s <= pod_before.uptime_s:
        return "0.00%"
    return f"{(now.cpu_s - before.cpu_s) / (pod.uptime_s - pod_before.uptime_s) * 100:.2f}%"


def _container_row(
    container: Record, pod: Record, pod_before: Record | None, arguments: argparse.Namespace
) -> Sequence[str]:
    earlier = {each.id: each for each in pod_before.containers} if pod_before is not None else {}
    used, limit = container.memory_used, container.memory_limit
    return (
        container.id if arguments.no_trunc else output.short(container.id),
        container.name,
        _share(container, earlier.get(container.id), pod, pod_before),
        f"{output.bytes_size(used)} / {output.bytes_size(limit)}",
        f"{used / limit * 100 if limit else 0:.2f}%",
        _traffic(pod.nics, "received_bytes", "sent_bytes"),
        _traffic([container], "read_bytes", "written_bytes"),
        str(container.pids),
    )


def _pod_row(pod: Record, before: Record | None, arguments: argparse.Namespace) -> Sequence[str]:
    writable = pod.disks[0] if pod.disks else Record(used=0, capacity=0, files=0)
    return (
        pod.id if arguments.no_trunc else output.short(pod.id),
        pod.name,
        output.duration(pod.uptime_s),
        _share(pod, before, pod, before),
        f"{output.bytes_size(pod.memory_used)} / {output.bytes_size(pod.memory_total)}",
        *(output.bytes_size(pod[key]) for key in ("vmm_rss", "vmm_pss", "vmm_private")),
        _traffic(pod.nics, "received_bytes", "sent_bytes"),
        _traffic(pod.disks, "read_bytes", "written_bytes"),
        f"{output.bytes_size(writable.used)} / {output.bytes_size(writable.capacity)}",
        str(writable.files),
    )


def _traffic(things: Iterable[Record], incoming: str, outgoing: str) -> str:
    things = list(things)
    totals = (sum(thing[key] for thing in things) for key in (incoming, outgoing))
    return " / ".join(output.size(total, digits=3) for total in totals)


def _show(rows: list[Sequence[str]], arguments: argparse.Namespace) -> None:
    if arguments.format == "json":
        keys = _POD if arguments.pods else _CONTAINER_KEYS
        output.json_lines(dict(zip(keys, row, strict=True)) for row in rows)
    else:
        if not arguments.no_stream and sys.stdout.isatty():
            print(_HOME_AND_CLEAR, end="")
        output.table(_POD if arguments.pods else _CONTAINER, rows)
    sys.stdout.flush()


COMMANDS = {
    "stats": Command(
        usage="stats [OPTIONS] [NAME...]",
        description="Show what containers use, as `docker stats` does, each second anew; with --pods what\n"
        "pods do: memory as the guest sees it and as the host does, CPU, network, disks and files.",
        arguments=_arguments,
        run=_stats,
        examples="hyper stats\nhyper stats --no-stream web\nhyper stats --pods --no-stream",
    ),
}
