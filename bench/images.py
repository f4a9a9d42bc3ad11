"""What the throughput table works in: Debian with a compiler, Python's own tests and nginx; our program."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools/make_image.py"
TAG = "bench:latest"
PACKAGES = "gcc,libc6-dev,make,python3,libpython3.11-testsuite,nginx-light"
PROGRAM = ROOT / "bench/programs/work.c"
_FILES = 16
_FUNCTIONS = 40
_FUNCTION = """
int function_{file}_{number}(int turns, const char *text)
{{
	int sum = {number};

	for (int turn = 0; turn < turns; turn++) {{
		if (text[turn % 8] == '{file}' + turn)
			sum += snprintf(0, 0, "%d %s", turn, text);
		else
			sum = sum * 31 + (int)strtol(text, 0, 10) % (turn + 1);
	}}
	return sum;
}}
"""


def debian_archive() -> Path:
    """Made once for each recipe, and kept in the cache."""
    key = hashlib.sha256(TOOL.read_bytes() + f"{TAG} {PACKAGES}".encode()).hexdigest()[:16]
    base = os.environ.get("HYPER_CACHE") or Path.home() / ".cache/hypercontainer"
    path = Path(base) / "bench-images" / f"{key}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(TOOL), "debian", str(path), "--tag", TAG, "--packages", PACKAGES]
        subprocess.run(command, check=True)
    return path


def write_programs(directory: Path) -> None:
    """``work``, and ``project`` with a Makefile."""
    project = directory / "project"
    project.mkdir(parents=True)
    command = ["musl-gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run([*command, "-o", directory / "work", PROGRAM], check=True)
    for file in range(_FILES):
        functions = (_FUNCTION.format(file=file % 10, number=number) for number in range(_FUNCTIONS))
        heads = "#include <stdio.h>\n#include <stdlib.h>\n"
        (project / f"part{file}.c").write_text(heads + "".join(functions).replace("function_", f"f{file}_"))
    (project / "main.c").write_text("int main(void)\n{\n\treturn 0;\n}\n")
    objects = " ".join(["main.o", *(f"part{file}.o" for file in range(_FILES))])
    (project / "Makefile").write_text(
        f"all: {objects}\n\t$(CC) -o program {objects}\nclean:\n\trm -f *.o program\n"
    )
