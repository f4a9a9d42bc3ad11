"""The verbs of the API, grouped by noun."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from hypercontainer.client.http import Download, Record, encode, progress, quoted
from hypercontainer.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from hypercontainer.client import Client
    from hypercontainer.client.streams import Attached, LogFrame, Seen
    from hypercontainer.model.pod import AddedContainer, ExecSpec, PodSpec
    from hypercontainer.tarstream import Readable

Records = list[Record]


class _Noun:
    def __init__(self, client: Client) -> None:
        self._client = client


class System(_Noun):
    def ping(self) -> str:
        return self._client.request("GET", "/v1/ping").read().decode()

    def version(self) -> Record:
        """VersionView."""
        return self._record("/v1/version")

    def info(self) -> Record:
        """InfoView."""
        return self._record("/v1/info")

    def doctor(self, *, measure: bool = False) -> Record:
        """DoctorView; ``measure`` boots a machine with each driver that works."""
        return self._record("/v1/doctor", measure=measure)

    def events(self, *, since: float = 0, until: float = 0, filters: Sequence[str] = ()) -> Iterator[Record]:
        """EventView of each, as it happens."""
        query = {"since": since, "until": until, "filter": list(filters)}
        return progress(self._client.request("GET", "/v1/events", query=query))

    def _record(self, path: str, **query: object) -> Record:
        record: Record = self._client.call("GET", path, query=query)
        return record


class Pods(_Noun):
    def create(self, spec: PodSpec | Mapping[str, object]) -> Record:
        """PodView.  ``spec`` may be a PodSpec or the same as a mapping; hyperd checks it."""
        return self._pod("POST", "/v1/pods", body=encode(spec))

    def list(self) -> Records:
        """PodView of each."""
        views: Records = self._client.call("GET", "/v1/pods")
        return views

    def get(self, name: str) -> Record:
        """PodDetails."""
        return self._pod("GET", _at("pods", name))

    def start(self, name: str) -> Record:
        """PodView."""
        return self._pod("POST", _at("pods", name, "start"))

    def stop(self, name: str, *, timeout_s: float | None = None) -> Record:
        """PodView."""
        return self._pod("POST", _at("pods", name, "stop"), timeout_s=timeout_s)

    def pause(self, name: str) -> Record:
        """PodView."""
        return self._pod("POST", _at("pods", name, "pause"))

    def unpause(self, name: str) -> Record:
        """PodView."""
        return self._pod("POST", _at("pods", name, "unpause"))

    def remove(self, name: str, *, force: bool = False) -> None:
        self._client.call("DELETE", _at("pods", name), query={"force": force})

    def kill(self, name: str, *, signal: int = 9) -> None:
        self._client.call("POST", _at("pods", name, "kill"), query={"signal": signal})

    def wait(self, name: str) -> int:
        """The exit code of the pod's first container, when there is one."""
        return int(self._client.call("GET", _at("pods", name, "wait"))["exit_code"])

    def replace(self, name: str, new: str, *, timeout_s: float | None = None) -> Record:
        """PodView of ``new``, which runs on the machine that ``name`` had."""
        return self._pod("POST", _at("pods", name, "replace"), new=new, timeout_s=timeout_s)

    def rename(self, name: str, new: str) -> Record:
        """PodView."""
        return self._pod("POST", _at("pods", name, "rename"), name=new)

    def add_container(self, name: str, added: AddedContainer | Mapping[str, object]) -> Record:
        """ContainerView of another container, which is not started."""
        return self._pod("POST", _at("pods", name, "containers"), body=encode(added))

    def timeline(self, name: str) -> Record:
        """TimelineView."""
        return self._pod("GET", _at("pods", name, "timeline"))

    def statistics(self, name: str) -> Record:
        """StatisticsView."""
        return self._pod("GET", _at("pods", name, "statistics"))

    def ports(self, name: str) -> Records:
        """PortMapping of each published port."""
        views: Records = self._client.call("GET", _at("pods", name, "ports"))
        return views

    def add_ports(self, name: str, ports: Sequence[Mapping[str, object]]) -> Records:
        """PortMapping of each published port, the new ones among them."""
        views: Records = self._client.call("POST", _at("pods", name, "ports"), body=encode(ports))
        return views

    def remove_ports(self, name: str, ports: Sequence[str]) -> Records:
        """PortMapping of each port that is still published; ``ports`` are as for --publish."""
        views: Records = self._client.call("DELETE", _at("pods", name, "ports"), query={"port": list(ports)})
        return views

    def services(self, name: str) -> Records:
        """ServiceSpec of each."""
        views: Records = self._client.call("GET", _at("pods", name, "services"))
        return views

    def set_services(self, name: str, services: Sequence[Mapping[str, object]]) -> Records:
        """ServiceSpec of each that the pod has from now on."""
        views: Records = self._client.call("PUT", _at("pods", name, "services"), body=encode(services))
        return views

    def processes(self, name: str) -> Records:
        """ProcessView of each."""
        views: Records = self._client.call("GET", _at("pods", name, "processes"))
        return views

    def _pod(self, method: str, path: str, *, body: bytes | None = None, **query: object) -> Record:
        record: Record = self._client.call(method, path, query=query, body=body)
        return record


