"""A picture of hyper for the README: commands are typed into a real terminal, and what it shows is drawn.

    python tools/picture.py docs/hyper.svg

tmux is the terminal, so that the picture shows what a person would see.  hyperd runs on a root of its own.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 108, 44
PROMPT = "$ "
COMMANDS = (
    "hyper run --rm busybox uname -sr",
    "hyper run -d --name web -p 8080:80 busybox httpd -f -h /etc",
    "hyper list",
    "curl -s http://localhost:8080/hostname",
    "hyper exec web ps",
    "hyper replace --timeline -o web -n next",
    "hyper rm -f next web",
)
PREPARE = ("hyper load -qi {image}", "hyper create --name next busybox sleep 1000")

# rich's own picture without the fonts that it fetches from elsewhere.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px monospace; line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw what a terminal shows.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--image", type=Path, default=ROOT / "build/busybox.tar")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hyper-picture-") as root, _terminal(Path(root)) as terminal:
        for command in PREPARE:
            terminal.run(command.format(image=shlex.quote(str(asked.image.resolve()))))
        terminal.clear()
        for command in COMMANDS:
            terminal.run(command)
        asked.output.write_text(_drawn(terminal.shown()))
        terminal.run("kill $(cat $HYPER_ROOT/run/hyperd.lock)")
    return 0


class Terminal:
    """A shell in tmux."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ("tmux", "-S", str(socket), "-f", "/dev/null")

    def tmux(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True)
        return done.stdout

    def run(self, command: str) -> None:
        """Type a command and wait for the next prompt."""
        self.tmux("send-keys", "-l", command)
        self._wait(lambda lines: lines[-1].endswith(command[-20:]))
        self.tmux("send-keys", "Enter")
        self._wait(lambda lines: len(lines) > 1 and lines[-1] == PROMPT.rstrip())

    def clear(self) -> None:
        self.tmux("send-keys", "-l", "clear")
        self.tmux("send-keys", "Enter")
        self.wait_for_prompt()

    def wait_for_prompt(self) -> None:
        """Until there is nothing but a prompt."""
        self._wait(lambda lines: lines == [PROMPT.rstrip()])

    def _wait(self, condition: Callable[[list[str]], bool]) -> None:
        while not condition(self.tmux("capture-pane", "-p").rstrip("\n").split("\n")):
            time.sleep(0.05)

    def shown(self) -> str:
        """The screen, with its colours, without the last prompt."""
        return self.tmux("capture-pane", "-p", "-e").rstrip("\n").rpartition("\n")[0]


@contextmanager
def _terminal(root: Path) -> Iterator[Terminal]:
    terminal = Terminal(root / "tmux")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {"HYPER_ROOT": str(root), "PATH": path, "PS1": PROMPT, "TERM": "xterm-256color"}
    words = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), "sh"]
    terminal.tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), shlex.join(words))
    try:
        terminal.wait_for_prompt()
        yield terminal
    finally:
        terminal.tmux("kill-server")


def _drawn(shown: str) -> str:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for line in Text.from_ansi(shown).split("\n", allow_blank=True):
            if line.plain.startswith(PROMPT):
                line.stylize("bold")
            console.print(line, no_wrap=True, crop=True)
        return console.export_svg(title="hyper", code_format=_SVG)


if __name__ == "__main__":
    sys.exit(main())
