"""Pulls from a real registry, filled by skopeo, over good and bad networks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from hypercontainer.config import Settings
from hypercontainer.errors import (
    HyperError,
    ImageNotFound,
    InvalidRequest,
    RegistryError,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from hypercontainer.images.endpoint import Retry
from hypercontainer.images.store import Images
from hypercontainer.model.image import Credentials
from tests.images.support import left_over, load, pull
from tests.support.faulty import (
    Fault,
    Faulty,
    Request,
    corrupt,
    faulty,
    grow,
    redirect,
    replace,
    slow,
    status,
    truncate,
)
from tests.support.images import Member, digest, docker_archive, layer
from tests.support.registry import PASSWORD, USER, RegistryServer
from tests.support.squashfs import read_disk

LOGIN = Credentials(username=USER, password=PASSWORD)
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
QUICK = Retry(first_s=0.01, longest_s=0.05, longest_asked_s=2.0)
CONTENTS = [os.urandom(150_000) for _ in range(5)]
LAYERS = [layer(Member(name=f"file-{n}", content=content)) for n, content in enumerate(CONTENTS)]


@pytest.fixture(scope="module")
def archive(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of five layers, as it was pushed to the registry as team/five:1 and :oci."""
    path = tmp_path_factory.mktemp("push") / "image.tar"
    docker_archive(path, layers=LAYERS, config={"Cmd": ["sh"]}, tags=["five:1"])
    registry.push(path, "team/five:1")
    registry.push(path, "team/five:oci", "--format=oci")
    return path


@pytest.fixture
def pushed(archive: Path, registry: RegistryServer) -> str:
    return f"{registry.host}/team/five:1"


@pytest.fixture
def images(root: Path, archive: Path) -> Iterator[Images]:
    store = Images(root, settings=Settings(), retry=QUICK)
    yield store
    store.close()


@pytest.fixture
def secure(root: Path, registry: RegistryServer, tmp_path: Path) -> Iterator[Images]:
    own = tmp_path / "certs.d" / registry.host
    own.mkdir(parents=True)
    (own / "ca.crt").write_bytes(registry.certificate.read_bytes())
    store = Images(root, settings=Settings(), certificates=tmp_path / "certs.d", retry=QUICK)
    yield store
    store.close()


async def files_of(images: Images, name: str) -> set[bytes]:
    return set(read_disk(await images.disk(images.get(name))))


FILES = {b"file-%d" % n for n in range(5)}


async def test_an_image_is_pulled_over_tls_with_a_password(secure: Images, pushed: str) -> None:
    lines = await pull(secure, pushed, credentials=LOGIN)
    image = secure.get(pushed)
    assert await files_of(secure, pushed) == FILES
    assert image.tags == (pushed,)
    assert image.config.cmd == ["sh"]
    assert image.size == sum(map(len, LAYERS))
    assert lines[0].status == "Pulling from team/five"
    assert sum(line.status == "Pull complete" for line in lines) == 5
    assert lines[-1].status == f"Status: Downloaded newer image for {pushed}"
    assert lines[-2].status == f"Digest: {lines[-1].digest}"
    again = await pull(secure, pushed, credentials=LOGIN)
    assert again[-1].status == f"Status: Image is up to date for {pushed}"
    assert not any(line.status == "Downloading" for line in again)


async def test_an_image_is_pulled_by_digest(secure: Images, pushed: str) -> None:
    by_tag = (await pull(secure, pushed, credentials=LOGIN))[-1]
    name = f"{pushed.rpartition(':')[0]}@{by_tag.digest}"
    assert secure.get(name).digests == (name,)
    assert secure.get(name).id == by_tag.image
    await secure.remove(pushed)
    await pull(secure, name, credentials=LOGIN)
    assert (secure.get(name).tags, secure.get(name).digests) == ((), (name,))


async def test_a_wrong_password_is_refused_in_words(secure: Images, pushed: str) -> None:
    wrong = Credentials(username=USER, password="wrong")
    with pytest.raises(Unauthorized, match="does not accept the login of 'someone'"):
        await pull(secure, pushed, credentials=wrong)
    with pytest.raises(Unauthorized, match="it wants a login") as caught:
        await pull(secure, pushed)
    assert "docker login" in caught.value.hint


