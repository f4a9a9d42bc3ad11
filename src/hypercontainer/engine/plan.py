"""From what was asked to what is recorded: pure functions from specs and images to names and records.

No I/O here, so that a test compares a plan with what was meant; ``messages`` goes on to the guest.
"""

from __future__ import annotations

import re
import secrets
import signal
from collections.abc import Iterable, Sequence

import msgspec

from hypercontainer.engine import volumes
from hypercontainer.engine.records import ContainerRecord, PodRecord
from hypercontainer.errors import Conflict, InvalidRequest
from hypercontainer.model.image import Image, Reference
from hypercontainer.model.machine import Capabilities
from hypercontainer.model.pod import AddedContainer, ContainerSpec, PodSpec, RestartPolicy, VolumeSpec

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_MEMORY_LIMIT_MIB = 1 << 20


# --- Names ---


def new_id() -> str:
    """A pod's or container's id: 256 random bits in hexadecimal, as Docker's."""
    return secrets.token_hex(32)


def pod_name(spec: PodSpec) -> str:
    """The asked name, or as the original made it: the image, its tag unless latest, ten digits."""
    if spec.name:
        return spec.name
    if not spec.containers:
        return f"vm-{secrets.randbelow(10**10):010}"
    reference = Reference.parse(spec.containers[0].image) if "@" not in spec.containers[0].image else None
    base = reference.repository.rpartition("/")[2] if reference else "pod"
    tag = f"-{reference.tag}" if reference and reference.tag not in {"", "latest"} else ""
    return f"{base}{tag}-{secrets.randbelow(10**10):010}"


def container_name(spec: PodSpec, pod: str, index: int) -> str:
    """The asked name; the pod's for the only container of a pod; else the pod's and a number."""
    asked = spec.containers[index].name
    if asked:
        return asked
    return pod if len(spec.containers) == 1 else f"{pod}-{index}"


# --- Checks and records ---


def check_pod(spec: PodSpec, capabilities: Capabilities, driver: str) -> None:
    """Refuse what this driver cannot run, before anything is made."""
    if spec.memory_mib < capabilities.min_memory_mib:
        raise InvalidRequest(
            f"{spec.memory_mib} MiB of memory is too little for a machine of {driver}",
            hint=f"ask for at least {capabilities.min_memory_mib} MiB",
        )
    if spec.memory_mib > _MEMORY_LIMIT_MIB:
        raise InvalidRequest(f"{spec.memory_mib} MiB of memory is more than any host has")
    if spec.vcpus > capabilities.max_vcpus:
        raise InvalidRequest(
            f"{spec.vcpus} vCPUs are more than {driver} can give a machine",
            hint=f"ask for at most {capabilities.max_vcpus}, or choose another --hypervisor",
        )
    for container in spec.containers:
        check_restart(container.restart, removed=spec.remove)
    check_hostname(spec.hostname)
    volumes.check_volumes(spec, capabilities, driver)


def check_restart(policy: RestartPolicy, *, removed: bool) -> None:
    """What is removed at its end cannot be started again, and only a failure has a number of attempts."""
    if removed and policy.name != "no":
        raise InvalidRequest(
            f"the pod is to be removed when it has ended, and its restart policy is {policy.name}",
            hint="leave out one of --rm and --restart",
        )
    if policy.max_retries and policy.name != "on-failure":
        raise InvalidRequest(
            f"the restart policy {policy.name} has no number of attempts",
            hint="on-failure has one: on-failure:5",
        )


def check_hostname(hostname: str) -> None:
    """A host name is at most 63 characters of dot-separated DNS labels (RFC 1123)."""
    if not hostname:
        return
    if len(hostname) > 63 or not all(_LABEL.fullmatch(label) for label in hostname.split(".")):
        raise InvalidRequest(
            f"{hostname!r} is no valid hostname",
            hint="letters, digits and inner hyphens, labels separated by dots, at most 63 characters",
        )


