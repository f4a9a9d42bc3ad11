"""``hyper``'s entry: finds the verb, imports its module alone, turns errors into messages and statuses."""

from __future__ import annotations

import time

STARTED_NS = time.monotonic_ns()  # the first instruction that is ours, for --timeline

import gc  # noqa: E402

# What is imported stays: to look for garbage in it is a twentieth of a listing's time.  A verb that goes on
# for hours is looked through yet, only not so often.
gc.set_threshold(50_000)

import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from hypercontainer.errors import HyperError  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from hypercontainer.cli.parser import Command

# Verb: its module in this package, and what `hyper --help` says of it.
VERBS = {
    "run": ("running", "Create a pod from an image or a podfile, and run it"),
    "create": ("running", "Create a pod and start no machine for it"),
    "start": ("pods", "Start created pods, each in a new machine"),
    "stop": ("pods", "Stop pods and end their machines; their storage stays"),
    "rm": ("pods", "Remove pods and their storage"),
    "replace": ("machines", "Run a created pod on the machine of one that runs"),
    "rename": ("pods", "Give a pod or a container another name"),
    "vm": ("machines", "Start an empty machine"),
    "list": ("pods", "List pods, containers or machines"),
    "pause": ("pods", "Freeze pods"),
    "unpause": ("pods", "Let paused pods go on"),
    "ports": ("networks", "List, add or delete published ports of a pod"),
    "service": ("networks", "List, set or remove services of a pod: its own load balancers"),
    "stats": ("stats", "Show what containers use, or pods and their machines"),
    "top": ("top", "Show the processes of a container or pod"),
    "ps": ("containers", "List containers, as Docker does"),
    "exec": ("containers", "Run a command in a running container"),
    "logs": ("containers", "Show what a container printed"),
    "attach": ("containers", "Connect this terminal to a running container"),
    "kill": ("containers", "Send a signal to pods or containers"),
    "cp": ("copying", "Copy files between a container and this host"),
    "wait": ("containers", "Wait until pods or containers end, and print their exit codes"),
    "inspect": ("system", "Show all about pods, containers or images, as JSON"),
    "images": ("images", "List images"),
    "pull": ("images", "Download an image from a registry"),
    "load": ("images", "Load images from a `docker save` or OCI archive"),
    "import": ("images", "Make an image of a root file system's tar"),
    "tag": ("images", "Give an image another name"),
    "rmi": ("images", "Remove images"),
    "template": ("templates", "List or remove the saved machines that others start from"),
    "info": ("system", "Show the state of hyperd and of this host"),
    "version": ("system", "Show the versions of hyper, hyperd and the guest kernel"),
    "events": ("events", "Show what happens, as it does"),
    "doctor": ("system", "Check what this host can do, and what is missing"),
}
_GROUPS = (
    (
        "Pods",
        (
            *("run", "create", "start", "stop", "rm", "replace", "rename", "vm"),
            *("list", "pause", "unpause", "ports", "service", "stats", "top"),
        ),
    ),
    ("Containers", ("ps", "exec", "logs", "attach", "kill", "cp", "wait")),
    ("Images", ("images", "pull", "load", "import", "tag", "rmi")),
    ("System", ("inspect", "events", "template", "info", "version", "doctor")),
)
_SYNONYMS = {
    "ls": "list",
    "remove": "rm",
    "pods": "list",
    "containers": "ps",
    "login": "pull",
}
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE, what the shell shows for a program that has no reader


def program() -> NoReturn:
    """``hyper`` as a process; it ends when all is written: to take Python down costs a tenth of its time."""
    status = main()
    try:  # contextlib takes longer to import
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # of an interrupted verb
        pass
    os._exit(status)


def main(words: Sequence[str] | None = None) -> int:
    """Run ``hyper``'s command line; its exit status."""
    _open_standard_streams()
    words = sys.argv[1:] if words is None else words
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return _nobody_reads()
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(words: Sequence[str]) -> int:
    verb, *rest = words or ("--help",)
    if verb in {"-h", "--help", "help"}:
        return _help(rest)
    if verb in {"-v", "--version"}:
        verb, rest = "version", ["--short"]
    if verb not in VERBS:
        return _unknown(verb)
    return _run_verb(verb, rest)


def _run_verb(verb: str, words: Sequence[str]) -> int:
    from hypercontainer.cli.parser import parse

    command = _command(verb)
    try:
        arguments = parse(verb, command, words)
        arguments.verb = verb
        return command.run(arguments)
    except HyperError as problem:
        from hypercontainer.cli import output

        sys.stdout.flush()
        output.error(problem)
        return problem.exit_status if command.failure_status == HyperError.exit_status else 1


def _command(verb: str) -> Command:
    from importlib import import_module

    commands: dict[str, Command] = import_module(f"hypercontainer.cli.{VERBS[verb][0]}").COMMANDS
    return commands[verb]


def _help(words: Sequence[str]) -> int:
    if words:
        return _run_verb(words[0], ["--help"]) if words[0] in VERBS else _unknown(words[0])
    print("usage: hyper VERB [OPTIONS] ...\n")
    print("Docker images in virtual machines: each pod has its own kernel.\n")
    for title, verbs in _GROUPS:
        print(f"{title}:")
        for verb in verbs:
            print(f"  {verb:<9} {VERBS[verb][1]}")
        print()
    print("examples:")
    print("  hyper run -t debian                  a shell in a machine of its own")
    print("  hyper run -d -p 8080:80 nginx        a server, in the background")
    print("  hyper run -d podfile.json            a pod that a file describes")
    print("  hyper doctor                         what can this host do?")
    print("\n`hyper VERB --help` says more of a verb.")
    return 0


def _unknown(verb: str) -> int:
    import difflib

    from hypercontainer.cli import output

    close = difflib.get_close_matches(verb, [*VERBS, *_SYNONYMS], n=1)
    hint = f"did you mean `hyper {_SYNONYMS.get(close[0], close[0])}`?" if close else "see `hyper --help`"
    output.error(HyperError(f"{verb!r} is no verb of hyper", hint=hint))
    return 125


def _open_standard_streams() -> None:
    """A closed stdin, stdout or stderr would be the number of the next file or socket that is opened."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _nobody_reads() -> int:
    """stdout's reader has gone.  Python would say so once more when it ends: let that go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return BROKEN_PIPE


if __name__ == "__main__":
    program()