async def test_a_certificate_nobody_vouches_for_is_refused_at_once(root: Path, pushed: str) -> None:
    store = Images(root, settings=Settings(), retry=Retry(first_s=60.0, longest_s=60.0))
    with pytest.raises(Unavailable, match="its certificate is not trusted") as caught:
        async with asyncio.timeout(30):  # another try would come later
            await pull(store, pushed, credentials=LOGIN)
    assert "ca.crt" in caught.value.hint
    store.close()


async def test_ssl_cert_file_is_honoured(
    images: Images, pushed: str, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(registry.certificate))
    await pull(images, pushed, credentials=LOGIN)
    assert await files_of(images, pushed) == FILES


async def test_an_insecure_registry_is_not_asked_for_its_certificate(
    root: Path, pushed: str, registry: RegistryServer
) -> None:
    store = Images(root, settings=Settings(insecure_registries=(registry.host,)), retry=QUICK)
    await pull(store, pushed, credentials=LOGIN)
    assert await files_of(store, pushed) == FILES
    store.close()


async def test_unknown_names_are_not_found(images: Images, proxy: Faulty) -> None:
    for name in ("team/five:none", "nobody/nothing", f"team/five@{digest(b'x')}"):
        with pytest.raises(ImageNotFound, match=re.escape(name)):
            await pull(images, f"{proxy.host}/{name}")


async def test_a_host_that_is_not_there_is_named(images: Images) -> None:
    with pytest.raises(Unavailable, match=r"registry 127\.0\.0\.1:1"):
        await pull(images, "127.0.0.1:1/a/b")
    with pytest.raises(Unavailable, match=r"no-such-host\.invalid"):
        await pull(images, "no-such-host.invalid/a/b")
    with pytest.raises(InvalidRequest):
        await pull(images, "Not A Name")


@pytest.mark.parametrize("pattern", ["/manifests/", "/blobs/", "/v2/$"])
@pytest.mark.parametrize("code", [500, 503, 429])
async def test_an_answer_that_may_be_better_next_time_is_asked_for_again(
    images: Images, proxy: Faulty, pattern: str, code: int
) -> None:
    proxy.faults = [status(pattern, code, times=2)]
    await pull(images, f"{proxy.host}/team/five:1")
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES


@pytest.mark.parametrize("pattern", ["/manifests/", "/blobs/"])
async def test_patience_ends(images: Images, root: Path, proxy: Faulty, pattern: str) -> None:
    proxy.faults = [status(pattern, 502)]
    with pytest.raises(RegistryError, match="it answered 502") as caught:
        await pull(images, f"{proxy.host}/team/five:1")
    assert f"from registry {proxy.host}" in caught.value.message
    assert caught.value.hint
    assert len(proxy.asked(pattern)) == QUICK.attempts
    assert left_over(root) == []


async def test_retry_after_is_waited_for(images: Images, proxy: Faulty) -> None:
    proxy.faults = [status("/manifests/", 429, times=1, retry_after="1")]
    started = time.monotonic()
    await pull(images, f"{proxy.host}/team/five:1")
    assert time.monotonic() - started >= 1
    proxy.faults = [status("/manifests/", 429, times=1, retry_after="99999999999")]
    started = time.monotonic()
    await pull(images, f"{proxy.host}/team/five:1")
    assert 2 <= time.monotonic() - started < 10


async def test_a_corrupt_blob_is_fetched_again(images: Images, proxy: Faulty) -> None:
    proxy.faults = [corrupt("/blobs/", times=2)]
    await pull(images, f"{proxy.host}/team/five:1")
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES


@pytest.mark.parametrize("fault", [corrupt, grow])
async def test_a_blob_that_stays_wrong_is_refused(
    images: Images, root: Path, proxy: Faulty, fault: type[Fault], archive: Path, registry: RegistryServer
) -> None:
    blob = await _a_layer(proxy)
    proxy.faults = [fault(blob)]  # type: ignore[call-arg]
    with pytest.raises(RegistryError, match=r"corrupt|larger"):
        await pull(images, f"{proxy.host}/team/five:1")
    assert images.list() == []
    assert not any(path.name == blob for path in left_over(root))
    assert not any(path.parts[-2] in {"sha256", "disks", "tmp"} for path in left_over(root))


