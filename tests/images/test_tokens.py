"""Tokens of a real registry: signed, for one repository, and checked by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.config import Settings
from hypercontainer.errors import Unauthorized
from hypercontainer.images.store import Images
from hypercontainer.model.image import Credentials
from tests.images.support import pull
from tests.support.images import Member, docker_archive, layer
from tests.support.registry import PASSWORD, USER, RegistryServer, running_registry
from tests.support.squashfs import read_disk
from tests.support.tokens import TokenServer, running_token_server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RegistryServer, TokenServer]]:
    root = tmp_path_factory.mktemp("tokens")
    with running_token_server() as tokens:
        tokens.root = root
        with running_registry(root, realm=tokens.realm) as registry:
            data = layer(Member(name="file", content=b"x"))
            registry.push(docker_archive(root / "x.tar", layers=[data, layer(), data]), "team/app:1")
            yield registry, tokens


@pytest.fixture
def images(
    root: Path, servers: tuple[RegistryServer, TokenServer], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Images]:
    monkeypatch.setenv("SSL_CERT_FILE", str(servers[0].certificate))
    store = Images(root, settings=Settings())
    yield store
    store.close()


async def test_a_registry_accepts_the_token_that_was_fetched(
    images: Images, servers: tuple[RegistryServer, TokenServer]
) -> None:
    registry, tokens = servers
    tokens.asked.clear()
    credentials = Credentials(username=USER, password=PASSWORD)
    await pull(images, f"{registry.host}/team/app:1", credentials=credentials)
    assert read_disk(await images.disk(images.get(f"{registry.host}/team/app:1"))).keys() == {b"file"}
    assert tokens.asked == [{"scope": ["repository:team/app:pull"], "service": ["test"]}]


async def test_a_wrong_password_gets_no_token(
    images: Images, servers: tuple[RegistryServer, TokenServer]
) -> None:
    registry, _ = servers
    for credentials in (None, Credentials(username=USER, password="wrong")):
        with pytest.raises(Unauthorized, match="gives no token for team/app"):
            await pull(images, f"{registry.host}/team/app:1", credentials=credentials)
