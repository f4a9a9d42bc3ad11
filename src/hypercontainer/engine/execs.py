"""The processes that were added to a pod's running containers: kept while the pod runs, and bounded."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from hypercontainer.engine import plan
from hypercontainer.engine.container import Container, Exec
from hypercontainer.engine.output import OutputLog, stored_offsets
from hypercontainer.engine.process import ProcessRun, lost_record
from hypercontainer.engine.records import ExecRecord, ProcessRecord, Records, despite_full_disk
from hypercontainer.engine.running import Running
from hypercontainer.errors import ExecNotFound, HyperError
from hypercontainer.guest.protocol import Stream
from hypercontainer.model.pod import ExecSpec

_KEPT = 64  # of those that have ended, for who asks for their status


class Execs:
    """All execs of one pod, by id."""

    def __init__(self, records: Records, directory: Path) -> None:
        self._records = records
        self._directory = directory
        self._all: dict[str, Exec] = {}

    def __contains__(self, exec_id: str) -> bool:
        return exec_id in self._all

    def get(self, exec_id: str) -> Exec:
        if exec_id not in self._all:
            raise ExecNotFound(f"no such exec: {exec_id[:64]}")
        return self._all[exec_id]

    def add(self, container: Container, spec: ExecSpec) -> Exec:
        """Define an exec; nothing is started."""
        self._drop_old()
        record = ExecRecord(id=plan.new_id(), container=container.record.id, spec=spec)
        self._records.add_exec(record)
        return self.restore(record)

    def restore(self, record: ExecRecord) -> Exec:
        exec_ = self._all[record.id] = Exec(record, self._directory / f"exec-{record.id}.log")
        return exec_

    def stored(self) -> dict[int, dict[Stream, int]]:
        """By process number, how far the output of each is stored."""
        started = [exec_ for exec_ in self._all.values() if exec_.record.process.number]
        return {exec_.record.process.number: stored_offsets(exec_.log_path) for exec_ in started}

    def follow(self, running: Running, exec_: Exec) -> ProcessRun:
        """See a started exec through, in the background."""
        run = exec_.run = ProcessRun(
            exec_.record.process,
            agent=running.agent,
            log=OutputLog(exec_.log_path),
            terminal=exec_.record.spec.terminal,
        )
        running.tasks.start(self._see_through(exec_, run), name=f"exec {exec_.record.id[:12]}")
        return run

    def resume(self, running: Running, known: set[int]) -> None:
        """After a restart of the daemon: follow those that the guest still has."""
        for exec_ in self._all.values():
            process = exec_.record.process
            if process.number in known and process.exit_code is None:
                self.follow(running, exec_)

    def save(self, exec_: Exec, process: ProcessRecord) -> None:
        exec_.record = msgspec.structs.replace(exec_.record, process=process)
        with despite_full_disk():
            self._records.save_exec(exec_.record)

    def clear(self) -> None:
        """The pod has ended, and all of them with it."""
        for exec_ in self._all.values():
            if exec_.run is not None and exec_.run.is_running:
                self._end(exec_, exec_.run, lost_record(exec_.record.process, "its pod has ended"))
            exec_.log_path.unlink(missing_ok=True)
        with despite_full_disk():
            for container in {exec_.record.container for exec_ in self._all.values()}:
                self._records.remove_execs(container)
        self._all.clear()

    def forget(self, container: Container) -> None:
        """The container is gone, and its records with it."""
        for key in [k for k, each in self._all.items() if each.record.container == container.record.id]:
            self._all.pop(key).log_path.unlink(missing_ok=True)

    async def _see_through(self, exec_: Exec, run: ProcessRun) -> None:
        try:
            record = await run.pump()
        except HyperError as error:
            record = lost_record(run.record, error.message)
        self.save(exec_, record)
        self._end(exec_, run, record)
        with contextlib.suppress(HyperError):
            await run.guest.forget()

    @staticmethod
    def _end(exec_: Exec, run: ProcessRun, record: ProcessRecord) -> None:
        run.finish(record)
        run.log.close()
        exec_.log_path.unlink(missing_ok=True)  # who is attached holds it open

    def _drop_old(self) -> None:
        ended = [key for key, each in self._all.items() if each.record.process.exit_code is not None]
        for key in ended[:-_KEPT]:
            del self._all[key]
            self._records.remove_exec(key)