async def _a_layer(proxy: Faulty) -> str:
    """The hexadecimal digits of one of the layers that the registry has."""
    answer = await proxy._forward(Request("/v2/team/five/manifests/oci", {"accept": OCI_MANIFEST}))
    return str(json.loads(answer.body)["layers"][2]["digest"].partition(":")[2])


async def test_a_manifest_that_is_not_what_its_digest_says_is_refused(images: Images, proxy: Faulty) -> None:
    line = (await pull(images, f"{proxy.host}/team/five:1"))[-1]
    proxy.faults = [corrupt("/manifests/sha256")]
    with pytest.raises(RegistryError, match="corrupt"):
        await pull(images, f"{proxy.host}/team/five@{line.digest}")


async def test_a_truncated_download_goes_on_where_it_broke(images: Images, root: Path, proxy: Faulty) -> None:
    blob = await _a_layer(proxy)
    proxy.faults = [truncate(blob, 70_000, times=2)]
    await pull(images, f"{proxy.host}/team/five:1")
    ranges = [request.headers.get("range") for request in proxy.asked(blob)]
    assert ranges == [None, "bytes=70000-", "bytes=140000-"]
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES
    assert not list((root / "downloads").iterdir())


async def test_a_download_goes_on_after_a_restart(root: Path, proxy: Faulty) -> None:
    blob = await _a_layer(proxy)
    proxy.faults = [truncate(blob, 70_000, times=1), status(blob, 500)]
    first = Images(root, settings=Settings(), retry=QUICK)
    with pytest.raises(RegistryError):
        await pull(first, f"{proxy.host}/team/five:1")
    first.close()
    proxy.faults, asked = [], len(proxy.requests)
    second = Images(root, settings=Settings(), retry=QUICK)
    await second.collect()
    await pull(second, f"{proxy.host}/team/five:1")
    later = [request for request in proxy.requests[asked:] if blob in request.path]
    assert [request.headers.get("range") for request in later] == ["bytes=70000-"]
    assert await files_of(second, f"{proxy.host}/team/five:1") == FILES
    second.close()


async def test_a_registry_that_knows_no_ranges_is_read_from_the_start(images: Images, proxy: Faulty) -> None:
    proxy.faults = [truncate(await _a_layer(proxy), 70_000, times=2)]
    proxy.passes_ranges = False
    await pull(images, f"{proxy.host}/team/five:1")
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES


async def test_a_damaged_partial_download_is_thrown_away(images: Images, root: Path, proxy: Faulty) -> None:
    blob = await _a_layer(proxy)
    (root / "downloads" / blob).write_bytes(b"garbage" * 1000)
    await pull(images, f"{proxy.host}/team/five:1")
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES


async def test_a_redirect_is_followed_without_the_password(
    root: Path, registry: RegistryServer, archive: Path
) -> None:
    upstream = f"https://{registry.host}"
    async with faulty(upstream) as front, faulty(upstream) as storage:
        storage.own_credentials = (USER, PASSWORD)
        front.faults = [redirect("/blobs/", f"http://{storage.host}")]
        store = Images(root, settings=Settings(), retry=QUICK)
        await pull(store, f"{front.host}/team/five:1", credentials=LOGIN)
        assert await files_of(store, f"{front.host}/team/five:1") == FILES
        store.close()
        assert any("authorization" in request.headers for request in front.requests)
        assert storage.requests
        assert not any("authorization" in request.headers for request in storage.requests)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "http://[", "/v2/loop", "\x01"])
async def test_a_redirect_to_nowhere_is_refused(
    images: Images, root: Path, proxy: Faulty, location: str
) -> None:
    proxy.faults = [status("/blobs/|/loop", 307, location=location)]
    with pytest.raises(HyperError):
        await pull(images, f"{proxy.host}/team/five:1")
    assert left_over(root) == []


