"""Pulls from a real registry, filled by skopeo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.config import Settings
from hypercontainer.errors import Unauthorized
from hypercontainer.images.progress import Progress
from hypercontainer.images.store import Images
from hypercontainer.model.image import Credentials
from tests.support.images import Member, docker_archive, layer
from tests.support.registry import PASSWORD, USER, RegistryServer

LOGIN = Credentials(username=USER, password=PASSWORD)


@pytest.fixture(scope="module")
def pushed(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("push") / "image.tar"
    layers = [layer(Member(name=f"file-{n}", content=bytes([n]) * 100_000)) for n in range(5)]
    docker_archive(path, layers=layers, config={"Cmd": ["sh"]}, tags=["five:1"])
    registry.push(path, "team/five:1")
    return f"{registry.host}/team/five:1"


@pytest.fixture
def secure(root: Path, registry: RegistryServer, tmp_path: Path) -> Iterator[Images]:
    own = tmp_path / "certs.d" / registry.host
    own.mkdir(parents=True)
    (own / "ca.crt").write_bytes(registry.certificate.read_bytes())
    store = Images(root, settings=Settings(), certificates=tmp_path / "certs.d")
    yield store
    store.close()


async def pull(images: Images, name: str, **options: object) -> list[Progress]:
    return [progress async for progress in images.pull(name, **options)]  # type: ignore[arg-type]


async def test_an_image_is_pulled_over_tls_with_a_password(secure: Images, pushed: str) -> None:
    lines = await pull(secure, pushed, credentials=LOGIN)
    image = secure.get(pushed)
    assert (await secure.disk(image)).read_bytes()[:4] == b"hsqs"
    assert image.tags == (pushed,)
    assert image.config.cmd == ["sh"]
    assert lines[0].status == "Pulling from team/five"
    assert sum(line.status == "Pull complete" for line in lines) == 5
    assert lines[-1].status == f"Status: Downloaded newer image for {pushed}"
    assert lines[-2].status == f"Digest: {lines[-1].digest}"


async def test_a_wrong_password_is_refused_in_words(secure: Images, pushed: str) -> None:
    wrong = Credentials(username=USER, password="wrong")
    with pytest.raises(Unauthorized, match="does not accept the login of 'someone'"):
        await pull(secure, pushed, credentials=wrong)
    with pytest.raises(Unauthorized, match="it wants a login"):
        await pull(secure, pushed)
