"""The original HyperContainer's own end-to-end list (hyperd's hack/test-cmd.sh), scenario for scenario.

The names are theirs, so that what was promised then can be looked up here.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hyper import Hyper
from tests.support.images import Member, cached_busybox_layer, directory, docker_archive, layer

pytestmark = pytest.mark.every_driver

IDLE = ["sleep", "1000"]
ETC = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1001:1001::/home/alice:/bin/sh\n"
    "bob:x:1002:1002::/:/bin/sh\n",
    "etc/group": "root:x:0:\nalice:x:1001:\nbob:x:1002:\nstaff:x:2001:\naudio:x:2002:\n",
}


def write_pod(path: Path, **fields: Any) -> str:
    path.write_text(json.dumps(fields))
    return str(path)


def load(hyper: Hyper, where: Path, tag: str, *members: Member, **config: Any) -> None:
    """An image of busybox with ``members`` over it."""
    archive = docker_archive(
        where / f"{tag}.tar", layers=[cached_busybox_layer(), layer(*members)], config=config, tags=[tag]
    )
    hyper.ok("load", "-q", "-i", str(archive))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def web(content: dict[str, bytes]) -> Iterator[str]:
    """An HTTP server of this machine that has ``content``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *words: Any) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- The list ---


def test_command(hyper: Hyper) -> None:
    """A detached command with a terminal runs on."""
    hyper.ok("run", "-d", "-t", "--name", "etcd", "busybox", "sh", "-c", "echo serving; exec sleep 1000")
    assert "serving" in hyper.eventually("serving", "logs", "etcd")
    assert hyper.state("etcd") == "running"


def test_exitcode(hyper: Hyper) -> None:
    assert hyper("run", "--rm", "busybox", "sh", "-c", "exit 17").status == 17


def test_exec(hyper: Hyper) -> None:
    hyper.ok("run", "-d", "--name", "p", "busybox", *IDLE)
    assert hyper("exec", "p", "sh", "-c", "exit 37").status == 37


def test_hostname(hyper: Hyper, tmp_path: Path) -> None:
    def run(hostname: str) -> tuple[int, str]:
        containers = [{"image": "busybox", "command": ["hostname"]}]
        path = write_pod(tmp_path / "pod.json", hostname=hostname, containers=containers)
        done = hyper("run", "--rm", path)
        return done.status, done.out + done.err

    assert run("good.host-name") == (0, "good.host-name\n")
    for bad in ("x" * 64, "bad_name", "bad..name", "-bad"):
        status, text = run(bad)
        assert status == 125
        assert "hostname" in text
    assert hyper.ok("list", "-q") == ""


def test_insert_file(hyper: Hyper, tmp_path: Path) -> None:
    """From a file, from the web, empty, and in base64; what is no base64 is refused."""
    content = bytes(range(256)) * 40
    (tmp_path / "local").write_bytes(content)
    with web({"/file": content[::-1]}) as url:
        files = [
            {"name": "local", "encoding": "raw", "uri": f"file://{tmp_path}/local"},
            {"name": "remote", "encoding": "raw", "uri": f"{url}/file"},
            {"name": "empty", "encoding": "raw", "content": ""},
            {"name": "coded", "encoding": "base64", "content": base64.b64encode(content).decode()},
        ]
        inserted = [
            {"filename": f["name"], "path": "/deep/", "perm": "0755", "user": "root", "group": "root"}
            for f in files
        ]
        script = "cd /deep; md5sum local remote empty coded; stat -c %a local; exec sleep 1000"
        container = {"name": "c", "image": "busybox", "command": ["sh", "-c", script], "files": inserted}
        hyper.ok("run", "-d", write_pod(tmp_path / "pod.json", id="p", files=files, containers=[container]))
    lines = hyper.eventually("755", "logs", "c").splitlines()
    sums = [hashlib.md5(data).hexdigest() for data in (content, content[::-1], b"", content)]
    assert [line.split()[0] for line in lines] == [*sums, "755"]

    files[3]["content"] = "this is no base64!"
    bad = hyper(
        "run", "-d", write_pod(tmp_path / "bad.json", id="q", files=files[2:], containers=[container])
    )
    assert bad.status == 125
    assert "base64" in bad.err
    assert hyper.ok("list", "-q", "--no-trunc").count("\n") == 0  # only the first


def test_map_file(hyper: Hyper, tmp_path: Path) -> None:
    """A single file of the host, as a vfs volume."""
    shared = tmp_path / "shared"
    shared.write_text("from the host\n")
    volume = {"name": "v", "source": str(shared), "format": "vfs"}
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", "cat /in/file; echo from the guest >> /in/file"],
        "volumes": [{"volume": "v", "path": "/in/file", "readOnly": False}],
    }
    path = write_pod(tmp_path / "pod.json", volumes=[volume], containers=[container])
    assert hyper.ok("run", "--rm", path) == "from the host"
    assert shared.read_text() == "from the host\nfrom the guest\n"