def added_container_name(spec: ContainerSpec, pod: PodRecord, index: int) -> str:
    """The asked name, or the pod's and a number that no container of it has had."""
    return spec.name or f"{pod.name}-{index}"


def with_volumes(spec: PodSpec, added: AddedContainer) -> tuple[ContainerSpec, PodSpec]:
    """A container with the names that the pod's volumes have, and ``spec`` with what it brings.

    What is the same outside of the pod is one volume, whatever it is called.  Conflict when the pod has
    another one of such a name.
    """
    own = {volume.name: volume for volume in spec.volumes}
    names: dict[str, str] = {}
    for volume in added.volumes:
        names[volume.name] = known = _known_as(volume, own.values()) or volume.name
        if known == volume.name and not volumes.is_same(own.setdefault(known, volume), volume):
            raise Conflict(f"the pod has another volume {volume.name!r}", hint="choose another name")
    mounts = tuple(
        msgspec.structs.replace(mount, volume=names.get(mount.volume, mount.volume))
        for mount in added.container.mounts
    )
    return (
        msgspec.structs.replace(added.container, mounts=mounts),
        msgspec.structs.replace(spec, volumes=tuple(own.values())),
    )


def _known_as(volume: VolumeSpec, own: Iterable[VolumeSpec]) -> str:
    """What the pod calls ``volume`` of the host or the network, if it has it."""
    if volume.kind == "pod":
        return ""
    return next((other.name for other in own if volumes.is_same(other, volume)), "")


def container_record(
    spec: ContainerSpec, image: Image, *, pod: PodRecord, index: int, name: str, created: float
) -> ContainerRecord:
    """A container as it will be run: what the spec says over what the image says, by Docker's rules."""
    config = image.config
    return ContainerRecord(
        id=new_id(),
        pod=pod.id,
        index=index,
        name=name,
        spec=spec,
        image_id=image.id,
        argv=_argv(spec, image),
        environment=_environment(spec, config.env),
        working_directory=working_directory(spec.working_directory or config.working_dir),
        user=spec.user or config.user,
        stop_signal=signal_number(spec.stop_signal or config.stop_signal or "TERM"),
        created=created,
        image_volumes=volumes.image_volumes(spec, image),
    )


def _argv(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    if spec.entrypoint is not None:  # an entrypoint of one's own drops the image's CMD
        argv = (*(e for e in spec.entrypoint if e), *(spec.command or ()))
    else:
        arguments = image.config.cmd if spec.command is None else spec.command
        argv = (*image.config.entrypoint, *arguments)
    if not argv:
        raise InvalidRequest(f"image {spec.image} has no command of its own", hint="give one after its name")
    if any("\0" in word for word in argv):
        raise InvalidRequest("a command cannot hold a NUL character")
    return argv


def _environment(spec: ContainerSpec, image: Sequence[str]) -> tuple[str, ...]:
    merged: dict[str, str] = {}
    terminal = ("TERM=xterm",) if spec.terminal else ()
    for assignment in (DEFAULT_PATH, *terminal, *image, *spec.environment):
        name, _, _ = assignment.partition("=")
        merged[name] = assignment
    return tuple(merged.values())


def working_directory(path: str) -> str:
    if path and not path.startswith("/"):
        raise InvalidRequest(f"the working directory {path!r} is not absolute")
    return path or "/"


def signal_number(text: str) -> int:
    """``"15"``, ``"TERM"`` or ``"SIGTERM"`` as a number; raises InvalidRequest."""
    if text.isdecimal():
        number = int(text)
    else:
        name = text.upper().removeprefix("SIG")
        if match := re.fullmatch(r"RTMIN\+(\d+)", name):
            number = 34 + int(match[1])
        else:
            known = signal.Signals.__members__.get(f"SIG{name}")
            number = int(known) if known else 0
    if not 1 <= number <= 64:
        raise InvalidRequest(f"{text!r} is no signal", hint="for example TERM, SIGKILL or 9")
    return number
