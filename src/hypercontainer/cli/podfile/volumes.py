"""What a podfile says of volumes: the pod's, and where a container has them."""

from __future__ import annotations

from typing import Any

from hypercontainer.cli.mounts import Targets, Volumes, share, tmpfs
from hypercontainer.cli.podfile.content import Source
from hypercontainer.cli.podfile.section import Section, located

_IMAGES = ("raw", "qcow2")


def volumes(section: Section, source: Source) -> Volumes:
    """Those that the pod declares."""
    found = Volumes()
    for one in section.sections("volumes"):
        name = one.text("name")
        if not name:
            raise one.where.error("a volume needs a 'name'")
        if name in found:
            raise one.node("name").where.error(f"volume {name!r} is there twice")
        found.add(volume(one, name, source))
    return found


def volume(section: Section, name: str, source: Source) -> dict[str, Any]:
    """A model.pod.VolumeSpec of the original's ``format`` and ``source``."""
    form, origin = section.text("format"), section.text("source")
    _refuse_senseless(section, form)
    if form in {"raw", "qcow2", "nas"} and not origin:
        raise section.where.error(f"a volume of format {form!r} needs a 'source'")
    if form == "nas":
        return {"name": name, **_share(section)}
    if not origin:
        return {"name": name, "kind": "pod"}
    found = {"name": name, "kind": form if form in _IMAGES else "host", "source": str(source.path(origin))}
    return found | _disk_options(section)


def _refuse_senseless(section: Section, form: str) -> None:
    """Nothing is ignored: what says nothing about this kind of volume is a mistake."""
    for key, kinds in (("cache", _IMAGES), ("fstype", (*_IMAGES, "nas")), ("mountOptions", ("nas",))):
        if form not in kinds and section.node(key).value not in ("", []):
            wanted = " and ".join(repr(kind) for kind in kinds)
            raise section.node(key).where.error(f"{key!r} says nothing about a volume that is not {wanted}")


def _share(section: Section) -> dict[str, Any]:
    with located(section.node("source").where):
        source = share(section.text("source"))
    if section.text("fstype") not in {"", "nfs", "nfs4"}:
        raise section.node("fstype").where.error(
            f"'nas' is 'nfs' or 'nfs4', not {section.text('fstype')[:40]!r}"
        )
    options = section.texts("mountOptions")
    return {"kind": "nfs", "source": source, "options": options}


def _disk_options(section: Section) -> dict[str, Any]:
    cache = section.text("cache")
    found = {"fstype": section.text("fstype"), "cache": "none" if cache == "off" else cache}
    return {key: value for key, value in found.items() if value}


def mounts(section: Section, declared: Volumes, source: Source, targets: Targets) -> list[dict[str, Any]]:
    """Those of a container, volumes before tmpfs."""
    found = [_mount(one, declared, source, targets) for one in section.sections("volumes")]
    for node in section.nodes("tmpfs"):
        with located(node.where):
            found.append(tmpfs(str(node.value), targets))
    return found


def _mount(section: Section, declared: Volumes, source: Source, targets: Targets) -> dict[str, Any]:
    name = _named(section, declared, source)
    with located(section.node("path").where):
        mount: dict[str, Any] = {"target": targets.mount(section.text("path")), "volume": name}
    if section.flag("readOnly"):
        mount["read_only"] = True
    return mount


def _named(section: Section, declared: Volumes, source: Source) -> str:
    """The name of the volume that is mounted, which a ``detail`` adds to the pod."""
    name = section.text("volume")
    if "detail" in section:
        detail = section.section("detail")
        name = same_name(section.node("volume").value, detail, "volume")
        with located(detail.where):
            return declared.add(volume(detail, name, source))
    if not name:
        raise section.where.error("a mount needs a 'volume'")
    if name not in declared:
        raise section.node("volume").where.error(
            f"there is no volume {name!r} in the pod's 'volumes'", hint=_known(declared)
        )
    return name


def same_name(outer: object, detail: Section, what: str) -> str:
    """The name of a thing and of its ``detail``: one of both, or the same."""
    inner = detail.text("name")
    if outer and inner and outer != inner:
        raise detail.node("name").where.error(f"{inner!r} is the {what} {outer!r}, under another name")
    if not (outer or inner):
        raise detail.where.error(f"a {what} needs a 'name'")
    return str(outer or inner)


def _known(declared: Volumes) -> str:
    names = [volume["name"] for volume in declared.all()]
    return f"there are: {', '.join(names[:10])}" if names else "the pod declares none"