class Containers(_Noun):
    def list(self) -> Records:
        """ContainerView of each, the ended ones too."""
        views: Records = self._client.call("GET", "/v1/containers")
        return views

    def get(self, name: str) -> Record:
        """ContainerView; a pod's name is its first container."""
        record: Record = self._client.call("GET", _at("containers", name))
        return record

    def start(self, name: str) -> Record:
        """ContainerView."""
        return self._act(name, "start")

    def stop(self, name: str, *, timeout_s: float | None = None) -> Record:
        """ContainerView."""
        return self._act(name, "stop", timeout_s=timeout_s)

    def rename(self, name: str, new: str) -> Record:
        """ContainerView."""
        return self._act(name, "rename", name=new)

    def remove(self, name: str, *, force: bool = False) -> None:
        self._client.call("DELETE", _at("containers", name), query={"force": force})

    def kill(self, name: str, *, signal: int = 9) -> None:
        self._client.call("POST", _at("containers", name, "kill"), query={"signal": signal})

    def wait(self, name: str) -> int:
        return int(self._client.call("GET", _at("containers", name, "wait"))["exit_code"])

    def processes(self, name: str) -> Records:
        """ProcessView of each."""
        views: Records = self._client.call("GET", _at("containers", name, "processes"))
        return views

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0,
        until: float = 0,
    ) -> Iterator[LogFrame]:
        """What the container printed, in order; with ``follow`` until it ends."""
        from hypercontainer.client.streams import log_frames

        query = {"follow": follow, "tail": tail, "since": since, "until": until}
        answer = self._client.request("GET", _at("containers", name, "logs"), query=query)
        return log_frames(answer)

    def attach(
        self, name: str, *, start: bool = False, from_start: bool = False, timeline: bool = False
    ) -> Attached:
        query = {"start": start, "from_start": from_start, "timeline": timeline}
        return self._client.upgrade(_at("containers", name, "attach"), query=query)

    def stat(self, name: str, path: str, *, follow: bool = False) -> Record:
        """PathView of a path in the container; NotFound when there is nothing."""
        query = {"path": path, "follow": follow}
        record: Record = self._client.call("GET", _at("containers", name, "archive", "stat"), query=query)
        return record

    def download(self, name: str, path: str, *, follow: bool = False) -> Download:
        """A tar of a path in the container, to be read; what fails on the way is raised while it is."""
        query = {"path": path, "follow": follow}
        return Download(self._client.request("GET", _at("containers", name, "archive"), query=query))

    def upload(self, name: str, path: str, archive: Readable, *, keep_owners: bool = False) -> None:
        """Unpack a tar into a directory of the container."""
        query = {"path": path, "keep_owners": keep_owners}
        self._client.put(_at("containers", name, "archive"), archive, query=query)

    def attach_again(self, name: str, seen: Seen, *, timeline: bool = False) -> Attached:
        """Go on behind what was ``seen`` through a connection that hyperd's death has ended."""
        query = {"timeline": timeline, **seen.query()}
        return self._client.upgrade(_at("containers", name, "attach"), query=query)

    def create_exec(self, name: str, spec: ExecSpec | Mapping[str, object]) -> Record:
        """ExecView."""
        record: Record = self._client.call("POST", _at("containers", name, "execs"), body=encode(spec))
        return record

    def _act(self, container: str, verb: str, **query: object) -> Record:
        record: Record = self._client.call("POST", _at("containers", container, verb), query=query)
        return record


