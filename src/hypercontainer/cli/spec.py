"""The flags of ``run`` and ``create``, and the pod that they ask for: the JSON of a model.pod.PodSpec."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable

from hypercontainer.cli import output
from hypercontainer.cli.ports import looks_published, published
from hypercontainer.cli.sizes import memory_mib, size_bytes
from hypercontainer.errors import InvalidRequest, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

PODFILE_ENDINGS = (".json", ".yaml", ".yml")

# Docker's flags that a later version takes: named, so that nobody wonders.  True: the flag has a value.
_LATER = {
    "--volumes-from": True, "--device": True, "--privileged": False, "--cap-add": True, "--cap-drop": True,
    "--security-opt": True, "--link": True, "--network-alias": True, "--health-cmd": True, "--gpus": True,
}  # fmt: skip

# Flags that make sense beside a podfile; every other one is said in it.
_BESIDE_PODFILE = {
    "name", "rm", "hypervisor", "require_isolation", "podfile", "pull", "platform", "detach", "timeline",
    "detach_keys", "sig_proxy", "words", "verb", "init",
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
    _add_limit_flags(parser.add_argument_group("limits, restarts and logs"))
    _add_storage_flags(parser.add_argument_group("storage"))
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
    group.add_argument(
        "--stop-timeout", type=_seconds, metavar="SECONDS", help="before `hyper stop` kills it (10)"
    )
    group.add_argument("--init", action="store_true", help=argparse.SUPPRESS)  # a pod always has one


def _seconds(text: str) -> int:
    if not 0 <= int(text) <= 86400:
        raise ValueError(text)
    return int(text)


_seconds.__name__ = "number of seconds from 0 to 86400"  # argparse's message names it


def _add_limit_flags(group: Any) -> None:
    group.add_argument("--ulimit", action="append", metavar="NAME=SOFT[:HARD]", help="such as nofile=1024")
    group.add_argument("--pids-limit", type=int, metavar="NUMBER", help="of its processes and threads")
    group.add_argument(
        "--sysctl", action="append", metavar="NAME=VALUE", help="a kernel parameter of the pod"
    )
    group.add_argument(
        "--restart", default="no", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped (no)"
    )
    group.add_argument("--log-driver", default="", metavar="DRIVER", help="json-file or none (json-file)")
    group.add_argument(
        "--log-opt", action="append", metavar="NAME=VALUE", help="max-size=SIZE, max-file=NUMBER"
    )


def _add_storage_flags(group: Any) -> None:
    group.add_argument(
        "-v", "--volume", action="append", metavar="[WHAT:]PATH[:ro]",
        help="a directory of the host (/DIR, ./DIR), or storage of the pod (NAME, or none)",
    )  # fmt: skip
    group.add_argument(
        "--mount",
        action="append",
        metavar="KEY=VALUE,...",
        help="the same in words: type=bind,src=...,dst=...",
    )
    group.add_argument("--tmpfs", action="append", metavar="PATH[:OPTIONS]", help="a file system in memory")
    group.add_argument("--shm-size", metavar="SIZE", help="of /dev/shm (64m)")


def _add_machine_flags(group: Any) -> None:
    group.add_argument("--name", default="", help="of the pod")
    group.add_argument("-h", "--hostname", default="", metavar="NAME", help="of the pod")
    add_size_flags(group)
    group.add_argument("-l", "--label", action="append", metavar="KEY[=VALUE]", help="note something on it")
    group.add_argument("--rm", action="store_true", help="remove the pod when it has ended")
    group.add_argument("--hypervisor", default="", metavar="NAME", help="kvm, xen, uml, tcg, or auto (auto)")
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
    group.add_argument("--add-host", action="append", metavar="NAME:ADDRESS", help="a line of /etc/hosts")
    group.add_argument("--ip", default="", metavar="ADDRESS", help="its address on hyper's bridge")
    group.add_argument("--mac-address", default="", metavar="MAC", help="of its network interface")


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
    if (name := _podfile_name(arguments)) is None:
        return None
    from pathlib import Path  # late: 7 ms, and most command lines have none

    return Path(name)


def _podfile_name(arguments: argparse.Namespace) -> str | None:
    words: list[str] = arguments.words
    if arguments.podfile is not None:
        if words:
            raise InvalidRequest(f"podfile {arguments.podfile!r} and image {words[0]!r}: it can be only one")
        return str(arguments.podfile)
    return words[0] if len(words) == 1 and words[0].lower().endswith(PODFILE_ENDINGS) else None


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
    for name, value in vars(arguments).items():
        is_said = value is not None and value is not False and value not in ("", "no", "default")
        if is_said and name not in _BESIDE_PODFILE:
            flag = "--" + name.replace("_", "-")
            raise InvalidRequest(f"{flag} is said in the podfile {str(podfile)!r} when there is one")


def _from_flags(arguments: argparse.Namespace, *, attached: bool) -> dict[str, Any]:
    if not arguments.words:
        raise InvalidRequest("there is no image and no podfile", hint=f"see `hyper {arguments.verb} --help`")
    volumes, mounts = _storage(arguments)
    spec: dict[str, Any] = {
        "containers": [_container(arguments, attached=attached) | _said(mounts=mounts)],
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
    spec |= _said(
        volumes=volumes,
        sysctls=_sysctls(arguments.sysctl or []),
        extra_hosts=_extra_hosts(arguments.add_host or []),
        interfaces=_interfaces(arguments),
        shm_bytes=size_bytes(arguments.shm_size, "size of /dev/shm") if arguments.shm_size else 0,
    )
    if (vcpus := arguments.cpus or arguments.cpu) is not None:
        spec["vcpus"] = _vcpus(vcpus)
    if arguments.stop_timeout is not None:
        spec["stop_timeout_s"] = arguments.stop_timeout
    if arguments.memory is not None:
        spec["memory_mib"] = memory_mib(arguments.memory)
    return spec


def _said(**words: Any) -> dict[str, Any]:
    """What is not empty: a spec's defaults need no words."""
    return {key: value for key, value in words.items() if value}


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
    container |= _said(
        limits=_limits(arguments.ulimit or []),
        pids=_pids(arguments.pids_limit),
        restart=_restart(arguments),
        log=_log(arguments),
    )
    if arguments.entrypoint is not None:  # as Docker: the image's CMD was meant for the image's ENTRYPOINT
        container["entrypoint"] = [arguments.entrypoint] if arguments.entrypoint else []
        container["command"] = command
    elif command:
        container["command"] = command
    return container


