"""A pod in time: created, running, and created again; the one place where its verbs meet its machine.

    create ──▶ Created ──start──▶ Running ──stop, or its containers end──▶ Created ──rm──▶ gone

What was decided is recorded first (``PodRecord.target``, ``machine``, ``lease``), then done by steps
that can be repeated; ``recover`` brings a pod that an earlier daemon left anywhere to where it belongs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from hypercontainer.engine import plan
from hypercontainer.engine.container import Container, Exec
from hypercontainer.engine.execs import Execs
from hypercontainer.engine.host import Host
from hypercontainer.engine.output import OutputLog
from hypercontainer.engine.process import ProcessAttachment, ProcessRun, lost_record
from hypercontainer.engine.records import ContainerRecord, PodRecord, ProcessRecord, despite_full_disk
from hypercontainer.engine.running import Running, before_end, deadline, exec_failure
from hypercontainer.engine.timeline import StartTimeline
from hypercontainer.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    GuestError,
    HyperError,
    InvalidState,
    Unavailable,
)
from hypercontainer.files import remove_tree
from hypercontainer.guest import boot
from hypercontainer.guest.agent import Agent
from hypercontainer.guest.protocol import (
    ForgetProcess,
    GetTimeline,
    Message,
    ShutDown,
    StartProcess,
    Stream,
    Timeline,
)
from hypercontainer.hypervisors.base import Hypervisor, Machine
from hypercontainer.model.machine import MachineConfig, Nic
from hypercontainer.model.pod import ExecSpec
from hypercontainer.model.rest import ContainerState, PodState

logger = logging.getLogger(__name__)

_BOOT_TIMEOUT_S = 60.0
_SHUT_DOWN_TIMEOUT_S = 10.0
_KILLED_TIMEOUT_S = 5.0


class Pod:
    """A pod's record and, while it runs, its machine.  Every verb holds ``lock``."""

    def __init__(self, host: Host, record: PodRecord, containers: list[ContainerRecord]) -> None:
        self.host = host
        self.record = record
        self.directory = host.paths.pods / record.id
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.containers = [Container(c, OutputLog(self._log_path(c.id))) for c in containers]
        self.execs = Execs(host.records, self.directory)
        self.running: Running | None = None
        self.timeline = StartTimeline()
        self.lock = asyncio.Lock()
        self.is_gone = False  # removed, with its storage

    # --- What it is ---

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def state(self) -> PodState:
        if self.running is None or self._has_ended:
            return PodState.CREATED
        return PodState.PAUSED if self.record.paused else PodState.RUNNING

    @property
    def _has_ended(self) -> bool:
        """Whether all its containers have run and ended: then its machine is on its way out."""
        return all(container.record.state is ContainerState.EXITED for container in self.containers)

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def run_dir(self) -> Path:
        return self.host.paths.machines / self.record.machine

    def _log_path(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def running_or_refuse(self, verb: str) -> Running:
        if self.running is None:
            raise InvalidState(
                f"cannot {verb}: pod {self.record.name} is {self.state}",
                hint=f"hyper start {self.record.name}",
            )
        return self.running

    # --- Verbs ---

    async def allocate(self) -> None:
        """Make the storage of a new pod.  No VMM is started."""
        await self.host.disks.create(self.disk, size_mib=self.host.settings.disk_size_mib)

    async def start(self) -> None:
        """Created to Running; on a failure the pod is as it was, and nothing is left."""
        async with self.lock:
            await self._see_end()
            if self.running is not None:
                raise InvalidState(f"pod {self.record.name} is running already")
            if self.record.target == "removed":
                raise InvalidState(f"pod {self.record.name} is being removed")
            self.timeline = StartTimeline()
            self.timeline.mark("start begins")
            self._decide(target="running", reason="", paused=False)
            try:
                await self._bring_up()
            except BaseException as error:
                await asyncio.shield(self._undo_start(error))
                raise

    async def stop(self, *, timeout_s: float) -> None:
        """Running to Created: the stop signal, ``timeout_s`` of grace, the kill, the end of the VM."""
        async with self.lock:
            if self.running is None:
                return
            await self._resume_if_paused()
            self._save(target="created" if self.record.target != "removed" else "removed")
            await self._end_processes(timeout_s)
            await self._tear_down(clean=True)
        await self._remove_if_asked()

    async def remove(self, *, force: bool) -> None:
        """Stop it if need be and forget it, with its storage."""
        async with self.lock:
            await self._see_end()
            if self.running is not None and not force:
                raise Conflict(f"pod {self.record.name} is running", hint="stop it first, or use hyper rm -f")
            self._save(target="removed")
            if self.running is not None:
                for container in self.containers:
                    await self._lose(container, "the pod was removed", killed=True)
                await self._tear_down(clean=False)
        await self._remove_if_asked()

    async def pause(self) -> None:
        async with self.lock:
            running = self.running_or_refuse("pause")
            if self.record.paused:
                raise InvalidState(f"pod {self.record.name} is paused already")
            await running.machine.pause()
            self._save(paused=True)

    async def unpause(self) -> None:
        async with self.lock:
            self.running_or_refuse("unpause")
            if not self.record.paused:
                raise InvalidState(f"pod {self.record.name} is not paused")
            await self._resume_if_paused()

    async def signal(self, number: int) -> None:
        """Signal the main process of every container that runs."""
        self.running_or_refuse("kill")
        for container in self.containers:
            await self.signal_container(container, number)

    async def signal_container(self, container: Container, number: int) -> None:
        self.running_or_refuse("kill")
        if self.record.paused:
            raise InvalidState(f"pod {self.record.name} is paused", hint="unpause it first")
        if container.run is not None:
            with contextlib.suppress(GuestError):  # it has just ended by itself
                await container.run.signal(number)

    def add_exec(self, container: Container, spec: ExecSpec) -> Exec:
        self.running_or_refuse("exec")
        if container.run is None or not container.run.is_running:
            raise InvalidState(f"container {container.record.name} is not running")
        return self.execs.add(container, spec)

    async def start_exec(self, exec_: Exec) -> ProcessAttachment:
        """Start the process of an exec; raises CommandNotFound or CommandNotExecutable."""
        running = self.running_or_refuse("exec")
        if self.record.paused:
            raise InvalidState(f"pod {self.record.name} is paused", hint="unpause it first")
        container = self.container(exec_.record.container)
        message = plan.start_exec(
            exec_.record.spec, container.record, self.record, process=self._next_process()
        )
        self.execs.save(exec_, ProcessRecord(number=message.process))
        try:
            await self._start_process(running, message)
        except HyperError as error:
            self.execs.save(exec_, ProcessRecord(exit_code=error.exit_status, error=error.message))
            raise
        self.execs.save(exec_, msgspec.structs.replace(exec_.record.process, started=time.time()))
        run = self.execs.follow(running, exec_)
        return ProcessAttachment(run, run.log.follow(throttle=True), self.timeline)

    def container(self, container_id: str) -> Container:
        return next(c for c in self.containers if c.record.id == container_id)

    # --- Up ---

    async def _bring_up(self) -> None:
        driver = await self._driver()
        await self._take_lease(driver)
        self._decide(machine=secrets.token_hex(6), next_process=1, started=time.time())
        for container in self.containers:
            container.log.restart()
            self._save_process(container, ContainerState.CREATED, ProcessRecord())
        nics = await self._attach_network(driver)
        self.timeline.mark("network attached")
        config = await self._machine_config(driver, nics)
        self.timeline.mark("disks ready")
        self.run_dir.mkdir(parents=True, mode=0o700)
        machine = await driver.launch(config, self.run_dir)
        self.timeline.mark("VMM launched")
        await self._run_on(driver, machine)

    async def _driver(self) -> Hypervisor:
        """The driver of the record, verified again: hosts change."""
        driver = self.host.drivers.get(self.record.hypervisor)
        if (reason := await self.host.drivers.missing(driver)) is not None:
            raise Unavailable(f"hypervisor {driver.name} cannot run here: {reason}", hint="see hyper doctor")
        return driver

    async def _take_lease(self, driver: Hypervisor) -> None:
        if self.record.spec.network == "none":
            return
        async with self.host.leasing:
            others = [lease for pod, lease in self.host.leases.items() if pod != self.id]
            lease = await self.host.networks.allocate(
                self.id, self.record.spec.ports, others=others, previous=self.record.lease
            )
            self.host.leases[self.id] = lease
        self._save(lease=lease, ports=lease.ports)

    async def _attach_network(self, driver: Hypervisor) -> tuple[Nic, ...]:
        if self.record.lease is None:
            return ()
        return (await self.host.networks.attach(self.record.lease, driver.capabilities.nics),)

    async def _machine_config(self, driver: Hypervisor, nics: tuple[Nic, ...]) -> MachineConfig:
        images = [
            await self.host.images.disk(self.host.images.get(c.record.image_id)) for c in self.containers
        ]
        target = driver.capabilities.kernel
        return plan.machine_config(
            self.record,
            kernel=boot.find_kernel(target, override=self.host.settings.kernel).path if target else Path(),
            initramfs=await boot.initramfs(self.host.paths.cache),
            disk=self.disk,
            images=images,
            nics=nics,
        )

    async def _run_on(self, driver: Hypervisor, machine: Machine) -> None:
        """Take a launched machine to a running pod; also where a new daemon finds it half-way."""
        try:
            agent = await before_end(self._connect(machine), machine)
        except BaseException:
            await machine.kill()
            raise
        self.running = running = Running(hypervisor=driver, machine=machine, agent=agent)
        running.tasks.start(self._watch(running), name=f"watch {self.id[:12]}")
        await before_end(self._conduct(running), machine)

    async def _connect(self, machine: Machine) -> Agent:
        async with deadline(_BOOT_TIMEOUT_S, "the guest did not answer"):
            channel = await machine.connect()
            agent = await Agent.connect(channel, resume=self._stored())
        self.timeline.meet(agent.welcome)
        self.timeline.mark("hyperstart answered")
        return agent

    def _stored(self) -> dict[int, dict[Stream, int]]:
        """How far each process's output is stored, for a guest that may have more of it."""
        stored = {c.record.process.number: c.log.offsets for c in self.containers}
        return stored | self.execs.stored()

    async def _conduct(self, running: Running) -> None:
        """Everything the guest has not done yet, in order; requests are queued without waiting between."""
        welcome = running.agent.welcome
        requests: list[Awaitable[Message]] = []
        if not welcome.has_pod:
            setup = plan.set_up_pod(self.record, clock_ns=time.time_ns(), entropy=os.urandom(64))
            requests.append(running.agent.request(setup))
            if self.record.lease is not None:
                requests.append(running.agent.request(plan.configure_nic(self.record.lease)))
        requests += [
            running.agent.request(plan.create_container(self.record, c.record))
            for c in self.containers
            if c.record.id not in welcome.containers
        ]
        await asyncio.gather(*requests)
        self.timeline.mark("containers mounted")
        known = {process.process for process in welcome.processes}
        for container in self.containers:
            await self._run_container(running, container, known)
        self.execs.resume(running, known)
        await self._merge_timeline(running)

    async def _run_container(self, running: Running, container: Container, known: set[int]) -> None:
        record = container.record.process
        if record.number not in known:
            if record.started:
                return await self._lose(container, "its end was not seen", killed=False)
            message = plan.start_container(container.record, self.record, process=self._next_process())
            self._save_process(container, ContainerState.CREATED, ProcessRecord(number=message.process))
            await self._start_process(running, message)
        if container.record.state is ContainerState.EXITED:  # hyperd died between the record and this
            await running.agent.request(ForgetProcess(record.number))
            return None
        started = msgspec.structs.replace(container.record.process, started=record.started or time.time())
        self._save_process(container, ContainerState.RUNNING, started)
        container.run = ProcessRun(
            started,
            agent=running.agent,
            log=container.log,
            terminal=container.record.spec.terminal,
            timeline=self.timeline,
        )
        running.tasks.start(self._see_through(container, container.run), name=f"run {container.record.name}")
        return None

    async def _start_process(self, running: Running, message: StartProcess) -> None:
        try:
            await running.agent.start_process(message)
        except GuestError as error:
            raise exec_failure(error, message) from error

    async def _merge_timeline(self, running: Running) -> None:
        timeline = await running.agent.request(GetTimeline())
        if isinstance(timeline, Timeline):
            self.timeline.merge(timeline.marks)

    # --- The end of processes ---

    async def _see_through(self, container: Container, run: ProcessRun) -> None:
        """Follow a container's main process to its end and record it."""
        try:
            record = await run.pump()
        except HyperError as error:  # _watch sees the machine's end too and cleans up
            logger.info("container %s: %s", container.record.name, error.message)
            return
        self._save_process(container, ContainerState.EXITED, record)
        self.timeline.mark(f"{container.record.name} ended")
        is_last = self._has_ended
        if is_last and self.record.spec.remove:
            self._save(target="removed")  # before anyone hears of the end: its names are free then
        run.finish(record)
        with contextlib.suppress(HyperError):
            await run.guest.forget()
        if is_last:
            self.host.tasks.start(self._end(), name=f"end {self.record.name}")

    async def _end(self) -> None:
        """All containers have ended: the pod is Created again, or gone."""
        async with self.lock:
            await self._see_end()
        await self._remove_if_asked()

    async def _see_end(self) -> None:
        """Take down the machine of a pod whose containers have all ended; the lock is held."""
        if self.running is None or not self._has_ended:
            return
        if self.record.target == "running":
            self._save(target="created")
        await self._tear_down(clean=self.record.target != "removed")

    async def _watch(self, running: Running) -> None:
        """When the machine or its channel ends by itself, the pod has lost its machine."""
        ends = {
            asyncio.create_task(running.machine.wait(), name="machine ends"),
            asyncio.create_task(running.agent.closed(), name="channel ends"),
        }
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        self.host.tasks.start(self._lost(running), name=f"lost {self.record.name}")

    async def _lost(self, running: Running) -> None:
        async with self.lock:
            if self.running is not running:
                return
            reason = "the machine ended by itself"
            if running.machine.process.is_alive():
                reason = f"the guest was given up: {running.agent.failure or 'its channel ended'}"
            if console := running.machine.console():
                reason += f" (console: {console.splitlines()[-1][:200]})"
            logger.warning("pod %s: %s", self.record.name, reason)
            for container in self.containers:
                await self._lose(container, reason, killed=False)
            target = "removed" if self.record.spec.remove else "created"
            self._save(target=target, reason=reason)
            await self._tear_down(clean=False)
        await self._remove_if_asked()

    async def _lose(self, container: Container, reason: str, *, killed: bool) -> None:
        """A container whose process went with its machine."""
        if container.record.state is not ContainerState.RUNNING and not (
            container.run and container.run.is_running
        ):
            return
        record = lost_record(container.record.process, "" if killed else reason)
        self._save_process(container, ContainerState.EXITED, record)
        if container.run is not None:
            container.run.finish(record)

    async def _end_processes(self, timeout_s: float) -> None:
        runs = [(c, c.run) for c in self.containers if c.run is not None and c.run.is_running]
        ends = asyncio.gather(*(run.wait() for _, run in runs))
        for container, run in runs:
            with contextlib.suppress(HyperError):
                await run.signal(container.record.stop_signal)
        done = False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ends), timeout_s)
            done = True
        if not done:
            await self._kill_processes([run for _, run in runs])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ends), _KILLED_TIMEOUT_S)
        ends.cancel()
        for container in self.containers:
            await self._lose(container, "it did not end when killed", killed=True)

    async def _kill_processes(self, runs: list[ProcessRun]) -> None:
        for run in runs:
            with contextlib.suppress(HyperError):
                await run.signal(9, whole_container=True)

    # --- Down ---

    async def _undo_start(self, error: BaseException) -> None:
        reason = error.message if isinstance(error, HyperError) else f"{type(error).__name__} while starting"
        for container in self.containers:
            await self._lose(container, reason, killed=False)
            if (
                isinstance(error, CommandNotFound | CommandNotExecutable)
                and not container.record.process.started
            ):
                failed = ProcessRecord(exit_code=error.exit_status, error=reason)
                self._save_process(container, ContainerState.CREATED, failed)
        self._save(target="removed" if self.record.spec.remove else "created", reason=reason)
        await self._tear_down(clean=False)
        if self.record.target == "removed":
            self.host.tasks.start(self._remove_if_asked(), name=f"remove {self.record.name}")

    async def _tear_down(self, *, clean: bool) -> None:
        """End the machine and give back what it held; the record is struck off last."""
        running, self.running = self.running, None
        if running is not None:
            if clean:
                await self._shut_down(running)
            await running.machine.kill()
            await running.agent.close()
            await running.tasks.close()
        self.execs.clear()
        if self.record.lease is not None:
            await self.host.networks.detach(self.record.lease)
            self.host.leases.pop(self.id, None)
        if self.record.machine:
            remove_tree(self.run_dir)
        if self.record.target != "removed":
            self._save(machine="", paused=False, started=0)

    async def _shut_down(self, running: Running) -> None:
        """Let the guest unmount its disks; a guest that does not is killed anyway."""
        try:
            async with asyncio.timeout(_SHUT_DOWN_TIMEOUT_S):
                await running.agent.request(ShutDown())
                await running.machine.wait()
        except (TimeoutError, HyperError) as error:
            logger.warning("pod %s did not shut down: %s", self.record.name, error or "timeout")

    async def _resume_if_paused(self) -> None:
        if self.running is not None and self.record.paused:
            await self.running.machine.resume()
            self._save(paused=False)

    async def _remove_if_asked(self) -> None:
        async with self.lock:
            if self.is_gone or self.record.target != "removed" or self.running is not None:
                return
            self.close()
            await asyncio.to_thread(remove_tree, self.directory)  # first: the record needs room to go
            with despite_full_disk():
                self.host.records.remove_pod(self.id)
            self.is_gone = True

    def close(self) -> None:
        """Close the files that this object holds open."""
        for container in self.containers:
            container.log.close()

    # --- After a restart of the daemon ---

    async def recover(self) -> None:
        """Bring a pod that an earlier daemon left in the middle to where its record says."""
        async with self.lock:
            machine = await self._find_machine()
            if self.record.target == "running" and machine is not None:
                await self._resume(machine)
            elif self.record.machine:
                if machine is not None:
                    await machine.kill()
                reason = "" if self.record.target != "running" else "its machine ended while hyperd was down"
                for container in self.containers:
                    await self._lose(container, reason or "the pod was stopped", killed=not reason)
                if self.record.target == "running":
                    self._save(target="removed" if self.record.spec.remove else "created", reason=reason)
                await self._tear_down(clean=False)
        await self._remove_if_asked()

    async def _find_machine(self) -> Machine | None:
        if not self.record.machine or not self.run_dir.is_dir():
            return None
        driver = self.host.drivers.get(self.record.hypervisor)
        config = plan.machine_config(
            self.record, kernel=Path(), initramfs=Path(), disk=self.disk, images=(), nics=()
        )
        return await driver.reattach(config, self.run_dir)

    async def _resume(self, machine: Machine) -> None:
        driver = self.host.drivers.get(self.record.hypervisor)
        try:
            if self.record.paused:
                await machine.resume()
            await self._run_on(driver, machine)
            if self.record.paused:
                await machine.pause()
        except HyperError as error:
            logger.warning("pod %s could not be taken over: %s", self.record.name, error.message)
            await self._undo_start(error)
            return
        if self._has_ended:
            self.host.tasks.start(self._end(), name=f"end {self.record.name}")

    # --- Records ---

    def _next_process(self) -> int:
        number = self.record.next_process
        self._decide(next_process=number + 1)
        return number

    def _decide(self, **changes: object) -> None:
        """Record what is about to be done; Unavailable when it cannot be, and then it is not done."""
        record = msgspec.structs.replace(self.record, **changes)
        self.host.records.save_pod(record)
        self.record = record

    def _save(self, **changes: object) -> None:
        """Record what has happened.  It has, whether or not the disk has room for it."""
        self.record = msgspec.structs.replace(self.record, **changes)
        with despite_full_disk():
            self.host.records.save_pod(self.record)

    def _save_process(self, container: Container, state: ContainerState, process: ProcessRecord) -> None:
        container.record = msgspec.structs.replace(container.record, state=state, process=process)
        with despite_full_disk():
            self.host.records.save_container(container.record)
