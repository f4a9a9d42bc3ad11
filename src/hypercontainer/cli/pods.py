"""Verbs about pods: start, stop, rm, rename, list, pause, unpause."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command, add_format, positive
from hypercontainer.client import Client, Record
from hypercontainer.errors import ContainerNotFound, HyperError, InvalidRequest, PodNotFound


def pod_id(client: Client, name: str) -> str:
    """The id of the pod that ``name`` means: a pod's name, id or prefix, or those of its only container."""
    try:
        return str(client.pods.get(name).pod.id)
    except PodNotFound as missing:
        try:
            container = client.containers.get(name)
        except ContainerNotFound:
            raise missing from None
    pod = client.pods.get(container.pod).pod
    if len(pod.containers) > 1:
        raise InvalidRequest(
            f"{name!r} is one of {len(pod.containers)} containers of pod {pod.name!r}",
            hint=f"to mean them all, say {pod.name!r}",
        )
    return str(pod.id)


def each(names: Iterable[str], act: Callable[[str], object]) -> int:
    """``act`` on each of ``names``, printing it when that went well; errors do not stop the others."""
    status = 0
    for name in names:
        try:
            act(name)
        except HyperError as problem:
            output.error(problem)
            status = 1
        else:
            print(name, flush=True)
    return status


def _names(what: str) -> Callable[[argparse.ArgumentParser], object]:
    return lambda parser: parser.add_argument("names", nargs="+", metavar="POD", help=what)


def _container_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--container", action="store_true", help="the names are of containers, not of pods"
    )


def _start_arguments(parser: argparse.ArgumentParser) -> None:
    _container_flag(parser)
    parser.add_argument("-a", "--attach", action="store_true", help="show its output; the status is its own")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass stdin on too")
    parser.add_argument("--detach-keys", default="ctrl-p,ctrl-q", metavar="KEYS", help="(ctrl-p,ctrl-q)")
    parser.add_argument("names", nargs="+", metavar="POD", help="names, ids, or beginnings of ids")


def _start(arguments: argparse.Namespace) -> int:
    client = Client.default()
    if arguments.attach or arguments.interactive:
        return _start_attached(client, arguments)
    if arguments.container:
        return each(arguments.names, client.containers.start)
    return each(arguments.names, lambda name: client.pods.start(pod_id(client, name)))


def _start_attached(client: Client, arguments: argparse.Namespace) -> int:
    from hypercontainer.cli.attachment import carry

    if len(arguments.names) > 1:
        raise InvalidRequest("you cannot start and attach multiple pods at once")
    if arguments.container:
        container = client.containers.get(arguments.names[0])
    else:
        container = _first_container(client, pod_id(client, arguments.names[0]))
    attached = client.containers.attach(container.id, start=True)
    stdin = arguments.interactive and container.stdin
    status, _ = carry(
        attached,
        terminal=container.terminal,
        stdin=stdin,
        detach_keys=arguments.detach_keys,
        again=lambda client, seen: client.containers.attach_again(container.id, seen),
    )
    return status


def _first_container(client: Client, pod: str) -> Record:
    found = client.pods.get(pod).pod
    if not found.containers:
        raise InvalidRequest(f"pod {found.name} has no containers to attach to")
    container: Record = found.containers[0]
    return container


def _stop_arguments(parser: argparse.ArgumentParser) -> None:
    _container_flag(parser)
    parser.add_argument(
        "-t",
        "--time",
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help="before it is killed (its --stop-timeout, or 10)",
    )
    parser.add_argument("names", nargs="+", metavar="POD", help="names, ids, or beginnings of ids")


def _stop(arguments: argparse.Namespace) -> int:
    client = Client.default()
    if arguments.container:
        return each(arguments.names, lambda name: client.containers.stop(name, timeout_s=arguments.time))
    return each(
        arguments.names, lambda name: client.pods.stop(pod_id(client, name), timeout_s=arguments.time)
    )


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    _container_flag(parser)
    parser.add_argument(
        "-f", "--force", action="store_true", help="kill it at once, and no error if it is gone"
    )
    parser.add_argument("-v", "--volumes", action="store_true", help=argparse.SUPPRESS)  # always so, as it is
    parser.add_argument("names", nargs="+", metavar="POD", help="names, ids, or beginnings of ids")


def _remove(arguments: argparse.Namespace) -> int:
    client = Client.default()
    remove = _remove_container if arguments.container else _remove_one
    return each(arguments.names, lambda name: remove(client, name, force=arguments.force))


def _remove_container(client: Client, name: str, *, force: bool) -> None:
    """As pods: one that runs is stopped first."""
    try:
        container = client.containers.get(name).id
        if not force:
            client.containers.stop(container)
        client.containers.remove(container, force=force)
    except ContainerNotFound:
        if not force:
            raise


def _rename_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="name or id of a pod or container")
    parser.add_argument("new", metavar="NEW", help="its new name")


def _rename(arguments: argparse.Namespace) -> int:
    client = Client.default()
    try:
        client.pods.rename(arguments.old, arguments.new)
    except PodNotFound:
        try:
            client.containers.rename(arguments.old, arguments.new)
        except ContainerNotFound as missing:
            raise PodNotFound(
                f"no such pod or container: {arguments.old}", hint="hyper ps -a shows them"
            ) from missing
    print(arguments.new)
    return 0


