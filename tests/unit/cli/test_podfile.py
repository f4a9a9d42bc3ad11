"""Podfiles: the original's samples load, and each mistake names file, line and key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.cli import podfile
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import PodSpec
from tests.unit.cli.mistakes import BAD, BAD_YAML

CORPUS = Path(__file__).parent / "podfiles"


def read(path: Path) -> PodSpec:
    return msgspec.json.decode(json.dumps(podfile.read(path)), type=PodSpec)


def written(tmp_path: Path, text: str, name: str = "pod.json") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_everything_that_is_supported_is_read() -> None:
    pod = read(CORPUS / "full.json")
    assert (pod.name, pod.hostname, pod.vcpus, pod.memory_mib) == ("web", "web.example", 2, 256)
    assert pod.dns == ("1.1.1.1",)
    assert pod.dns_search == ("example.org",)
    assert pod.dns_options == ("ndots:2",)
    assert pod.labels == {"team": "web"}
    assert [(p.host_port, p.container_port, p.protocol) for p in pod.ports] == [
        (8080, 80, "tcp"), (3000, 1300, "udp"), (3001, 1301, "udp"), (0, 443, "tcp"), (2222, 22, "tcp"),
    ]  # fmt: skip
    container = pod.containers[0]
    assert (container.name, container.image) == ("nginx", "nginx:1.27")
    assert (container.entrypoint, container.command) == (("/entry",), ("nginx", "-g", "daemon off;"))
    assert (container.working_directory, container.user, container.groups) == ("/srv", "www:data", ("audio",))
    assert container.environment == ("A=1", "EMPTY=")
    assert container.terminal
    assert container.stdin
    assert container.read_only
    assert container.stop_signal == "QUIT"
    assert container.labels == {"tier": "front"}


def test_yaml_says_the_same_as_json() -> None:
    assert read(CORPUS / "full.yaml") == read(CORPUS / "full.json")


@pytest.mark.parametrize("sample", sorted(path.name for path in CORPUS.glob("sample-*")))
def test_samples_in_the_originals_style_load(sample: str) -> None:
    assert read(CORPUS / sample).containers[0].image


def test_keys_are_matched_without_case(tmp_path: Path) -> None:
    pod = read(written(tmp_path, '{"ID": "a", "Containers": [{"IMAGE": "i", "ReadOnly": true}]}'))
    assert pod.name == "a"
    assert pod.containers[0].read_only


def test_null_is_as_good_as_absent(tmp_path: Path) -> None:
    text = '{"id": null, "dns": null, "volumes": null, "containers": [{"image": "i", "command": null}]}'
    assert read(written(tmp_path, text)) == msgspec.convert({"containers": [{"image": "i"}]}, PodSpec)


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_mistake_names_file_line_and_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path, text))
    assert raised.value.message.startswith(str(tmp_path / "pod.json"))
    assert re.search(message, raised.value.message), raised.value.message


def test_a_key_that_is_nearly_right_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path, '{"containers": [{"image": "i"}], "portmaping": []}'))
    assert raised.value.hint == "did you mean 'portmappings'?"


@pytest.mark.parametrize(("text", "message"), BAD_YAML)
def test_a_mistake_in_yaml_names_file_line_and_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path, text, "pod.yaml"))
    assert re.search(message, raised.value.message), raised.value.message


def test_a_short_yaml_that_means_a_huge_one_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InvalidRequest, match="too much"):
        read(written(tmp_path, "\n".join(lines), "pod.yaml"))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pod.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        read(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert read(written(tmp_path, '\ufeff{"containers": [{"image": "i"}]}')).containers


@pytest.mark.parametrize("value", ["80", 80])
def test_a_port_may_be_text_or_a_number(value: Any, tmp_path: Path) -> None:
    text = json.dumps({"containers": [{"image": "i"}], "portmappings": [{"containerPort": value}]})
    assert read(written(tmp_path, text)).ports[0].container_port == 80
