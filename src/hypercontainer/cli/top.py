"""``top``: the processes of a container or of a whole pod, in the columns of ps(1)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command
from hypercontainer.client import Client, Record
from hypercontainer.errors import ContainerNotFound, InvalidRequest

_FULL = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")  # ps -ef, as Docker's


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--columns", default=",".join(_FULL), metavar="COLUMNS",
        help=f"of {', '.join(_COLUMNS)}",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", help="a container, or a pod for all of its containers")


def _top(arguments: argparse.Namespace) -> int:
    columns = arguments.columns.split(",")
    for column in columns:
        if column not in _COLUMNS:
            raise InvalidRequest(f"unknown column {column!r}", hint=f"one of {', '.join(_COLUMNS)}")
    now = time.time()
    processes = _processes(Client.default(), arguments.name)
    header = [_COLUMNS[column][0] for column in columns]
    output.table(header, [[_COLUMNS[column][1](each, now) for column in columns] for each in processes])
    return 0


def _processes(client: Client, name: str) -> list[Record]:
    """Those of the container; of the whole pod when it is the pod's name or id."""
    try:
        container = client.containers.get(name)
    except ContainerNotFound:
        return client.pods.processes(name)
    is_own = container.name == name or container.id.startswith(name)
    return client.containers.processes(container.id) if is_own else client.pods.processes(container.pod)


def _user(process: Record, now: float) -> str:
    return "root" if process.user == 0 else str(process.user)


def _share(process: Record, now: float) -> str:
    """CPU time over the time since its start, in percent."""
    return str(int(process.cpu_s / max(now - process.started, 0.001) * 100))


def _start(process: Record, now: float) -> str:
    """The hour today, the day before; as ps(1)."""
    then = time.localtime(process.started)
    is_today = then[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if is_today else "%b%d", then)


def _cpu_time(process: Record, now: float) -> str:
    minutes, seconds = divmod(int(process.cpu_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"


Cell = Callable[[Record, float], str]
_COLUMNS: Mapping[str, tuple[str, Cell]] = {
    "user": ("UID", _user),
    "pid": ("PID", lambda process, now: str(process.pid)),
    "ppid": ("PPID", lambda process, now: str(process.parent)),
    "c": ("C", _share),
    "stime": ("STIME", _start),
    "tty": ("TTY", lambda process, now: process.terminal or "?"),
    "time": ("TIME", _cpu_time),
    "cmd": ("CMD", lambda process, now: output.printable(process.command)),
    "stat": ("STAT", lambda process, now: output.printable(process.state)),
    "rss": ("RSS", lambda process, now: str(process.memory >> 10)),
    "container": ("CONTAINER", lambda process, now: process.container or "-"),
}

COMMANDS = {
    "top": Command(
        usage="top [-o COLUMNS] NAME",
        description="Show the processes of a running container, or of all containers of a pod.",
        arguments=_arguments,
        run=_top,
        examples="hyper top web\nhyper top -o container,pid,rss,cmd web",
    ),
}
