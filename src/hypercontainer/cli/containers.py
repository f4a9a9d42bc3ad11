"""Verbs about containers and their processes: ps, exec, logs, attach, kill, wait."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command, add_format
from hypercontainer.cli.pods import each
from hypercontainer.client import Client, Record
from hypercontainer.errors import ContainerNotFound, ExecNotFound, InvalidRequest, InvalidState, PodNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DETACH_KEYS = "ctrl-p,ctrl-q"


# --- ps ---


def _ps_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE",
        help="only those with this id, name, pod, status, label, ancestor or exited",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--last", type=int, default=0, metavar="NUMBER", help="the newest, in any state"
    )
    parser.add_argument("-l", "--latest", action="store_true", help="the newest one, in any state")
    add_format(parser)


def _ps(arguments: argparse.Namespace) -> int:
    filters = [_filter(text) for text in arguments.filter]
    records = Client.default().containers.list()
    everything = arguments.all or arguments.last or arguments.latest
    everything = everything or any(key in {"status", "exited"} for key, _ in filters)
    chosen = [record for record in records if everything or record.state in {"running", "restarting"}]
    chosen = [record for record in chosen if _matches(record, filters)]
    chosen.sort(key=lambda record: record.created, reverse=True)
    _print_containers(chosen[: 1 if arguments.latest else arguments.last or None], arguments)
    return 0


def _print_containers(records: Iterable[Record], arguments: argparse.Namespace) -> None:
    rows = [_row(record, whole=arguments.no_trunc) for record in records]
    if arguments.format == "json":
        output.json_lines(dict(zip(_JSON_KEYS, row, strict=True)) for row in rows)
    elif arguments.quiet:
        for row in rows:
            print(row[0])
    else:
        output.table(_HEADER, rows)


_HEADER = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
_JSON_KEYS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")  # those of docker ps


def _row(record: Record, *, whole: bool) -> tuple[str, ...]:
    command = output.command(record.command)
    return (
        record.id if whole else output.short(record.id),
        record.image,
        output.quoted(command if whole else output.ellipsis(command, 20)),
        output.ago(record.created),
        output.status(record),
        output.ports(record.ports) if record.state == "running" else "",
        record.name,
    )


_FILTERS = ("id", "name", "pod", "status", "label", "ancestor", "exited")


def _filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if key not in _FILTERS or not equals:
        raise InvalidRequest(
            f"invalid filter {text!r}", hint=f"KEY=VALUE, with a key of {', '.join(_FILTERS)}"
        )
    return key, value


def _matches(record: Record, filters: list[tuple[str, str]]) -> bool:
    """As Docker: of filters with one key, any suffices; of different keys, all are needed."""
    return all(
        any(_has(record, key, value) for other, value in filters if other == key) for key, _ in filters
    )


def _has(record: Record, key: str, value: str) -> bool:
    match key:
        case "id":
            return bool(record.id.startswith(value))
        case "name":
            return value.lstrip("/") in str(record.name)
        case "pod":
            return bool(record.pod.startswith(value) or record.pod_name == value)
        case "status":
            return bool(value == ("paused" if record.paused else record.state))
        case "label":
            name, equals, wanted = value.partition("=")
            labels: dict[str, str] = record.labels
            return name in labels and (not equals or labels[name] == wanted)
        case "ancestor":
            names: set[str] = {record.image, record.image.removesuffix(":latest")}
            return value in names or _is_id(record, value)
        case _:
            return record.state == "exited" and str(record.exit_code) == value


def _is_id(record: Record, value: str) -> bool:
    return len(value) >= 4 and bool(record.image_id.removeprefix("sha256:").startswith(value))


# --- exec ---


def _exec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--interactive", action="store_true", help="pass stdin on")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal (and stdin)")
    parser.add_argument("-d", "--detach", action="store_true", help="leave it running; print its id")
    parser.add_argument("-e", "--env", action="append", metavar="NAME[=VALUE]", help="set a variable")
    parser.add_argument("--env-file", action="append", metavar="FILE", help="variables, one a line")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR", help="where it starts")
    parser.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="names or numbers")
    parser.add_argument("--privileged", action="store_true", help="with every capability inside the machine")
    parser.add_argument(
        "-m", "--vm", action="store_true", help="in the machine itself, outside of the pod: see hyperstart"
    )
    parser.add_argument("--detach-keys", default=_DETACH_KEYS, metavar="KEYS", help=f"({_DETACH_KEYS})")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="CONTAINER COMMAND...")


def _exec(arguments: argparse.Namespace) -> int:
    import os

    from hypercontainer.cli.attachment import carry

    if len(arguments.words) < 2:
        raise InvalidRequest("a container and a command are needed", hint="see `hyper exec --help`")
    if arguments.tty and arguments.interactive and not arguments.detach and not os.isatty(0):
        raise InvalidRequest("the input device is not a TTY", hint="-i alone reads from a pipe or a file")
    client = Client.default()
    name, *command = arguments.words
    made = client.containers.create_exec(name, _exec_spec(arguments, command))
    if arguments.detach:
        print(client.execs.detach(made.id).id)
        return 0
    status, _ = carry(
        client.execs.start(made.id),
        terminal=arguments.tty,
        stdin=arguments.interactive or arguments.tty,
        detach_keys=arguments.detach_keys,
        owns_process=True,
        again=lambda client, seen: client.execs.attach_again(made.id, seen),
    )
    return status


def _exec_spec(arguments: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    from hypercontainer.cli.spec import environment

    return {
        "command": command,
        "environment": environment(arguments.env or [], arguments.env_file or []),
        "working_directory": arguments.workdir,
        "user": arguments.user,
        "terminal": arguments.tty,
        "stdin": (arguments.interactive or arguments.tty) and not arguments.detach,
        "privileged": arguments.privileged,
        "in_machine": arguments.vm,
    }


# --- logs ---


def _logs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until it ends")
    parser.add_argument("-n", "--tail", default="all", metavar="LINES", help="only the last lines (all)")
    parser.add_argument("--since", default="", metavar="TIME", help="10m, 2026-05-01T10:00:00Z, or seconds")
    parser.add_argument("--until", default="", metavar="TIME", help="as --since")
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    parser.add_argument("name", metavar="NAME", help="a container, or a pod for all of its containers")


def _logs(arguments: argparse.Namespace) -> int:
    from hypercontainer.cli.attachment import OUTPUT_CLOSED, silence_output
    from hypercontainer.cli.logs import LogPrinter, merged, moment
    from hypercontainer.cli.terminal import OutputClosed

    now = time.time()
    client = Client.default()
    how = {
        "follow": arguments.follow,
        "tail": _tail(arguments.tail),
        "since": moment(arguments.since, now=now),
        "until": moment(arguments.until, now=now),
    }
    logs = {c.name: client.containers.logs(c.id, **how) for c in _containers_of(client, arguments.name)}
    printers = {
        name: LogPrinter(timestamps=arguments.timestamps, prefix=f"{name} | " if len(logs) > 1 else "")
        for name in logs
    }
    try:
        for name, frame in merged(logs, follow=arguments.follow):
            printers[name].show(frame)
    except OutputClosed:
        silence_output()
        return OUTPUT_CLOSED
    return 0


def _containers_of(client: Client, name: str) -> list[Record]:
    """The container of that name or id, or all those of a pod."""
    container = client.containers.get(name)
    if container.name == name or container.id.startswith(name):
        return [container]
    return list(client.pods.get(container.pod).pod.containers)


def _tail(text: str) -> int | None:
    try:
        number = None if text == "all" else int(text)
    except ValueError as error:
        raise InvalidRequest(f"invalid number of lines {text!r}", hint="a number, or 'all'") from error
    return None if number is None or number < 0 else number


# --- attach, kill, wait ---


def _attach_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-stdin", action="store_true", help="only watch")
    parser.add_argument("--detach-keys", default=_DETACH_KEYS, metavar="KEYS", help=f"({_DETACH_KEYS})")
    parser.add_argument(
        "--sig-proxy", default="true", choices=("true", "false"), help="pass signals on (true)"
    )
    parser.add_argument("name", metavar="CONTAINER", help="or a pod, for its first container")


def _attach(arguments: argparse.Namespace) -> int:
    from hypercontainer.cli.attachment import carry

    client = Client.default()
    container = client.containers.get(arguments.name)
    if container.state != "running":
        raise InvalidState(
            f"container {container.name!r} does not run",
            hint=f"start it with: hyper start {container.pod_name}",
        )
    status, _ = carry(
        client.containers.attach(container.id),
        terminal=container.terminal,
        stdin=container.stdin and not arguments.no_stdin,
        detach_keys=arguments.detach_keys,
        forward_signals=arguments.sig_proxy == "true",
        again=lambda client, seen: client.containers.attach_again(container.id, seen),
    )
    return status


def _kill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--signal", default="KILL", metavar="SIGNAL", help="name or number (KILL)")
    parser.add_argument("names", nargs="+", metavar="NAME", help="pods or containers")


def _kill(arguments: argparse.Namespace) -> int:
    number = signal_number(arguments.signal)
    client = Client.default()
    return each(arguments.names, lambda name: _kill_one(client, name, number))


def _kill_one(client: Client, name: str, number: int) -> None:
    try:
        client.pods.kill(name, signal=number)
    except PodNotFound:
        client.containers.kill(name, signal=number)


def signal_number(text: str) -> int:
    """``KILL``, ``SIGKILL``, ``sigkill`` and ``9`` are 9; raises InvalidRequest."""
    import signal

    if text.isascii() and text.isdigit() and int(text) in range(1, 65):
        return int(text)
    name = "SIG" + text.upper().removeprefix("SIG")
    if name.startswith(("SIGRTMIN+", "SIGRTMAX-")) and name[9:].isdigit():
        base = signal.SIGRTMIN + int(name[9:]) if name[6:8] == "IN" else signal.SIGRTMAX - int(name[9:])
        if base in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
            return base
    if name not in signal.Signals.__members__:
        raise InvalidRequest(f"unknown signal {text!r}", hint="for example TERM, HUP or 9")
    return int(signal.Signals[name])


def _wait(arguments: argparse.Namespace) -> int:
    client = Client.default()
    for name in arguments.names:
        print(_wait_for(client, name), flush=True)
    return 0


def _wait_for(client: Client, name: str) -> int:
    try:
        return client.containers.wait(name)
    except ContainerNotFound as missing:
        try:
            return client.execs.wait(name)
        except ExecNotFound:
            raise missing from None


COMMANDS = {
    "ps": Command(
        usage="ps [OPTIONS]",
        description="List containers with the columns of `docker ps`; see `hyper list` for pods.",
        arguments=_ps_arguments,
        run=_ps,
        examples="hyper ps\nhyper ps -a --filter status=exited\nhyper ps -q --filter name=web",
    ),
    "exec": Command(
        usage="exec [OPTIONS] CONTAINER COMMAND [ARGUMENT...]",
        description="Run a command in a running container; the exit status is the command's.\n"
        "With -d it is left alone: `hyper wait ID` gives its status, `hyper inspect ID` its state.",
        arguments=_exec_arguments,
        run=_exec,
        failure_status=125,
        words_follow=True,
        examples="hyper exec -t web sh\nhyper exec -e LEVEL=debug web env\n"
        "tar c . | hyper exec -i web tar x -C /srv\nhyper exec -m web dmesg",
    ),
    "logs": Command(
        usage="logs [OPTIONS] NAME",
        description="Show what a container printed; its stdout and stderr go to ours. Of a pod with several\n"
        "containers all are shown, each line after its container's name.",
        arguments=_logs_arguments,
        run=_logs,
        examples="hyper logs -f web\nhyper logs --tail 20 -t web\nhyper logs --since 10m web",
    ),
    "attach": Command(
        usage="attach [OPTIONS] CONTAINER",
        description="Connect this terminal to a running container; ctrl-p ctrl-q leaves it running.",
        arguments=_attach_arguments,
        run=_attach,
        failure_status=125,
    ),
    "kill": Command(
        usage="kill [-s SIGNAL] NAME...",
        description="Send a signal to containers, or to all containers of pods.",
        arguments=_kill_arguments,
        run=_kill,
        examples="hyper kill web\nhyper kill -s HUP web",
    ),
    "wait": Command(
        usage="wait NAME...",
        description="Wait until containers, first ones of pods, or execs have ended; print their exit codes.",
        arguments=lambda parser: parser.add_argument(
            "names", nargs="+", metavar="NAME", help="pods, containers or ids of execs"
        ),
        run=_wait,
    ),
}
