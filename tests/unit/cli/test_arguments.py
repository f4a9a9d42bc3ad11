"""The flags of run and create, as the pod that hyperd is asked for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.cli import sizes, spec
from hypercontainer.cli.containers import signal_number
from hypercontainer.cli.main import main
from hypercontainer.cli.parser import parse
from hypercontainer.cli.running import COMMANDS
from hypercontainer.errors import HyperError, InvalidRequest, Unsupported
from hypercontainer.model.pod import PodSpec


def arguments(line: str | list[str]) -> argparse.Namespace:
    words = line.split() if isinstance(line, str) else line
    found = parse("run", COMMANDS["run"], words)
    found.verb = "run"
    return found


def asked(line: str | list[str], *, attached: bool = True) -> dict[str, Any]:
    return spec.from_arguments(arguments(line), attached=attached)


def pod(line: str | list[str], *, attached: bool = True) -> PodSpec:
    """What hyperd makes of the JSON that the command line sends."""
    return msgspec.json.decode(json.dumps(asked(line, attached=attached)), type=PodSpec)


def test_an_image_alone_gets_every_default() -> None:
    wanted = pod("debian")
    assert wanted == msgspec.convert({"containers": [{"image": "debian"}]}, PodSpec)


def test_what_follows_the_image_is_the_command() -> None:
    container = pod("-i --rm debian sh -c 'x' --name y -- -t").containers[0]
    assert container.command == ("sh", "-c", "'x'", "--name", "y", "--", "-t")
    assert container.stdin
    assert not container.terminal


def test_flags_go_where_docker_would_put_them() -> None:
    wanted = pod(
        "-it --rm --name web -h box -m 256m --cpus 2 -e A=1 -e A=2 -e B= -w /srv -u 1:2 --read-only "
        "-l team=web -l flag --stop-signal INT --stop-timeout 0 --dns 1.1.1.1 --dns-search example.org "
        "-p 8080:80 -p 53:53/udp --hypervisor uml --require-isolation any --network none nginx"
    )
    container = wanted.containers[0]
    assert (wanted.name, wanted.hostname, wanted.memory_mib, wanted.vcpus) == ("web", "box", 256, 2)
    assert (wanted.remove, wanted.hypervisor, wanted.network) == (True, "uml", "none")
    assert (wanted.dns, wanted.dns_search) == (("1.1.1.1",), ("example.org",))
    assert wanted.labels == {"team": "web", "flag": ""}
    assert wanted.stop_timeout_s == 0
    assert [(p.host_port, p.container_port, p.protocol) for p in wanted.ports] == [
        (8080, 80, "tcp"), (53, 53, "udp"),
    ]  # fmt: skip
    assert container.environment == ("A=2", "B=")
    assert (container.working_directory, container.user, container.stop_signal) == ("/srv", "1:2", "INT")
    assert container.terminal
    assert container.read_only


def test_a_terminal_comes_with_stdin_only_while_someone_is_attached() -> None:
    assert pod("-t debian").containers[0].stdin
    assert not pod("-d -t debian", attached=False).containers[0].stdin
    assert pod("-d -i -t debian", attached=False).containers[0].stdin


def test_another_entrypoint_drops_the_images_command() -> None:
    container = pod("--entrypoint /bin/echo debian a b").containers[0]
    assert (container.entrypoint, container.command) == (("/bin/echo",), ("a", "b"))
    container = pod("--entrypoint /bin/echo debian").containers[0]
    assert (container.entrypoint, container.command) == (("/bin/echo",), ())


def test_an_empty_entrypoint_is_none_at_all() -> None:
    assert pod(["--entrypoint", "", "debian", "ls"]).containers[0].entrypoint == ()


@pytest.mark.parametrize(
    ("text", "mib"),
    [("128m", 128), ("1g", 1024), ("1.5G", 1536), ("134217728", 128), ("64mb", 64), ("64MiB", 64), ("1", 1),
     ("134217729", 129), ("1024k", 1), ("32 m", 32), ("10485760b", 10)],
)  # fmt: skip
def test_memory_is_dockers_sizes_rounded_up_to_mib(text: str, mib: int) -> None:
    assert sizes.memory_mib(text) == mib


@pytest.mark.parametrize("text", ["", "x", "-1", "1mm", "1e3", "0", "0m", "m", "١m"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid memory size"):
        sizes.memory_mib(text)


def test_a_fraction_of_a_cpu_is_rounded_up_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert pod("--cpus 1.5 debian").vcpus == 2
    assert "1.5 CPUs are rounded up to 2 vCPUs" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "256", "x", "nan", "inf"])
def test_an_impossible_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid number of CPUs"):
        asked(["--cpus", text, "debian"])


def test_a_bare_variable_is_passed_on_if_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert spec.environment(["HERE", "NOWHERE"]) == ["HERE=yes"]


def test_an_environment_file_has_comments_and_is_overridden_by_flags(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\n  A=1\nB=two words # kept\nC='q'\n")
    assert spec.environment(["A=9"], [str(file)]) == ["A=9", "B=two words # kept", "C='q'"]


def test_a_bad_line_of_an_environment_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("A=1\nbad name=2\n")
    with pytest.raises(InvalidRequest, match=r"env, line 2"):
        spec.environment([], [str(file)])


def test_an_environment_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"/nowhere.*No such file"):
        spec.environment([], ["/nowhere"])


@pytest.mark.parametrize("flag", ["--volumes-from a", "--cap-add ALL", "--privileged", "--gpus all"])
def test_a_flag_of_docker_that_is_not_there_yet_is_named(flag: str) -> None:
    name = flag.split()[0]
    with pytest.raises(Unsupported, match=f"^{name} is not supported yet"):
        arguments(f"{flag} debian")


def test_another_network_is_not_supported_yet() -> None:
    with pytest.raises(Unsupported, match="'backend'"):
        asked("--network backend debian")


# --- podfiles on the command line ---


@pytest.fixture
def podfile(tmp_path: Path) -> Path:
    path = tmp_path / "podfile.json"
    path.write_text('{"id": "web", "containers": [{"image": "nginx"}]}')
    return path


@pytest.mark.parametrize("line", ["-d {0}", "{0}", "-p {0}", "--podfile {0}", "-p{0}"])
def test_a_podfile_may_be_said_in_every_way(line: str, podfile: Path) -> None:
    assert pod(line.format(podfile)).name == "web"


def test_some_flags_may_stand_beside_a_podfile(podfile: Path) -> None:
    wanted = pod(f"--rm --name other --hypervisor tcg --require-isolation hardware -p {podfile}")
    assert (wanted.name, wanted.remove, wanted.hypervisor, wanted.require_isolation) == (
        "other", True, "tcg", "hardware",
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["-m 1g", "-e A=1", "-t", "-p 80:80", "--read-only", "--stop-timeout 0"])
def test_what_the_podfile_says_is_not_said_twice(flag: str, podfile: Path) -> None:
    with pytest.raises(InvalidRequest, match="is said in the podfile"):
        asked(f"{flag} --podfile {podfile}")


def test_a_podfile_and_an_image_are_one_too_many(podfile: Path) -> None:
    with pytest.raises(InvalidRequest, match="it can be only one"):
        asked(f"-p {podfile} debian")


def test_a_podfile_that_is_not_there_is_no_image() -> None:
    with pytest.raises(InvalidRequest, match=r"cannot read podfile 'nothere.yaml'"):
        asked("nothere.yaml")


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="no image and no podfile"):
        asked("-d")


# --- the rest of the command line ---


@pytest.mark.parametrize(
    ("text", "number"),
    [("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("hup", 1), ("9", 9), ("SIGRTMIN+3", 37)],
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "FOO", "-9", "SIG", "RTMIN+99"])
def test_an_unknown_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown signal"):
        signal_number(text)


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["rnu"], "hyper run"),
        (["ls"], "hyper list"),
        (["imagse"], "hyper images"),
        (["docter"], "hyper doctor"),
    ],
)
def test_a_mistyped_verb_gets_a_suggestion(
    words: list[str], suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 125
    assert f"did you mean `{suggestion}`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["run", "--bogus", "x"], ["rm"], ["stop", "-t", "x", "a"], ["list", "dogs"]]
)
def test_a_command_line_that_makes_no_sense_is_125_and_says_where_help_is(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 125
    assert f"See `hyper {words[0]} --help`." in capsys.readouterr().err


def test_errors_of_run_are_125_and_carry_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-m", "lots", "debian"]) == HyperError.exit_status == 125
    assert capsys.readouterr().err == (
        "hyper: invalid memory size 'lots'\nhint: for example 64m, 1.5g, or bytes\n"
    )


def test_errors_of_other_verbs_are_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kill", "-s", "NOPE", "x"]) == 1
    assert capsys.readouterr().err.startswith("hyper: unknown signal 'NOPE'")
