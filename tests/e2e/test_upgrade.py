"""hyperd of another version goes on with the pods of the one before: their machines speak otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.guest import boot
from hypercontainer.guest.protocol import PROTOCOL_VERSION
from tests.e2e.hyper import Hyper
from tests.support.images import busybox_archive
from tests.support.processes import new_root

ROOT = Path(__file__).parents[2]
LATER = PROTOCOL_VERSION + 1
APPENDED = {
    "    stderr_produced: U64\n": f"    threads: U32 = since({LATER}, 0)\n",
    "    processes: tuple[ProcessState, ...]\n": f'    mood: str = since({LATER}, "")\n',
    "    in_machine: bool": f"    nice: U8 = since({LATER}, 0)\n",
    "    populate: bool": f'    propagation: str = since({LATER}, "")\n',
}
NEW_MESSAGE = '''

@dataclass(frozen=True)
class Dream(Message, number=400):
    """Of what may come.  Reply: Done."""

    of: str
'''
WAITS = "echo before; until [ -e /go ]; do sleep 0.05; done; echo after; exit 7"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="not on this host: the namespace driver, as root only"
)


def _grow(source: str) -> str:
    """The protocol of the next version: fields at the end of messages and parts, and a message more."""
    source = source.replace(f"PROTOCOL_VERSION = {PROTOCOL_VERSION} ", f"PROTOCOL_VERSION = {LATER} ")
    for anchor, line in APPENDED.items():
        assert source.count(anchor) == 1, anchor
        end = source.index("\n", source.index(anchor)) + 1
        source = source[:end] + line + source[end:]
    return source + NEW_MESSAGE


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package of the next version, with a hyperstart of that version."""
    tree = tmp_path_factory.mktemp("later")
    for part in ("src", "tools", "guest/hyperstart"):
        shutil.copytree(
            ROOT / part, tree / part, ignore=shutil.ignore_patterns("data", "hyperstart*", "__pycache__")
        )
    (tree / "docs").mkdir()
    protocol = tree / "src/hypercontainer/guest/protocol.py"
    protocol.write_text(_grow(protocol.read_text()))
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    subprocess.run([sys.executable, "tools/gen_protocol.py"], cwd=tree, env=environment, check=True)
    subprocess.run(["make", "-s", "-C", "guest/hyperstart", "hyperstart"], cwd=tree, check=True)
    data = tree / "src/hypercontainer/data"
    data.mkdir()
    shutil.copy(tree / "guest/hyperstart/hyperstart", data)
    return tree / "src"


@pytest.fixture
def hyper(later: Path) -> Iterator[Hyper]:
    if not boot.DATA.joinpath("hyperstart").exists():
        pytest.skip("hyperstart is not built: make guest")
    hyper = Hyper(root=new_root(), driver="namespace")
    hyper.environment |= {"HYPER_TEST_NAMESPACE": "1"}
    try:
        yield hyper
    finally:
        if hyper.daemon is not None:
            hyper.remove_all()
            hyper.stop_daemon()
        shutil.rmtree(hyper.root, ignore_errors=True)


def _become(hyper: Hyper, package: Path) -> None:
    """hyperd of ``package``, in place of the one that ran."""
    hyper.stop_daemon()
    hyper.environment["PYTHONPATH"] = str(package)
    script = "import hypercontainer.guest.protocol as p; print(p.PROTOCOL_VERSION, p.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", script], env=hyper.variables(), capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith(f"{PROTOCOL_VERSION if package == ROOT / 'src' else LATER} "), told.stdout
    assert str(package) in told.stdout
    hyper.start_daemon()


@pytest.mark.parametrize("direction", ["an older machine", "a newer machine"])
def test_a_hyperd_of_another_version_goes_on_with(direction: str, hyper: Hyper, later: Path) -> None:
    present = ROOT / "src"
    first, second = (present, later) if direction == "an older machine" else (later, present)
    _become(hyper, first)
    hyper.ok("load", "-q", "-i", str(busybox_archive(hyper.root / "busybox.tar")))
    hyper.ok("run", "-d", "--network", "none", "--name", "p", "busybox", "sh", "-c", WAITS)
    _become(hyper, second)
    assert "running" in hyper.ok("list").lower()
    assert hyper.ok("exec", "p", "echo", "inside") == "inside"
    assert "sleep" in hyper.ok("exec", "p", "ps")
    hyper.ok("exec", "p", "touch", "/go")
    assert hyper.ok("wait", "p") == "7"
    assert hyper.ok("logs", "p") == "before\nafter"
    assert hyper("exec", "p", "true").status != 0
