"""Images loaded, imported, named, found and removed."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import json
import lzma
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import zstandard

from hypercontainer.config import Settings
from hypercontainer.errors import (
    Conflict,
    HyperError,
    ImageNotFound,
    InvalidRequest,
    RegistryError,
    Unavailable,
)
from hypercontainer.images.progress import Progress
from hypercontainer.images.store import Images
from tests.images.support import chunks, import_, left_over, load
from tests.support.images import (
    Member,
    busybox_archive,
    digest,
    docker_archive,
    document,
    hard_link,
    layer,
    oci_archive,
    symlink,
    tar_of,
)
from tests.support.squashfs import read_disk

SKIPPABLE = b"\x50\x2a\x4d\x18" + b"\x04\0\0\0" + b"meta"  # as zstd:chunked layers have them (RFC 8878)
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "padded-gzip": lambda data: gzip.compress(data) + b"\0" * 512,
    "skippable-frames": lambda data: SKIPPABLE + zstandard.compress(data) + SKIPPABLE,
    "two-members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "two-frames": lambda data: zstandard.compress(data[:1000]) + zstandard.compress(data[1000:]),
}
A, B = layer(Member(name="a", content=b"one")), layer(Member(name="b", content=b"two"))


async def test_a_docker_archive_is_loaded_with_its_tags(images: Images, tmp_path: Path) -> None:
    config: dict[str, object] = {
        "Cmd": ["sh"],
        "Env": ["A=1"],
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": None,
    }
    path = docker_archive(tmp_path / "x.tar", layers=[A, B], config=config, tags=["x:1", "team/x:2"])
    lines = await load(images, path)
    assert [line.status for line in lines[-2:]] == ["Loaded image: x:1", "Loaded image: team/x:2"]
    image = images.get("x:1")
    assert image == images.get("team/x:2") == images.get(image.id) == images.get(image.short_id)
    assert image.tags == ("x:1", "team/x:2") or image.tags == ("team/x:2", "x:1")
    assert (image.config.cmd, image.config.env, image.config.volumes) == (["sh"], ["A=1"], {})
    assert image.size == len(A) + len(B)
    assert image.layers == (digest(A), digest(B))
    assert read_disk(await images.disk(image)).keys() == {b"a", b"b"}


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
async def test_archives_and_layers_come_compressed(
    images: Images, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path = oci_archive(tmp_path / "x.tar", layers=[A, B], name="x:1", blobs=[compress(A), compress(B)])
    path.write_bytes(compress(path.read_bytes()))
    await load(images, path)
    assert read_disk(await images.disk(images.get("x:1"))).keys() == {b"a", b"b"}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress, lzma.compress, bz2.compress])
async def test_a_root_file_system_is_imported(
    images: Images, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "root.tar"
    path.write_bytes(compress(layer(Member(name="bin/sh", content=b"#!", mode=0o755))))
    changes = [
        'CMD ["/bin/sh", "-c"]', "ENTRYPOINT exec top", 'env A=1 B="x y"', "ENV A=2", "ENV C d e",
        "EXPOSE 80 53/udp", 'LABEL k="a b"', "USER 1000:50", "WORKDIR /srv", "VOLUME /data",
        "STOPSIGNAL SIGINT",
    ]  # fmt: skip
    lines = await import_(images, path, "mine:1", changes)
    image = images.get("mine:1")
    assert lines[-1].status == lines[-1].image == image.id
    config = image.config
    assert config.cmd == ["/bin/sh", "-c"]
    assert config.entrypoint == ["/bin/sh", "-c", "exec top"]
    assert config.env == ["B=x y", "A=2", "C=d e"]
    assert set(config.exposed_ports) == {"80/tcp", "53/udp"}
    assert (config.labels, config.user, config.working_dir) == ({"k": "a b"}, "1000:50", "/srv")
    assert (list(config.volumes), config.stop_signal) == (["/data"], "SIGINT")
    assert read_disk(await images.disk(image))[b"bin/sh"].mode == 0o755


@pytest.mark.parametrize("change", ["FROM x", "CMD", "", "EXPOSE 99999999", "ENV A=1 B", "ENV A='"])
async def test_a_bad_change_is_refused_before_anything_is_read(images: Images, change: str) -> None:
    async def never() -> AsyncIterator[bytes]:
        pytest.fail("read")
        yield b""

    with pytest.raises(InvalidRequest):
        async for _ in images.import_(never(), reference="x", changes=[change]):
            pass


async def test_what_skopeo_and_docker_write_is_loaded(images: Images, tmp_path: Path) -> None:
    first = docker_archive(tmp_path / "a.tar", layers=[A, B], config={"Cmd": ["x"]}, tags=["x:1"])
    for target in ("docker-archive:{}:y:1", "oci-archive:{}:z:1"):
        path = tmp_path / target[:3]
        command = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            f"docker-archive:{first}",
            target.format(path),
        ]
        subprocess.run(command, check=True, capture_output=True)
        await load(images, path)
    assert read_disk(await images.disk(images.get("y:1"))).keys() == {b"a", b"b"}
    assert read_disk(await images.disk(images.get("z:1"))).keys() == {b"a", b"b"}


async def test_an_archive_of_several_images_shares_their_layers(
    images: Images, root: Path, tmp_path: Path
) -> None:
    texts = [document([A], {}), document([A, B], {})]
    manifest = [
        {"Config": "one.json", "RepoTags": ["one:1"], "Layers": ["a/layer.tar"]},
        {"Config": "two.json", "RepoTags": None, "Layers": ["c/layer.tar", "b/layer.tar"]},
    ]
    path = tmp_path / "x.tar"
    path.write_bytes(
        layer(
            Member(name="./manifest.json", content=json.dumps(manifest).encode()),
            Member(name="one.json", content=texts[0]),
            Member(name="two.json", content=texts[1]),
            Member(name="a/layer.tar", content=A),
            Member(name="b/layer.tar", content=B),
            symlink("c/layer.tar", "../a/layer.tar"),
        )
    )
    lines = await load(images, path)
    assert lines[-1].status == f"Loaded image ID: {lines[-1].image}"
    assert len(images.list()) == 2
    assert len(list((root / "blobs/sha256").iterdir())) == 2
    await images.remove("one:1")
    assert read_disk(await images.disk(images.get(lines[-1].image))).keys() == {b"a", b"b"}
    await images.remove(lines[-1].image)
    assert left_over(root) == []


async def test_loading_again_changes_nothing_but_names(images: Images, tmp_path: Path) -> None:
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x:1"]))
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["y:1"]))
    (image,) = images.list()
    assert image.tags == ("x:1", "y:1")


async def test_a_tag_moves_to_the_newer_image(images: Images, tmp_path: Path) -> None:
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x"]))
    old = images.get("x")
    await load(images, docker_archive(tmp_path / "x.tar", layers=[B], tags=["x"]))
    assert images.get("x").id != old.id
    assert images.get(old.id).tags == ()


BAD_ARCHIVES: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello" * 1000,
    "no-image": layer(Member(name="etc/passwd")),
    "cut-gzip": gzip.compress(os.urandom(100_000))[:5000],
    "bad-gzip": gzip.compress(b"x" * 100_000)[:-8] + b"\0" * 8,
    "cut-zstd": zstandard.compress(os.urandom(100_000))[:5000],
    "bad-json": tar_of({"manifest.json": b"{"}),
    "missing-config": tar_of({"manifest.json": b'[{"Config": "x.json", "Layers": []}]'}),
    "missing-layer": tar_of(
        {"manifest.json": b'[{"Config": "x.json", "Layers": ["l"]}]', "x.json": document([A], {})}
    ),
    "other-count": tar_of(
        {"manifest.json": b'[{"Config": "x.json", "Layers": ["l"]}]', "x.json": document([A, B], {}), "l": A}
    ),
    "link-loop": layer(
        Member(name="manifest.json", content=b'[{"Config": "x.json", "Layers": []}]'),
        symlink("x.json", "y.json"),
        symlink("y.json", "x.json"),
    ),
    "link-out": layer(
        Member(name="manifest.json", content=b'[{"Config": "x.json", "Layers": []}]'),
        symlink("x.json", "/etc/passwd"),
    ),
    "climbing": tar_of({"../../manifest.json": b"[]"}),
    "huge-config": tar_of({"manifest.json": b'[{"Config": "x", "Layers": []}]', "x": b" " * (5 << 20)}),
    "bad-diff-id": tar_of(
        {
            "manifest.json": b'[{"Config": "x", "Layers": ["l"]}]',
            "x": b'{"rootfs": {"diff_ids": ["../../../etc/x"]}}',
            "l": A,
        }
    ),
    "bad-tag": tar_of(
        {"manifest.json": b'[{"Config": "x", "RepoTags": ["../x"], "Layers": []}]', "x": document([], {})}
    ),
    "other-layer": tar_of(
        {"manifest.json": b'[{"Config": "x", "Layers": ["l"]}]', "x": document([A], {}), "l": B}
    ),
    "bad-layer": tar_of(
        {
            "manifest.json": b'[{"Config": "x", "Layers": ["l"]}]',
            "x": document([b"no tar" * 200], {}),
            "l": b"no tar" * 200,
        }
    ),
    "climbing-layer": tar_of(
        {
            "manifest.json": b'[{"Config": "x", "Layers": ["l"]}]',
            "x": document([tar_of({"../../etc/x": b""})], {}),
            "l": tar_of({"../../etc/x": b""}),
        }
    ),
    "lost-link": tar_of(
        {
            "manifest.json": b'[{"Config": "x", "Layers": ["l"]}]',
            "x": document([layer(hard_link("a", "b"))], {}),
            "l": layer(hard_link("a", "b")),
        }
    ),
}


@pytest.mark.parametrize("data", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
async def test_a_bad_archive_is_refused_and_leaves_nothing(
    images: Images, root: Path, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises((InvalidRequest, RegistryError)) as caught:
        await load(images, path)
    assert len(caught.value.message) < 1000
    assert images.list() == []
    assert left_over(root) == []


async def test_a_corrupt_blob_of_an_oci_layout_is_refused(images: Images, root: Path, tmp_path: Path) -> None:
    path = oci_archive(tmp_path / "x.tar", layers=[A, B], name="x:1")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"two", b"TWO"))
    with pytest.raises(RegistryError, match="corrupt"):
        await load(images, path)
    assert left_over(root) == []


async def test_a_nested_index_gives_the_image_for_this_host(images: Images, tmp_path: Path) -> None:
    path = oci_archive(tmp_path / "x.tar", layers=[A], name="")
    files = _files(path)
    index = json.loads(files["index.json"])
    ours = index["manifests"][0]
    listed = [
        {**ours, "platform": {"os": "linux", "architecture": "s390x"}, "digest": digest(b"not here")},
        {**ours, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    nested = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    files[f"blobs/sha256/{digest(nested)[7:]}"] = nested
    index["manifests"] = [
        {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest(nested),
            "size": len(nested),
            "annotations": {"io.containerd.image.name": "docker.io/library/multi:1"},
        }
    ]
    files["index.json"] = json.dumps(index).encode()
    path.write_bytes(tar_of(files))
    await load(images, path)
    assert images.get("multi:1").layers == (digest(A),)


def _files(path: Path) -> dict[str, bytes]:
    import tarfile

    with tarfile.open(path) as archive:
        return {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]


async def test_names_find_images_and_unknown_ones_say_so(images: Images, tmp_path: Path) -> None:
    await load(images, busybox_archive(tmp_path / "b.tar"))
    image = images.get("busybox")
    for name in (
        "busybox:latest",
        "docker.io/library/busybox",
        image.id,
        image.id[7:],
        image.id[7:12],
        image.id[:20],
    ):
        assert images.get(name) == image
    for name in (
        "nothing",
        "busybox:2",
        "sha256:" + "0" * 64,
        "a b",
        "",
        "../x",
        "%",
        "*",
        image.id[7:] + "0",
    ):
        with pytest.raises(ImageNotFound):
            images.get(name)


async def test_a_prefix_of_two_ids_is_refused(images: Images, tmp_path: Path) -> None:
    for number in range(20):
        config = {"Labels": {"n": str(number)}}
        await load(images, docker_archive(tmp_path / "x.tar", layers=[A], config=config))
    first = [image.id[7] for image in images.list()]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(InvalidRequest, match="more than one"):
        images.get(twice)


async def test_the_last_name_takes_the_image_along(images: Images, root: Path, tmp_path: Path) -> None:
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x:1"]))
    image = images.get("x:1")
    await images.tag("x:1", "other/x:2")
    assert [item.untagged for item in await images.remove("x:1")] == ["x:1"]
    assert images.get("other/x:2").id == image.id
    gone = await images.remove("other/x:2")
    assert [(item.untagged, item.deleted) for item in gone] == [("other/x:2", ""), ("", image.id)]
    assert left_over(root) == []
    with pytest.raises(ImageNotFound):
        await images.remove("x:1")
    with pytest.raises(ImageNotFound):
        await images.disk(image)


async def test_removal_by_id_has_docker_s_rules(images: Images, tmp_path: Path) -> None:
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x:1", "x:2", "y:1"]))
    image = images.get("x:1")
    with pytest.raises(Conflict, match="several repositories"):
        await images.remove(image.short_id)
    assert len(images.get("x:1").tags) == 3
    await images.remove("y:1")
    gone = await images.remove(image.short_id)
    assert [item.untagged for item in gone[:2]] == ["x:1", "x:2"]
    assert gone[2].deleted == image.id


async def test_an_image_in_use_keeps_its_disk(images: Images, tmp_path: Path) -> None:
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x:1", "x:2"]))
    image = images.get("x:1")
    await images.remove("x:1", in_use=[image.id])
    with pytest.raises(Conflict, match="used by a pod"):
        await images.remove("x:2", in_use=[image.id])
    assert [item.untagged for item in await images.remove("x:2", in_use=[image.id], force=True)] == ["x:2"]
    assert (await images.disk(images.get(image.id))).exists()
    assert (await images.remove(image.id))[0].deleted == image.id


async def test_a_lost_or_shortened_disk_is_made_again(images: Images, tmp_path: Path) -> None:
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A, B], tags=["x"]))
    disk = await images.disk(images.get("x"))
    disk.unlink()
    assert read_disk(await images.disk(images.get("x"))).keys() == {b"a", b"b"}
    os.truncate(disk, 100)
    assert read_disk(await images.disk(images.get("x"))).keys() == {b"a", b"b"}


async def test_a_layer_that_rotted_makes_no_disk(images: Images, root: Path, tmp_path: Path) -> None:
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x"]))
    image = images.get("x")
    (await images.disk(image)).unlink()
    blob = next((root / "blobs/sha256").iterdir())
    blob.write_bytes(blob.read_bytes().replace(b"one", b"ONE"))
    with pytest.raises(RegistryError, match="corrupt"):
        await images.disk(image)
    blob.unlink()
    with pytest.raises(Unavailable, match="is lost") as caught:
        await images.disk(image)
    assert "pull or load it again" in caught.value.hint
    await load(images, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x"]))
    assert read_disk(await images.disk(image)).keys() == {b"a"}


async def test_a_reader_that_goes_away_ends_the_work(images: Images, root: Path, tmp_path: Path) -> None:
    path = docker_archive(
        tmp_path / "x.tar", layers=[A, layer(Member(name="big", content=os.urandom(5_000_000)))]
    )
    async with aclosing(images.load(chunks(path))) as lines:
        async for _ in lines:
            break
    assert list((root / "tmp").iterdir()) == []


async def test_an_upload_that_breaks_leaves_nothing(images: Images, root: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        raise ConnectionResetError("gone")

    with pytest.raises(HyperError, match="gone"):
        async for _ in images.load(breaks()):
            pass
    assert left_over(root) == []


async def test_loads_of_one_image_at_once_make_one(images: Images, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", layers=[A, B], tags=["x"])
    results: list[list[Progress]] = await asyncio.gather(*(load(images, path) for _ in range(8)))
    assert all(lines[-1].status == "Loaded image: x:latest" for lines in results)
    assert len(images.list()) == 1
    assert read_disk(await images.disk(images.get("x"))).keys() == {b"a", b"b"}


async def test_a_second_store_finds_what_the_first_left(root: Path, tmp_path: Path) -> None:
    first = Images(root, settings=Settings())
    await load(first, docker_archive(tmp_path / "x.tar", layers=[A], tags=["x"]))
    first.close()
    for litter in ("tmp/half", "disks/abc.squashfs", "blobs/sha256/" + "0" * 64):
        (root / litter).write_bytes(b"x")
    (root / "tmp/work").mkdir()
    (root / "tmp/work/archive").write_bytes(b"x")
    (root / "downloads" / ("1" * 64)).write_bytes(b"recent")
    old = root / "downloads" / ("2" * 64)
    old.write_bytes(b"old")
    os.utime(old, (0, 0))
    second = Images(root, settings=Settings())
    await second.collect()
    assert sorted(path.relative_to(root).parts[0] for path in left_over(root)) == [
        "blobs",
        "disks",
        "downloads",
    ]
    assert read_disk(await second.disk(second.get("x"))).keys() == {b"a"}
    second.close()
