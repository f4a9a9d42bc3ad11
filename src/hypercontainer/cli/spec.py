"""The flags of ``run`` and ``create``, and the pod that they ask for: the JSON of a model.pod.PodSpec."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypercontainer.cli import output
from hypercontainer.cli.ports import looks_published, published
from hypercontainer.errors import InvalidRequest, Unsupported

PODFILE_ENDINGS = (".json", ".yaml", ".yml")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?|(\d+)b", re.IGNORECASE | re.ASCII)

# Docker's flags that a later version takes: named, so that nobody wonders.  True: the flag has a value.
_LATER = {
    "-v/--volume": True, "--mount": True, "--volumes-from": True, "--tmpfs": True, "--device": True,
    "--restart": True, "--privileged": False, "--cap-add": True, "--cap-drop": True, "--security-opt": True,
    "--ulimit": True, "--sysctl": True, "--shm-size": True, "--add-host": True, "--link": True, "--ip": True,
    "--mac-address": True, "--network-alias": True, "--pids-limit": True, "--log-driver": True,
    "--log-opt": True, "--health-cmd": True, "--gpus": True, "--init": False,
}  # fmt: skip


class _Later(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *words: Any) -> None:
        name = str(words[2] or self.option_strings[-1])
        raise Unsupported(f"{name} is not supported yet", hint=f"see `{parser.prog} --help` for what is")


class _PortOrPodfile(argparse.Action):
    """``-p`` is Docker's --publish and the mission's --podfile; a port never looks like a file's name."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: Any = None) -> None:
        if looks_published(value):
            namespace.publish = [*(namespace.publish or []), value]
        else:
            namespace.podfile = value


def add_flags(parser: argparse.ArgumentParser) -> None:
    _add_process_flags(parser.add_argument_group("the process"))
    _add_machine_flags(parser.add_argument_group("the pod and its machine"))
    _add_network_flags(parser.add_argument_group("network"))
    _add_image_flags(parser.add_argument_group("image"))
    for names, takes_value in _LATER.items():
        parser.add_argument(
            *names.split("/"), action=_Later, nargs=None if takes_value else 0, help=argparse.SUPPRESS
        )


def _add_process_flags(group: Any) -> None:
    group.add_argument("-i", "--interactive", action="store_true", help="keep stdin open")
    group.add_argument("-t", "--tty", action="store_true", help="give it a terminal (and stdin)")
    group.add_argument(
        "-e", "--env", action="append", metavar="NAME[=VALUE]", help="set, or pass on, a variable"
    )
    group.add_argument("--env-file", action="append", metavar="FILE", help="variables, one a line")
    group.add_argument("-w", "--workdir", default="", metavar="DIR", help="where it starts")
    group.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="names or numbers")
    group.add_argument("--group-add", action="append", metavar="GROUP", help="a further group")
    group.add_argument("--entrypoint", metavar="COMMAND", help="instead of the image's; '' for none")
    group.add_argument("--read-only", action="store_true", help="the root file system cannot be written")
    group.add_argument("--stop-signal", default="", metavar="SIGNAL", help="what `hyper stop` sends first")


def _add_machine_flags(group: Any) -> None:
    group.add_argument("--name", default="", help="of the pod")
    group.add_argument("-h", "--hostname", default="", metavar="NAME", help="of the pod")
    group.add_argument("-m", "--memory", metavar="SIZE", help="of the machine: 64m, 1g, or bytes (128m)")
    cpus = group.add_mutually_exclusive_group()
    cpus.add_argument("--cpus", metavar="NUMBER", help="vCPUs; a fraction is rounded up (1)")
    cpus.add_argument("--cpu", metavar="NUMBER", help=argparse.SUPPRESS)  # the original's spelling
    group.add_argument("-l", "--label", action="append", metavar="KEY[=VALUE]", help="note something on it")
    group.add_argument("--rm", action="store_true", help="remove the pod when it has ended")
    group.add_argument("--hypervisor", default="", metavar="NAME", help="kvm, uml, tcg, or auto (auto)")
    group.add_argument(
        "--require-isolation", choices=("any", "hardware"), default="", help="refuse a weaker hypervisor"
    )
    group.add_argument(
        "--podfile", metavar="FILE", help="the pod is described there; also -p FILE (see docs/podfile.md)"
    )


