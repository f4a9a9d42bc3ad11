"""Each field of a podfile: what it becomes, so that none can be ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.cli import podfile
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.network import AllowLists, InterfaceSpec, PortMapping
from hypercontainer.model.pod import (
    Backend,
    ContainerSpec,
    FileSpec,
    LogSpec,
    MountSpec,
    PodSpec,
    ResourceLimit,
    RestartPolicy,
    ServiceSpec,
    VolumeSpec,
)

HERE = Path("/pods")  # where the podfile is


def pod(**keys: Any) -> PodSpec:
    keys.setdefault("containers", [{"image": "i"}])
    data = json.dumps(keys).encode()
    return msgspec.json.decode(json.dumps(podfile.parse(data, "pod.json", HERE)), type=PodSpec)


def container(pod_keys: dict[str, Any] | None = None, **keys: Any) -> ContainerSpec:
    return pod(containers=[{"image": "i", **keys}], **(pod_keys or {})).containers[0]


# --- the pod ---


def test_name_is_another_word_for_id() -> None:
    assert pod(name="web").name == "web"
    assert pod(name="web", id="web").name == "web"


@pytest.mark.parametrize(
    ("memory", "mib"), [(64, 64), ("64", 64), ("1g", 1024), ("1.5g", 1536), ("65m", 65), ("1b", 1)]
)
def test_memory_is_mib_or_has_a_unit(memory: Any, mib: int) -> None:
    assert pod(resource={"memory": memory}).memory_mib == mib


def test_the_pods_own_extras() -> None:
    found = pod(shmSize="32m", extraHosts=["db:10.1.0.5", "six=[::1]"], sysctl={"kernel.msgmax": 9000})
    assert found.shm_bytes == 32 << 20
    assert found.extra_hosts == ("db:10.1.0.5", "six:::1")
    assert found.sysctls == {"kernel.msgmax": "9000"}


def test_hypervisor_isolation_and_network() -> None:
    found = pod(hypervisor="tcg", requireIsolation="hardware", network="none")
    assert (found.hypervisor, found.require_isolation, found.network) == ("tcg", "hardware", "none")


def test_a_timeout_of_nothing_is_not_the_same_as_none_said() -> None:
    assert (pod().stop_timeout_s, pod(stopTimeout=0).stop_timeout_s) == (None, 0)


@pytest.mark.parametrize("kind", ["", "pod", "service-discovery"])
def test_types_that_meant_nothing_do_no_harm(kind: str) -> None:
    assert pod(type=kind) == pod()


def test_a_terminal_for_every_container() -> None:
    assert container({"tty": True}).terminal
    assert not container().terminal


@pytest.mark.parametrize(
    ("written", "name"),
    [("never", "no"), ("Never", "no"), ("onFailure", "on-failure"), ("OnFailure", "on-failure"),
     ("always", "always"), ("Always", "always")],
)  # fmt: skip
def test_restart_policies_in_both_spellings(written: str, name: str) -> None:
    assert container(restartPolicy=written).restart.name == name
    assert container({"restartPolicy": written}).restart.name == name


def test_a_containers_restart_policy_comes_before_the_pods() -> None:
    assert container({"restartPolicy": "always"}, restartPolicy="never").restart == RestartPolicy(name="no")


def test_the_log_of_the_pod_holds_for_its_containers() -> None:
    log = {"type": "json-file", "config": {"max-size": "10m", "max-file": "3"}}
    assert container({"log": log}).log == LogSpec(max_size=10 << 20, max_files=3)
    assert container({"log": {"type": "none"}}).log == LogSpec(driver="none")


def test_a_containers_log_comes_before_the_pods() -> None:
    assert container({"log": {"type": "none"}}, log={"config": {"max-size": "1k"}}).log == LogSpec(
        max_size=1024
    )
    assert container({"log": {"type": "none"}}, log={"type": "json-file"}).log == LogSpec()


def test_the_path_of_a_log_starts_at_the_podfile() -> None:
    assert container(logPath="logs/web").log.path == "/pods/logs/web"
    assert container(logPath="/var/log/web").log.path == "/var/log/web"


# --- processes ---


def test_an_id_of_a_container_is_its_name() -> None:
    assert container(id="web").name == "web"


def test_a_user_may_be_text_or_a_number() -> None:
    assert container(user="www:data").user == "www:data"
    assert container(user=1000).user == "1000"
    assert container(user={"name": "www"}).user == "www"


def test_sysctls_of_containers_are_the_pods() -> None:
    found = pod(
        containers=[
            {"image": "i", "sysctl": {"net.core.somaxconn": "1024"}},
            {"image": "i", "sysctl": {"net.core.somaxconn": "1024", "kernel/shmmni": "8"}},
        ]
    )
    assert found.sysctls == {"net.core.somaxconn": "1024", "kernel.shmmni": "8"}


def test_limits_have_soft_and_hard_values() -> None:
    limits = [
        {"name": "nofile", "soft": 10, "hard": 20},
        {"Name": "RLIMIT_NPROC", "Soft": 5},
        {"name": "core", "hard": -1},
        {"name": "stack", "soft": 8192, "hard": -1},
    ]
    assert container(ulimits=limits).limits == (
        ResourceLimit(name="nofile", soft=10, hard=20),
        ResourceLimit(name="nproc", soft=5, hard=5),
        ResourceLimit(name="core", soft=-1, hard=-1),
        ResourceLimit(name="stack", soft=8192, hard=-1),
    )


def test_a_container_may_have_a_part_of_the_machine() -> None:
    found = container(resource={"cpu": 0.5, "memory": 64, "pids": 10})
    assert (found.cpu_millis, found.memory_bytes, found.pids) == (500, 64 << 20, 10)
    assert container(resource={"memory": "1m"}).memory_bytes == 1 << 20


# --- volumes ---


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ({}, VolumeSpec(name="v")),
        ({"source": "", "format": ""}, VolumeSpec(name="v")),
        ({"format": "vfs"}, VolumeSpec(name="v")),
        ({"source": "/data", "format": "vfs"}, VolumeSpec(name="v", kind="host", source="/data")),
        ({"source": "/data"}, VolumeSpec(name="v", kind="host", source="/data")),
        ({"source": "data/../x", "driver": "VFS"}, VolumeSpec(name="v", kind="host", source="/pods/x")),
        (
            {"source": "a.img", "format": "raw", "fstype": "ext4", "cache": "off"},
            VolumeSpec(name="v", kind="raw", source="/pods/a.img", fstype="ext4", cache="none"),
        ),
        (
            {"source": "/a.qcow2", "driver": "qcow2", "cache": "writethrough"},
            VolumeSpec(name="v", kind="qcow2", source="/a.qcow2", cache="writethrough"),
        ),
        (
            {"source": "10.0.0.1:/export", "format": "nas", "fstype": "nfs", "mountOptions": ["vers=4"]},
            VolumeSpec(name="v", kind="nfs", source="10.0.0.1:/export", options=("vers=4",)),
        ),
    ],
)
def test_a_volume_of_each_format(written: dict[str, Any], wanted: VolumeSpec) -> None:
    assert pod(volumes=[{"name": "v", **written}]).volumes == (wanted,)


@pytest.mark.parametrize("cache", ["none", "directsync", "writeback", "unsafe", "writethrough"])
def test_every_way_to_cache_is_passed_on(cache: str) -> None:
    volume = {"name": "v", "source": "/a", "format": "raw", "cache": cache}
    assert pod(volumes=[volume]).volumes[0].cache == cache


def test_a_container_mounts_volumes_of_the_pod() -> None:
    mounts = [{"volume": "v", "path": "/a/", "readOnly": True}, {"volume": "v", "path": "/b"}]
    assert container({"volumes": [{"name": "v"}]}, volumes=mounts).mounts == (
        MountSpec(target="/a", volume="v", read_only=True),
        MountSpec(target="/b", volume="v"),
    )


def test_a_volume_may_be_described_where_it_is_mounted() -> None:
    mounts = [
        {"volume": "v", "path": "/a", "detail": {"source": "/data", "format": "vfs"}},
        {"path": "/b", "detail": {"name": "w"}},
    ]
    found = pod(containers=[{"image": "i", "volumes": mounts}])
    assert [volume.name for volume in found.volumes] == ["v", "w"]
    assert found.volumes[0].source == "/data"
    assert [mount.volume for mount in found.containers[0].mounts] == ["v", "w"]


def test_the_same_detail_may_be_said_by_two_containers() -> None:
    mount = {"volume": "v", "path": "/a", "detail": {"source": "/data"}}
    found = pod(containers=[{"image": "i", "volumes": [mount]}, {"image": "i", "volumes": [mount]}])
    assert len(found.volumes) == 1
    other = {"volume": "v", "path": "/a", "detail": {"source": "/other"}}
    with pytest.raises(
        InvalidRequest, match=r"containers\[1\]\.volumes\[0\]\.detail: volume 'v' is there twice"
    ):
        pod(containers=[{"image": "i", "volumes": [mount]}, {"image": "i", "volumes": [other]}])


def test_a_tmpfs_has_options() -> None:
    assert container(tmpfs=["/run", "/tmp:size=64m,mode=1777,ro"]).mounts == (
        MountSpec(target="/run"),
        MountSpec(target="/tmp", options=("size=64m", "mode=1777"), read_only=True),
    )


# --- files ---


def file(reference: dict[str, Any], declared: dict[str, Any]) -> FileSpec:
    files = [{"filename": "f", "path": "/f", **reference}]
    return container({"files": [{"name": "f", **declared}]}, files=files).files[0]


@pytest.mark.parametrize(
    ("perm", "mode"),
    [("0755", 0o755), ("755", 0o755), ("644", 0o644), ("0600", 0o600), ("0", 0), ("4755", 0o4755)],
)
def test_a_mode_is_octal_as_it_is_written(perm: str, mode: int) -> None:
    assert file({"perm": perm}, {}).mode == mode


def test_without_a_mode_a_file_is_as_the_originals() -> None:
    assert file({}, {}).mode == 0o755


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ({}, b""),
        ({"content": "a\n", "encoding": "raw"}, b"a\n"),
        ({"content": "é"}, "é".encode()),
        ({"content": "aGVsbG8sDQpoeXBlciENCg==", "encoding": "base64"}, b"hello,\r\nhyper!\r\n"),
        ({"content": "aGVs\nbG8=\n", "encoding": "BASE64"}, b"hello"),
    ],
)
def test_content_is_raw_or_base64(declared: dict[str, Any], data: bytes) -> None:
    assert file({}, declared).data == data


def test_a_path_with_a_slash_at_its_end_is_a_directory() -> None:
    assert file({"path": "/etc/conf.d/"}, {}).path == "/etc/conf.d/f"
    assert file({"path": "/etc/conf.d"}, {}).path == "/etc/conf.d"


@pytest.mark.parametrize(
    ("reference", "owner"),
    [({}, ""), ({"user": "www"}, "www"), ({"user": 1000, "group": "g"}, "1000:g"), ({"group": "g"}, "0:g")],
)
def test_a_file_has_an_owner(reference: dict[str, Any], owner: str) -> None:
    assert file(reference, {}).owner == owner


def test_a_file_may_be_described_where_it_goes() -> None:
    files = [{"path": "/etc/", "detail": {"name": "motd", "content": "hi"}}]
    assert container(files=files).files == (FileSpec(path="/etc/motd", data=b"hi", mode=0o755),)


# --- network ---


def test_port_mappings_have_ranges_and_hosts() -> None:
    found = pod(portmappings=[
        {"containerPort": "1300-1301", "hostPort": "3000-3001", "protocol": "TCP"},
        {"containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
    ]).ports  # fmt: skip
    assert found == (
        PortMapping(container_port=1300, host_port=3000),
        PortMapping(container_port=1301, host_port=3001),
        PortMapping(container_port=53, host_ip="127.0.0.1", protocol="udp"),
    )


def test_the_older_ports_of_containers_are_the_pods() -> None:
    containers = [{"image": "i", "ports": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}]
    assert pod(containers=containers).ports == (PortMapping(container_port=80, host_port=8080),)


def test_white_lists() -> None:
    lists = {
        "internalNetworks": ["127.0.0.1/32", "192.168.123.0/24"],
        "externalNetworks": ["0.0.0.0/0", "10.0.0.1"],
    }
    assert pod(portmappingWhiteLists=lists).allow == AllowLists(
        internal=("127.0.0.1/32", "192.168.123.0/24"), external=("0.0.0.0/0", "10.0.0.1/32")
    )
    assert pod().allow is None


def test_interfaces() -> None:
    interfaces = [
        {
            "bridge": "br0",
            "ip": "10.1.0.5/24",
            "ifname": "lan",
            "mac": "52:54:00:AA:bb:01",
            "mtu": 1400,
            "gateway": "10.1.0.1",
        },
        {"ip": "192.168.123.9"},
        {},
    ]
    assert pod(interfaces=interfaces).interfaces == (
        InterfaceSpec(
            bridge="br0",
            address="10.1.0.5/24",
            name="lan",
            mac="52:54:00:aa:bb:01",
            mtu=1400,
            gateway="10.1.0.1",
        ),
        InterfaceSpec(address="192.168.123.9"),
        InterfaceSpec(),
    )


def test_services() -> None:
    service = {
        "serviceIP": "10.254.0.24", "servicePort": 2834, "protocol": "UDP",
        "hosts": [{"hostIP": "192.168.23.2", "hostPort": 2345}],
    }  # fmt: skip
    assert pod(services=[service]).services == (
        ServiceSpec(
            ip="10.254.0.24", port=2834, protocol="udp", backends=(Backend(ip="192.168.23.2", port=2345),)
        ),
    )


def test_one_address_may_serve_both_protocols() -> None:
    service = {"serviceIP": "10.254.0.24", "servicePort": 53, "hosts": []}
    found = pod(services=[service, {**service, "protocol": "udp"}]).services
    assert [each.protocol for each in found] == ["tcp", "udp"]
