"""Each file of examples/ is run as it lies there, and does what it says.

A test works on a copy of the folder: pods write into directories that lie beside their podfile.  Only ports
of the host and addresses of other pods are put in, where the example's may be somebody else's here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hyper import Hyper
from tests.e2e.servers import ask, start
from tests.support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN: set[str] = set()
PORT = 24000 + os.getpid() % 500 * 11  # below those that the kernel gives to clients


def runs(*files: str) -> pytest.MarkDecorator:
    """The test is run with each of these files as its ``example``."""
    RUN.update(files)
    return pytest.mark.parametrize("example", files, indirect=True)


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The podfile, in a copy of examples/."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path / "examples" / str(request.param)


def alter(example: Path, old: str, new: str) -> None:
    text = example.read_text()
    assert old in text
    example.write_text(text.replace(old, new))


def inspect(hyper: Hyper, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hyper.ok("inspect", "--type", kind, name))[0]
    return found


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def test_every_example_has_a_test() -> None:
    found = (path for ending in ("json", "yaml", "yml") for path in EXAMPLES.rglob(f"*.{ending}"))
    assert {str(path.relative_to(EXAMPLES)) for path in found} == RUN


# --- Terminals ---


@runs("ubuntu.json", "ubuntu.yml")
def test_a_shell_with_a_terminal(hyper: Hyper, example: Path) -> None:
    with hyper.terminal("run", "--rm", str(example), rows=33, columns=111) as screen:
        screen.type("tty; stty size; pwd; nproc; exit 5\n")
        screen.wait_for("/dev/pts/")
        assert re.match(r"\d+\s+33 111\s+/\s+1\s+", screen.wait_for("\r\n1\r\n") + "\r\n1\r\n")
        assert screen.wait() == 5


@runs("tomcat.json")
def test_a_server_that_thinks_it_has_a_terminal(hyper: Hyper, example: Path) -> None:
    hyper.ok("run", "-d", str(example))
    address = "http://127.0.0.1:8080/hostname"
    assert hyper.eventually(r"\w", "exec", "web", "wget", "-q", "-O", "-", address).strip() == hyper.ok(
        "exec", "web", "hostname"
    )
    outputs = hyper.ok("exec", "web", "sh", "-c", "grep -l httpd /proc/[0-9]*/comm; ls -l /proc/[0-9]*/fd/1")
    (server,) = re.findall(r"^/proc/(\d+)/comm", outputs, re.MULTILINE)
    assert re.search(rf" /proc/{server}/fd/1 -> /dev/pts/\d", outputs)
    assert inspect(hyper, "pod", "tomcat")["pod"]["memory_mib"] == 128


@runs("scenarios/busybox-tty.json")
def test_a_shell_on_a_terminal_that_has_to_be_killed(hyper: Hyper, example: Path) -> None:
    hyper.ok("run", "-d", str(example))
    assert inspect(hyper, "pod", "test-container-force-killing")["pod"]["memory_mib"] == 64
    hyper.ok("stop", "-t", "1", "test-container-force-killing")
    assert hyper.state("test-container-force-killing") == "created"
    assert inspect(hyper, "container", "busybox-with-tty")["exit_code"] == 137


# --- Users and host names ---


@runs("ubuntu-with-user.json")
def test_a_user_a_group_and_further_groups(hyper: Hyper, example: Path) -> None:
    assert hyper.ok("run", "--rm", str(example)) == "uid=65534(nobody) gid=13 groups=8,24"


@runs("scenarios/user-override.json")
def test_another_user_than_the_images(hyper: Hyper, example: Path) -> None:
    assert hyper.ok("run", "--rm", str(example)) == "65534"


@runs("scenarios/hostname.json")
def test_a_hostname(hyper: Hyper, example: Path) -> None:
    assert hyper.ok("run", "--rm", str(example)).strip() == "myname"


@runs("scenarios/hostname-err-char.json", "scenarios/hostname-err-long.json")
def test_a_hostname_that_is_none_is_refused(hyper: Hyper, example: Path) -> None:
    refused = hyper("run", "--rm", str(example))
    assert refused.status == 125
    assert f"{example}, line 3, hostname: " in refused.err
    assert hyper.ok("list", "-q") == ""


# --- Files ---


@runs("ubuntu-attach-files.json")
def test_a_file_whose_content_is_in_the_podfile(hyper: Hyper, example: Path) -> None:
    content = "[mysqld]\ninnodb_use_native_aio = FALSE\n"
    assert hyper.ok("run", str(example)) == content.rstrip()
    packed = hyper("cp", "reader:/etc/mysql/conf.d/disable-aio.cnf", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert oct(archive.getmember("disable-aio.cnf").mode) == "0o777"


@runs("insert-file.json")
def test_files_of_the_podfile_and_of_the_host(hyper: Hyper, example: Path) -> None:
    found = listing(hyper.ok("run", "--rm", str(example)))
    page = (example.parent / "site/index.html").read_bytes()
    assert found == {
        "hosts": ("-rw-------", "0:0", md5(Path("/etc/hosts").read_bytes())),
        "index.html": ("-rw-r--r--", "1000:1000", md5(page)),
        "empty": ("-rw-r--r--", "0:0", md5(b"")),
        "greeting": ("-rwxr-xr-x", "0:0", md5(b"#!/bin/sh\necho hello\n")),
    }


@runs("scenarios/insert-file.json")
def test_the_originals_inserted_files(hyper: Hyper, example: Path) -> None:
    found = listing(hyper.ok("run", "--rm", str(example)))
    page = (example.parents[1] / "site/index.html").read_bytes()
    assert found == {
        "resolv.conf": ("-rw-------", "0:0", md5(Path("/etc/resolv.conf").read_bytes())),
        "page.html": ("-rw-r--r--", "1000:1000", md5(page)),
        "t1": ("-rw-r--r--", "0:0", md5(b"")),
        "t2": ("-rwxr-xr-x", "0:0", md5(b"hello,\r\nhyper!\r\n")),
    }


def listing(text: str) -> dict[str, tuple[str, str, str]]:
    """Mode, owner and md5 of each file, from what `ls -ln` and `md5sum` said."""
    sums = {name: total for total, name in re.findall(r"^([0-9a-f]{32})  (.+)$", text, re.MULTILINE)}
    rows = re.findall(r"^(-\S+) +1 (\d+) +(\d+) .* (\S+)$", text, re.MULTILINE)
    assert {row[3] for row in rows} == set(sums)
    return {name: (mode, f"{user}:{group}", sums[name]) for mode, user, group, name in rows}


# --- Volumes ---


@pytest.mark.every_driver
@runs("file-mapping.json")
def test_one_file_of_the_host(hyper: Hyper, example: Path) -> None:
    page = example.parent / "site/index.html"
    assert hyper.ok("run", "--rm", str(example)) == page.read_text().rstrip()
    page.write_text("something else\n")
    assert hyper.ok("run", "--rm", str(example)) == "something else"
    alter(example, '"cat", "/srv/index.html"', '"rm", "/srv/index.html"')
    assert hyper("run", "--rm", str(example)).status == 1


@pytest.mark.every_driver
@runs("scenarios/file-mapping.json")
def test_a_file_of_the_hosts_etc(hyper: Hyper, example: Path) -> None:
    wanted = md5(Path("/etc/resolv.conf").read_bytes())
    assert hyper.ok("run", "--rm", str(example)).split() == [wanted, "/root/resolv.conf"]


@pytest.mark.every_driver
@runs("with-volume.json")
def test_two_containers_share_a_volume_and_read_a_directory_of_the_host(hyper: Hyper, example: Path) -> None:
    page = (example.parent / "site/index.html").read_text()
    hyper.ok("run", "-d", str(example))
    assert hyper.eventually("machine of its own", "logs", "shell").endswith(f"started\n{page}")
    (example.parent / "site/new").write_text("just written")
    get = ("exec", "web", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/new")
    assert hyper.eventually("written", *get) == "just written"
    for path in ("/mnt/index.html", "/mnt/other"):
        assert "Read-only file system" in hyper("exec", "web", "sh", "-c", f"echo x > {path}").err
    assert {path.name for path in (example.parent / "site").iterdir()} == {"index.html", "new"}


@pytest.mark.every_driver
@runs("scenarios/with-volume.json")
def test_what_containers_write_to_a_directory_is_on_the_host(hyper: Hyper, example: Path) -> None:
    assert hyper.ok("run", "--rm", str(example)) == "container 1 OK"
    assert (example.parent / "shared/with-volume-test-2").read_text() == "container-2 OK\n"


@pytest.mark.every_driver
@runs("scenarios/simple-volume.json")
def test_a_container_with_a_directory_of_the_host_goes_and_the_directory_stays(
    hyper: Hyper, example: Path
) -> None:
    hyper.ok("run", "-d", str(example))
    assert hyper.eventually(r"\n", "logs", "container-with-volume") == "with-volume-test-1\n"
    hyper.ok("exec", "container-with-volume", "sh", "-c", "echo written > /mnt/file")
    hyper.ok("rm", "-f", "test-remove-container-with-volume")
    assert hyper("inspect", "container-with-volume").status == 1
    assert (example.parent / "shared/file").read_text() == "written\n"


@pytest.mark.timeout(600)
@runs("nfs-volume.json", "scenarios/nfs-client.json")
def test_a_share_of_an_nfs_server(hyper: Hyper, example: Path, nfs_server: str) -> None:
    """A pod puts a file into it, and the example finds that there."""
    alter(example, "192.168.123.1", nfs_server)
    share = f"type=nfs,src={nfs_server}:/export,dst=/s"
    hyper.ok("run", "--rm", "--mount", share, "busybox", "sh", "-c", "echo over the wire > /s/hello")
    hyper.ok("run", "-d", str(example))
    wanted = "over the wire" if example.parent.name == "scenarios" else "hello"
    assert wanted in hyper.eventually(wanted, "logs", json.loads(example.read_text())["id"])


@runs("scenarios/readonly-rootfs.json")
def test_neither_the_root_nor_the_volume_is_written(hyper: Hyper, example: Path) -> None:
    done = hyper("run", "--rm", str(example))
    assert done.status == 0
    assert re.findall(r"can't create (\S+): Read-only file system", done.err) == ["/a", "/tmp/a"]


# --- Networks ---


@pytest.mark.every_driver
@runs("port-mapping.json")
def test_a_range_of_ports_of_the_host(hyper: Hyper, example: Path) -> None:
    alter(example, "3000-3010", f"{PORT}-{PORT + 10}")
    hyper.ok("run", "-d", str(example))
    assert ask(PORT) == hyper.ok("exec", "listener", "hostname")
    hyper.ok("exec", "-d", "listener", "sh", "-c", "while :; do echo last | nc -l -p 1310; done")
    assert ask(PORT + 10) == "last"
    assert f"{PORT + 5}" in hyper.ok("ports", "ls", "port-mapping")


@pytest.mark.needs_root
@pytest.mark.every_driver
@runs("port-mapping-in-sandbox.json")
def test_who_may_reach_a_pod(hyper: Hyper, example: Path) -> None:
    friend = start(hyper, "friend", "sleep 1000")["address"]
    start(hyper, "stranger", "sleep 1000")
    alter(example, "3000-3010", f"{PORT}-{PORT + 10}")
    alter(example, "192.168.123.0/24", f"{friend}/32")
    hyper.ok("run", "-d", str(example))
    hostname = hyper.ok("exec", "listener", "hostname")
    hyper.ok("exec", "-d", "listener", "sh", "-c", "while :; do echo private | nc -l -p 99; done")
    assert ask(PORT) == hostname
    address = inspect(hyper, "pod", "port-mapping-in-sandbox")["pod"]["address"]
    until(lambda: reached(hyper, "friend", address) == [hostname, "private"])
    assert reached(hyper, "stranger", address) == [hostname]


def reached(hyper: Hyper, pod: str, address: str) -> list[str]:
    """What the ports 1300 and 99 of an address tell a pod."""
    script = f"for port in 1300 99; do nc -w 2 {address} $port < /dev/null; done"
    return hyper("exec", pod, "sh", "-c", script).out.split()


@pytest.mark.every_driver
@runs("scenarios/service.json")
def test_a_service_that_leads_back_into_the_pod(hyper: Hyper, example: Path) -> None:
    hyper.ok("create", "-p", str(example))
    hyper.ok("start", "service")
    hostname = inspect(hyper, "pod", "service")["pod"]["id"][:12]
    assert hyper.eventually(r"\w", "logs", "service") == f"{hostname}\n"


# --- Several containers, and restarts ---


@runs("multi-container.json")
def test_three_containers_of_one_machine(hyper: Hyper, example: Path) -> None:
    hyper.ok("run", "-d", str(example))
    hostname = hyper.ok("exec", "web", "hostname")
    said = hyper.eventually(rf"{hostname}\s+{hostname}\s+{hostname}", "logs", "ask")
    assert set(said.split()) == {hostname}
    assert inspect(hyper, "container", "ask")["restarts"] >= 2
    assert inspect(hyper, "container", "web")["restarts"] == 0
    hyper.eventually(r"(?s)httpd -f .*while :; do ps", "logs", "watch")


@runs("kubernetes_ubuntu_restart.yaml")
def test_a_manifest_that_restarts_on_failure(hyper: Hyper, example: Path) -> None:
    hyper.ok("run", "-d", "-p", str(example))
    hyper.eventually(r"Exited \(0\)", "ps", "-a")
    assert hyper.ok("logs", "stubborn").split() == ["try"] * (1 + 2 + 3)
    assert inspect(hyper, "container", "stubborn")["restarts"] == 2
    until(lambda: hyper.state("kubernetes-restart") == "created")  # its machine ends after its container


@runs("kubernetes_tomcat.yaml")
def test_a_manifest_of_a_server(hyper: Hyper, example: Path) -> None:
    alter(example, "18080", str(PORT))
    hyper.ok("run", "-d", "-p", str(example))
    hyper.ok("exec", "web", "sh", "-c", "echo a page > /srv/index.html; mount | grep -q ' /srv '")
    assert ask(PORT, request=b"GET / HTTP/1.0\r\n\r\n").endswith("a page")
    limits = hyper.ok("exec", "-w", "/sys/fs/cgroup", "web", "cat", "memory.max", "cpu.max")
    assert limits == f"{32 << 20}\n50000 100000"
    assert inspect(hyper, "pod", "kubernetes-web")["spec"]["labels"] == {"app": "web"}
