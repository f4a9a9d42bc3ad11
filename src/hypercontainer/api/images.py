"""Routes of images."""

from __future__ import annotations

import base64
import binascii
import datetime
from typing import TYPE_CHECKING

import msgspec

from hypercontainer.api.messages import Body, Request, Stream
from hypercontainer.api.routing import Routes
from hypercontainer.api.streaming import JSON_LINES, progress_lines
from hypercontainer.errors import (
    Conflict,
    ImageNotFound,
    InvalidRequest,
    RegistryError,
    Unauthorized,
    Unavailable,
)
from hypercontainer.images.progress import Progress
from hypercontainer.model import json
from hypercontainer.model.image import Credentials, Image
from hypercontainer.model.rest import ImageView, RemovedView

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

routes = Routes()


class RegistryAuth(msgspec.Struct, frozen=True):
    """The header X-Registry-Auth, base64url of this as JSON; Docker's further keys are ignored."""

    username: str = ""
    password: str = ""


@routes.get("/v1/images")
def list_images(engine: Engine) -> list[ImageView]:
    """All images, the newest first."""
    return [_view(image) for image in engine.images.list()]


@routes.post(
    "/v1/images/pull",
    errors=(ImageNotFound, Unauthorized, RegistryError, Unavailable),
    media_type=JSON_LINES,
    items=Progress,
)
async def pull(engine: Engine, request: Request, *, reference: str, platform: str = "") -> Stream:
    """Fetch an image from its registry; header X-Registry-Auth: base64url JSON {username, password}."""
    credentials = _credentials(request.header("x-registry-auth"))
    return await progress_lines(engine.images.pull(reference, platform=platform, credentials=credentials))


@routes.post("/v1/images/load", errors=(Unavailable,), media_type=JSON_LINES, items=Progress)
async def load(engine: Engine, body: Body) -> Stream:
    """Add the images of an archive of docker save or of an OCI layout, in the body."""
    return await progress_lines(engine.images.load(aiter(body)))


@routes.post("/v1/images/import", errors=(Unavailable,), media_type=JSON_LINES, items=Progress)
async def import_image(
    engine: Engine, body: Body, *, reference: str = "", change: tuple[str, ...] = ()
) -> Stream:
    """Make an image of the tar of a root file system in the body; change: Dockerfile instructions."""
    return await progress_lines(engine.images.import_(aiter(body), reference=reference, changes=change))


@routes.post("/v1/images/tag", errors=(ImageNotFound,))
async def tag(engine: Engine, *, name: str, reference: str) -> None:
    """Give an image another name."""
    await engine.images.tag(name, reference)


@routes.get("/v1/images/{name:path}", errors=(ImageNotFound,))
def inspect_image(engine: Engine, name: str) -> Image:
    """An image and its configuration, by reference or id."""
    return engine.images.get(name)


@routes.delete("/v1/images/{name:path}", errors=(ImageNotFound, Conflict))
async def remove_image(engine: Engine, name: str, *, force: bool = False) -> list[RemovedView]:
    """Take a name from an image, and remove the image with its last one."""
    return await engine.remove_image(name, force=force)


def _view(image: Image) -> ImageView:
    return ImageView(
        id=image.id,
        tags=image.tags,
        digests=image.digests,
        created=_seconds(image.created),
        size=image.size,
        architecture=image.platform.architecture,
        labels=image.config.labels,
    )


def _seconds(created: str) -> float:
    """0 for images that do not say, or not in RFC 3339: the text is a stranger's."""
    try:
        moment = datetime.datetime.fromisoformat(created)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def _credentials(header: str) -> Credentials | None:
    if not header:
        return None
    subject = "the header X-Registry-Auth"
    try:
        data = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{subject} is no base64url: {error}") from error
    auth = json.decode(data, RegistryAuth, subject=subject)
    return Credentials(username=auth.username, password=auth.password) if auth.username else None
