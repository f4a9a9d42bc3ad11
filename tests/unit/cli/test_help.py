"""The help texts, kept as they are shown; and that showing or listing imports nothing heavy.

``HYPER_WRITE_SNAPSHOTS=1 pytest tests/unit/cli/test_help.py`` writes them anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hypercontainer.cli.main import _GROUPS, VERBS, main
from hypercontainer.cli.parser import parse

SNAPSHOTS = Path(__file__).parent / "snapshots"
HEAVY = (
    "asyncio", "dataclasses", "inspect", "msgspec", "h11", "httpx", "rich", "yaml", "tomllib", "subprocess",
    "http.client", "logging", "socket", "selectors",
)  # fmt: skip
OFTEN = ("containers", "pods", "running")  # modules of the verbs that are typed most
SLOW = ("pathlib", "urllib.parse", "ipaddress", "typing")  # pathlib imports the next two: 6 ms; typing: 4 ms


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(str(ended.code or 0))
    assert status == 0
    return capsys.readouterr().out


def check(name: str, text: str) -> None:
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("HYPER_WRITE_SNAPSHOTS") == "1":
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_the_list_of_verbs_reads_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    check("hyper", shown(["--help"], capsys))


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_reads_as_before(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = shown([verb, "--help"], capsys)
    assert text == shown(["help", verb], capsys)
    check(verb, text)


def test_every_verb_stands_in_one_group_and_has_a_parser() -> None:
    from hypercontainer.cli.main import _command

    grouped = [verb for _, verbs in _GROUPS for verb in verbs]
    assert sorted(grouped) == sorted(VERBS)
    for verb in VERBS:
        assert _command(verb).usage.startswith(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_each_verb_are_good_command_lines(verb: str) -> None:
    from hypercontainer.cli.main import _command

    for line in _command(verb).examples.strip().splitlines():
        line = line.split("   ")[0]  # an explanation may follow
        for command in [*re.findall(r"\$\((.*?)\)", line), *re.sub(r"\$\(.*?\)", "NAME", line).split("|")]:
            words = _words(command)
            if words[:1] == ["hyper"]:
                parse(words[1], _command(words[1]), words[2:])


def _words(command: str) -> list[str]:
    import shlex

    return [word for word in shlex.split(command.partition("<")[0]) if word]


def test_no_verb_pays_for_translations_of_what_argparse_says() -> None:
    script = """
import sys
from hypercontainer.cli.main import main
try:
    main(["list", "--no-such-flag"])
finally:
    print(*sys.modules)
"""
    german = {**os.environ, "LANGUAGE": "de", "LC_ALL": "de_DE.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=german, capture_output=True, text=True, check=False
    )
    assert "hyper: unrecognized arguments: --no-such-flag" in done.stderr
    assert not {"gettext", "locale"} & {*done.stdout.split()}


@pytest.mark.parametrize("module", sorted({module for module, _ in VERBS.values()}))
def test_no_verb_pays_for_what_it_does_not_use(module: str) -> None:
    script = f"import sys, hypercontainer.cli.{module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    unwanted = HEAVY + (SLOW if module in OFTEN else ())
    assert not set(unwanted) & set(loaded)
