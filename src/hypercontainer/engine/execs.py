"""The processes that were added to a pod's running containers: kept while the pod runs, and bounded.

What an exec prints is kept for who is attached.  Once it has ended and was told, or nobody was to be told,
its output goes; its status stays, so that it can be asked for.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from hypercontainer.engine import plan
from hypercontainer.engine.attachments import ProcessAttachment, follow_again
from hypercontainer.engine.container import Container, Exec
from hypercontainer.engine.output import TRANSIENT, OutputLog, remove_log, stored_offsets
from hypercontainer.engine.process import ProcessRun, lost_record
from hypercontainer.engine.records import ExecRecord, ProcessRecord, Records, despite_full_disk
from hypercontainer.engine.running import Running
from hypercontainer.engine.streams import Seen
from hypercontainer.engine.timeline import StartTimeline
from hypercontainer.errors import HyperError
from hypercontainer.guest.protocol import Stream
from hypercontainer.model.pod import ExecSpec

_KEPT = 64  # of those that have ended, for who asks for their status
_WAITING = 1024  # of those that nobody has started yet: the guest would take no more


class Execs:
    """All execs of one pod, by id."""

    def __init__(self, records: Records, directory: Path) -> None:
        self._records = records
        self._directory = directory
        self._all: dict[str, Exec] = {}

    def matching(self, beginning: str) -> list[Exec]:
        """Those whose id begins so."""
        return [exec_ for exec_id, exec_ in self._all.items() if exec_id.startswith(beginning)]

    @property
    def processes(self) -> set[int]:
        """The numbers of those that have not ended."""
        records = [exec_.record.process for exec_ in self._all.values()]
        return {process.number for process in records if process.exit_code is None}

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
            log=OutputLog(exec_.log_path, keep=TRANSIENT),
            terminal=exec_.record.spec.terminal,
        )
        running.tasks.start(self._see_through(exec_, run), name=f"exec {exec_.record.id[:12]}")
        return run

    def attach(self, exec_: Exec, timeline: StartTimeline, seen: Seen | None = None) -> ProcessAttachment:
        """A client's hold of a started exec; ``seen``: it comes back from a daemon that died."""
        log = exec_.run.log if exec_.run is not None else OutputLog(exec_.log_path, keep=TRANSIENT)
        follower = follow_again(log, seen, "the exec") if seen else log.follow(throttle=True)

        def closed() -> None:
            if exec_.record.process.exit_code is not None and follower.position >= log.size:
                log.remove()
                exec_.run = None  # its record tells the rest
            elif exec_.run is None:
                log.close()

        return ProcessAttachment(
            exec_.run or exec_.record.process,
            seen or Seen(run=log.run_start),
            follower,
            timeline,
            terminal=exec_.record.spec.terminal,
            closed=closed,
        )

    def resume(self, running: Running, known: set[int]) -> None:
        """After a restart of the daemon: follow those that the guest still has."""
        for exec_ in self._all.values():
            process = exec_.record.process
            if process.exit_code is not None or not process.started:
                continue
            if process.number in known:
                self.follow(running, exec_)
            else:
                self.save(exec_, lost_record(process, "its end was not seen"))

    def save(self, exec_: Exec, process: ProcessRecord, **changes: object) -> None:
        exec_.record = msgspec.structs.replace(exec_.record, process=process, **changes)
        with despite_full_disk():
            self._records.save_exec(exec_.record)

    def clear(self) -> None:
        """The pod has ended, and all of them with it."""
        for exec_ in self._all.values():
            if exec_.run is not None and exec_.run.is_running:
                self._end(exec_, exec_.run, lost_record(exec_.record.process, "its pod has ended"))
            _discard_output(exec_)
        with despite_full_disk():
            self._records.remove_execs([*self._all])
        self._all.clear()

    def forget(self, container: Container) -> None:
        """The container is gone, and its records with it."""
        for key in [k for k, each in self._all.items() if each.record.container == container.record.id]:
            _discard_output(self._all.pop(key))

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
        if exec_.record.detached:
            run.log.remove()

    def _drop_old(self) -> None:
        """Room for one more, whatever clients have defined and never asked for again."""
        processes = {key: each.record.process for key, each in self._all.items()}
        ended = [key for key, process in processes.items() if process.exit_code is not None]
        waiting = [
            key for key, process in processes.items() if process.exit_code is None and not process.number
        ]
        dropped = [*ended[:-_KEPT], *waiting[: 1 - _WAITING]]
        for key in dropped:
            _discard_output(self._all.pop(key))
        self._records.remove_execs(dropped)


def _discard_output(exec_: Exec) -> None:
    if exec_.run is not None:
        exec_.run.log.remove()
    else:
        remove_log(exec_.log_path)