# What few command lines say is imported late: the CLI counts milliseconds.


def _storage(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The volumes of the pod, and where the container has them."""
    if not (arguments.volume or arguments.mount or arguments.tmpfs):
        return [], []
    from hypercontainer.cli import mount_flags
    from hypercontainer.cli.mounts import Targets, Volumes, tmpfs

    volumes, targets = Volumes(), Targets()
    mounts = [mount_flags.volume(text, volumes, targets) for text in arguments.volume or []]
    mounts += [mount_flags.mount(text, volumes, targets) for text in arguments.mount or []]
    mounts += [tmpfs(text, targets) for text in arguments.tmpfs or []]
    return volumes.all(), mounts


def _limits(texts: list[str]) -> list[dict[str, Any]]:
    if not texts:
        return []
    from hypercontainer.cli.limits import parse_limit

    return [parse_limit(text) for text in texts]


def _log(arguments: argparse.Namespace) -> dict[str, Any]:
    if not (arguments.log_driver or arguments.log_opt):
        return {}
    from hypercontainer.cli import log_options

    return log_options.log(arguments.log_driver, _pairs(arguments.log_opt or [], "log option"))


def _extra_hosts(texts: list[str]) -> list[str]:
    if not texts:
        return []
    from hypercontainer.cli.addresses import extra_host

    return [extra_host(text) for text in texts]


def _pids(number: int | None) -> int:
    """-1 and 0 are Docker's "unlimited"."""
    if number is not None and not -1 <= number <= 1 << 22:
        raise InvalidRequest(f"invalid number of processes {number}", hint="1 to 4194304, or -1 for no limit")
    return max(0, number or 0)


def _restart(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.restart == "no":
        return {}
    from hypercontainer.cli.limits import parse_restart

    policy = parse_restart(arguments.restart)
    if arguments.rm:
        raise InvalidRequest("--rm and --restart contradict each other")
    return policy


def _sysctls(pairs: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if words := _pairs(pairs, "kernel parameter"):
        from hypercontainer.cli.limits import merge_sysctls

        merge_sysctls(found, words)
    return found


def _interfaces(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if not (arguments.ip or arguments.mac_address):
        return []
    from hypercontainer.cli import addresses

    nic = _said(
        address=addresses.interface(arguments.ip) if arguments.ip else "",
        mac=addresses.mac(arguments.mac_address) if arguments.mac_address else "",
    )
    if arguments.network == "none":
        raise InvalidRequest("network 'none' has no interface for --ip or --mac-address")
    return [nic]


def _pairs(words: Iterable[str], what: str) -> dict[str, str]:
    """``NAME=VALUE`` words; the last of a name holds, as Docker has it."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise InvalidRequest(f"invalid {what} {word[:60]!r}", hint="it is NAME=VALUE")
        found[name] = value
    return found


def _network(name: str) -> str:
    if name in {"default", "bridge"}:  # Docker calls its default network "bridge"
        return "default"
    if name == "none":
        return "none"
    raise Unsupported(f"network {name!r} is not supported yet", hint="--network is 'default' or 'none'")


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
        with open(name, encoding="utf-8-sig") as file:  # noqa: PTH123
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read environment file {name!r}: {_reason(error)}") from error
    lines = ((line.lstrip(), f"{name}, line {number}") for number, line in enumerate(text.splitlines(), 1))
    return [(line, origin) for line, origin in lines if line and not line.startswith("#")]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not UTF-8"


def add_size_flags(group: Any) -> None:
    group.add_argument("-m", "--memory", metavar="SIZE", help="of the machine: 64m, 1g, or bytes (128m)")
    cpus = group.add_mutually_exclusive_group()
    cpus.add_argument("--cpus", metavar="NUMBER", help="vCPUs; a fraction is rounded up (1)")
    cpus.add_argument("--cpu", metavar="NUMBER", help=argparse.SUPPRESS)  # the original's spelling


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """The pod without containers that ``hyper vm`` asks for."""
    spec: dict[str, Any] = {
        "name": arguments.name,
        "hypervisor": arguments.hypervisor or "auto",
        "require_isolation": arguments.require_isolation or "any",
        "network": _network(arguments.network),
    }
    if (vcpus := arguments.cpus or arguments.cpu) is not None:
        spec["vcpus"] = _vcpus(vcpus)
    if arguments.memory is not None:
        spec["memory_mib"] = memory_mib(arguments.memory)
    return spec