def _remove_one(client: Client, name: str, *, force: bool) -> None:
    """One that runs is stopped first, unlike Docker's; ``force`` kills it instead."""
    try:
        pod = pod_id(client, name)
        if not force and client.pods.get(pod).pod.state != "created":
            client.pods.stop(pod)
        client.pods.remove(pod, force=force)
    except PodNotFound:
        if not force:
            raise


def _pause(arguments: argparse.Namespace) -> int:
    client = Client.default()
    return each(arguments.names, lambda name: client.pods.pause(pod_id(client, name)))


def _unpause(arguments: argparse.Namespace) -> int:
    client = Client.default()
    return each(arguments.names, lambda name: client.pods.unpause(pod_id(client, name)))


# --- list ---


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", choices=("pod", "container", "vm"), default="pod", help="what to list (pod)"
    )
    add_format(parser)


def _list(arguments: argparse.Namespace) -> int:
    client = Client.default()
    listed = {"pod": client.pods.list, "container": client.containers.list, "vm": client.machines.list}
    records = sorted(listed[arguments.what](), key=_age)
    header, row = {"pod": (_POD, _pod), "container": (_CONTAINER, _container), "vm": (_VM, _vm)}[
        arguments.what
    ]
    if arguments.format == "json":
        output.json_lines(records)
    elif arguments.quiet:
        for record in records:
            print(row(record, whole=arguments.no_trunc)[0])
    else:
        output.table(header, [row(record, whole=arguments.no_trunc) for record in records])
    return 0


def _age(record: Record) -> float:
    """Newest first, as Docker's listings are."""
    return -float(record.get("created", 0) or record.get("started", 0))


# The headers that the original had come first, in its own spelling.
_POD = ("POD ID", "POD Name", "VM name", "Status", "Hypervisor", "Isolation", "Address")
_CONTAINER = ("Container ID", "Name", "POD ID", "Status", "Image")
_VM = ("VM name", "Status", "POD Name", "Hypervisor", "Isolation", "PID", "vCPUs", "Memory", "Up")


def _id(text: str, whole: bool) -> str:
    return text if whole else output.short(text)


def _pod(pod: Record, *, whole: bool) -> Sequence[str]:
    return (
        _id(pod.id, whole),
        pod.name,
        _id(pod.machine, whole) or "-",
        _pod_status(pod),
        pod.hypervisor or "-",
        pod.isolation or "-",
        pod.address or "-",
    )


def _pod_status(pod: Record) -> str:
    notes = [note for note in ("unresponsive" if pod.health == "unresponsive" else "", pod.reason) if note]
    return f"{pod.state} ({'; '.join(notes)})" if notes else str(pod.state)


def _container(container: Record, *, whole: bool) -> Sequence[str]:
    return (
        _id(container.id, whole),
        container.name,
        _id(container.pod, whole),
        output.status(container),
        container.image,
    )


def _vm(machine: Record, *, whole: bool) -> Sequence[str]:
    import time

    return (
        _id(machine.id, whole),
        machine.state,
        machine.pod_name,
        machine.hypervisor,
        machine.isolation,
        str(machine.pid),
        str(machine.vcpus),
        f"{machine.memory_mib} MiB",
        output.duration(time.time() - machine.started),
    )


_POD_NAMES = "names, ids, or beginnings of ids"

COMMANDS = {
    "start": Command(
        usage="start [OPTIONS] POD...\n       hyper start [OPTIONS] -c CONTAINER...",
        description="Start created pods, each in a new virtual machine.\n"
        "What they wrote before is there again. With -c, start containers of pods that run.",
        arguments=_start_arguments,
        run=_start,
        examples="hyper start web db\nhyper start -a -i shell",
    ),
    "stop": Command(
        usage="stop [-t SECONDS] POD...\n       hyper stop [-t SECONDS] -c CONTAINER...",
        description="Stop pods: processes get the stop signal, after a while SIGKILL, and the machine ends.\n"
        "A stopped pod is Created again; its storage stays. With -c, stop containers of a pod that runs.",
        arguments=_stop_arguments,
        run=_stop,
        examples="hyper stop web\nhyper stop -t 0 web db",
    ),
    "rm": Command(
        usage="rm [-f] POD...\n       hyper rm [-f] -c CONTAINER...",
        description="Remove pods with their storage; one that runs is stopped first.\n"
        "With -c, remove containers of pods, with what they wrote.",
        arguments=_remove_arguments,
        run=_remove,
        examples="hyper rm web\nhyper rm -f $(hyper list -q)",
    ),
    "rename": Command(
        usage="rename OLD NEW",
        description="Give a pod or a container another name. A pod's container that has the pod's name\n"
        "follows it.",
        arguments=_rename_arguments,
        run=_rename,
        examples="hyper rename web web-1",
    ),
    "list": Command(
        usage="list [OPTIONS] [pod|container|vm]",
        description="List pods, containers, or the virtual machines that run them.",
        arguments=_list_arguments,
        run=_list,
        examples="hyper list\nhyper list vm\nhyper list container --format json",
    ),
    "pause": Command(
        usage="pause POD...",
        description="Freeze pods: their machines stand still and keep their memory.",
        arguments=_names(_POD_NAMES),
        run=_pause,
    ),
    "unpause": Command(
        usage="unpause POD...",
        description="Let paused pods go on.",
        arguments=_names(_POD_NAMES),
        run=_unpause,
    ),
}
