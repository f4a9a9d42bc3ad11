"""``events``: what happens to pods, containers and images, a line each, in Docker's form."""

from __future__ import annotations

import argparse
import json
import time

from hypercontainer.cli import output
from hypercontainer.cli.logs import moment
from hypercontainer.cli.parser import Command
from hypercontainer.client import Client, Record


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", default="", metavar="TIME", help="first those that were: 10m, a time, or seconds"
    )
    parser.add_argument("--until", default="", metavar="TIME", help="as --since; then it ends")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE",
        help="only those with this type, event, pod, container or image",
    )  # fmt: skip
    parser.add_argument("--format", choices=("text", "json"), default="text", help="'json': one line each")


def _events(arguments: argparse.Namespace) -> int:
    now = time.time()
    events = Client.default().system.events(
        since=moment(arguments.since, now=now),
        until=moment(arguments.until, now=now),
        filters=arguments.filter,
    )
    for event in events:
        print(json.dumps(event) if arguments.format == "json" else line(event), flush=True)
    return 0


def line(event: Record) -> str:
    """``TIME TYPE ACTION ID (key=value, ...)``, the attributes sorted, as ``docker events`` prints it."""
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(_attributes(event).items()))
    return f"{output.timestamp_ns(event.time_ns)} {event.type} {event.action} {event.id} ({attributes})"


def _attributes(event: Record) -> dict[str, str]:
    """A command or a reason is a stranger's text: no control characters."""
    attributes: dict[str, str] = event.attributes | {"name": event.name}
    return {key: output.printable(value) for key, value in attributes.items()}


COMMANDS = {
    "events": Command(
        usage="events [OPTIONS]",
        description="Show what happens to pods, containers and images, as it happens.\n"
        "hyperd keeps the newest 1,024 for --since, as long as it runs.",
        arguments=_arguments,
        run=_events,
        examples="hyper events\nhyper events --since 10m --filter event=die\n"
        "hyper events --since 1h --until 0s --filter pod=web --format json",
    ),
}
