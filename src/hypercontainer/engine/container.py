"""A container of a pod and the processes added to it, as hyperd holds them: record, log, newest run."""

from __future__ import annotations

from pathlib import Path

from hypercontainer.engine.output import OutputLog
from hypercontainer.engine.process import ProcessRun
from hypercontainer.engine.records import ContainerRecord, ExecRecord
from hypercontainer.model.rest import ContainerState


class Container:
    """A container of a pod, with its log and its newest run."""

    def __init__(self, record: ContainerRecord, log: OutputLog) -> None:
        self.record = record
        self.log = log
        self.run: ProcessRun | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or will without anybody's doing."""
        match self.record.state:
            case ContainerState.RUNNING | ContainerState.RESTARTING:
                return True
            case ContainerState.CREATED:
                return self.record.target == "running"
        return False


class Exec:
    """A process that was added to a running container."""

    def __init__(self, record: ExecRecord, log_path: Path) -> None:
        self.record = record
        self.log_path = log_path
        self.run: ProcessRun | None = None
