"""How a registry is told who asks: challenges read, tokens fetched and used again.

Sources: RFC 9110 section 11 (challenges), RFC 7617 (Basic), and the distribution project's "Token
Authentication Specification" (Bearer).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import msgspec

from hypercontainer.errors import InvalidRequest, RegistryError, Unauthorized
from hypercontainer.images.endpoint import Endpoint, is_loopback
from hypercontainer.model.image import Credentials, decode

_MAX_HEADER = 8192
_MAX_TOKEN = 1 << 20
_PARTS = re.compile(r'(\w+)\s*=\s*"((?:\\.|[^"\\])*)"|(\w+)\s*=\s*([^\s",]+)|([A-Za-z]+)(?=\s|$)')
_LOGIN_HINT = "log in: docker login stores what hyper pull uses; or check the name"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str  # in lower case
    parameters: dict[str, str]


def challenges(headers: Iterable[str]) -> Iterator[Challenge]:
    """Read ``WWW-Authenticate`` headers, each of which may hold several challenges."""
    found: Challenge | None = None
    for match in _PARTS.finditer(", ".join(headers)[:_MAX_HEADER]):
        quoted_key, quoted, key, plain, scheme = match.groups()
        if scheme:
            if found:
                yield found
            found = Challenge(scheme.lower(), {})
        elif found:
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted_key else plain
            found.parameters[(quoted_key or key).lower()] = value
    if found:
        yield found


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


class Authorizer:
    """Keeps the ``Authorization`` for one repository of one registry."""

    def __init__(
        self, client: httpx.AsyncClient, endpoint: Endpoint, repository: str, credentials: Credentials | None
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._repository = repository
        self._credentials = credentials
        self._lock = asyncio.Lock()
        self.header = ""  # empty: ask without

    async def answer(self, response: httpx.Response, sent: str) -> bool:
        """Find another header than ``sent``, which ``response`` (401) refused; raises Unauthorized.

        False when another request has answered the challenge meanwhile.
        """
        async with self._lock:
            if self.header != sent:
                return False
            offered = {
                item.scheme: item for item in challenges(response.headers.get_list("www-authenticate"))
            }
            if "bearer" in offered:
                self.header = f"Bearer {await self._token(offered['bearer'])}"
            elif "basic" in offered:
                self.header = self._basic()
            else:
                raise self._refused("it asks for a kind of login that hyper doesn't know")
            return True

    def denied(self) -> Unauthorized:
        """What to say when the answer to a challenge is refused, too."""
        if self._credentials is None:
            return self._refused("it does not exist, or wants a login")
        return self._refused(f"it does not accept the login of {self._credentials.username!r}")

    def _basic(self) -> str:
        if self._credentials is None:
            raise self._refused("it wants a login")
        return basic(self._credentials)

    async def _token(self, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm)
        query = {"scope": challenge.parameters.get("scope") or f"repository:{self._repository}:pull"}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        headers = {"Authorization": basic(self._credentials)} if self._credentials else {}
        log.debug("token from %s for %s", realm, query)
        url = httpx.URL(realm).copy_merge_params(query)
        response = await self._client.get(url, headers=headers)
        return self._read_token(response, realm)

    def _read_token(self, response: httpx.Response, realm: str) -> str:
        if response.status_code in {401, 403}:
            raise self._refused(f"{urlsplit(realm).hostname} gives no token for {self._repository}")
        if response.status_code == 429 or response.status_code >= 500:
            response.raise_for_status()  # tried again, like any other answer of this kind
        if response.status_code != 200 or len(response.content) > _MAX_TOKEN:
            raise RegistryError(f"{realm[:200]} answered {response.status_code} when asked for a token")
        try:
            answer = decode(response.content, _Token, what=f"the token of {realm[:200]}")
        except InvalidRequest as error:
            raise RegistryError(error.message) from error
        token = answer.token or answer.access_token
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryError(f"{realm[:200]} gave no token")
        return token

    def _check_realm(self, realm: str) -> None:
        """A password may go where the registry points to, but never less protected than to the registry."""
        parts = urlsplit(realm)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise RegistryError(
                f"registry {self._endpoint.host} names no place to get a token: {realm[:200]!r}"
            )
        if parts.scheme == "http" and not self._endpoint.may_be_plain and not is_loopback(parts.hostname):
            raise RegistryError(
                f"registry {self._endpoint.host} wants the token fetched by plain HTTP: {realm[:200]}"
            )

    def _refused(self, why: str) -> Unauthorized:
        return Unauthorized(
            f"pull access denied for {self._repository} by registry {self._endpoint.host}: {why}",
            hint=_LOGIN_HINT,
        )


def basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
