"""What this host has, what will be used, and what to install: ``info``, ``version`` and ``doctor``."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from hypercontainer.engine.choice import Drivers
from hypercontainer.engine.host import Host
from hypercontainer.errors import HyperError
from hypercontainer.guest import boot
from hypercontainer.hypervisors.base import Hypervisor
from hypercontainer.model.pod import ContainerSpec, PodSpec
from hypercontainer.model.rest import Check, DoctorView, DriverReport, InfoView, VersionView
from hypercontainer.network.probe import probe

API_VERSION = "v1"
_PROGRAMS = (
    ("sqfstar", "squashfs-tools", "turns images into disks"),
    ("mke2fs", "e2fsprogs", "formats the writable disks of pods"),
)
_LITTLE_SPACE = 1 << 30  # bytes free below which doctor warns


async def info(host: Host, *, pods: int, running: int, containers: int) -> InfoView:
    chosen = await _automatic(host)
    return InfoView(
        version=_own_version(),
        root=str(host.paths.state),
        pods=pods,
        running=running,
        containers=containers,
        images=len(host.images.list()),
        templates=len(host.templates.all()),
        pool_machines=len(host.pool.waiting),
        pool_mib=host.pool.waiting_mib,
        pool_memory_mib=host.settings.pool_memory_mib,
        hypervisor=chosen.name if chosen else "",
        isolation=str(chosen.capabilities.isolation) if chosen else "",
        kernel=_kernel(host, chosen),
        network=_network(host),
        host_kernel=platform.release(),
        operating_system=_operating_system(),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )


def version(host: Host) -> VersionView:
    return VersionView(
        version=_own_version(),
        api=API_VERSION,
        kernel=_kernel(host, None),
        python=platform.python_version(),
        platform=f"{platform.system().lower()}/{platform.machine()}",
    )


async def examine(host: Host, *, measure: bool) -> DoctorView:
    """``measure`` boots each driver that works, one after the other, to say how fast it is."""
    chosen = await _automatic(host)
    reports = [await _report(host, driver, chosen, measure=measure) for driver in host.drivers.automatic]
    checks = [*_program_checks(), _space_check(host.paths.state), _space_check(Path("/dev/shm"))]  # noqa: S108
    checks += [_template_check(host), _pool_check(host)]
    network = [
        Check(subject=each.name, ok=each.is_good, found=each.detail or "works", hint=each.hint)
        for each in await probe(host.settings)
    ]
    return DoctorView(drivers=tuple(reports), checks=(*checks, *network))


async def _automatic(host: Host) -> Hypervisor | None:
    spec = PodSpec(containers=(ContainerSpec(image="any"),))
    try:
        return await host.drivers.choose(spec, default=host.settings.hypervisor)
    except HyperError:
        return None


async def _report(
    host: Host, driver: Hypervisor, chosen: Hypervisor | None, *, measure: bool
) -> DriverReport:
    reason = await host.drivers.missing(driver)
    boot_ms = None
    if measure and reason is None:
        boot_ms, reason = await _boot(host.drivers, driver, host.paths.cache)
    return DriverReport(
        name=driver.name,
        isolation=str(driver.capabilities.isolation),
        works=reason is None,
        reason=reason or "",
        chosen=chosen is not None and driver.name == chosen.name,
        boot_ms=boot_ms,
    )


async def _boot(drivers: Drivers, driver: Hypervisor, cache: Path) -> tuple[float | None, str | None]:
    try:
        return await driver.measure(cache=cache) * 1e3, None
    except HyperError as error:
        return None, error.message


def _network(host: Host) -> str:
    if os.geteuid() == 0:
        return f"bridge {host.settings.bridge}, {host.settings.subnet}"
    return "passt, one for each pod"


def _kernel(host: Host, driver: Hypervisor | None) -> str:
    target = driver.capabilities.kernel if driver else "um"
    try:
        return boot.find_kernel(target, override=host.settings.kernel).version
    except HyperError:
        return ""


def _program_checks() -> list[Check]:
    checks = []
    for name, package, purpose in _PROGRAMS:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        found = path or f"not installed; it {purpose}"
        checks.append(
            Check(subject=name, ok=path is not None, found=found, hint=f"apt-get install {package}")
        )
    return checks


def _space_check(path: Path) -> Check:
    free = shutil.disk_usage(path).free
    return Check(
        subject=f"space in {path}",
        ok=free > _LITTLE_SPACE,
        found=f"{free / (1 << 30):.1f} GiB free",
        hint="free some: pods and images live there",
    )


def _template_check(host: Host) -> Check:
    templates = host.templates.all()
    size = sum(template.size for template in templates) >> 20
    found = f"{len(templates)} kept, {size} MiB" if host.settings.templates else "off: every machine boots"
    return Check(subject="templates", ok=True, found=found, hint="")


def _pool_check(host: Host) -> Check:
    """It is no fault that it is not full: it may be filling, or in use."""
    if not host.pool.is_on:
        return Check(subject="pool", ok=True, found="off: no machine is started ahead", hint="")
    count = len(host.pool.waiting)
    found = f"{count} machines wait, {host.pool.waiting_mib} of {host.settings.pool_memory_mib} MiB"
    return Check(subject="pool", ok=True, found=found, hint="")


def _own_version() -> str:
    from importlib.metadata import version  # late: it costs hyperd's start 10 ms, and few ask

    return version("hypercontainer")


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
