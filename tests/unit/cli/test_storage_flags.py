"""-v, --mount, --tmpfs and the other flags of run that say what a container has and may do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.errors import InvalidRequest
from hypercontainer.model.network import InterfaceSpec
from hypercontainer.model.pod import LogSpec, MountSpec, ResourceLimit, RestartPolicy, VolumeSpec
from tests.unit.cli.test_arguments import asked, pod


def test_a_directory_of_the_host_is_made_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = pod("-v /srv/site:/site:ro -v ./data:/data -v ..:/up debian")
    assert [(volume.kind, volume.source, volume.create) for volume in found.volumes] == [
        ("host", "/srv/site", True), ("host", f"{tmp_path}/data", True), ("host", str(tmp_path.parent), True),
    ]  # fmt: skip
    site, data, up = (volume.name for volume in found.volumes)
    assert found.containers[0].mounts == (
        MountSpec(target="/site", volume=site, read_only=True),
        MountSpec(target="/data", volume=data),
        MountSpec(target="/up", volume=up),
    )
    assert not (tmp_path / "data").exists()  # hyperd makes it, and only with the pod


def test_a_name_is_storage_of_the_pod_and_nothing_is_storage_without_a_name() -> None:
    found = pod("-v cache:/a -v cache:/b:nocopy -v /c debian")
    assert found.volumes[0] == VolumeSpec(name="cache")
    assert [mount.volume for mount in found.containers[0].mounts[:2]] == ["cache", "cache"]
    assert [mount.populate for mount in found.containers[0].mounts[:2]] == [True, False]


def test_volumes_without_a_name_are_apart() -> None:
    found = pod("-v /c -v /d debian")
    assert len({volume.name for volume in found.volumes}) == 2
    assert [mount.volume for mount in found.containers[0].mounts] == [volume.name for volume in found.volumes]


def test_one_directory_of_the_host_has_one_name_in_every_container_of_a_pod() -> None:
    names = [pod(f"-v /srv:{path} -v /tmp:/t debian").volumes[0].name for path in ("/a", "/b")]
    assert names[0] == names[1]
    assert [volume.source for volume in pod("-v /srv:/a -v /srv/:/b debian").volumes] == ["/srv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid volume"),
        (":/a", "invalid volume"),
        ("/a:", "invalid volume"),
        ("/a:/b:ro:rw", "invalid volume"),
        ("/a:/b:rx", "'rx' is no option"),
        ("~/a:/b", "'~/a' is no name"),
        ("/a:b", "'b' is no absolute path"),
        ("/a:/", "over the root"),
    ],
)
def test_a_volume_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        asked(["-v", text, "debian"])


def test_two_volumes_cannot_be_at_one_place() -> None:
    with pytest.raises(InvalidRequest, match="two volumes are mounted at '/a'"):
        asked("-v x:/a --tmpfs /a/ debian")


def test_mounts_in_words(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.touch()
    found = pod(
        f"--mount type=bind,source={tmp_path},target=/a,readonly --mount src=cache,dst=/b,volume-nocopy "
        f"--mount type=volume,destination=/c --mount type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=1777 "
        f"--mount type=raw,src={image},dst=/e,fstype=ext4,cache=none "
        "--mount type=nfs,src=nas:/x,dst=/f,options=vers=4;ro debian"
    )
    host, cache, anonymous, raw, nfs = (volume.name for volume in found.volumes)
    assert found.volumes == (
        VolumeSpec(name=host, kind="host", source=str(tmp_path)),
        VolumeSpec(name="cache"),
        VolumeSpec(name=anonymous),
        VolumeSpec(name=raw, kind="raw", source=str(image), fstype="ext4", cache="none"),
        VolumeSpec(name=nfs, kind="nfs", source="nas:/x", options=("vers=4", "ro")),
    )
    assert found.containers[0].mounts == (
        MountSpec(target="/a", volume=host, read_only=True),
        MountSpec(target="/b", volume=cache, populate=False),
        MountSpec(target="/c", volume=anonymous),
        MountSpec(target="/d", options=("size=1m", "mode=1777")),
        MountSpec(target="/e", volume=raw),
        MountSpec(target="/f", volume=nfs),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind,src=/nowhere,dst=/a", "there is no '/nowhere' on this host"),
        ("type=bind,dst=/a", "needs a 'source'"),
        ("type=bind,src=/tmp", "needs a 'target'"),
        ("type=rbd,src=/tmp,dst=/a", "unknown type 'rbd'"),
        ("type=volume,src=./x,dst=/a", "is no name of a volume"),
        ("type=tmpfs,src=a,dst=/a", "unknown key 'source' of type 'tmpfs'"),
        ("type=volume,dst=/a,ro=maybe", "'maybe' is neither true nor false"),
        ("type=volume,dst=/a,target=/b", "'target' is there twice"),
        ("type=raw,src=/tmp,dst=/a,cache=fast", "unknown cache 'fast'"),
        ("type=nfs,src=nas,dst=/a", "'nas' is no share"),
    ],
)
def test_a_mount_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        asked(["--mount", text, "debian"])


def test_limits_restarts_and_logs() -> None:
    found = pod(
        "--ulimit nofile=10:20 --ulimit core=-1 --pids-limit 5 --restart on-failure:3 --log-driver json-file "
        "--log-opt max-size=10m --log-opt max-file=3 --init debian"
    ).containers[0]
    assert found.limits == (
        ResourceLimit(name="nofile", soft=10, hard=20), ResourceLimit(name="core", soft=-1, hard=-1),
    )  # fmt: skip
    assert found.pids == 5
    assert found.restart == RestartPolicy(name="on-failure", max_retries=3)
    assert found.log == LogSpec(max_size=10 << 20, max_files=3)


@pytest.mark.parametrize("policy", ["no", "always", "unless-stopped", "on-failure"])
def test_every_restart_policy_of_docker(policy: str) -> None:
    assert pod(f"--restart {policy} debian").containers[0].restart == RestartPolicy(name=policy)  # type: ignore[arg-type]


def test_what_is_the_pods() -> None:
    found = pod(
        "--sysctl net.core.somaxconn=9 --shm-size 32m --add-host db:10.0.0.1 --add-host six=[::1] "
        "--ip 192.168.123.9 --mac-address 52:54:00:00:00:01 debian"
    )
    assert found.sysctls == {"net.core.somaxconn": "9"}
    assert found.shm_bytes == 32 << 20
    assert found.extra_hosts == ("db:10.0.0.1", "six:::1")
    assert found.interfaces == (InterfaceSpec(address="192.168.123.9", mac="52:54:00:00:00:01"),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--ulimit nofile", "invalid limit"),
        ("--ulimit files=1", "unknown limit 'files'"),
        ("--ulimit nofile=2:1", "above the hard limit"),
        ("--pids-limit -5", "invalid number of processes"),
        ("--restart sometimes", "invalid restart policy"),
        ("--restart always:3", "invalid restart policy"),
        ("--restart on-failure:x", "no number of retries"),
        ("--restart always --rm", "contradict"),
        ("--log-driver syslog", "unknown log driver 'syslog'"),
        ("--log-opt max-size", "it is NAME=VALUE|invalid log option"),
        ("--log-opt max-file=3", "needs 'max-size'"),
        ("--log-driver none --log-opt max-size=1m", "has no options"),
        ("--sysctl somaxconn=1", "no kernel parameter"),
        ("--sysctl net.core.somaxconn", "invalid kernel parameter"),
        ("--shm-size lots", "invalid size of /dev/shm"),
        ("--add-host db", "no name and address"),
        ("--add-host db:here", "no IP address"),
        ("--ip 1.2.3", "no IPv4 address"),
        ("--mac-address 1", "no MAC address"),
        ("--ip 10.0.0.1 --network none", "has no interface"),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused(line: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        asked(f"{line} debian")


@pytest.mark.parametrize(
    "flag", ["-v a:/a", "--restart always", "--sysctl a.b=c", "--ip 10.0.0.1", "--shm-size 1m"]
)
def test_what_the_podfile_says_is_not_said_by_flags(flag: str, tmp_path: Path) -> None:
    path = tmp_path / "pod.json"
    path.write_text('{"containers": [{"image": "i"}]}')
    with pytest.raises(InvalidRequest, match="is said in the podfile"):
        asked(f"{flag} -p {path}")