def needs_tokens(proxy: Faulty, *, uses: int = 1000, realm: str = "") -> list[str]:
    """Make ``proxy`` a registry with token authentication; gives the list of tokens it has given."""
    given: list[str] = []
    used: dict[str, int] = {}
    forward = proxy._forward

    async def serve(request: Request) -> object:
        from tests.support.faulty import Answer

        if request.path.startswith("/token"):
            if (
                request.headers.get("authorization", "").startswith("Basic") is False
                and "anonymous" not in realm
            ):
                return Answer(401, {}, b"")
            given.append(f"token-{len(given)}")
            return Answer(200, {}, json.dumps({"token": given[-1], "expires_in": 300}).encode())
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        used[token] = used.get(token, 0) + 1
        if token not in given or used[token] > uses:
            where = realm if realm.startswith("http") else f"http://{proxy.host}/token"
            challenge = f'Bearer realm="{where}",service="te,st",scope="repository:team/five:pull"'
            return Answer(401, {"www-authenticate": challenge}, b"")
        return await forward(request)

    proxy._forward = serve  # type: ignore[method-assign, assignment]
    return given


async def test_a_token_is_fetched_with_the_password_and_used_again(images: Images, proxy: Faulty) -> None:
    given = needs_tokens(proxy)
    await pull(images, f"{proxy.host}/team/five:1", credentials=LOGIN)
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES
    assert len(given) == 1
    (asked,) = proxy.asked("^/token")
    assert "service=te%2Cst" in asked.path
    assert re.search(r"scope=repository(:|%3A)team(/|%2F)five(:|%3A)pull", asked.path)
    assert all(
        not request.headers.get("authorization", "").startswith("Basic") for request in proxy.asked("^/v2")
    )


async def test_a_token_that_expires_is_fetched_anew(images: Images, proxy: Faulty) -> None:
    given = needs_tokens(proxy, uses=4)
    await pull(images, f"{proxy.host}/team/five:1", credentials=LOGIN)
    assert len(given) > 1
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES


async def test_an_anonymous_token_is_enough_where_it_is(images: Images, proxy: Faulty) -> None:
    needs_tokens(proxy, realm="anonymous")
    await pull(images, f"{proxy.host}/team/five:1")
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES


async def test_no_token_is_access_denied(images: Images, proxy: Faulty) -> None:
    needs_tokens(proxy)
    with pytest.raises(Unauthorized, match="gives no token for team/five"):
        await pull(images, f"{proxy.host}/team/five:1")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token": "a\\nb"}', b"[" * 9999, b"x" * (2 << 20)])
async def test_a_token_that_is_none_is_refused(images: Images, proxy: Faulty, body: bytes) -> None:
    challenge = f'Bearer realm="http://{proxy.host}/token"'
    proxy.faults = [
        replace("/token", body),
        status("/v2/team", 401, www_authenticate=challenge),
    ]
    with pytest.raises(RegistryError):
        await pull(images, f"{proxy.host}/team/five:1", credentials=LOGIN)


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", 'Bearer realm="file:///x"', "Negotiate abc", 'Bearer realm="', "," * 9000]
)
async def test_a_strange_challenge_is_refused(images: Images, proxy: Faulty, challenge: str) -> None:
    proxy.faults = [status("/v2/team", 401, www_authenticate=challenge)]
    with pytest.raises((RegistryError, Unauthorized)):
        await pull(images, f"{proxy.host}/team/five:1", credentials=LOGIN)


async def test_at_most_three_layers_are_fetched_at_once(images: Images, proxy: Faulty) -> None:
    proxy.faults = [slow("/blobs/", 0.05)]
    await pull(images, f"{proxy.host}/team/five:1")
    assert proxy.most_busy == 3


async def test_progress_tells_bytes_as_they_come(images: Images, proxy: Faulty) -> None:
    proxy.faults = [slow("/blobs/", 0.12)]
    lines = await pull(images, f"{proxy.host}/team/five:1")
    loading = [line for line in lines if line.status == "Downloading"]
    assert loading
    assert all(0 <= line.current <= line.total for line in loading)


