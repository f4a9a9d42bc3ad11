"""Routes of files in containers: tar streams in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from hypercontainer.api.messages import Body, Stream
from hypercontainer.api.routing import Routes
from hypercontainer.api.streaming import begun, in_batches
from hypercontainer.errors import (
    Conflict,
    ContainerNotFound,
    GuestError,
    HypervisorError,
    InvalidState,
    NotFound,
    Unavailable,
)
from hypercontainer.model.rest import PathView

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

routes = Routes()

TAR = "application/x-tar"
Path = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
_ERRORS = (ContainerNotFound, NotFound, InvalidState, Conflict, Unavailable, GuestError, HypervisorError)


@routes.get("/v1/containers/{container}/archive", errors=_ERRORS, media_type=TAR)
async def pack(engine: Engine, container: str, *, path: Path, follow: bool = False) -> Stream:
    """A tar of a file or directory of the container, which need not run."""
    pieces = await begun(engine.pack(container, path, follow=follow))
    return Stream(chunks=in_batches(pieces), content_type=TAR)


@routes.put("/v1/containers/{container}/archive", errors=_ERRORS)
async def unpack(
    engine: Engine, container: str, body: Body, *, path: Path, keep_owners: bool = False
) -> None:
    """Unpack a tar into a directory of the container; keep_owners: as the tar says, not the directory's."""
    await engine.unpack(container, path, aiter(body), keep_owners=keep_owners)


@routes.get("/v1/containers/{container}/archive/stat", errors=_ERRORS)
async def look(engine: Engine, container: str, *, path: Path, follow: bool = False) -> PathView:
    """What is at a path of the container; follow: what a symbolic link there leads to."""
    return await engine.look(container, path, follow=follow)
