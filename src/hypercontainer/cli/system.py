"""Verbs about the whole: info, version, doctor, inspect."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command
from hypercontainer.client import Client, Record, is_listening
from hypercontainer.config import Paths
from hypercontainer.errors import HyperError, NotFound


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("table", "json"), default="table", help="'json' for programs")


# --- info, version ---


def _info(arguments: argparse.Namespace) -> int:
    info = Client.default().system.info()
    if arguments.format == "json":
        print(json.dumps(info))
        return 0
    running = f"{info.running} running, {info.pods - info.running} created"
    for name, value in (
        ("Pods", f"{info.pods} ({running})"),
        ("Containers", info.containers),
        ("Images", info.images),
        ("Templates", info.templates),
        ("Pool", _pool(info)),
        (
            "Hypervisor",
            f"{info.hypervisor} (isolation: {info.isolation})" if info.hypervisor else "none works",
        ),
        ("Guest Kernel", info.kernel),
        ("Network", info.network),
        ("Hyper Root Dir", info.root),
        ("Hyper Version", info.version),
        ("Kernel Version", info.host_kernel),
        ("Operating System", info.operating_system),
        ("CPUs", info.cpus),
        ("Total Memory", output.bytes_size(info.memory)),
    ):
        print(f"{name}: {value}")
    return 0


def _pool(info: Record) -> str:
    if not info.pool_memory_mib:
        return "off"
    return f"{info.pool_machines} machines wait ({info.pool_mib} of {info.pool_memory_mib} MiB)"


def _version_arguments(parser: argparse.ArgumentParser) -> None:
    _format(parser)
    parser.add_argument("--short", action="store_true", help=argparse.SUPPRESS)


def _version(arguments: argparse.Namespace) -> int:
    """Also without a daemon: it is not started only to be asked for its version."""
    ours = _own_version()
    if arguments.short:
        print(f"hyper version {ours}")
        return 0
    paths = Paths.default()
    daemon = Client(paths.socket).system.version() if is_listening(paths) else None
    if arguments.format == "json":
        print(json.dumps({"client": {"version": ours}, "daemon": daemon}))
        return 0
    print(f"Client:\n Version:       {ours}")
    if daemon is None:
        print(f"Daemon:          does not run (it would listen at {paths.socket})")
        return 0
    print("Daemon:")
    for name, value in (
        ("Version", daemon.version),
        ("API version", daemon.api),
        ("Guest kernel", daemon.kernel),
        ("Python", daemon.python),
        ("Platform", daemon.platform),
    ):
        print(f" {name + ':':<14} {value}")
    return 0


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hypercontainer")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


# --- doctor ---


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    _format(parser)
    parser.add_argument("--quick", action="store_true", help="do not boot machines to measure")


def _doctor(arguments: argparse.Namespace) -> int:
    """Status 0 when some hypervisor works, 1 when none does."""
    report = Client.default().system.doctor(measure=not arguments.quick)
    works = any(driver.works for driver in report.drivers)
    if arguments.format == "json":
        print(json.dumps(report))
        return 0 if works else 1
    _print_drivers(report.drivers)
    print()
    _print_checks(report.checks)
    print()
    _print_verdict(report.drivers)
    return 0 if works else 1


def _print_drivers(drivers: Sequence[Record]) -> None:
    print(output.styled("Hypervisors", "bold"))
    width = max((len(driver.name) for driver in drivers), default=0)
    for driver in drivers:
        mark = output.styled("✓", "green") if driver.works else output.styled("✗", "red")
        boot = f"boots in {driver.boot_ms:.0f} ms" if driver.boot_ms is not None else "works"
        said = boot if driver.works else driver.reason
        chosen = output.styled("  <- auto takes this", "cyan") if driver.chosen else ""
        print(f"  {mark} {driver.name:<{width}}  {driver.isolation + ' isolation':<18}  {said}{chosen}")


def _print_checks(checks: Sequence[Record]) -> None:
    print(output.styled("This host", "bold"))
    width = max((len(check.subject) for check in checks), default=0)
    for check in checks:
        mark = output.styled("✓", "green") if check.ok else output.styled("!", "yellow")
        print(f"  {mark} {check.subject:<{width}}  {check.found}")
        if check.hint and not check.ok:
            print(f"    {'':<{width}}  {output.styled('-> ' + check.hint, 'cyan')}")


_MEANING = {
    "hardware": "a boundary that the CPU enforces",
    "process": "the guest is a process of this host: no hardware boundary",
    "emulated": "the guest's CPU is emulated: slow, and QEMU does not call it a security boundary",
}


def _print_verdict(drivers: Sequence[Record]) -> None:
    chosen = next((driver for driver in drivers if driver.chosen), None)
    if chosen is None:
        print(output.styled("No hypervisor works here: pods cannot be started.", "red"))
        return
    meaning = _MEANING.get(chosen.isolation, "")
    print(f"Pods run under {output.styled(chosen.name, 'bold')}; isolation: {chosen.isolation} ({meaning}).")


# --- inspect ---


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type", choices=("pod", "container", "image", "exec"), help="when one name is several things"
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="pods, containers, images or ids of execs")


def _inspect(arguments: argparse.Namespace) -> int:
    client = Client.default()
    found: list[Any] = []
    status = 0
    for name in arguments.names:
        try:
            found.append(_inspected(client, name, arguments.type))
        except HyperError as problem:
            output.error(problem)
            status = 1
    print(json.dumps(found, indent=4, ensure_ascii=False))
    return status


def _inspected(client: Client, name: str, kind: str | None) -> Any:
    ways = {
        "pod": client.pods.get,
        "container": client.containers.get,
        "image": client.images.get,
        "exec": client.execs.get,
    }
    if kind is not None:
        return ways[kind](name)
    for way in ways.values():
        try:
            return way(name)
        except NotFound:
            continue
        except HyperError as problem:
            if problem.code != "invalid_request":  # no possible name of this kind
                raise
    raise NotFound(
        f"there is no pod, container, image or exec {name!r}", hint="see `hyper list` and `hyper images`"
    )


COMMANDS = {
    "info": Command(
        usage="info [--format json]",
        description="Show what hyperd has, what it runs pods with, and the host.",
        arguments=_format,
        run=_info,
    ),
    "version": Command(
        usage="version [--format json]",
        description="Show versions: of this program, of hyperd, and of the kernel that pods boot.",
        arguments=_version_arguments,
        run=_version,
    ),
    "doctor": Command(
        usage="doctor [OPTIONS]",
        description="Check which hypervisors work here and how fast they boot, and what is missing.\n"
        "The exit status is 0 when pods can run.",
        arguments=_doctor_arguments,
        run=_doctor,
        examples="hyper doctor\nhyper doctor --quick --format json",
    ),
    "inspect": Command(
        usage="inspect [--type pod|container|image|exec] NAME...",
        description="Show all about pods, containers, images or execs as an array of JSON.",
        arguments=_inspect_arguments,
        run=_inspect,
        examples="hyper inspect web\nhyper inspect --type image debian",
    ),
}