async def test_pulls_of_one_image_at_once_fetch_it_once(images: Images, proxy: Faulty) -> None:
    proxy.faults = [slow("/blobs/", 0.01)]
    results = await asyncio.gather(*(pull(images, f"{proxy.host}/team/five:1") for _ in range(4)))
    ends = sorted(lines[-1].status.split()[1] for lines in results)
    assert ends == ["Downloaded", "Image", "Image", "Image"]
    assert len({request.path for request in proxy.asked("/blobs/")}) == len(proxy.asked("/blobs/")) == 6
    assert sum(lines[0].status == "Waiting" for lines in results) == 3


async def test_pulls_of_two_images_that_share_layers_fetch_those_once(images: Images, proxy: Faulty) -> None:
    proxy.faults = [slow("/blobs/", 0.01)]
    await asyncio.gather(*(pull(images, f"{proxy.host}/team/five:{tag}") for tag in ("1", "oci")))
    layers = [request.path for request in proxy.asked("/blobs/")]
    assert len(layers) <= 7  # five layers; the config is the same blob, and may be asked for twice
    for tag in ("1", "oci"):
        assert await files_of(images, f"{proxy.host}/team/five:{tag}") == FILES


async def test_a_reader_that_goes_away_ends_the_pull(images: Images, root: Path, proxy: Faulty) -> None:
    proxy.faults = [slow("/blobs/", 0.05)]
    async with aclosing(images.pull(f"{proxy.host}/team/five:1")) as lines:
        async for line in lines:
            if line.status == "Downloading":
                break
    assert list((root / "tmp").iterdir()) == []
    assert images.list() == []
    await pull(images, f"{proxy.host}/team/five:1")
    assert await files_of(images, f"{proxy.host}/team/five:1") == FILES


async def test_layers_that_are_here_are_not_fetched(images: Images, proxy: Faulty, tmp_path: Path) -> None:
    name = f"{proxy.host}/team/five:1"
    await pull(images, name)
    await images.tag(name, "kept")
    image = images.get(name)
    (await images.disk(image)).unlink()
    lines = await pull(images, name)
    assert sum(line.status == "Already exists" for line in lines) == 5
    assert await files_of(images, name) == FILES


INDEX = "application/vnd.oci.image.index.v1+json"


def index_of(*platforms: tuple[str, str]) -> bytes:
    """An index with a manifest digest for each architecture."""
    listed = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": wanted,
            "size": 1,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, wanted in platforms
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()


async def test_an_index_leads_to_the_image_of_the_platform(images: Images, proxy: Faulty) -> None:
    ours = (await pull(images, f"{proxy.host}/team/five:oci"))[-1].digest
    index = index_of(("unknown", digest(b"attestation")), ("s390x", digest(b"no")), ("amd64", ours))
    proxy.faults = [replace("/manifests/multi", index, content_type=INDEX)]
    line = (await pull(images, f"{proxy.host}/team/five:multi", platform="linux/amd64"))[-1]
    assert line.digest == digest(index)
    with pytest.raises(ImageNotFound, match=r"no image for linux/arm64; it has: .*linux/s390x"):
        await pull(images, f"{proxy.host}/team/five:multi", platform="linux/arm64")
    with pytest.raises(ImageNotFound, match=r"is for linux/amd64, not for linux/arm64"):
        await pull(images, f"{proxy.host}/team/five:1", platform="linux/arm64")


def manifest(**changes: object) -> bytes:
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(b"{}"),
            "size": 2,
        },
        "layers": [],
    }
    return json.dumps({**document, **changes}).encode()


BAD_MANIFESTS: Mapping[str, tuple[bytes, type[HyperError]]] = {
    "no-json": (b"<html>", RegistryError),
    "deep": (b"[" * 100_000, RegistryError),
    "huge": (b" " * (5 << 20), RegistryError),
    "schema-1": (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), Unsupported),
    "artifact": (manifest(config={"mediaType": "application/wasm", "digest": digest(b"")}), Unsupported),
    "helm": (manifest(mediaType="application/x-other"), Unsupported),
    "bad-digest": (manifest(config={"digest": "sha256:../../x"}), RegistryError),
    "more-layers-than-ids": (manifest(layers=[{"digest": digest(b"x"), "size": 1}]), RegistryError),
    "many-layers": (manifest(layers=[{"digest": digest(b"x"), "size": 1}] * 600), RegistryError),
    "index-of-itself": (index_of(("amd64", digest(b"gone"))), ImageNotFound),
}


