"""``run`` and ``create``: from a command line or a podfile to a pod, and to its process on this terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable

from hypercontainer.cli import spec
from hypercontainer.cli.parser import Command
from hypercontainer.cli.terminal import DETACH_KEYS, parse_detach_keys
from hypercontainer.cli.timeline import ClientMarks
from hypercontainer.client import Client, Record
from hypercontainer.errors import HyperError, ImageNotFound, InvalidRequest, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--detach", action="store_true", help="leave it running; print the pod's id")
    parser.add_argument(
        "--timeline", action="store_true", help="show where the milliseconds of the start went"
    )
    parser.add_argument(
        "--detach-keys", default=DETACH_KEYS, metavar="KEYS", help=f"to leave a terminal ({DETACH_KEYS})"
    )
    parser.add_argument(
        "--sig-proxy", default="true", choices=("true", "false"), help="pass signals on (true)"
    )
    spec.add_flags(parser)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="IMAGE [COMMAND...]", help="or PODFILE")


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--container", metavar="POD", help="another container of this pod instead")
    spec.add_flags(parser)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="IMAGE [COMMAND...]", help="or PODFILE")


def _create(arguments: argparse.Namespace) -> int:
    client = Client.default()
    wanted = spec.from_arguments(arguments, attached=False)
    if arguments.container:
        print(_add_container(client, wanted, arguments).id)
    else:
        print(create_pod(client, wanted, arguments).id)
    return 0


def _add_container(client: Client, wanted: dict[str, Any], arguments: argparse.Namespace) -> Record:
    """The container that the flags describe, for a pod that is there already."""
    from hypercontainer.cli.pods import pod_id

    if spec.podfile_of(arguments) is not None:
        raise InvalidRequest("a podfile describes a pod, not a container of another one")
    for key, flag in _OF_THE_POD.items():
        if wanted.get(key):
            raise InvalidRequest(f"{flag} is the pod's, and the pod is there already")
    if arguments.memory or arguments.cpus or arguments.cpu:
        raise InvalidRequest("the machine's size is the pod's, and the pod is there already")
    container = {**wanted["containers"][0], "name": arguments.name}
    added = {"container": container, "volumes": wanted.get("volumes", [])}
    pod = pod_id(client, arguments.container)
    view: Record = _with_images(client, wanted, arguments, lambda: client.pods.add_container(pod, added))
    return view


_OF_THE_POD = {
    "hostname": "--hostname", "ports": "--publish", "dns": "--dns", "dns_search": "--dns-search",
    "dns_options": "--dns-option", "remove": "--rm", "sysctls": "--sysctl", "shm_bytes": "--shm-size",
    "extra_hosts": "--add-host", "interfaces": "--ip",
}  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    _check_terminal(arguments)
    _end_in_order()
    marks = ClientMarks.begin()
    wanted = spec.from_arguments(arguments, attached=not arguments.detach)
    client = Client.default()
    marks.mark("hyperd answers")
    pod = create_pod(client, wanted, arguments)
    marks.mark("pod created")
    if arguments.detach or not pod.containers:
        return _run_detached(client, pod, arguments, marks)
    return _run_attached(client, pod, arguments, marks)


def _check_terminal(arguments: argparse.Namespace) -> None:
    parse_detach_keys(arguments.detach_keys)
    if arguments.tty and arguments.interactive and not arguments.detach and not os.isatty(0):
        raise InvalidRequest("the input device is not a TTY", hint="-i alone reads from a pipe or a file")


def create_pod(client: Client, wanted: dict[str, Any], arguments: argparse.Namespace) -> Record:
    """Create the pod; an image that is not here is pulled first, as ``--pull`` says."""
    return _with_images(client, wanted, arguments, lambda: client.pods.create(wanted))


def _with_images(
    client: Client, wanted: dict[str, Any], arguments: argparse.Namespace, create: Callable[[], Record]
) -> Record:
    if arguments.pull == "always":
        for image in dict.fromkeys(container["image"] for container in wanted["containers"]):
            _pull(client, image, arguments)
    pulled: set[str] = set()
    while True:
        try:
            return create()
        except ImageNotFound as missing:
            image = _missing_image(client, wanted, pulled)
            if arguments.pull == "never" or image is None:
                raise
            print(f"Unable to find image '{_with_tag(image)}' locally", file=sys.stderr)
            _pull(client, image, arguments, because=missing)
            pulled.add(image)


def _missing_image(client: Client, wanted: dict[str, Any], pulled: set[str]) -> str | None:
    """The first image of the pod that is not here and was not pulled before."""
    for container in wanted["containers"]:
        image: str = container["image"]
        if image in pulled:
            continue
        try:
            client.images.get(image)
        except NotFound:
            return image
    return None


def _pull(
    client: Client, image: str, arguments: argparse.Namespace, *, because: ImageNotFound | None = None
) -> None:
    from hypercontainer.cli.images import pull_image

    try:
        pull_image(client, image, platform=arguments.platform, file=sys.stderr)
    except HyperError as problem:
        raise problem from because


def _with_tag(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def _end_in_order() -> None:
    """Until the process is attached, SIGTERM and SIGHUP undo what was begun, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not nohup
            signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _run_detached(client: Client, pod: Record, arguments: argparse.Namespace, marks: ClientMarks) -> int:
    try:
        client.pods.start(pod.id)
    except BaseException:
        _remove_unstarted(client, pod)
        raise
    print(pod.id)
    if arguments.timeline:
        marks.show(client.pods.timeline(pod.id))
    return 0


