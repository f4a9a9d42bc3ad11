"""-v, --mount and --tmpfs, as Docker's users write them."""

from __future__ import annotations

import re

from hypercontainer.cli import mounts
from hypercontainer.cli.mounts import Targets, Volumes
from hypercontainer.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_VOLUME_FORM = "for example /data:/data, ./site:/srv:ro, cache:/var/cache or /scratch"
_MOUNT_FORM = "for example type=bind,src=/data,dst=/data,readonly"

# The keys of --mount that a type has, beside those that all have, and other names of keys.
_KEYS = {
    "bind": {"source"},
    "volume": {"source", "volume-nocopy"},
    "tmpfs": {"tmpfs-size", "tmpfs-mode"},
    "raw": {"source", "fstype", "cache"},
    "qcow2": {"source", "fstype", "cache"},
    "nfs": {"source", "options"},
}
_OTHER_NAMES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_CACHES = ("none", "directsync", "writeback", "unsafe", "writethrough")


def volume(text: str, volumes: Volumes, targets: Targets) -> dict[str, Any]:
    """``[WHAT:]PATH[:OPTIONS]`` as a model.pod.MountSpec; its volume is added to ``volumes``."""
    what, path, options = _split(text)
    found: dict[str, Any] = {"target": targets.mount(path), "volume": _volume_named(what, text, volumes)}
    for option in options:
        match option:
            case "ro":
                found["read_only"] = True
            case "nocopy":
                found["populate"] = False
            case "rw":
                pass
            case _:
                raise InvalidRequest(
                    f"invalid volume {text[:80]!r}: {option[:40]!r} is no option", hint="ro, rw or nocopy"
                )
    return found


def _split(text: str) -> tuple[str, str, list[str]]:
    parts = text.split(":")
    if len(parts) > 3 or "" in parts:
        raise InvalidRequest(f"invalid volume {text[:80]!r}", hint=_VOLUME_FORM)
    if len(parts) == 1:
        return "", parts[0], []
    return parts[0], parts[1], parts[2].split(",") if len(parts) == 3 else []


def _volume_named(what: str, text: str, volumes: Volumes) -> str:
    """A directory of the host is made if it is not there, as the original and Docker do."""
    if not what:
        return volumes.fresh()
    if what.startswith(("/", "./", "../")) or what in {".", ".."}:
        return volumes.host(_host_path(what), create=True)
    if not _NAME.fullmatch(what):
        raise InvalidRequest(f"invalid volume {text[:80]!r}: {what[:40]!r} is no name", hint=_VOLUME_FORM)
    return volumes.fresh(what)


def _host_path(text: str) -> Path:
    from pathlib import Path

    return Path.cwd() / text


def mount(text: str, volumes: Volumes, targets: Targets) -> dict[str, Any]:
    """``type=TYPE,target=PATH,...`` as a model.pod.MountSpec; its volume is added to ``volumes``."""
    words = _words(text)
    kind = words.pop("type", "volume")
    target, read_only = words.pop("target", ""), _flag(words.pop("readonly", "false"), text)
    _check(kind, target, words, text)
    if kind == "tmpfs":
        found = mounts.tmpfs(_as_tmpfs(target, words), targets)
    else:
        found = {"target": targets.mount(target), "volume": _mounted(kind, words, text, volumes)}
    if _flag(words.get("volume-nocopy", "false"), text):
        found["populate"] = False
    return found | ({"read_only": True} if read_only else {})


def _check(kind: str, target: str, words: dict[str, str], text: str) -> None:
    if kind not in _KEYS:
        raise _invalid(text, f"unknown type {kind[:40]!r}", hint=f"known: {', '.join(_KEYS)}")
    if not target:
        raise _invalid(text, "it needs a 'target'")
    for key in words:
        if key not in _KEYS[kind]:
            raise _invalid(text, f"unknown key {key[:40]!r} of type {kind!r}")


def _words(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in text.split(","):
        key, equals, value = word.partition("=")
        key = _OTHER_NAMES.get(key.lower(), key.lower())
        if key in found:
            raise _invalid(text, f"{key!r} is there twice")
        found[key] = value if equals else "true"
    return found


def _flag(value: str, text: str) -> bool:
    if value.lower() not in {"true", "false", "1", "0"}:
        raise _invalid(text, f"{value[:40]!r} is neither true nor false")
    return value.lower() in {"true", "1"}


def _as_tmpfs(target: str, words: dict[str, str]) -> str:
    options = ",".join(f"{key.removeprefix('tmpfs-')}={value}" for key, value in words.items())
    return f"{target}:{options}"


def _mounted(kind: str, words: dict[str, str], text: str, volumes: Volumes) -> str:
    """The name of the volume of a --mount that is no tmpfs."""
    source = words.get("source", "")
    if kind == "volume":
        if source and not _NAME.fullmatch(source):
            raise _invalid(text, f"{source[:40]!r} is no name of a volume", hint="type=bind has directories")
        return volumes.fresh(source)
    if not source:
        raise _invalid(text, f"type {kind!r} needs a 'source'")
    if kind == "nfs":
        options = [option for option in words.get("options", "").split(";") if option]
        return volumes.other({"kind": "nfs", "source": mounts.share(source), "options": options})
    path = _host_path(source)
    if not path.exists():
        raise _invalid(text, f"there is no {str(path)[:200]!r} on this host", hint="-v makes a directory")
    if kind == "bind":
        return volumes.host(path)
    return volumes.other({"kind": kind, "source": str(path), **_disk_options(words, text)})


def _disk_options(words: dict[str, str], text: str) -> dict[str, str]:
    if "cache" in words and words["cache"] not in _CACHES:
        raise _invalid(text, f"unknown cache {words['cache'][:40]!r}", hint=f"known: {', '.join(_CACHES)}")
    return {key: words[key] for key in ("fstype", "cache") if words.get(key)}


def _invalid(text: str, why: str, *, hint: str = _MOUNT_FORM) -> InvalidRequest:
    return InvalidRequest(f"invalid mount {text[:80]!r}: {why}", hint=hint)
