"""Which hypervisor runs a pod: verdicts of the drivers, remembered, and the choice of ``auto``."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from hypercontainer.engine import plan
from hypercontainer.errors import HyperError, Unavailable, Unsupported
from hypercontainer.hypervisors import base
from hypercontainer.hypervisors.base import Hypervisor
from hypercontainer.model.machine import Isolation
from hypercontainer.model.pod import PodSpec


class Drivers:
    """The hypervisor drivers of this host and whether they work."""

    def __init__(self, *, cache: Path) -> None:
        self._cache = cache
        self._works: set[str] = set()
        self._lock = asyncio.Lock()

    @functools.cached_property
    def all(self) -> dict[str, Hypervisor]:
        return {name: driver() for name, driver in base.drivers().items()}

    @property
    def automatic(self) -> list[Hypervisor]:
        """Those that auto may take, best first."""
        return [driver for driver in self.all.values() if driver.order]

    def get(self, name: str) -> Hypervisor:
        return self.all[name] if name in self.all else base.load(name)

    async def missing(self, driver: Hypervisor) -> str | None:
        """Why ``driver`` cannot run here.  That it can is remembered; what lacks may be installed."""
        async with self._lock:
            if driver.name in self._works:
                return None
            self._cache.mkdir(parents=True, exist_ok=True)
            reason = await driver.missing(cache=self._cache)
            if reason is None:
                self._works.add(driver.name)
            return reason

    async def choose(self, spec: PodSpec, *, default: str) -> Hypervisor:
        """The driver for ``spec``; raises Unavailable or Unsupported that says what each one lacks."""
        name = default if spec.hypervisor == "auto" else spec.hypervisor
        if name != "auto":
            driver = self.get(name)
            plan.check_pod(spec, driver.capabilities, driver.name)
            if (reason := await self._refusal(driver, spec)) is not None:
                raise Unsupported(f"hypervisor {name} cannot run this pod: {reason}", hint="see hyper doctor")
            return driver
        return await self._first(spec)

    async def _first(self, spec: PodSpec) -> Hypervisor:
        reasons = []
        misfit: HyperError | None = None
        for driver in self.automatic:
            if (reason := await self._refusal(driver, spec)) is not None:
                reasons.append(f"{driver.name}: {reason}")
                continue
            try:
                plan.check_pod(spec, driver.capabilities, driver.name)
            except HyperError as error:
                misfit = misfit or error
                continue
            return driver
        if misfit is not None:
            raise misfit
        raise Unavailable(f"no hypervisor can run this pod ({'; '.join(reasons)})", hint="see hyper doctor")

    async def _refusal(self, driver: Hypervisor, spec: PodSpec) -> str | None:
        isolation = driver.capabilities.isolation
        if spec.require_isolation == "hardware" and isolation is not Isolation.HARDWARE:
            return f"its isolation is {isolation}, and hardware is required"
        return await self.missing(driver)
