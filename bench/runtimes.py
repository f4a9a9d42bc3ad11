"""What is measured: programs with Docker's verbs, each with flags that choose the isolation."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Failure
from hypercontainer.client import Client

IMAGE = "busybox"
TEMPLATE_S = 60


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A way to run an image; ``name`` is what tables call it."""

    name: str
    program: tuple[str, ...]
    flags: tuple[str, ...] = ()  # of ``run``, which choose the isolation
    enter: tuple[str, ...] = ()  # what a client is started by, to be where containers are reached from
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    has_own_kernel: bool = False  # and so its own cache of files

    def run(self, *words: str) -> list[str]:
        """The command line of ``run WORDS``."""
        return [*self.program, "run", *self.flags, *words]

    def call(self, *words: str) -> str:
        """What ``VERB ...`` prints; a failure ends the benchmark."""
        return output([*self.program, *words], self.environment)

    def start(self, name: str, *words: str) -> None:
        """Run ``words`` (flags, image, command) in the background."""
        output(self.run("-d", "--name", name, *words), self.environment)

    def execute(self, name: str, *words: str) -> str:
        return self.call("exec", name, *words)

    def remove(self, *names: str) -> None:
        if names:
            self.call("rm", "-f", *names)

    def address(self, name: str) -> str:
        """Of a container on the default network."""
        return self.call("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name).strip()


@dataclass(frozen=True, kw_only=True)
class HyperRuntime(Runtime):
    """hyper with one of its drivers."""

    driver: str
    socket: Path
    has_templates: bool

    def address(self, name: str) -> str:
        found: str = self.client.pods.get(name).pod.address
        return found

    @property
    def client(self) -> Client:
        return Client(self.socket)

    def warm(self, *, memory_mib: int = 128, network: str = "default") -> None:
        """Run once, and wait for the template of that size, where the driver has templates."""
        output(
            self.run("--rm", "-m", f"{memory_mib}m", "--network", network, IMAGE, "true"), self.environment
        )
        deadline = time.monotonic() + TEMPLATE_S
        while self.has_templates and not self._template(memory_mib, 0 if network == "none" else 1):
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} has made no template of {memory_mib} MiB in {TEMPLATE_S} s")
            time.sleep(0.2)

    def _template(self, memory_mib: int, nics: int) -> bool:
        wanted = (self.driver, memory_mib, nics)
        listed = self.client.templates.list()
        return any((each.hypervisor, each.memory_mib, each.nics) == wanted for each in listed)


def output(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
