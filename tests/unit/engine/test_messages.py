"""What the guest is told of a pod, its containers and their processes."""

from __future__ import annotations

from dataclasses import replace

from hypercontainer.engine import messages, slots
from hypercontainer.engine.records import ContainerRecord, PodRecord
from hypercontainer.guest.protocol import ResourceLimit, Setting
from hypercontainer.model.machine import Capabilities, Isolation, ShareKind
from hypercontainer.model.network import Lease, NicLease
from hypercontainer.model.pod import ContainerSpec, ExecSpec, PodSpec
from hypercontainer.model.pod import ResourceLimit as LimitSpec

IMAGE = "sha256:1"
CAPABILITIES = Capabilities(
    isolation=Isolation.PROCESS,
    kernel="um",
    max_vcpus=1,
    min_memory_mib=32,
    disk_slots=4,
    nics=frozenset(),
    pause=True,
    swap_disks=True,
    share=ShareKind.NINEP,
    share_options="version=9p2000.L",
)


def a_container(**spec: object) -> ContainerRecord:
    return ContainerRecord(
        id="c" * 64,
        pod="f" * 64,
        index=0,
        name="c",
        spec=ContainerSpec(image="image", **spec),  # type: ignore[arg-type]
        image_id=IMAGE,
        argv=("x",),
        environment=("A=1", "B=2"),
        working_directory="/srv",
        user="app",
        stop_signal=15,
        created=1.0,
    )


def a_pod(lease: Lease | None = None, **spec: object) -> PodRecord:
    whole = PodSpec(containers=(ContainerSpec(image="image"),), **spec)  # type: ignore[arg-type]
    return PodRecord(
        id="f" * 64,
        name="pod",
        spec=whole,
        created=1.0,
        hypervisor="uml",
        machine="m",
        lease=lease,
        slots=slots.assign((), [IMAGE], limit=4),
    )


def hosts_of(pod: PodRecord, *names: str) -> list[str]:
    files = {
        file.path: file.data.decode() for file in messages.create_container(pod, a_container(), names).files
    }
    return files["/etc/hosts"].splitlines()


def test_the_files_of_a_container_know_its_network() -> None:
    nic = NicLease(nic_name="hy0", mac="02:00:00:00:00:01", address="10.0.0.2/24", mtu=1500)
    lease = Lease(nics=(nic,), dns=("9.9.9.9",), search=("a.example",))
    pod = a_pod(lease, hostname="web", dns=("1.1.1.1",), dns_options=("ndots:2",))
    message = messages.create_container(pod, a_container(), ["db", "log"])
    files = {file.path: file.data.decode() for file in message.files}
    assert files["/etc/hostname"] == "web\n"
    assert "10.0.0.2\tweb db log\n" in files["/etc/hosts"]
    assert files["/etc/resolv.conf"] == "search a.example\nnameserver 1.1.1.1\noptions ndots:2\n"


def test_without_a_network_the_containers_reach_each_other_at_loopback() -> None:
    assert "127.0.0.1\tweb db" in hosts_of(a_pod(hostname="web"), "db")


def test_a_container_that_is_named_as_the_pod_stands_there_once() -> None:
    assert "127.0.0.1\tweb db" in hosts_of(a_pod(hostname="web"), "web", "db")


def test_extra_hosts_are_added_and_may_have_addresses_of_ipv6() -> None:
    found = hosts_of(a_pod(extra_hosts=("db:10.1.2.3", "six:fd00::1")))
    assert found[-2:] == ["10.1.2.3\tdb", "fd00::1\tsix"]


def test_the_image_of_a_container_is_in_the_slot_that_the_pod_has_it_in() -> None:
    message = messages.create_container(a_pod(), a_container(), [])
    assert (message.image.slot, message.writable.slot, message.writable.path) == (1, 0, "c" * 64)


def test_limits_of_a_container_reach_its_cgroup_and_its_processes() -> None:
    container = a_container(
        memory_bytes=1 << 20, cpu_millis=500, pids=10, limits=(LimitSpec(name="nofile", soft=64, hard=-1),)
    )
    message = messages.create_container(a_pod(), container, [])
    assert (message.memory_bytes, message.cpu_millis, message.pids) == (1 << 20, 500, 10)
    for process in (
        messages.start_container(container, a_pod(), process=1),
        messages.start_exec(ExecSpec(command=("sh",)), container, a_pod(), process=2),
    ):
        assert process.limits == (ResourceLimit("nofile", 64, (1 << 64) - 1),)


def test_a_pods_sysctls_and_its_shared_memory_are_as_asked() -> None:
    pod = a_pod(sysctls={"net.core.somaxconn": "99"}, shm_bytes=1 << 20)
    message = messages.set_up_pod(pod, CAPABILITIES, clock_ns=1, entropy=b"")
    assert message.sysctls == (Setting("net.core.somaxconn", "99"),)
    assert message.shm_bytes == 1 << 20


def test_shared_memory_is_dockers_size_or_half_of_a_small_machine() -> None:
    sizes = [
        messages.set_up_pod(a_pod(memory_mib=mib), CAPABILITIES, clock_ns=1, entropy=b"").shm_bytes
        for mib in (64, 1024)
    ]
    assert sizes == [32 << 20, 64 << 20]


def test_an_exec_has_its_containers_environment_below_its_own() -> None:
    message = messages.start_exec(
        ExecSpec(command=("sh",), environment=("B=3",), terminal=True), a_container(), a_pod(), process=7
    )
    assert {"A=1", "B=3", "TERM=xterm"} <= set(message.environment)
    assert (message.user, message.working_directory, message.is_main) == ("app", "/srv", False)


def test_the_guest_is_told_how_its_machine_shows_files_of_the_host() -> None:
    message = messages.set_up_pod(a_pod(), CAPABILITIES, clock_ns=1, entropy=b"")
    assert (message.share_type, message.share_options) == ("9p", "version=9p2000.L")
    bare = messages.set_up_pod(a_pod(), replace(CAPABILITIES, share=None), clock_ns=1, entropy=b"")
    assert bare.share_type == ""
