"""A token server for a registry: passwords in, signed tokens out, by the distribution project's scheme."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.registry import PASSWORD, USER


@dataclass
class TokenServer:
    """Signs with ``root/server.key``; ``root`` may be set after the start."""

    realm: str = ""
    root: Path = Path()
    asked: list[Mapping[str, list[str]]] = field(default_factory=list)

    def token(self, query: Mapping[str, list[str]], authorization: str) -> str | None:
        self.asked.append(query)
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if authorization != f"Basic {expected}":
            return None
        access = [_access(scope) for scope in query.get("scope", [])]
        now = int(time.time())
        claims = {"iss": "us", "sub": USER, "aud": "test", "nbf": now - 60, "iat": now, "exp": now + 300}
        return self._signed({**claims, "jti": str(len(self.asked)), "access": access})

    def _signed(self, claims: Mapping[str, object]) -> str:
        lines = (self.root / "server.crt").read_text().splitlines()
        header = {"typ": "JWT", "alg": "ES256", "x5c": ["".join(lines[1:-1])]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        command: list[str | Path] = ["openssl", "dgst", "-sha256", "-sign", self.root / "server.key"]
        der = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_encoded(_raw_signature(der))}"


def _access(scope: str) -> Mapping[str, object]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw_signature(der: bytes) -> bytes:
    """The two numbers of an ECDSA signature as JSON Web Signatures have them (RFC 7518 section 3.4)."""
    size = der[3]
    first, second = der[4 : 4 + size], der[6 + size :]
    return b"".join(int.from_bytes(number, "big").to_bytes(32, "big") for number in (first, second))


@contextmanager
def running_token_server() -> Iterator[TokenServer]:
    tokens = TokenServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            token = tokens.token(query, self.headers.get("Authorization", ""))
            body = json.dumps({"token": token, "expires_in": 300}).encode() if token else b"{}"
            self.send_response(200 if token else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tokens.realm = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
