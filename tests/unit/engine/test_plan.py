"""Plans: what was asked, over what the image says, by Docker's rules."""

from __future__ import annotations

import pytest

from hypercontainer.engine import plan
from hypercontainer.engine.records import ContainerRecord, PodRecord
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.image import Image, ImageConfig, Platform, digest_of
from hypercontainer.model.machine import Capabilities, Isolation
from hypercontainer.model.pod import ContainerSpec, PodSpec


def an_image(**config: object) -> Image:
    return Image(
        id=digest_of(b"image"),
        tags=("image:latest",),
        digests=(),
        config=ImageConfig(**config),  # type: ignore[arg-type]
        created="",
        size=0,
        disk_size=0,
        platform=Platform.of_host(),
        layers=(),
    )


def a_pod(**spec: object) -> PodRecord:
    containers = spec.pop("containers", (ContainerSpec(image="image"),))
    whole = PodSpec(containers=containers, **spec)  # type: ignore[arg-type]
    return PodRecord(id="f" * 64, name="pod", spec=whole, created=1.0, hypervisor="uml", machine="m")


def a_container(image: Image, **spec: object) -> ContainerRecord:
    asked = ContainerSpec(image="image", **spec)  # type: ignore[arg-type]
    return plan.container_record(asked, image, pod=a_pod(), index=0, name="c", created=1.0)


CAPABILITIES = Capabilities(
    isolation=Isolation.PROCESS,
    kernel="um",
    max_vcpus=1,
    min_memory_mib=32,
    disk_slots=4,
    nics=frozenset(),
    pause=True,
    swap_disks=True,
)


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ("/entry", "-a", "default")),
        (None, ("x",), ("/entry", "-a", "x")),
        (("/mine",), None, ("/mine",)),
        (("/mine",), ("x", "y"), ("/mine", "x", "y")),
        (("",), ("x",), ("x",)),
    ],
)
def test_entrypoint_and_command_combine_as_in_docker(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    image = an_image(entrypoint=["/entry", "-a"], cmd=["default"])
    assert a_container(image, entrypoint=entrypoint, command=command).argv == expected


def test_an_image_without_a_command_is_refused_until_one_is_given() -> None:
    with pytest.raises(InvalidRequest, match="no command"):
        a_container(an_image())
    assert a_container(an_image(), command=("true",)).argv == ("true",)


def test_environment_of_the_user_wins_over_the_image_and_path_has_a_default() -> None:
    image = an_image(cmd=["x"], env=["A=image", "B=image"])
    environment = a_container(image, environment=("A=user", "C=x=y")).environment
    assert environment == (plan.DEFAULT_PATH, "A=user", "B=image", "C=x=y")
    assert "TERM=xterm" in a_container(image, terminal=True).environment


@pytest.mark.parametrize(
    ("text", "number"), [("TERM", 15), ("SIGKILL", 9), ("sigint", 2), ("10", 10), ("RTMIN+3", 37)]
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert plan.signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOPE", "-1", "RTMIN+99"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no signal"):
        plan.signal_number(text)


@pytest.mark.parametrize("hostname", ["a", "a.b-c.d1", "x" * 63])
def test_good_hostnames_pass(hostname: str) -> None:
    plan.check_hostname(hostname)


@pytest.mark.parametrize("hostname", ["-a", "a-", "a..b", "under_score", "x" * 64, "a b", "."])
def test_bad_hostnames_are_refused(hostname: str) -> None:
    with pytest.raises(InvalidRequest, match="no valid hostname"):
        plan.check_hostname(hostname)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"memory_mib": 1}, "too little"),
        ({"memory_mib": 1 << 30}, "more than any host"),
        ({"vcpus": 2}, "2 vCPUs are more"),
        ({"hostname": "no_good"}, "no valid hostname"),
    ],
)
def test_what_a_driver_cannot_run_is_refused_before_anything_is_made(
    spec: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        plan.check_pod(a_pod(**spec).spec, CAPABILITIES, "uml")


def test_names_come_from_the_image_as_the_original_made_them() -> None:
    name = plan.pod_name(PodSpec(containers=(ContainerSpec(image="registry.example:5000/a/redis:7"),)))
    base, tag, digits = name.split("-")
    assert (base, tag) == ("redis", "7")
    assert len(digits) == 10
    assert digits.isdecimal()


def test_containers_of_a_larger_pod_are_numbered() -> None:
    two = PodSpec(containers=(ContainerSpec(image="a"), ContainerSpec(image="b", name="own")))
    assert [plan.container_name(two, "pod", index) for index in range(2)] == ["pod-0", "own"]
    one = PodSpec(containers=(ContainerSpec(image="a"),))
    assert plan.container_name(one, "pod", 0) == "pod"


def test_a_relative_working_directory_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not absolute"):
        a_container(an_image(cmd=["x"]), working_directory="srv")