class Execs(_Noun):
    def get(self, exec_id: str) -> Record:
        """ExecView."""
        record: Record = self._client.call("GET", _at("execs", exec_id))
        return record

    def start(self, exec_id: str) -> Attached:
        return self._client.upgrade(_at("execs", exec_id, "start"))

    def detach(self, exec_id: str) -> Record:
        """Start it and leave it to itself: ExecView."""
        record: Record = self._client.call("POST", _at("execs", exec_id, "detach"))
        return record

    def attach_again(self, exec_id: str, seen: Seen) -> Attached:
        """Go on behind what was ``seen`` through a connection that hyperd's death has ended."""
        return self._client.upgrade(_at("execs", exec_id, "attach"), query=seen.query())

    def wait(self, exec_id: str) -> int:
        return int(self._client.call("GET", _at("execs", exec_id, "wait"))["exit_code"])


class Machines(_Noun):
    def list(self) -> Records:
        """MachineView of each."""
        views: Records = self._client.call("GET", "/v1/machines")
        return views


class Templates(_Noun):
    def list(self) -> Records:
        """TemplateView of each."""
        views: Records = self._client.call("GET", "/v1/templates")
        return views

    def remove(self, name: str) -> None:
        self._client.call("DELETE", _at("templates", name))

    def prune(self) -> Records:
        """TemplateView of each that went."""
        views: Records = self._client.call("POST", "/v1/templates/prune")
        return views


class Images(_Noun):
    def list(self) -> Records:
        """ImageView of each."""
        views: Records = self._client.call("GET", "/v1/images")
        return views

    def get(self, name: str) -> Record:
        """The image with its configuration (model.image.Image)."""
        record: Record = self._client.call("GET", _at("images", name))
        return record

    def remove(self, name: str, *, force: bool = False) -> Records:
        """RemovedView for each thing that went."""
        views: Records = self._client.call("DELETE", _at("images", name), query={"force": force})
        return views

    def tag(self, name: str, reference: str) -> None:
        self._client.call("POST", "/v1/images/tag", query={"name": name, "reference": reference})

    def pull(
        self, reference: str, *, platform: str = "", username: str = "", password: str = ""
    ) -> Iterator[Record]:
        """images.Progress as it goes; raises what went wrong."""
        headers = {"X-Registry-Auth": _credentials(username, password)} if username else None
        query = {"reference": reference, "platform": platform or None}
        return progress(self._client.request("POST", "/v1/images/pull", query=query, headers=headers))

    def load(self, archive: IO[bytes]) -> Iterator[Record]:
        """images.Progress as it goes."""
        return self._client.upload("/v1/images/load", archive)

    def import_(
        self, archive: IO[bytes], *, reference: str = "", changes: Sequence[str] = ()
    ) -> Iterator[Record]:
        """images.Progress as it goes; ``changes`` are Dockerfile instructions."""
        query = {"reference": reference or None, "change": list(changes)}
        return self._client.upload("/v1/images/import", archive, query=query)


def _at(noun: str, name: str, *verbs: str) -> str:
    if not name:
        raise InvalidRequest(f"an empty name is none of {noun}")
    safe = b"/:@" if noun == "images" else b""
    return "/".join(["/v1", noun, quoted(name, safe=safe), *verbs])


def _credentials(username: str, password: str) -> str:
    import base64

    document = json.dumps({"username": username, "password": password})
    return base64.urlsafe_b64encode(document.encode()).decode()
