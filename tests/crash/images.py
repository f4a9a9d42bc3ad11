"""Verbs about images, killed at their steps: what they leave in the store is whole, or not there."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.site import Site
from tests.support.commands import Result
from tests.support.images import Member, cached_busybox_layer, docker_archive, layer
from tests.support.registry import PASSWORD, USER, RegistryServer, running_registry

REGISTRY = "HYPER_TEST_REGISTRY"  # in the environment of hyper: the image there that is to be pulled


def image_names(site: Site) -> set[str]:
    return {tag for image in site.client.images.list() for tag in image.tags}


def has_image(name: str) -> Callable[[Site, Result], None]:
    """The image is there whole, or not at all when hyper did not say so."""

    def check(site: Site, result: Result) -> None:
        there = name in image_names(site)
        assert there or result.status != 0, result
        if there:
            assert site.run("run", "--rm", "--network", "none", name, "echo", "whole").out == "whole\n"

    return check


def lacks_image(name: str) -> Callable[[Site, Result], None]:
    def check(site: Site, result: Result) -> None:
        assert result.status != 0 or name not in image_names(site), result

    return check


def remove_images(*names: str) -> Callable[[Site], None]:
    def clear(site: Site) -> None:
        for name in names:
            if name in image_names(site):
                site.hyper.ok("rmi", "-f", name)
        assert not set(names) & image_names(site)

    return clear


def load_other(site: Site) -> Result:
    return site.run("load", "-q", "-i", str(other_archive(site)))


def other_archive(site: Site) -> Path:
    """Another image, so that its blobs are its own."""
    path = site.hyper.root / "other.tar"
    if not path.exists():
        docker_archive(
            path,
            layers=[cached_busybox_layer(), layer(Member(name="etc/other", content=b"other"))],
            tags=["other:latest"],
            config={"Cmd": ["sh"]},
        )
    return path


def import_root(site: Site) -> Result:
    path = site.hyper.root / "rootfs.tar"
    if not path.exists():
        path.write_bytes(cached_busybox_layer())
    return site.run("import", "-q", "-c", 'ENV imported="yes"', str(path), "imported:latest")


def load_prepared(site: Site) -> None:
    site.hyper.ok("load", "-q", "-i", str(other_archive(site)))


# --- A registry ---


@contextmanager
def pullable(site: Site, root: Path) -> Iterator[None]:
    """A registry with an image that no other test has, which hyper trusts and is known to."""
    with running_registry(root) as server:
        content = layer(Member(name="etc/pulled", content=os.urandom(1 << 16)))
        layers = [cached_busybox_layer(), content]
        server.push(docker_archive(root / "box.tar", layers=layers, tags=["pulled:1"]), "team/pulled:1")
        _trust(site, server)
        before = dict(site.hyper.environment)
        site.hyper.environment |= {"DOCKER_CONFIG": str(root), REGISTRY: f"{server.host}/team/pulled:1"}
        try:
            yield
        finally:
            site.hyper.environment = before


def _trust(site: Site, server: RegistryServer) -> None:
    certificates = site.paths.config / "certs.d" / server.host
    certificates.mkdir(parents=True)
    (certificates / "ca.crt").write_bytes(server.certificate.read_bytes())
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (server.root / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": secret}}}))


def pull(site: Site) -> Result:
    return site.run("pull", "-q", site.hyper.environment[REGISTRY])


def check_pulled(site: Site, result: Result) -> None:
    has_image(site.hyper.environment[REGISTRY])(site, result)


def remove_pulled(site: Site) -> None:
    remove_images(site.hyper.environment[REGISTRY])(site)
