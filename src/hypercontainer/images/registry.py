"""A client of registries: manifests and blobs by the OCI distribution specification.

Everything that comes is hostile until its digest says otherwise: sizes are bounded, text for people is
cleaned, a password never goes to another host.  Answers that may be better next time (5xx, 429, a broken or
short transfer) are asked for again, with growing pauses.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec

from hypercontainer.errors import (
    HyperError,
    ImageNotFound,
    InvalidRequest,
    RegistryError,
    Unauthorized,
    Unavailable,
)
from hypercontainer.images.auth import Authorizer
from hypercontainer.images.download import Download
from hypercontainer.images.endpoint import Endpoint, Retry, trust
from hypercontainer.model.image import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_SIZE,
    Credentials,
    Descriptor,
    Digest,
    Reference,
    decode,
    digest_of,
)

_MAX_REDIRECTS = 5
_MAX_ERROR = 64 << 10
_TIMEOUT = httpx.Timeout(30, connect=10)  # seconds without a byte
_REDIRECTS = {301, 302, 303, 307, 308}

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Transient(Exception):
    """An answer that may be better next time."""

    def __init__(self, why: str, asked_s: float | None = None) -> None:
        super().__init__(why)
        self.asked_s = asked_s


class Registry:
    """One repository at one endpoint, while the ``async with`` block lasts."""

    def __init__(
        self,
        endpoint: Endpoint,
        reference: Reference,
        *,
        credentials: Credentials | None,
        certificates: Path | None,
        retry: Retry,
    ) -> None:
        self._endpoint = endpoint
        self._reference = reference
        self._retry = retry
        self._base = ""
        self._stack = AsyncExitStack()
        # A proxy from the environment is never meant for this host itself.
        self._client = httpx.AsyncClient(
            verify=trust(endpoint, certificates),
            timeout=_TIMEOUT,
            headers={"User-Agent": f"hyper/{version('hypercontainer')}", "Accept-Encoding": "identity"},
            trust_env=not endpoint.is_local,
        )
        self._authorizer = Authorizer(
            self._client, endpoint, reference.repository, None if endpoint.is_mirror else credentials
        )

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._client)
        try:
            self._base = await self._find_base()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def manifest(self, wanted: str) -> tuple[bytes, Digest, str]:
        """The manifest or index by tag or digest: its bytes, digest and media type."""
        what = f"manifest {wanted}"
        accept = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))

        async def fetch() -> tuple[bytes, Digest, str]:
            async with self._open(f"manifests/{wanted}", {"Accept": accept}) as response:
                await self._check(response, what)
                data = await _bounded(response, MAX_DOCUMENT_SIZE, what)
                kind = response.headers.get("content-type", "").partition(";")[0].strip()
            if wanted.startswith("sha256:") and digest_of(data) != wanted:
                raise Transient(f"it is corrupt: the registry sent {digest_of(data)}")
            return data, digest_of(data), kind

        return await self._retrying(what, fetch)

    async def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, verified."""
        digest = descriptor.checked_digest()
        what = f"config {digest}"

        async def fetch() -> bytes:
            async with self._open(f"blobs/{digest}", {}) as response:
                await self._check(response, what)
                data = await _bounded(response, MAX_DOCUMENT_SIZE, what)
            if digest_of(data) != digest:
                raise Transient(f"it is corrupt: the registry sent {digest_of(data)}")
            return data

        return await self._retrying(what, fetch)

    async def layer(self, digest: Digest, size: int, target: Path, seen: Callable[[int], None]) -> None:
        """Download a layer to ``target``, going on where an earlier try ended; verified when it returns.

        ``seen`` is told how many bytes are there.
        """
        what = f"layer {digest}"
        download = Download(target, digest, size, seen)
        await download.prepare()

        async def fetch() -> None:
            if not download.is_complete:
                await self._fetch(download, what)
            if not await download.verify():
                raise Transient(f"it is corrupt: what was sent has digest {download.found}")

        await self._retrying(what, fetch, progress=lambda: download.best)

    async def _fetch(self, download: Download, what: str) -> None:
        at = download.at
        headers = {"Range": f"bytes={at}-"} if at else {}
        async with self._open(f"blobs/{download.digest}", headers) as response:
            if response.status_code == 416:
                await download.restart()
                raise Transient("it does not go on where it ended")
            await self._check(response, what)
            if response.status_code != 206 or not _goes_on_at(response, at):
                if response.status_code == 206:
                    raise Transient("it sent another part than was asked for")
                await download.restart()
            try:
                async for data in response.aiter_raw():  # not in larger pieces: a break would lose the last
                    await download.take(data)
            finally:
                await download.flush()
        if not download.is_complete:
            raise Transient(f"it ended after {download.at} of {download.size} bytes")

    async def _find_base(self) -> str:
        """The first base URL where a registry answers, whatever it says."""
        *others, last = self._endpoint.bases
        for base in others:
            try:
                await self._client.get(f"{base}/v2/")
            except httpx.TransportError as error:
                if _certificate_problem(error):
                    raise self._failure("an answer", error) from error
                log.debug("%s: %s; trying the next", base, error)
            else:
                return base

        async def ask() -> str:
            await self._client.get(f"{last}/v2/")
            return last

        return await self._retrying("an answer", ask, attempts=min(3, self._retry.attempts))

    async def _retrying(
        self,
        what: str,
        attempt: Callable[[], Awaitable[Result]],
        *,
        attempts: int = 0,
        progress: Callable[[], int] = lambda: 0,
    ) -> Result:
        """Try until it works or patience ends; ``progress`` that grows is worth new patience."""
        number, before = 0, progress()
        while True:
            try:
                return await attempt()
            except (Transient, httpx.TransportError, httpx.HTTPStatusError) as error:
                number = 1 if progress() > before else number + 1
                before = progress()
                if number >= (attempts or self._retry.attempts) or _certificate_problem(error):
                    raise self._failure(what, error) from error
                pause_s = self._retry.pause_s(number, _asked_s(error))
                log.info("%s from %s: %s; again in %.1f s", what, self._endpoint.host, _why(error), pause_s)
            await asyncio.sleep(pause_s)

    def _failure(self, what: str, error: Exception) -> HyperError:
        where = f"cannot pull {self._reference.familiar}: {what} from registry {self._endpoint.host}"
        if isinstance(error, Transient | httpx.HTTPStatusError):
            return RegistryError(f"{where}: {_why(error)}", hint="try again later")
        if _certificate_problem(error):
            return Unavailable(
                f"{where}: its certificate is not trusted: {_why(error)}",
                hint=f"put its authority into certs.d/{self._endpoint.host}/ca.crt of hyper's configuration "
                "directory, or name the host in insecure_registries",
            )
        return Unavailable(
            f"{where}: {_why(error)}", hint="check the name, the network and the proxy settings"
        )

    @asynccontextmanager
    async def _open(self, path: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        url = httpx.URL(f"{self._base}/v2/{self._reference.repository}/{path}")
        response = await self._follow(url, headers)
        try:
            yield response
        finally:
            await response.aclose()

    async def _follow(self, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        """Ask, answer a challenge once, follow redirects; only the registry itself sees who asks."""
        home = _origin(url)
        answered = False
        for _ in range(_MAX_REDIRECTS + 2):
            sent = self._authorizer.header if _origin(url) == home else ""
            extra = {"Authorization": sent} if sent else {}
            request = self._client.build_request("GET", url, headers={**headers, **extra})
            response = await self._client.send(request, stream=True)
            if response.status_code == 401 and _origin(url) == home:
                await response.aclose()
                if answered:
                    raise self._authorizer.denied()
                answered = await self._authorizer.answer(response, sent)
            elif response.status_code in _REDIRECTS and "location" in response.headers:
                await response.aclose()
                url = self._redirected(url, response.headers["location"])
            else:
                return response
        raise RegistryError(f"registry {self._endpoint.host} redirects more than {_MAX_REDIRECTS} times")

    def _redirected(self, url: httpx.URL, location: str) -> httpx.URL:
        try:
            target = url.join(location)
        except (httpx.InvalidURL, ValueError) as error:
            raise RegistryError(f"registry {self._endpoint.host} redirects to no address") from error
        if target.scheme not in {"http", "https"} or not target.host:
            raise RegistryError(f"registry {self._endpoint.host} redirects to {_clean(str(target))}")
        if target.scheme == "http" and url.scheme == "https" and not self._endpoint.may_be_plain:
            raise RegistryError(f"registry {self._endpoint.host} redirects to plain HTTP at {target.host}")
        return target

    async def _check(self, response: httpx.Response, what: str) -> None:
        status = response.status_code
        if status in {200, 206}:
            return
        said = await _said(response)
        why = f"{status} {response.reason_phrase}" + (f" ({said})" if said else "")
        where = f"{what} from registry {self._endpoint.host}"
        if status == 429 or status >= 500 or status == 408:
            raise Transient(f"it answered {why}", _retry_after_s(response))
        if status in {401, 403}:
            raise Unauthorized(
                f"pull access denied for {self._reference.familiar}: {where}: {why}",
                hint="log in with docker login, whose credentials hyper pull uses, or check the name",
            )
        if status == 404:
            raise ImageNotFound(
                f"no image {self._reference.familiar}: {where}: {why}", hint="check name and tag"
            )
        raise RegistryError(f"cannot pull {self._reference.familiar}: {where}: {why}")


class _Said(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct, frozen=True):
    errors: list[_Said] = msgspec.field(default_factory=list)


async def _said(response: httpx.Response) -> str:
    """What the registry's error document says, fit for a message."""
    try:
        answer = decode(await _bounded(response, _MAX_ERROR, "error"), _Errors, what="error")
    except (InvalidRequest, RegistryError, httpx.TransportError):
        return ""
    return _clean("; ".join(item.message or item.code for item in answer.errors[:3]))


async def _bounded(response: httpx.Response, limit: int, what: str) -> bytes:
    data = bytearray()
    async for part in response.aiter_raw(64 << 10):
        data += part
        if len(data) > limit:
            raise RegistryError(f"{what} is larger than {limit} bytes")
    return bytes(data)


def _clean(text: str) -> str:
    """A stranger's text for a terminal: no control characters, not too long."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


def _why(error: BaseException) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.request.url.host} answered {error.response.status_code}"
    found: BaseException | None = error if isinstance(error, httpx.TransportError) else None
    while found is not None:  # httpx says only that a connection failed; the system's word is below
        if isinstance(found, OSError) and found.strerror:
            return _clean(found.strerror)
        found = found.__cause__ or found.__context__
    return _clean(str(error)) or type(error).__name__


def _certificate_problem(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _asked_s(error: Exception) -> float | None:
    if isinstance(error, httpx.HTTPStatusError):
        return _retry_after_s(error.response)
    return error.asked_s if isinstance(error, Transient) else None


def _retry_after_s(response: httpx.Response) -> float | None:
    """RFC 9110 section 10.2.3: seconds, or a date."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _goes_on_at(response: httpx.Response, at: int) -> bool:
    content_range: str = response.headers.get("content-range", "")
    return content_range.replace("bytes=", "bytes ").startswith(f"bytes {at}-")
