"""Random verbs, also at the wrong time, against a model of a pod's life, with hyperd killed in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hypercontainer.errors import (
    Conflict,
    ContainerNotFound,
    HyperError,
    InvalidState,
    PodNotFound,
    Unsupported,
)
from tests.crash.conftest import LONG
from tests.crash.site import Site
from tests.crash.verbs import kill_machine

NAMES = st.sampled_from(("one", "two", "three"))
COMMANDS = {
    "sleeps": ("sleep", "1000"),
    "ends": ("sh", "-c", "echo line; exit 7"),
    "traps": ("sh", "-c", "trap 'echo told; exit 9' TERM; echo line; while :; do usleep 10000; done"),
}
TOLD = {"sleeps": 143, "traps": 9}  # the exit code when told to end


@dataclass
class Model:
    """What a pod must be."""

    kind: str
    state: str = "created"
    exit_code: int | None = None
    lines: list[str] = field(default_factory=list)


class Life(RuleBasedStateMachine):
    """Each rule is a verb; the model says what comes of it."""

    site: ClassVar[Site]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, Model] = {}

    # --- Verbs ---

    @rule(name=NAMES, kind=st.sampled_from(sorted(COMMANDS)))
    def create(self, name: str, kind: str) -> None:
        spec = {"image": "busybox", "command": COMMANDS[kind]}
        pod = {"name": name, "network": "none", "memory_mib": 48, "containers": [spec]}
        if name in self.pods:
            self.refused(Conflict, self.site.client.pods.create, pod)
        else:
            assert self.site.client.pods.create(pod).state == "created"
            self.pods[name] = Model(kind)

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        model = self.pods.get(name)
        if model is None:
            self.refused(PodNotFound, self.site.client.pods.start, name)
        elif model.state == "running":
            self.refused(InvalidState, self.site.client.pods.start, name)
        else:
            self.site.client.pods.start(name)
            self._started(name, model)

    def _started(self, name: str, model: Model) -> None:
        model.exit_code = None
        if model.kind != "sleeps":
            model.lines.append("line")
        if model.kind == "traps":  # or it is told to end before it can hear it
            self.site.wait_until(lambda: self._printed(name) == model.lines, "it prints")
        model.state = "running"
        if model.kind == "ends":
            assert self.site.client.pods.wait(name) == 7
            self._has_ended(name, model, 7)

    def _has_ended(self, name: str, model: Model, exit_code: int) -> None:
        model.state, model.exit_code = "created", exit_code
        self.site.wait_until(lambda: not self.site.pods()[name].machine, "its machine ends")

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        model = self.pods.get(name)
        if model is None:
            self.refused(PodNotFound, self.site.client.pods.stop, name)
            return
        self.site.client.pods.stop(name, timeout_s=30)  # one that does not run is no error
        if model.state == "running":
            self._told(name, model)

    def _told(self, name: str, model: Model) -> None:
        if model.kind == "traps":
            model.lines.append("told")
        self._has_ended(name, model, TOLD[model.kind])

    @rule(name=NAMES, number=st.sampled_from((9, 15)))
    def kill(self, name: str, number: int) -> None:
        model = self.pods.get(name)
        if model is None:
            self.refused(PodNotFound, self.site.client.pods.kill, name, signal=number)
        elif model.state == "created":
            self.refused(InvalidState, self.site.client.pods.kill, name, signal=number)
        else:
            self.site.client.pods.kill(name, signal=number)
            if number == 15:
                self._told(name, model)
            else:
                self._has_ended(name, model, 137)

    @rule(name=NAMES, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        model = self.pods.get(name)
        if model is None:
            self.refused(PodNotFound, self.site.client.pods.remove, name, force=force)
        elif model.state == "running" and not force:
            self.refused(Conflict, self.site.client.pods.remove, name)
        else:
            self.site.client.pods.remove(name, force=force)
            del self.pods[name]

    @rule(name=NAMES)
    def exec(self, name: str) -> None:
        model = self.pods.get(name)
        spec = {"command": ["sh", "-c", "echo out; exit 3"]}
        create = self.site.client.containers.create_exec
        if model is None:
            self.refused(ContainerNotFound, create, name, spec)
        elif model.state == "created":
            self.refused(InvalidState, create, name, spec)
        else:
            exec_id = create(name, spec).id
            with self.site.client.execs.start(exec_id) as attached:
                assert any(payload == b"out\n" for _, payload in attached.frames())
            assert self.site.client.execs.get(exec_id).exit_code == 3

    @rule(name=NAMES)
    def pause(self, name: str) -> None:
        """The driver of this test cannot."""
        model = self.pods.get(name)
        kind = PodNotFound if model is None else InvalidState if model.state == "created" else Unsupported
        self.refused(kind, self.site.client.pods.pause, name)

    # --- What happens to them ---

    @rule(name=NAMES)
    def its_machine_is_killed(self, name: str) -> None:
        model = self.pods.get(name)
        if model is not None and model.state == "running":
            kill_machine(self.site.paths.machines / self.site.pods()[name].machine)
            self._has_ended(name, model, -1)
            assert "machine" in self.site.pods()[name].reason

    @rule()
    def hyperd_is_killed(self) -> None:
        self.site.kill()
        self.site.start()

    @rule()
    def hyperd_is_upgraded(self) -> None:
        self.site.stop()
        self.site.start()

    # --- What must be true ---

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        type(self).steps += 1
        pods = self.site.pods()
        assert {name: pods[name].state for name in pods} == {n: m.state for n, m in self.pods.items()}
        for name, model in self.pods.items():
            container = pods[name].containers[0]
            assert container.state == self._container_state(model), name
            assert self._printed(name) == model.lines, name
            if model.state == "created" and model.exit_code is not None and model.exit_code >= 0:
                assert self.site.client.pods.wait(name) == model.exit_code

    @staticmethod
    def _container_state(model: Model) -> str:
        if model.state == "created":
            return "created" if model.exit_code is None else "exited"
        return model.state

    def _printed(self, name: str) -> list[str]:
        return b"".join(frame.data for frame in self.site.client.containers.logs(name)).decode().splitlines()

    def refused(self, kind: type[HyperError], verb: Callable[..., Any], *words: Any, **named: Any) -> None:
        with pytest.raises(kind):
            verb(*words, **named)

    def teardown(self) -> None:
        self.site.settle()
        self.site.clear()


@pytest.mark.timeout(3600 if LONG else 120)
def test_a_pod_lives_as_the_model_says(site: Site) -> None:
    Life.site, Life.steps = site, 0
    examples, steps = (40, 40) if LONG else (2, 20)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Life.steps} steps")
    assert Life.steps > (1000 if LONG else 20)