def test_with_volume(hyper: Hyper, tmp_path: Path) -> None:
    """Two containers share two volumes, and the host sees what they wrote to its own."""
    host = tmp_path / "host"
    host.mkdir()
    volumes = [{"name": "auto", "format": ""}, {"name": "host", "source": str(host), "format": "vfs"}]
    mounts = [{"volume": "auto", "path": "/auto"}, {"volume": "host", "path": "/host"}]
    write = "echo out > /host/out; echo one > /auto/one; exec sleep 1000"
    read = "until grep -s one /auto/one; do sleep 0.1; done; cat /auto/one > /host/copy; exec sleep 1000"
    containers = [
        {"name": name, "image": "busybox", "command": ["sh", "-c", script], "volumes": mounts}
        for name, script in (("writer", write), ("reader", read))
    ]
    hyper.ok("run", "-d", write_pod(tmp_path / "pod.json", id="p", volumes=volumes, containers=containers))
    hyper.eventually("one", "exec", "reader", "cat", "/host/copy")
    assert (host / "copy").read_text() == "one\n"
    assert (host / "out").read_text() == "out\n"


def test_service(hyper: Hyper, tmp_path: Path) -> None:
    """A service of the pod leads to its backends in turn."""
    backends = []
    for name in ("b1", "b2"):
        script = f"mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 8080 -h /www"
        hyper.ok("run", "-d", "--name", name, "busybox", "sh", "-c", script)
        address = next(row["address"] for row in hyper.json("list") if row["name"] == name)
        backends.append({"hostIP": address, "hostPort": 8080})
    service = {"serviceIP": "10.254.0.24", "servicePort": 2834, "protocol": "TCP", "hosts": backends}
    containers = [{"name": "client", "image": "busybox", "command": IDLE}]
    hyper.ok("run", "-d", write_pod(tmp_path / "p.json", id="p", services=[service], containers=containers))
    get = ("exec", "client", "wget", "-q", "-O", "-")
    for backend in backends:
        hyper.eventually("b", *get, f"http://{backend['hostIP']}:8080/")
    assert {hyper.ok(*get, "http://10.254.0.24:2834/") for _ in range(6)} == {"b1", "b2"}


@pytest.mark.timeout(600)
def test_nfs_volume(hyper: Hyper, nfs_server: str, tmp_path: Path) -> None:
    """A server pod, and a client pod whose two containers mount what it exports."""
    volume = {"name": "v", "format": "nas", "fstype": "nfs", "source": f"{nfs_server}:/export"}
    containers = [
        {"name": name, "image": "busybox", "command": IDLE, "volumes": [mount | {"readOnly": read_only}]}
        for mount in [{"volume": "v", "path": "/v"}]
        for name, read_only in (("writer", False), ("reader", True))
    ]
    hyper.ok("run", "-d", write_pod(tmp_path / "c.json", id="c", volumes=[volume], containers=containers))
    hyper.ok("exec", "writer", "sh", "-c", "echo over the wire > /v/file; chown 12:34 /v/file")
    assert hyper.ok("exec", "reader", "cat", "/v/file") == "over the wire"
    assert hyper.ok("exec", "reader", "stat", "-c", "%u:%g", "/v/file") == "12:34"
    refused = hyper("exec", "reader", "touch", "/v/other")
    assert "Read-only file system" in refused.err
    hyper.ok("stop", "-t", "1", "c")
    hyper.ok("start", "c")
    assert hyper.ok("exec", "reader", "cat", "/v/file") == "over the wire"


def test_execvm(hyper: Hyper) -> None:
    hyper.ok("run", "-d", "--name", "p", "busybox", *IDLE)
    assert hyper.ok("exec", "-m", "p", "echo", "in the machine") == "in the machine"
    assert "hyperstart" in hyper.ok("exec", "-m", "p", "cat", "/proc/1/comm")


def test_remove_container_with_volume(hyper: Hyper, tmp_path: Path) -> None:
    """A container that has volumes leaves a live pod, and the pod goes afterwards."""
    host = tmp_path / "host"
    host.mkdir()
    containers = [{"name": "stays", "image": "busybox", "command": IDLE}]
    hyper.ok("run", "-d", write_pod(tmp_path / "pod.json", id="p", containers=containers))
    hyper.ok("create", "-c", "p", "--name", "goes", "-v", f"{host}:/v", "busybox", "sleep", "1000")
    hyper.ok("start", "-c", "goes")
    hyper.ok("exec", "goes", "sh", "-c", "echo kept > /v/file")
    hyper.ok("rm", "-f", "-c", "goes")
    assert hyper("inspect", "goes").status == 1
    assert hyper.state("p") == "running"
    assert (host / "file").read_text() == "kept\n"
    hyper.ok("rm", "-f", "p")
    assert host.is_dir()