def _add_network_flags(group: Any) -> None:
    group.add_argument(
        "-p", action=_PortOrPodfile, metavar="PORTS", help="as --publish; or as --podfile when it is no port"
    )
    group.add_argument(
        "--publish", action="append", metavar="[[IP:]HOST:]CONTAINER[/udp]", help="a port of the host for it"
    )
    group.add_argument("--network", "--net", default="default", metavar="NAME", help="default or none")
    group.add_argument("--dns", action="append", metavar="ADDRESS", help="a name server")
    group.add_argument("--dns-search", action="append", metavar="DOMAIN", help="a search domain")
    group.add_argument("--dns-option", action="append", metavar="OPTION", help="as in resolv.conf(5)")


def _add_image_flags(group: Any) -> None:
    group.add_argument("--pull", choices=("missing", "always", "never"), default="missing", help="(missing)")
    group.add_argument("--platform", default="", metavar="OS/ARCH", help="of the image to pull")


def from_arguments(arguments: argparse.Namespace, *, attached: bool) -> dict[str, Any]:
    """The pod that a command line or its podfile asks for; raises InvalidRequest."""
    podfile = podfile_of(arguments)
    if podfile is None:
        return _from_flags(arguments, attached=attached)
    from hypercontainer.cli import podfile as podfiles

    return _overridden(podfiles.read(podfile), arguments, podfile)


def podfile_of(arguments: argparse.Namespace) -> Path | None:
    """The podfile of a command line: --podfile, -p, or an only word that looks like one."""
    words = arguments.words
    if arguments.podfile is not None:
        if words:
            raise InvalidRequest(f"podfile {arguments.podfile!r} and image {words[0]!r}: it can be only one")
        return Path(arguments.podfile)
    if len(words) == 1 and words[0].lower().endswith(PODFILE_ENDINGS):
        return Path(words[0])
    return None


def _overridden(spec: dict[str, Any], arguments: argparse.Namespace, podfile: Path) -> dict[str, Any]:
    """``spec`` with the few flags that make sense beside a podfile."""
    _refuse_flags_beside(arguments, podfile)
    if arguments.name:
        spec["name"] = arguments.name
    if arguments.hypervisor:
        spec["hypervisor"] = arguments.hypervisor
    if arguments.require_isolation:
        spec["require_isolation"] = arguments.require_isolation
    spec["remove"] = arguments.rm
    return spec


def _refuse_flags_beside(arguments: argparse.Namespace, podfile: Path) -> None:
    elsewhere = (
        "env", "env_file", "workdir", "user", "group_add", "entrypoint", "read_only", "stop_signal",
        "hostname", "memory", "cpus", "cpu", "label", "publish", "dns", "dns_search", "dns_option",
        "interactive", "tty",
    )  # fmt: skip
    for name in elsewhere:
        if getattr(arguments, name):
            flag = "--" + name.replace("_", "-")
            raise InvalidRequest(f"{flag} is said in the podfile {str(podfile)!r} when there is one")


def _from_flags(arguments: argparse.Namespace, *, attached: bool) -> dict[str, Any]:
    if not arguments.words:
        raise InvalidRequest("there is no image and no podfile", hint=f"see `hyper {arguments.verb} --help`")
    spec: dict[str, Any] = {
        "containers": [_container(arguments, attached=attached)],
        "name": arguments.name,
        "hostname": arguments.hostname,
        "hypervisor": arguments.hypervisor or "auto",
        "require_isolation": arguments.require_isolation or "any",
        "network": _network(arguments.network),
        "ports": [mapping for text in arguments.publish or [] for mapping in published(text)],
        "dns": arguments.dns or [],
        "dns_search": arguments.dns_search or [],
        "dns_options": arguments.dns_option or [],
        "labels": labels(arguments.label or []),
        "remove": arguments.rm,
    }
    if (vcpus := arguments.cpus or arguments.cpu) is not None:
        spec["vcpus"] = _vcpus(vcpus)
    if arguments.memory is not None:
        spec["memory_mib"] = memory_mib(arguments.memory)
    return spec


