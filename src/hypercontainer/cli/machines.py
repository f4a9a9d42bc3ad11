"""Verbs about machines: an empty one, and one that another pod takes."""

from __future__ import annotations

import argparse
import contextlib

from hypercontainer.cli import spec
from hypercontainer.cli.parser import Command, positive
from hypercontainer.cli.pods import pod_id
from hypercontainer.cli.running import create_pod
from hypercontainer.cli.timeline import ClientMarks
from hypercontainer.client import Client
from hypercontainer.errors import HyperError, InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# --- vm ---


def _vm_arguments(parser: argparse.ArgumentParser) -> None:
    spec.add_size_flags(parser)
    parser.add_argument("--name", default="", help="of its pod")
    parser.add_argument("--hypervisor", default="", metavar="NAME", help="kvm, xen, uml, tcg, or auto (auto)")
    parser.add_argument(
        "--require-isolation", choices=("any", "hardware"), default="", help="refuse a weaker hypervisor"
    )
    parser.add_argument("--network", "--net", default="default", metavar="NAME", help="default or none")


def _vm(arguments: argparse.Namespace) -> int:
    client = Client.default()
    pod = client.pods.create(spec.machine(arguments))
    try:
        client.pods.start(pod.id)
    except BaseException:  # Ctrl-C as well
        with contextlib.suppress(HyperError):
            client.pods.remove(pod.id, force=True)
        raise
    print(pod.id)
    return 0


# --- replace ---


def _replace_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--oldpod", metavar="POD", help="the one that runs")
    parser.add_argument("-n", "--newpod", metavar="POD", help="the one that is created")
    parser.add_argument("-f", "--file", metavar="PODFILE", help="the new pod is described there")
    parser.add_argument(
        "-t",
        "--time",
        type=positive,
        metavar="SECONDS",
        help="of grace for the old pod (its --stop-timeout, or 10)",
    )
    parser.add_argument("--timeline", action="store_true", help="show where the milliseconds went")
    parser.add_argument("--pull", choices=("missing", "always", "never"), default="missing", help="(missing)")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="of the image to pull")


def _replace(arguments: argparse.Namespace) -> int:
    if not arguments.oldpod or bool(arguments.newpod) == bool(arguments.file):
        raise InvalidRequest(
            "say which pod is replaced, and by what", hint="replace -o OLD -n NEW, or -f PODFILE"
        )
    marks = ClientMarks.begin()
    client = Client.default()
    old = pod_id(client, arguments.oldpod)
    marks.mark("hyperd answers")
    if arguments.file:
        new = _replace_by_file(client, old, arguments)
    else:
        new = pod_id(client, arguments.newpod)
        client.pods.replace(old, new, timeout_s=arguments.time)
    marks.mark("replaced")
    print(new)
    if arguments.timeline:
        marks.show(client.pods.timeline(new))
    return 0


def _replace_by_file(client: Client, old: str, arguments: argparse.Namespace) -> str:
    """A pod that was made for this goes again when it cannot be run."""
    from pathlib import Path

    from hypercontainer.cli import podfile

    wanted: dict[str, Any] = podfile.read(Path(arguments.file))
    if wanted.get("hypervisor", "auto") == "auto":
        wanted["hypervisor"] = client.pods.get(old).pod.hypervisor
    new = create_pod(client, wanted, arguments).id
    try:
        client.pods.replace(old, new, timeout_s=arguments.time)
    except BaseException:
        with contextlib.suppress(HyperError):
            client.pods.remove(new, force=True)
        raise
    return str(new)


COMMANDS = {
    "vm": Command(
        usage="vm [OPTIONS]",
        description="Start a virtual machine without containers, as a pod of its own that runs until it is\n"
        "stopped: `hyper create -c` gives it containers, and `hyper replace` a pod.",
        arguments=_vm_arguments,
        run=_vm,
        examples="hyper vm --name spare --memory 256m\nhyper replace -o spare -n web",
    ),
    "replace": Command(
        usage="replace -o POD -n POD\n       hyper replace -o POD -f PODFILE",
        description="Run a created pod on the machine of one that runs, which is Created then, with its\n"
        "storage. If the new pod cannot be run, the old one runs again, its processes started anew.\n"
        "Both have the same hypervisor, vCPUs and memory. Ports are published for the new pod.",
        arguments=_replace_arguments,
        run=_replace,
        examples="hyper replace -o web-1 -n web-2\nhyper replace -o web-1 -f podfile.json --timeline",
    ),
}
