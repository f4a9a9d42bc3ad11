"""Where a registry is reached, and how: hosts, schemes, mirrors, trusted certificates, patience."""

from __future__ import annotations

import ipaddress
import random
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hypercontainer.config import Settings
from hypercontainer.errors import InvalidRequest, Unavailable

_DOCKER_HUB = "registry-1.docker.io"  # the host of the registry that is called docker.io


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place that may have an image."""

    host: str  # with its port, for people and for credentials
    bases: tuple[str, ...]  # base URLs to try, in order
    verifies: bool = True  # certificates
    is_mirror: bool = False

    @property
    def may_be_plain(self) -> bool:
        return any(base.startswith("http://") for base in self.bases)

    @property
    def is_local(self) -> bool:
        return is_loopback(urlsplit(self.bases[0]).hostname or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How patient a client is; seconds."""

    attempts: int = 5
    first_s: float = 0.5
    longest_s: float = 8.0
    longest_asked_s: float = 60.0  # the most that a Retry-After is waited for

    def pause_s(self, number: int, asked_s: float | None) -> float:
        if asked_s is not None:
            return min(asked_s, self.longest_asked_s)
        pause_s: float = min(self.first_s * 2.0 ** (number - 1), self.longest_s)
        return pause_s * random.uniform(0.75, 1.25)  # noqa: S311  (so that many clients don't come at once)


def endpoints(registry: str, settings: Settings) -> list[Endpoint]:
    """Where to ask for images of ``registry``: its mirrors, then itself."""
    mirrors = [_mirror(url, settings) for url in settings.registry_mirrors.get(registry, [])]
    return [*mirrors, _origin(registry, settings)]


def _origin(registry: str, settings: Settings) -> Endpoint:
    host = _DOCKER_HUB if registry == "docker.io" else registry
    insecure = _is_insecure(registry, settings)
    plain = insecure or is_loopback(urlsplit(f"//{registry}").hostname or "")
    bases = (f"https://{host}", f"http://{host}") if plain else (f"https://{host}",)
    return Endpoint(host=registry, bases=bases, verifies=not insecure)


def _mirror(url: str, settings: Settings) -> Endpoint:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidRequest(f"registry_mirrors: {url!r} is no address of a mirror")
    base = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    insecure = _is_insecure(parts.netloc, settings)
    return Endpoint(host=parts.netloc, bases=(base,), verifies=not insecure, is_mirror=True)


def _is_insecure(host: str, settings: Settings) -> bool:
    return bool({host, host.rpartition(":")[0] or host} & set(settings.insecure_registries))


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def trust(endpoint: Endpoint, certificates: Path | None) -> ssl.SSLContext:
    """The system's authorities (SSL_CERT_FILE moves them) and those of ``certificates/HOST/ca.crt``."""
    context = ssl.create_default_context()
    if not endpoint.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    own = certificates / endpoint.host / "ca.crt" if certificates else None
    if own is not None and own.is_file():
        try:
            context.load_verify_locations(own)
        except ssl.SSLError as error:
            raise Unavailable(f"{own} holds no certificate that can be read: {error}") from error
    return context