@pytest.mark.parametrize(("body", "error"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
async def test_a_bad_manifest_is_refused(
    images: Images, root: Path, proxy: Faulty, body: bytes, error: type[HyperError]
) -> None:
    proxy.faults = [replace("/manifests/bad", body), replace(f"/blobs/{digest(b'{}')}", b"{}")]
    with pytest.raises(error) as caught:
        await pull(images, f"{proxy.host}/team/five:bad")
    assert type(caught.value) is error
    assert left_over(root) == []


@pytest.mark.parametrize("size", [-5, 0, 10, 1 << 62])
async def test_a_wrong_size_is_refused(images: Images, root: Path, proxy: Faulty, size: int) -> None:
    data = LAYERS[0]
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(data)]}}
    ).encode()
    text = manifest(config={"digest": digest(config)}, layers=[{"digest": digest(data), "size": size}])
    proxy.faults = [
        replace("/manifests/bad", text),
        replace(f"/blobs/{digest(config)}", config),
        replace(f"/blobs/{digest(data)}", data),
    ]
    with pytest.raises(RegistryError):
        await pull(images, f"{proxy.host}/team/five:bad")
    assert images.list() == []


async def test_a_layer_that_unpacks_to_something_else_is_refused(
    images: Images, root: Path, proxy: Faulty
) -> None:
    config = json.dumps({"rootfs": {"diff_ids": [digest(LAYERS[1])]}}).encode()
    listed = [{"digest": digest(LAYERS[0]), "size": len(LAYERS[0])}]
    proxy.faults = [
        replace("/manifests/bad", manifest(config={"digest": digest(config)}, layers=listed)),
        replace(f"/blobs/{digest(config)}", config),
        replace(f"/blobs/{digest(LAYERS[0])}", LAYERS[0]),
    ]
    with pytest.raises(RegistryError, match="corrupt"):
        await pull(images, f"{proxy.host}/team/five:bad")
    assert images.list() == []


async def test_what_a_registry_says_cannot_paint_on_a_terminal(images: Images, proxy: Faulty) -> None:
    body = json.dumps({"errors": [{"code": "X", "message": "\x1b[2J\x07 bad " + "y" * 9999}]}).encode()

    def refuse(answer: object) -> None:
        answer.status, answer.body, answer.headers = 418, body, {}  # type: ignore[attr-defined]

    proxy.faults = [Fault("/manifests/", refuse)]
    with pytest.raises(RegistryError, match=r"\?\[2J\? bad") as caught:
        await pull(images, f"{proxy.host}/team/five:1")
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 600


async def test_a_mirror_is_asked_first_and_the_registry_when_it_fails(
    root: Path, proxy: Faulty, registry: RegistryServer
) -> None:
    async with faulty(f"https://{registry.host}") as mirror:
        mirror.own_credentials = (USER, PASSWORD)
        settings = Settings(registry_mirrors={proxy.host: ["http://127.0.0.1:1", f"http://{mirror.host}/"]})
        store = Images(root, settings=settings, retry=QUICK)
        await pull(store, f"{proxy.host}/team/five:1", credentials=LOGIN)
        assert store.get(f"{proxy.host}/team/five:1")
        assert not proxy.requests
        assert not any("authorization" in request.headers for request in mirror.requests)
        mirror.faults = [status("/manifests/", 404)]
        await pull(store, f"{proxy.host}/team/five:oci")
        assert proxy.requests
        store.close()


async def test_a_loaded_image_and_a_pulled_one_are_the_same(
    images: Images, proxy: Faulty, archive: Path, root: Path
) -> None:
    await load(images, archive)
    lines = await pull(images, f"{proxy.host}/team/five:1")
    assert lines[-1].image == images.get("five:1").id
    assert not proxy.asked("/blobs/")
    assert images.get("five:1").tags == (f"{proxy.host}/team/five:1", "five:1")