def _container(arguments: argparse.Namespace, *, attached: bool) -> dict[str, Any]:
    image, *command = arguments.words
    container: dict[str, Any] = {
        "image": image,
        "working_directory": arguments.workdir,
        "user": arguments.user,
        "groups": arguments.group_add or [],
        "environment": environment(arguments.env or [], arguments.env_file or []),
        "terminal": arguments.tty,
        "stdin": arguments.interactive or (arguments.tty and attached),
        "read_only": arguments.read_only,
        "stop_signal": arguments.stop_signal,
        "labels": labels(arguments.label or []),
    }
    if arguments.entrypoint is not None:  # as Docker: the image's CMD was meant for the image's ENTRYPOINT
        container["entrypoint"] = [arguments.entrypoint] if arguments.entrypoint else []
        container["command"] = command
    elif command:
        container["command"] = command
    return container


def _network(name: str) -> str:
    if name in {"default", "bridge"}:  # Docker calls its default network "bridge"
        return "default"
    if name == "none":
        return "none"
    raise Unsupported(f"network {name!r} is not supported yet", hint="--network is 'default' or 'none'")


def memory_mib(text: str) -> int:
    """Docker's sizes (``128m``, ``1g``, plain bytes), rounded up to MiB, the unit that machines have."""
    match = _MEMORY.fullmatch(text.strip())
    if not match:
        raise InvalidRequest(f"invalid memory size {text!r}", hint="for example 64m, 1.5g, or bytes")
    number, unit = match.group(1) or match.group(3), (match.group(2) or "").lower()
    mib = math.ceil(float(number) * _UNITS[unit] / (1 << 20))
    if not mib:
        raise InvalidRequest(f"invalid memory size {text!r}: a machine needs some")
    return mib


def _vcpus(text: str) -> int:
    try:
        number = float(text)
        whole = math.ceil(number)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"invalid number of CPUs {text!r}", hint="for example 2") from error
    if not 1 <= whole <= 255:
        raise InvalidRequest(f"invalid number of CPUs {text!r}: a machine has 1 to 255")
    if whole != number:
        output.note(f"{text} CPUs are rounded up to {whole} vCPU{'s' if whole > 1 else ''}")
    return whole


def labels(pairs: Iterable[str]) -> dict[str, str]:
    parts = [pair.partition("=") for pair in pairs]
    if any(not key for key, _, _ in parts):
        raise InvalidRequest("a label has no name", hint="for example --label team=web")
    return {key: value for key, _, value in parts}


def environment(pairs: Iterable[str], files: Iterable[str] = ()) -> list[str]:
    """``NAME=VALUE`` as asked, files first, as Docker has it; a bare NAME is passed on if it is set here."""
    wanted = [line for file in files for line in _environment_file(file)]
    wanted += [(pair, "--env") for pair in pairs]
    found: dict[str, str] = {}
    for pair, origin in wanted:
        name, equals, value = pair.partition("=")
        if not name or (origin != "--env" and any(c.isspace() for c in name)):
            raise InvalidRequest(f"invalid environment variable {pair!r} ({origin})", hint="it is NAME=VALUE")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return [f"{name}={value}" for name, value in found.items()]


def _environment_file(name: str) -> list[tuple[str, str]]:
    try:
        text = Path(name).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read environment file {name!r}: {_reason(error)}") from error
    lines = ((line.lstrip(), f"{name}, line {number}") for number, line in enumerate(text.splitlines(), 1))
    return [(line, origin) for line, origin in lines if line and not line.startswith("#")]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not UTF-8"
