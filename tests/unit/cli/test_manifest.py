"""Kubernetes Pod manifests: what each key becomes, so that none can be ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.cli import podfile
from hypercontainer.model.network import PortMapping
from hypercontainer.model.pod import ContainerSpec, MountSpec, PodSpec, RestartPolicy, VolumeSpec


def pod(metadata: dict[str, Any] | None = None, **spec: Any) -> PodSpec:
    spec.setdefault("containers", [{"name": "c", "image": "i"}])
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata or {}, "spec": spec}
    found = podfile.parse(json.dumps(manifest).encode(), "pod.json", Path("/pods"))
    return msgspec.json.decode(json.dumps(found), type=PodSpec)


def container(pod_keys: dict[str, Any] | None = None, **keys: Any) -> ContainerSpec:
    return pod(containers=[{"name": "c", "image": "i", **keys}], **(pod_keys or {})).containers[0]


def test_the_least_manifest_is_a_pod_that_is_always_restarted() -> None:
    always = ContainerSpec(name="c", image="i", restart=RestartPolicy(name="always"))
    assert pod() == PodSpec(containers=(always,))


def test_metadata() -> None:
    found = pod({"name": "web", "labels": {"app": "web"}, "namespace": "default", "annotations": {"a": "b"}})
    assert (found.name, found.labels) == ("web", {"app": "web"})


def test_what_a_cluster_adds_is_ignored() -> None:
    manifest = {
        "apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"},
        "metadata": {"uid": "1", "resourceVersion": "2", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "containers": [
                {
                    "name": "c", "image": "i", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }
            ],
            "nodeName": "node", "schedulerName": "default-scheduler", "serviceAccountName": "default",
            "tolerations": [{"operator": "Exists"}], "enableServiceLinks": True, "priority": 0,
            "hostNetwork": False, "initContainers": [],
        },
    }  # fmt: skip
    found = podfile.parse(json.dumps(manifest).encode(), "pod.json", Path("/"))
    assert msgspec.convert(found, PodSpec) == pod()


@pytest.mark.parametrize(
    ("policy", "name"), [("Always", "always"), ("OnFailure", "on-failure"), ("Never", "no")]
)
def test_restart_policies(policy: str, name: str) -> None:
    assert container({"restartPolicy": policy}).restart.name == name


def test_command_is_the_entrypoint_and_args_the_command() -> None:
    found = container(command=["sh", "-c"], args=["ls"], workingDir="/srv", tty=True, stdin=True)
    assert (found.entrypoint, found.command) == (("sh", "-c"), ("ls",))
    assert (found.working_directory, found.terminal, found.stdin) == ("/srv", True, True)
    assert container(args=["ls"]).entrypoint is None


@pytest.mark.parametrize(("said", "seconds"), [({}, None), ({"terminationGracePeriodSeconds": 0}, 0)])
def test_a_grace_of_nothing_is_not_the_same_as_none_said(said: dict[str, Any], seconds: int | None) -> None:
    assert pod(**said).stop_timeout_s == seconds


def test_variables_refer_to_earlier_ones() -> None:
    env = [
        {"name": "HOST", "value": "db"},
        {"name": "URL", "value": "http://$(HOST)/$$(HOST)/$(LATER)"},
        {"name": "LATER", "value": 5},
        {"name": "EMPTY"},
    ]
    found = container(env=env, command=["$(URL)", "$(NOBODY)"], args=["$$(HOST)", "$HOST"])
    assert found.environment == ("HOST=db", "URL=http://db/$(HOST)/$(LATER)", "LATER=5", "EMPTY=")
    assert found.entrypoint == ("http://db/$(HOST)/$(LATER)", "$(NOBODY)")
    assert found.command == ("$(HOST)", "$HOST")


def test_fields_of_the_manifest_are_known() -> None:
    def field(path: str) -> dict[str, Any]:
        return {"name": path[-2:-1], "valueFrom": {"fieldRef": {"fieldPath": path}}}

    env = [field("metadata.name"), field("metadata.labels['app']")]
    found = pod(
        {"name": "web", "labels": {"app": "front"}}, containers=[{"name": "c", "image": "i", "env": env}]
    )
    assert found.containers[0].environment == ("m=web", "'=front")


def test_ports_of_the_host_are_published_and_others_are_not() -> None:
    ports = [
        {"name": "http", "containerPort": 80},
        {"containerPort": 8080, "hostPort": 80, "hostIP": "127.0.0.1", "protocol": "TCP"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP"},
    ]
    assert pod(containers=[{"name": "c", "image": "i", "ports": ports}]).ports == (
        PortMapping(container_port=8080, host_port=80, host_ip="127.0.0.1"),
        PortMapping(container_port=53, host_port=53, protocol="udp"),
    )


# --- resources ---


@pytest.mark.parametrize(
    ("cpu", "millis"), [("500m", 500), (1, 1000), ("0.1", 100), (0.25, 250), ("1e-1", 100), ("1m", 1)]
)
def test_limits_of_cpus(cpu: Any, millis: int) -> None:
    assert container(resources={"limits": {"cpu": cpu}}).cpu_millis == millis


@pytest.mark.parametrize(
    ("memory", "size"),
    [("64Mi", 64 << 20), ("1Gi", 1 << 30), ("1M", 10**6), ("1e3", 1000), (4096, 4096), ("1.5Ki", 1536)],
)
def test_limits_of_memory(memory: Any, size: int) -> None:
    assert container(resources={"limits": {"memory": memory}}).memory_bytes == size


def sized(*resources: dict[str, Any], **spec: Any) -> tuple[int, int]:
    containers = [{"name": f"c{n}", "image": "i", "resources": each} for n, each in enumerate(resources)]
    found = pod(containers=containers, **spec)
    return found.vcpus, found.memory_mib


def test_the_machine_has_room_for_its_containers() -> None:
    assert sized({}) == (1, 128)
    assert sized({"limits": {"memory": "16Mi"}}) == (1, 128)
    one = {"limits": {"cpu": "1500m", "memory": "100Mi"}}
    two = {"requests": {"cpu": 1, "memory": "100Mi"}}
    assert sized(one, two) == (3, 264)


def test_the_pods_own_resources_are_the_machine() -> None:
    limits = {"limits": {"memory": "1Gi"}}
    assert sized(limits, resources={"limits": {"cpu": 2, "memory": "64Mi"}}) == (2, 64)


def test_a_request_is_no_limit() -> None:
    found = container(resources={"requests": {"cpu": 1, "memory": "1Gi"}})
    assert (found.cpu_millis, found.memory_bytes) == (0, 0)


# --- security ---


def test_a_user_and_groups() -> None:
    both = {"securityContext": {"runAsUser": 1000, "runAsGroup": 0, "supplementalGroups": [5, 6]}}
    found = container(both)
    assert (found.user, found.groups) == ("1000:0", ("5", "6"))
    own = container(both, securityContext={"runAsUser": 0, "readOnlyRootFilesystem": True})
    assert (own.user, own.read_only) == ("0:0", True)
    assert container(securityContext={"runAsUser": 7, "runAsNonRoot": True}).user == "7"


def test_sysctls_are_the_pods() -> None:
    sysctls = [{"name": "net.core.somaxconn", "value": "1024"}]
    assert pod(securityContext={"sysctls": sysctls}).sysctls == {"net.core.somaxconn": "1024"}


# --- volumes ---


def mounted(volume: dict[str, Any], **mount: Any) -> tuple[tuple[VolumeSpec, ...], MountSpec]:
    containers = [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]}]
    found = pod(containers=containers, volumes=[{"name": "v", **volume}])
    return found.volumes, found.containers[0].mounts[0]


def test_an_empty_directory_lives_in_the_pod_and_starts_empty() -> None:
    volumes, mount = mounted({"emptyDir": {}}, readOnly=True)
    assert volumes == (VolumeSpec(name="v"),)
    assert mount == MountSpec(target="/v", volume="v", read_only=True, populate=False)


def test_an_empty_directory_in_memory_is_a_tmpfs() -> None:
    volumes, mount = mounted({"emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}})
    assert volumes == ()
    assert mount == MountSpec(target="/v", options=("size=16777216",))


def test_paths_of_the_host(tmp_path: Path) -> None:
    directory, file = tmp_path / "d", tmp_path / "f"
    directory.mkdir()
    file.touch()
    for path, kind in ((directory, "Directory"), (file, "File"), (tmp_path / "x", "")):
        volumes, mount = mounted({"hostPath": {"path": str(path), "type": kind}})
        assert volumes == (VolumeSpec(name="v", kind="host", source=str(path)),)
        assert mount == MountSpec(target="/v", volume="v")
    volumes, _ = mounted({"hostPath": {"path": str(tmp_path / "x"), "type": "DirectoryOrCreate"}})
    assert volumes[0].create
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("server", "source"), [("nas", "nas:/x"), ("fd00::1", "[fd00::1]:/x")])
def test_a_share_of_an_nfs_server(server: str, source: str) -> None:
    volumes, _ = mounted({"nfs": {"server": server, "path": "/x", "readOnly": True}})
    assert volumes == (VolumeSpec(name="v", kind="nfs", source=source, read_only=True),)


# --- network ---


def test_names() -> None:
    found = pod(
        hostname="web",
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["1.1.1.1"],
            "searches": ["example.org"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        },
        hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a", "b.example"]}],
    )
    assert (found.hostname, found.dns, found.dns_search) == ("web", ("1.1.1.1",), ("example.org",))
    assert found.dns_options == ("ndots:2", "edns0")
    assert found.extra_hosts == ("a:10.0.0.1", "b.example:10.0.0.1")
