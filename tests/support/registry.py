"""A real registry (Debian's docker-registry) on a free port, with TLS and a password, filled by skopeo."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_S

USER, PASSWORD = "someone", "a secret: with, odd=signs"

_CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}
http:
  addr: 127.0.0.1:{port}
  tls: {{certificate: {root}/server.crt, key: {root}/server.key}}
auth: {auth}
"""
_PASSWORDS = "{{htpasswd: {{realm: test, path: {root}/htpasswd}}}}"
_TOKENS = "{{token: {{realm: '{realm}', service: test, issuer: us, rootcertbundle: {root}/server.crt}}}}"


@dataclass(frozen=True)
class RegistryServer:
    host: str  # with its port
    root: Path

    @property
    def certificate(self) -> Path:
        """It signed itself."""
        return self.root / "server.crt"

    def push(self, archive: Path, name: str, *options: str, transport: str = "docker-archive") -> None:
        """Push the image of ``archive`` as ``name`` (repository:tag) with skopeo."""
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        command += [f"--dest-creds={USER}:{PASSWORD}", *options]
        command += [f"{transport}:{archive}", f"docker://{self.host}/{name}"]
        subprocess.run(command, check=True, capture_output=True)


@contextmanager
def running_registry(root: Path, *, realm: str = "") -> Iterator[RegistryServer]:
    """With passwords, or with tokens that a server at ``realm`` (a URL) gives and signs by ``server.key``."""
    for program, package in (
        ("docker-registry", ""),
        ("skopeo", ""),
        ("htpasswd", "apache2-utils"),
        ("openssl", ""),
    ):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (Debian: {package or program})")
    _write_secrets(root)
    auth = (_TOKENS if realm else _PASSWORDS).format(root=root, realm=realm)
    with reserved_port() as port, (root / "log").open("wb") as log:
        (root / "config.yml").write_text(_CONFIG.format(root=root, port=port, auth=auth))
        server = subprocess.Popen(["docker-registry", "serve", root / "config.yml"], stdout=log, stderr=log)
        try:
            _wait_for(port, server, root / "log")
            yield RegistryServer(f"127.0.0.1:{port}", root)
        finally:
            server.terminate()
            server.wait()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody gets by chance; who sets SO_REUSEADDR too, as Go does, may listen on it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _write_secrets(root: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", "server.key", "-out", "server.crt", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    hashed = subprocess.run(["htpasswd", "-nbB", USER, PASSWORD], check=True, capture_output=True).stdout
    (root / "htpasswd").write_bytes(hashed)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"docker-registry does not come up: {log.read_text()[-500:]}")
