"""Xen's tools and domains as the driver needs them: what is missing of them, and which domain is whose."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from hypercontainer.errors import HypervisorError, Unavailable
from hypercontainer.hypervisors import _loops
from hypercontainer.hypervisors._xenstore import SOCKET, Store, StoreError
from hypercontainer.process import find_program, run

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # where xl and tc are, and a user's PATH is not
PACKAGE = "xen-utils"
HYPERVISOR = Path("/sys/hypervisor")
CAPABILITIES = Path("/proc/xen/capabilities")
DEVICES = {
    "/dev/xen/evtchn": "xen-evtchn",
    "/dev/xen/gntdev": "xen-gntdev",
    "/dev/xen/privcmd": "xen-privcmd",
    "/dev/net/tun": "tun",
    str(_loops.CONTROL): "loop",
}


def environment() -> dict[str, str]:
    """Of xl and of what it runs."""
    return {"PATH": f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM}"}


async def xl(*words: str) -> str:
    """What ``xl words`` prints; raises HypervisorError with its last words."""
    try:
        output = await run([find_program("xl", package=PACKAGE), *words], environment=environment())
    except Unavailable as error:
        raise HypervisorError(error.message, hint=error.hint) from error
    return output.decode(errors="replace")


# --- Domains ---


def name_of(run_dir: Path) -> str:
    """The domain of the machine in ``run_dir`` is known by its name, in every daemon."""
    return f"hyper-{hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:24]}"


def find(run_dir: Path) -> int | None:
    """The domain of the machine in ``run_dir``, if there is one."""
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), Store() as store:
        return store.find_domain(name_of(run_dir))
    return None


async def destroy(run_dir: Path) -> None:
    """End the domain of ``run_dir``, with its devices and all that XenStore has of it."""
    domain = find(run_dir)
    if domain is None:
        return
    try:
        await xl("destroy", str(domain))
    except HypervisorError:
        if find(run_dir) == domain:  # else it ended by itself
            raise


# --- What is missing ---


def host_missing() -> str | None:
    """What can be seen without a program being run."""
    return _hypervisor_missing() or _privilege_missing() or _tools_missing() or _store_missing()


def _hypervisor_missing() -> str | None:
    if _read(HYPERVISOR / "type") != "xen":
        return "this host does not run on Xen: install xen-system-amd64, and boot its entry"
    return None


def _privilege_missing() -> str | None:
    if not CAPABILITIES.exists():
        return "/proc/xen is not there: mount -t xenfs xenfs /proc/xen"
    if "control_d" not in _read(CAPABILITIES):
        return "this host is a Xen guest and not dom0, so it cannot make machines of its own"
    if os.geteuid() != 0:
        return "Xen's machines are root's: run hyperd as root"
    return None


def _tools_missing() -> str | None:
    for device, module in DEVICES.items():
        if not Path(device).exists():
            return f"there is no {device}: modprobe {module}"
    for program, package in (("xl", PACKAGE), ("xenstore-write", "xenstore-utils"), ("tc", "iproute2")):
        try:
            find_program(program, package=package)
        except Unavailable as error:
            return f"{error.message}: {error.hint}"
    return None


def _store_missing() -> str | None:
    try:
        with Store() as store:
            if store.read("/local/domain/0/domid") is None:
                return "XenStore does not know this domain: run xen-init-dom0"
    except (OSError, StoreError):
        return f"xenstored does not answer on {SOCKET}: systemctl start xen"
    return None


async def version_missing() -> str | None:
    """xl is made for one version of the hypervisor, and refuses others."""
    try:
        await xl("info")
    except HypervisorError as error:
        version = ".".join(_read(HYPERVISOR / "version" / part) for part in ("major", "minor"))
        return f"xl and the hypervisor, which is Xen {version}, do not fit: {error.message}"
    return None


async def has_hardware() -> bool:
    """Whether the CPU's virtualization, with nested paging, is there for PVH."""
    capabilities = [line for line in (await xl("info")).splitlines() if line.startswith("virt_caps")]
    return bool(capabilities) and {"hvm", "hap"} <= set(capabilities[0].split())


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
