"""The pod and its machine: made, torn down, made again, and shut down."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError, HyperError, Unsupported
from hypercontainer.guest.protocol import (
    PROTOCOL_VERSION,
    Backend,
    ConfigureNic,
    Done,
    Failed,
    GetTimeline,
    Hello,
    Message,
    Ping,
    RemoveContainer,
    Service,
    SetServices,
    Setting,
    ShutDown,
    TearDownPod,
    Timeline,
    Welcome,
)
from hypercontainer.guest.wire import END, FrameParser, encode, stuff, unstuff
from tests.guest.laboratory import IMAGE_SLOT, Pod, a_process, as_root, finish
from tests.support.waiting import PATIENCE_S


async def test_welcome_tells_who_answers(machine: Pod) -> None:
    welcome = machine.agent.welcome
    assert welcome.version == PROTOCOL_VERSION
    assert welcome.kernel_release == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert 0 < welcome.started_ns < welcome.now_ns
    assert (welcome.has_pod, welcome.containers, welcome.processes) == (False, (), ())
    await machine.set_up()
    await machine.create("c1")
    await machine.create("c2")
    await machine.start("sleep", "60")
    await machine.reconnect()
    welcome = machine.agent.welcome
    assert (welcome.has_pod, set(welcome.containers)) == (True, {"c1", "c2"})
    assert [(state.container, state.is_running) for state in welcome.processes] == [("c1", True)]


async def test_a_pod_has_the_name_and_the_settings_that_were_asked(machine: Pod) -> None:
    settings = (Setting("net.ipv4.ip_default_ttl", "77"), Setting("kernel/msgmax", "9999"))
    await machine.set_up(hostname="web-1", sysctls=settings)
    await machine.create()
    assert await machine.output(
        "hostname; cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax"
    ) == ("web-1\n77\n9999\n")
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() != "77\n"


@pytest.mark.parametrize(
    "setting",
    [
        Setting("no.such.setting", "1"),
        Setting("../../../../tmp/x", "1"),
        Setting("net.ipv4.ip_default_ttl", "no number"),
        Setting("kernel.printk", "1"),  # the host's: refused where there is no machine
    ],
)
async def test_a_setting_that_cannot_be_made_undoes_the_pod(machine: Pod, setting: Setting) -> None:
    with pytest.raises(GuestError):
        await machine.set_up(sysctls=(setting,))
    await machine.set_up()
    await machine.create()
    assert await machine.output("echo fine") == "fine\n"


async def test_there_is_one_pod_at_a_time_and_nothing_without_it(machine: Pod) -> None:
    with pytest.raises(GuestError) as caught:
        await machine.create()
    assert caught.value.errno == errno.ENOENT
    await machine.set_up()
    with pytest.raises(GuestError) as caught:
        await machine.set_up()
    assert caught.value.errno == errno.EEXIST


async def test_a_pod_is_torn_down_and_another_made_many_times(machine: Pod) -> None:
    for number in range(5):
        await machine.set_up(hostname=f"pod{number}")
        await machine.create("c1")
        await machine.create("c2")
        assert (
            await machine.output("hostname; ls /dev/shm | wc -l; echo x >/dev/shm/x") == f"pod{number}\n0\n"
        )
        process = await machine.start("sh", "-c", "trap '' TERM; sleep 60 & sleep 60", container="c2")
        await machine.agent.request(TearDownPod())
        while await process.read() is not None:
            pass
        assert (await process.exited()).status == 137
        await process.forget()
    await machine.reconnect()
    assert (machine.agent.welcome.has_pod, machine.agent.welcome.containers) == (False, ())
    mounts = Path(f"/proc/{machine.hyperstart_pid()}/mounts").read_text()
    assert "/run/hyper/shm" not in mounts
    assert "/run/hyper/disks" not in mounts


async def test_an_image_that_the_next_pod_has_too_stays_mounted(machine: Pod) -> None:
    def disks() -> set[str]:
        mounts = Path(f"/proc/{machine.hyperstart_pid()}/mounts").read_text().splitlines()
        targets = [line.split()[1] for line in mounts]
        return {target.rpartition("/")[2] for target in targets if "/run/hyper/disks/" in target}

    for _ in range(2):
        await machine.set_up()
        await machine.create("c1")
        assert await machine.output("echo here", container="c1") == "here\n"
        await machine.agent.request(TearDownPod(keep=(IMAGE_SLOT, 63, 64, 255)))
        assert disks() == {str(IMAGE_SLOT)}
    await machine.set_up()
    await machine.create("c1")
    await machine.agent.request(RemoveContainer(container="c1", erase=True))
    assert disks() == set()
    await machine.create("c2")
    await machine.agent.request(TearDownPod())
    assert disks() == set()


async def test_pods_follow_each_other_without_waiting_for_answers(machine: Pod) -> None:
    await machine.set_up()
    for number in range(10):
        await machine.create()
        process = await machine.start("sh", "-c", f"echo last words {number}; hostname; sleep 60")
        await asyncio.gather(
            machine.agent.request(TearDownPod(keep=(IMAGE_SLOT,))),
            machine.set_up(hostname=f"pod{number}"),
            machine.agent.request(Ping()),
        )
        result = await finish(process)
        assert result.status == 137
        name = f"pod{number - 1}" if number else "pod"
        assert f"last words {number}\n{name}\n".encode().startswith(result.output)
        await process.forget()
    await asyncio.gather(*(machine.agent.request(TearDownPod()) for _ in range(3)))
    await machine.set_up()


async def test_tearing_down_nothing_is_done(machine: Pod) -> None:
    await machine.agent.request(TearDownPod())
    await machine.set_up()


async def test_shutting_down_answers_and_ends(pod: Pod) -> None:
    await pod.start("sh", "-c", "trap '' TERM; sleep 60")
    await pod.agent.request(ShutDown())
    async with asyncio.timeout(PATIENCE_S):
        await pod.machine.wait()
    with pytest.raises(HyperError):
        await pod.agent.request(Ping())


# --- Network ---


MAC = "02:42:00:00:00:07"


def add_nic(pod: Pod, name: str = "odd0", mac: str = MAC) -> None:
    """One end of a pair, as if the machine had it."""
    inside = ["nsenter", "-t", str(pod.hyperstart_pid()), "-n"]
    pair = ["ip", "link", "add", name, "address", mac, "type", "veth", "peer", "name", f"{name}p"]
    subprocess.run([*inside, *pair], check=True)
    subprocess.run([*inside, "ip", "link", "set", f"{name}p", "up"], check=True)


async def test_loopback_is_up(pod: Pod) -> None:
    assert "LOOPBACK,UP" in await pod.output("ip link show lo")
    assert await pod.output("ping -c 1 -W 1 127.0.0.1 >/dev/null && echo pong") == "pong\n"


@as_root
async def test_a_nic_is_found_by_its_address_and_configured(pod: Pod) -> None:
    add_nic(pod)
    nic = ConfigureNic(
        mac=MAC,
        name="eth0",
        mtu=1400,
        addresses=("10.9.8.7/24", "fd00::7/64"),
        gateways=("10.9.8.1", "fe80::1"),
    )
    await pod.agent.request(nic)
    link = await pod.output("ip addr show eth0; ip route; ip -6 route; ip link show lo")
    for expected in ("mtu 1400", MAC, "10.9.8.7/24", "fd00::7/64", "default via 10.9.8.1 dev eth0"):
        assert expected in link
    assert "default via fe80::1 dev eth0" in link
    assert "fd00::7/64 scope global tentative" not in link
    await pod.agent.request(nic)  # again is no fault
    await pod.agent.request(TearDownPod())
    await pod.set_up()
    await pod.create()
    await pod.agent.request(nic)  # and it is there for the next pod
    assert "10.9.8.7/24" in await pod.output("ip addr show eth0")


@as_root
async def test_nics_may_have_the_names_that_the_kernel_gave_to_others(pod: Pod) -> None:
    macs = {"eth0": "02:42:00:00:00:10", "eth1": "02:42:00:00:00:11"}
    for name, mac in macs.items():
        add_nic(pod, name, mac)
    for _ in range(2):  # and again for the next pod
        for name, mac in (("eth1", macs["eth0"]), ("eth0", macs["eth1"])):
            await pod.agent.request(ConfigureNic(mac=mac, name=name, mtu=0, addresses=(), gateways=()))
        assert macs["eth0"] in await pod.output("ip link show eth1")
        assert macs["eth1"] in await pod.output("ip link show eth0")
        await pod.agent.request(TearDownPod())
        await pod.set_up()
        await pod.create()


@as_root
async def test_services_without_what_balances_them_are_refused(pod: Pod) -> None:
    """The kernel of a test has no IPVS, as a rule; with it the service is there, and goes again."""
    service = Service("10.254.0.1", 80, "tcp")
    message = SetServices(services=(service,), backends=(Backend(0, "127.0.0.1", 80),))
    if Path("/proc/net/ip_vs").exists():
        await pod.agent.request(message)
    else:
        with pytest.raises(GuestError) as caught:
            await pod.agent.request(message)
        assert caught.value.errno == errno.EOPNOTSUPP
        assert "IPVS" in caught.value.message
    await pod.agent.request(Ping())


@pytest.mark.parametrize(
    ("services", "backends"),
    [
        ((Service("10.254.0", 80, "tcp"),), ()),
        ((Service("10.254.0.1", 0, "tcp"),), ()),
        ((Service("10.254.0.1", 80, "sctp"),), ()),
        ((Service("10.254.0.1", 80, "udp"),), (Backend(1, "10.0.0.1", 80),)),
        ((Service("10.254.0.1", 80, "udp"),), (Backend(0, "x", 80),)),
        ((Service("10.254.0.1", 80, "udp"),), (Backend(0, "fd00::1", 80),)),
        ((Service("10.254.0.1", 80, "udp"),), (Backend(0, "10.0.0.1", 0),)),
    ],
)
async def test_a_service_that_cannot_be_is_refused(
    pod: Pod, services: tuple[Service, ...], backends: tuple[Backend, ...]
) -> None:
    with pytest.raises(GuestError) as caught:
        await pod.agent.request(SetServices(services=services, backends=backends))
    assert caught.value.errno == errno.EINVAL
    await pod.agent.request(Ping())


@as_root
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mac", "02:42:00:00:00:99"),
        ("mac", "nonsense"),
        ("mac", "02:42:00:00:00:0g"),
        ("name", ""),
        ("name", "n" * 16),
        ("name", "a/b"),
        ("addresses", ("10.9.8.7",)),
        ("addresses", ("10.9.8.7/33",)),
        ("addresses", ("fd00::1/",)),
        ("addresses", ("x/24",)),
        ("gateways", ("10.9.8",)),
        ("mtu", 1),
    ],
)
async def test_a_nic_that_cannot_be_is_refused(pod: Pod, field: str, value: object) -> None:
    add_nic(pod)
    fields = {"mac": MAC, "name": "eth0", "mtu": 0, "addresses": (), "gateways": ()} | {field: value}
    with pytest.raises(GuestError):
        await pod.agent.request(ConfigureNic(**fields))  # type: ignore[arg-type]
    await pod.agent.request(Ping())


# --- Requests ---


async def test_the_timeline_begins_at_the_start_and_goes_on(pod: Pod) -> None:
    timeline = await pod.agent.request(GetTimeline())
    assert isinstance(timeline, Timeline)
    assert [mark.name for mark in timeline.marks] == [
        "start", "mounts", "channel", "welcome", "pod", "container c1",
    ]  # fmt: skip
    times = [mark.at_ns for mark in timeline.marks]
    assert times == sorted(times)
    for _ in range(70):
        await pod.run("true")
    timeline = await pod.agent.request(GetTimeline())
    assert isinstance(timeline, Timeline)
    assert len(timeline.marks) == 64


async def raw(pod: Pod, *frames: bytes) -> list[tuple[object, int]]:
    """What is answered to ``frames`` after a Hello, up to the answer of a Ping behind them."""
    await pod.agent.close()
    channel = await pod.machine.connect()
    channel.writer.write(
        encode(Hello(PROTOCOL_VERSION, 5), 1) + b"".join(frames) + encode(Ping(), 0xFFFFFFFF)
    )
    parser = FrameParser()
    answers: list[tuple[object, int]] = []
    async with asyncio.timeout(PATIENCE_S):
        while all(request_id != 0xFFFFFFFF for _, request_id in answers):
            answers += parser.feed(await channel.reader.read(65536))
    channel.writer.close()
    await channel.writer.wait_closed()
    await pod.reconnect()
    return [answer for answer in answers[1:] if answer[1] != 0xFFFFFFFF]


def frame(number: int, request_id: int, body: bytes = b"") -> bytes:
    import struct
    import zlib

    raw_frame = struct.pack("<HI", number, request_id) + body
    return stuff(raw_frame + struct.pack("<I", zlib.crc32(raw_frame)))


async def test_requests_that_are_none_are_answered_and_harm_nothing(pod: Pod) -> None:
    answers = await raw(
        pod,
        frame(9999, 1),
        frame(2, 2),  # Welcome: hyperstart's own
        frame(30, 3, b"\xff" * 40),
        frame(30, 4),
        frame(5, 5, b"more than nothing"),
        frame(9999, 0),
        END * 5,
        b"\x01\x02\x03" + END,
        encode(a_process("true", container="c1"), 0),  # no id: done, and not answered
    )
    got = {request_id: message.errno for message, request_id in answers if request_id}  # type: ignore[attr-defined]
    assert got == {1: errno.ENOSYS, 2: errno.ENOSYS, 3: errno.EBADMSG, 4: errno.EBADMSG, 5: errno.EBADMSG}


async def test_nothing_is_answered_before_a_hello(machine: Pod) -> None:
    await machine.agent.close()
    channel = await machine.machine.connect()
    channel.writer.write(encode(Ping(), 7) + encode(Hello(PROTOCOL_VERSION, 9), 8))
    parser = FrameParser()
    answers: list[tuple[object, int]] = []
    async with asyncio.timeout(PATIENCE_S):
        while not answers:
            answers += parser.feed(await channel.reader.read(65536))
    ((welcome, request_id),) = answers
    assert isinstance(welcome, Welcome)
    assert (welcome.session, request_id) == (9, 8)
    channel.writer.close()
    await channel.writer.wait_closed()


def _longer(message: Message, request_id: int) -> bytes:
    """As a newer version would say it: with a field that this one does not know."""
    inside = unstuff(encode(message, request_id)[1:-1])
    assert inside is not None
    body = inside[:-4] + b"later"
    return stuff(body + struct.pack("<I", zlib.crc32(body)))


async def _answers(machine: Pod, *frames: bytes) -> list[Message]:
    await machine.agent.close()
    channel = await machine.machine.connect()
    channel.writer.write(b"".join(frames))
    parser = FrameParser()
    answers: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(answers) < len(frames):
            answers += [message for message, _ in parser.feed(await channel.reader.read(65536))]
    channel.writer.close()
    await channel.writer.wait_closed()
    return answers


async def test_a_hyperd_of_another_version_is_understood(machine: Pod) -> None:
    unknown = stuff(_with_number(unstuff(encode(Ping(), 11)[1:-1]) or b"", 400))
    hello = _longer(Hello(PROTOCOL_VERSION + 1, 9), 8)
    answers = await _answers(machine, hello, _longer(Ping(), 10), unknown, encode(Ping(), 12))
    assert isinstance(answers[0], Welcome)
    assert answers[0].version == PROTOCOL_VERSION
    assert answers[1:] == [Done(), Failed(errno.ENOSYS, "take", "unknown"), Done()]


def _with_number(inside: bytes, number: int) -> bytes:
    body = struct.pack("<H", number) + inside[2:-4]
    return body + struct.pack("<I", zlib.crc32(body))


async def test_a_hyperd_of_this_version_may_say_nothing_else(machine: Pod) -> None:
    answers = await _answers(machine, encode(Hello(PROTOCOL_VERSION, 9), 8), _longer(Ping(), 10))
    assert answers[1] == Failed(errno.EBADMSG, "decode", "Ping")


async def test_what_an_older_guest_cannot_do_is_unsupported(machine: Pod) -> None:
    class Dream(Message, number=401):
        pass

    try:
        with pytest.raises(Unsupported, match="older hyper") as caught:
            await machine.agent.request(dataclasses.dataclass(Dream)())
        assert "stop and start" in caught.value.hint
    finally:
        del Message.registry[401]


async def test_many_requests_at_once_are_answered_in_order(pod: Pod) -> None:
    pings = [asyncio.ensure_future(pod.agent.request(Ping())) for _ in range(2000)]
    timelines = [asyncio.ensure_future(pod.agent.request(GetTimeline())) for _ in range(200)]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*pings, *timelines)
