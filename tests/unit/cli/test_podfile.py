"""Podfiles: what is written is read, and each mistake names file, line, key and reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.cli import podfile
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import PodSpec

CORPUS = Path(__file__).parent / "podfiles"
BAD = CORPUS / "bad"
EXAMPLES = Path(__file__).parents[3] / "examples"
MESSAGES = BAD / "messages.txt"


def read(path: Path) -> PodSpec:
    return msgspec.json.decode(json.dumps(podfile.read(path)), type=PodSpec)


def written(tmp_path: Path, text: str, name: str = "pod.json") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_everything_is_read() -> None:
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


@pytest.mark.parametrize(
    "path",
    [*sorted(EXAMPLES.glob("**/*.json")), *sorted(EXAMPLES.glob("**/*.y*ml"))],
    ids=lambda path: path.name,
)
def test_each_example_loads_or_says_what_is_wrong(path: Path) -> None:
    if "-err-" in path.name:
        with pytest.raises(InvalidRequest, match=r"line 3, hostname: "):
            read(path)
    else:
        assert all(
            container.image == "busybox" for container in read(path).containers if ":" not in container.image
        )


def test_the_samples_of_the_original_have_their_equivalents() -> None:
    wanted = {
        "file-mapping", "insert-file", "kubernetes_tomcat", "kubernetes_ubuntu_restart", "multi-container",
        "nfs-volume", "port-mapping", "port-mapping-in-sandbox", "tomcat", "ubuntu", "ubuntu-attach-files",
        "ubuntu-with-user", "with-volume", "scenarios/busybox-tty", "scenarios/file-mapping",
        "scenarios/hostname", "scenarios/hostname-err-char", "scenarios/hostname-err-long",
        "scenarios/insert-file", "scenarios/nfs-client", "scenarios/readonly-rootfs", "scenarios/service",
        "scenarios/simple-volume", "scenarios/user-override", "scenarios/with-volume",
    }  # fmt: skip
    found = {path.relative_to(EXAMPLES).with_suffix("").as_posix() for path in EXAMPLES.rglob("*.*")}
    assert wanted <= found
    assert (EXAMPLES / "ubuntu.yml").exists()


def test_keys_are_matched_without_case(tmp_path: Path) -> None:
    pod = read(written(tmp_path, '{"ID": "a", "Containers": [{"IMAGE": "i", "ReadOnly": true}]}'))
    assert pod.name == "a"
    assert pod.containers[0].read_only


def test_null_is_as_good_as_absent(tmp_path: Path) -> None:
    text = '{"id": null, "dns": null, "volumes": null, "containers": [{"image": "i", "command": null}]}'
    assert read(written(tmp_path, text)) == msgspec.convert({"containers": [{"image": "i"}]}, PodSpec)


def test_what_is_empty_is_as_good_as_absent(tmp_path: Path) -> None:
    container = {
        "image": "i", "name": "", "command": [], "entrypoint": [], "volumes": [], "files": [], "ulimits": [],
        "user": {}, "envs": [], "restartPolicy": "", "cache": "", "StopSignal": "", "sysctl": {}, "log": {},
    }  # fmt: skip
    pod = {
        "id": "", "type": "", "containers": [container], "volumes": [], "interfaces": [], "services": [],
        "log": {"type": "", "config": {}}, "portmappingWhiteLists": {"internalNetworks": []},
        "resource": {"vcpu": 0},
    }  # fmt: skip
    found = read(written(tmp_path, json.dumps(pod)))
    assert found == msgspec.convert({"containers": [{"image": "i"}]}, PodSpec)


# --- mistakes ---


def mistakes() -> list[Path]:
    return sorted(path for path in BAD.iterdir() if path != MESSAGES)


def message(path: Path) -> str:
    """What is said of the file, as messages.txt has it: the hint below, indented."""
    with pytest.raises(InvalidRequest) as raised:
        podfile.read(Path(path.name))
    hint = raised.value.hint
    return raised.value.message + "\n" + (f"    {hint}\n" if hint else "")


@pytest.fixture
def in_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD)


@pytest.mark.usefixtures("in_corpus")
def test_each_mistake_is_told_as_it_was() -> None:
    """The corpus' messages are a snapshot: HYPER_WRITE_SNAPSHOTS=1 writes it anew."""
    found = "".join(message(path) for path in mistakes())
    if os.environ.get("HYPER_WRITE_SNAPSHOTS"):
        MESSAGES.write_text(found)
    assert found == MESSAGES.read_text()


@pytest.mark.usefixtures("in_corpus")
@pytest.mark.parametrize("path", mistakes(), ids=lambda path: path.name)
def test_each_mistake_is_told_with_its_file_first(path: Path) -> None:
    assert message(path).startswith(path.name)


def test_the_corpus_is_large() -> None:
    assert len(mistakes()) >= 45


def test_a_key_that_is_nearly_right_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(written(tmp_path, '{"containers": [{"image": "i"}], "portmaping": []}'))
    assert raised.value.hint == "did you mean 'portmappings'?"


def test_a_short_yaml_that_means_a_huge_one_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InvalidRequest, match="too much"):
        read(written(tmp_path, "\n".join(lines), "pod.yaml"))


@pytest.mark.parametrize("name", ["pod.json", "pod.yaml"])
@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 60 + "]" * 60, '{"a": ' * 30_000])
def test_what_is_nested_without_end_is_refused(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nested too deeply|no JSON|no YAML"):
        read(written(tmp_path, text, name))


@pytest.mark.parametrize("name", ["pod.json", "pod.yaml"])
def test_a_long_list_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="too much"):
        read(written(tmp_path, "[" + "1, " * 50_000 + "1]", name))


def test_a_file_that_is_larger_than_any_podfile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="larger than 4 MiB"):
        read(written(tmp_path, " " * (podfile.MAX_SIZE + 1)))


@pytest.mark.parametrize("number", ["9" * 5000, "1e999999", "-1", "1e3"])
def test_a_huge_or_odd_number_is_refused(number: str, tmp_path: Path) -> None:
    text = '{"containers": [{"image": "i"}], "resource": {"vcpu": ' + number + "}}"
    with pytest.raises(InvalidRequest, match=r"pod\.json.*(is needed|is not within|no usable JSON)"):
        read(written(tmp_path, text))


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert read(written(tmp_path, '\ufeff{"containers": [{"image": "i"}]}')).containers


@pytest.mark.parametrize("value", ["80", 80])
def test_a_port_may_be_text_or_a_number(value: Any, tmp_path: Path) -> None:
    text = json.dumps({"containers": [{"image": "i"}], "portmappings": [{"containerPort": value}]})
    assert read(written(tmp_path, text)).ports[0].container_port == 80


def test_a_number_where_text_is_needed_is_what_was_written(tmp_path: Path) -> None:
    variables = "[{env: VERSION, value: 1.10}, {env: MODE, value: 0755}, {env: AT, value: 22:30}]"
    text = f"containers:\n- image: i\n  envs: {variables}\n"
    assert read(written(tmp_path, text, "p.yaml")).containers[0].environment == (
        "VERSION=1.10", "MODE=0755", "AT=22:30",
    )  # fmt: skip


def test_empty_documents_of_yaml_do_not_count(tmp_path: Path) -> None:
    assert read(written(tmp_path, "---\ncontainers: [{image: i}]\n---\n", "p.yaml")).containers
