"""Routes of templates: the saved machines that others start as copies of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercontainer.api.routing import Routes
from hypercontainer.errors import NotFound
from hypercontainer.model.rest import TemplateView

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

routes = Routes()


@routes.get("/v1/templates")
def list_templates(engine: Engine) -> list[TemplateView]:
    """The templates, the last used first."""
    return engine.host.templates.all()


@routes.post("/v1/templates/prune")
def prune_templates(engine: Engine) -> list[TemplateView]:
    """Remove all templates; what was removed.  They are made again when they are needed."""
    return engine.host.templates.prune()


@routes.delete("/v1/templates/{template}", errors=(NotFound,))
def remove_template(engine: Engine, template: str) -> None:
    """Remove a template; machines that are copies of it run on."""
    engine.host.templates.remove(template)