def test_imageuser(hyper: Hyper, tmp_path: Path) -> None:
    load(hyper, tmp_path, "imageuser", *etc(), User="alice", Cmd=["sh", "-c", "id -un; id -gn"])
    assert hyper.ok("run", "--rm", "imageuser").split() == ["alice", "alice"]


def test_imageusergroup(hyper: Hyper, tmp_path: Path) -> None:
    load(hyper, tmp_path, "imageusergroup", *etc(), User="alice:staff", Cmd=["sh", "-c", "id -un; id -gn"])
    assert hyper.ok("run", "--rm", "imageusergroup").split() == ["alice", "staff"]


def test_specuseroverride(hyper: Hyper, tmp_path: Path) -> None:
    load(hyper, tmp_path, "override", *etc(), User="alice:staff", Cmd=["sh", "-c", "id -un; id -gn; id -G"])
    user = {"name": "bob", "group": "bob", "additionalGroups": ["audio"]}
    path = write_pod(tmp_path / "pod.json", containers=[{"image": "override", "user": user}])
    assert hyper.ok("run", "--rm", path).splitlines() == ["bob", "bob", "1002 2002"]


def etc() -> list[Member]:
    return [Member(name=name, content=text.encode()) for name, text in ETC.items()]


def test_imagevolume(hyper: Hyper, tmp_path: Path) -> None:
    """A VOLUME of the image begins with what the image has there; /etc/hosts is there as well."""
    members = [directory("data", 0o750), Member(name="data/seed", content=b"seed\n")]
    load(hyper, tmp_path, "imagevolume", *members, Volumes={"/data": {}}, Cmd=IDLE)
    hyper.ok("run", "-d", "--name", "p", "imagevolume")
    assert hyper.ok("exec", "p", "cat", "/data/seed") == "seed"
    mounts = hyper.ok("exec", "p", "cat", "/proc/mounts")
    assert " /data " in mounts
    assert " /etc/hosts " in mounts
    assert hyper.ok("exec", "p", "stat", "-c", "%a", "/data") == "750"
    hyper.ok("exec", "p", "sh", "-c", "echo changed > /data/seed; sync")
    hyper.ok("stop", "-t", "1", "p")
    hyper.ok("start", "p")
    assert hyper.ok("exec", "p", "cat", "/data/seed") == "changed"


def test_force_kill_container(hyper: Hyper) -> None:
    """A shell on a terminal ignores SIGTERM; stop ends it all the same."""
    hyper.ok("run", "-d", "-t", "--name", "p", "busybox", "sh")
    started = time.monotonic()
    hyper.ok("stop", "-t", "1", "p")
    assert time.monotonic() - started < 30
    assert hyper.state("p") == "created"


def test_container_logs_no_newline(hyper: Hyper) -> None:
    hyper.ok("run", "--name", "p", "busybox", "printf", "no newline")
    assert hyper("logs", "p").stdout == b"no newline"


def test_container_readonly_rootfs_and_volume(hyper: Hyper, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    script = "touch /file; touch /v/file; exit 3"
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", script],
        "readOnly": True,
        "volumes": [{"volume": "v", "path": "/v", "readOnly": True}],
    }
    volume = {"name": "v", "source": str(tmp_path / "host"), "format": "vfs"}
    done = hyper("run", "--rm", write_pod(tmp_path / "p.json", volumes=[volume], containers=[container]))
    assert done.status == 3
    assert done.err.count("Read-only file system") == 2
    assert list((tmp_path / "host").iterdir()) == []


def test_portmapping(hyper: Hyper, tmp_path: Path) -> None:
    """Netcat through the host's port, from a podfile's mapping."""
    port = free_port()
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", "while :; do echo through | nc -l -p 80; done"],
    }
    mapping = {"containerPort": "80", "hostPort": str(port), "protocol": "tcp"}
    path = write_pod(tmp_path / "pod.json", id="p", portmappings=[mapping], containers=[container])
    hyper.ok("run", "-d", path)
    assert read_from(port) == b"through\n"
    assert str(port) in hyper.ok("ports", "ls", "p")


def read_from(port: int) -> bytes:
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                if data := client.recv(100):
                    return data
        except OSError:
            pass
        assert time.monotonic() < deadline, "nobody answers"
        time.sleep(0.2)
