"""The sources of volumes on the host: what is looked at, and who has an image open."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hypercontainer.errors import Conflict, InvalidRequest, Unavailable
from hypercontainer.model.pod import VolumeSpec
from hypercontainer.storage.sources import DiskClaims, check_source, make_directory, resolve_nfs


def a_volume(kind: str, source: object, **fields: object) -> VolumeSpec:
    return VolumeSpec(name="data", kind=kind, source=str(source), **fields)  # type: ignore[arg-type]


def a_qcow2(path: Path, *, backing: int = 0, features: int = 0, version: int = 3) -> Path:
    """The beginning of one (docs/interop/qcow2.txt)."""
    path.write_bytes(
        struct.pack(">4sIQ", b"QFI\xfb", version, backing).ljust(72, b"\0") + features.to_bytes(8)
    )
    with path.open("ab") as file:
        file.write(bytes(4096))
    return path


def test_directories_files_and_images_that_are_there_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(4096))
    check_source(a_volume("host", tmp_path))
    check_source(a_volume("host", file))
    check_source(a_volume("raw", file))
    check_source(a_volume("qcow2", a_qcow2(tmp_path / "image")))
    check_source(a_volume("pod", ""))


def test_a_missing_directory_is_made_only_when_that_was_asked(tmp_path: Path) -> None:
    wanted = tmp_path / "a/b"
    with pytest.raises(InvalidRequest, match="does not exist"):
        check_source(a_volume("host", wanted))
    asked = a_volume("host", wanted, create=True)
    check_source(asked)
    assert not wanted.exists()
    make_directory(asked)
    make_directory(asked)
    assert wanted.is_dir()


def test_a_file_is_no_directory_to_be_made_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    make_directory(a_volume("host", file, create=True))
    assert file.read_text() == "kept"


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot make the directory"):
        make_directory(a_volume("host", tmp_path / "file/below", create=True))


def test_an_image_of_the_other_format_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(8192))
    with pytest.raises(InvalidRequest, match="is no qcow2 image"):
        check_source(a_volume("qcow2", plain))
    with pytest.raises(InvalidRequest, match="is a qcow2 image"):
        check_source(a_volume("raw", a_qcow2(tmp_path / "image")))


def test_an_image_that_is_too_small_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(InvalidRequest, match="too small"):
        check_source(a_volume("raw", empty))
    empty.write_bytes(b"QFI\xfb")
    with pytest.raises(InvalidRequest, match="cut short"):
        check_source(a_volume("qcow2", empty))


@pytest.mark.parametrize("field", [{"backing": 4096}, {"features": 4}, {"backing": 1, "version": 2}])
def test_an_image_cannot_name_another_file_of_the_host(tmp_path: Path, field: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="another file"):
        check_source(a_volume("qcow2", a_qcow2(tmp_path / "image", **field)))


async def test_an_export_is_resolved_on_the_host() -> None:
    assert await resolve_nfs(a_volume("nfs", "127.0.0.1:/a/b")) == "127.0.0.1:/a/b"
    assert await resolve_nfs(a_volume("nfs", "[::1]:/")) == "[::1]:/"
    with pytest.raises(Unavailable, match="is not known"):
        await resolve_nfs(a_volume("nfs", "nowhere.invalid:/a"))


# --- Claims ---


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image"
    path.write_bytes(b"image")
    return str(path)


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_an_image_that_is_written_belongs_to_one_pod(image: str, first: bool, second: bool) -> None:
    claims = DiskClaims()
    claims.claim("1", "one", {image: first})
    with pytest.raises(Conflict, match="in use: pod one"):
        claims.claim("2", "two", {image: second})
    claims.release("1")
    claims.claim("2", "two", {image: second})


def test_many_pods_may_read_one_image(image: str) -> None:
    claims = DiskClaims()
    claims.claim("1", "one", {image: False})
    claims.claim("2", "two", {image: False})
    with pytest.raises(Conflict):
        claims.claim("1", "one", {image: True})


def test_an_image_is_known_by_any_of_its_names(image: str) -> None:
    alias = Path(image).with_name("alias")
    alias.hardlink_to(image)
    claims = DiskClaims()
    claims.claim("1", "one", {image: True})
    with pytest.raises(Conflict):
        claims.claim("2", "two", {str(alias): False})


def test_a_claim_that_is_refused_claims_nothing(image: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    claims = DiskClaims()
    claims.claim("1", "one", {image: True})
    with pytest.raises(Conflict):
        claims.claim("2", "two", {str(other): True, image: True})
    claims.claim("3", "three", {str(other): True})


def test_a_pod_that_takes_the_place_of_another_may_have_its_images(image: str) -> None:
    claims = DiskClaims()
    claims.claim("1", "one", {image: True})
    claims.claim("2", "two", {image: True}, besides="1")
    claims.release("1")
    with pytest.raises(Conflict, match="pod two"):
        claims.claim("3", "three", {image: False})


def test_an_image_that_has_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is not there"):
        DiskClaims().claim("1", "one", {str(tmp_path / "gone"): True})