def _run_attached(client: Client, pod: Record, arguments: argparse.Namespace, marks: ClientMarks) -> int:
    from hypercontainer.cli.attachment import carry

    container = pod.containers[0]
    try:
        attached = client.containers.attach(
            container.id, start=True, from_start=True, timeline=arguments.timeline
        )
        marks.mark("attached")
        status, timeline = carry(
            attached,
            terminal=container.terminal,
            stdin=container.stdin,
            detach_keys=arguments.detach_keys,
            forward_signals=arguments.sig_proxy == "true",
            owns_process=True,
            again=lambda client, seen: client.containers.attach_again(
                container.id, seen, timeline=arguments.timeline
            ),
        )
    except BaseException:  # Ctrl-C as well
        _remove_unstarted(client, pod)
        raise
    if arguments.timeline and timeline is not None:
        marks.mark("hyper ends")
        marks.show(timeline)
    return status


def _remove_unstarted(client: Client, pod: Record) -> None:
    """``run`` leaves no pod behind of which nothing has ever run, or that nobody was told of."""
    with contextlib.suppress(HyperError):
        if not any(container.started for container in client.pods.get(pod.id).pod.containers):
            client.pods.remove(pod.id, force=True)


_HOW = "A single word that ends in .json, .yaml or .yml is a podfile."

COMMANDS = {
    "run": Command(
        usage="run [OPTIONS] IMAGE [COMMAND...]\n       hyper run [OPTIONS] PODFILE",
        description=f"Create a pod and run it in a new virtual machine. {_HOW}\n"
        "The exit status is the container's; 125 when hyper itself failed, 126 or 127 when the\n"
        "command cannot be run or is not there. An image that is not here is pulled first.",
        arguments=_run_arguments,
        run=_run,
        failure_status=125,
        short_help=False,
        words_follow=True,
        examples="""
hyper run -t debian                              a shell
hyper run --rm debian cat /proc/version          one command, in a kernel of its own
hyper run -d --name web -p 8080:80 nginx         a server that the host's port 8080 reaches
hyper run -d podfile.json                        a pod that a file describes
tar c . | hyper run -i --rm debian tar x -C /tmp
hyper run --rm --timeline debian true            where the time goes
hyper run --require-isolation hardware debian    refuse anything that is no hardware boundary
""",
    ),
    "create": Command(
        usage="create [OPTIONS] IMAGE [COMMAND...]\n       hyper create [OPTIONS] -p PODFILE\n"
        "       hyper create [OPTIONS] -c POD IMAGE [COMMAND...]",
        description=f"Create a pod: its storage is allocated, and no machine is started. {_HOW}\n"
        "With -c, give a pod another container, which `hyper start -c` starts; the pod may run.",
        arguments=_create_arguments,
        run=_create,
        short_help=False,
        words_follow=True,
        examples="""
hyper create -p podfile.json
hyper start $(hyper create --name db redis)
hyper start -c $(hyper create -c db busybox tail -f /dev/null)
""",
    ),
}
