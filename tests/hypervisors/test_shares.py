"""What every driver promises of shares: directories and files of the host that a guest is shown."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hypercontainer.errors import HypervisorError, InvalidRequest, Unsupported
from hypercontainer.model.machine import Share, ShareKind
from tests.hypervisors.machines import Place, connected, needs

pytestmark = pytest.mark.needs_machine


# Mounts the machine's share at /share, as hyperstart does.
def mount_share(place: Place) -> str:
    can = place.hypervisor.capabilities
    options = f"-o {can.share_options}" if can.share_options else ""
    return f"mkdir -p /share; busybox mount -t {can.share} {options} share /share; cd /share;"


def needs_share(place: Place) -> None:
    """The driver of namespaces has mounted it already, and what is there cannot be mounted again."""
    can = place.hypervisor.capabilities
    needs(can.share and can.share is not ShareKind.BIND, "share")


def a_share(path: Path, *, read_only: bool = False) -> Share:
    return Share(name=path.name, path=path, read_only=read_only)


async def test_a_shared_directory_is_read_and_written_by_both_sides(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    shared = tmp_path / "a, b c=d%"
    (shared / "below").mkdir(parents=True)
    (shared / "below/file").write_text("of the host")
    async with place.booted(
        place.config(shares=(Share(name="data", path=shared, read_only=False),))
    ) as booted:
        script = mount_share(place) + "cat data/below/file; echo of the guest > data/new; ls data"
        assert await booted.shell(script) == b"of the hostbelow\nnew\n"
        assert (shared / "new").read_text() == "of the guest\n"
        (shared / "new").write_text("of the host again")
        assert await booted.shell("cat /share/data/new") == b"of the host again"
        await booted.shell("cd /share/data; mv new newer; rm -r below; ln -s newer link")
        assert await booted.shell("cat /share/data/link") == b"of the host again"
    assert sorted(path.name for path in shared.iterdir()) == ["link", "newer"]
    assert (shared / "link").readlink() == Path("newer")


async def test_owners_and_modes_are_those_of_the_guest(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    if os.geteuid() != 0:
        pytest.skip("other users' files need root")
    async with place.booted(place.config(shares=(a_share(tmp_path),))) as booted:
        directory = f"/share/{tmp_path.name}"
        await booted.shell(f"{mount_share(place)} busybox chmod 777 {directory}")
        await booted.shell(
            f"cd {directory}; umask 0; echo 1 > file; busybox chmod 751 file; mkdir -m 2711 dir",
            user="1234:4321",
        )
        await booted.shell(f"cd {directory}; chown 77:88 dir; busybox chmod 1755 dir")
        assert await booted.shell(f"stat -c '%a %u %g' {directory}/file") == b"751 1234 4321\n"
    seen = {path.name: path.stat() for path in tmp_path.iterdir() if path.name in ("file", "dir")}
    assert (seen["file"].st_mode & 0o7777, seen["file"].st_uid, seen["file"].st_gid) == (0o751, 1234, 4321)
    assert (seen["dir"].st_mode & 0o7777, seen["dir"].st_uid, seen["dir"].st_gid) == (0o1755, 77, 88)


async def test_a_read_only_share_refuses_root_of_the_guest(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "bare").write_text("kept")
    config = place.config(
        shares=(
            Share(name="dir", path=tmp_path, read_only=True),
            Share(name="single", path=tmp_path / "bare", read_only=True),
        )
    )
    async with place.booted(config) as booted:
        await booted.shell(mount_share(place))
        for attempt in (
            "echo broken > dir/file",
            "rm dir/file",
            "echo new > dir/new",
            "busybox chmod 777 dir/file",
            "echo broken > single",
            "echo new > beside",
            "mkdir beside",
            "busybox mount -o remount,rw /share && echo broken > dir/file",
        ):
            status, _, errors = await booted.shell_status(f"cd /share; {attempt}; [ $? = 0 ] && sync")
            assert status != 0, (attempt, errors)
        assert await booted.shell("cat /share/dir/file /share/single") == b"keptkept"
    assert sorted(path.name for path in (booted.machine.run_dir / "shares").iterdir()) == ["dir", "single"]


async def test_a_single_file_is_shared_in_place(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    (tmp_path / "file").write_text("before")
    (tmp_path / "secret").write_text("secret")
    async with place.booted(place.config(shares=(a_share(tmp_path / "file"),))) as booted:
        script = mount_share(place) + "cat file; echo after > file; ls"
        assert await booted.shell(script) == b"beforefile\n"
    assert (tmp_path / "file").read_text() == "after\n"


async def test_nothing_beside_the_share_is_reached(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "secret").write_text("secret")
    (shared / "out").symlink_to(tmp_path / "secret")
    (shared / "up").symlink_to("..")
    async with place.booted(place.config(shares=(a_share(shared),))) as booted:
        await booted.shell(mount_share(place))
        for path in ("shared/out", "shared/up/secret", "shared/../../secret", "../secret"):
            status, output, _ = await booted.shell_status(f"cd /share; cat {path}")
            assert (status != 0, output) == (True, b""), path
        for options in (f"-o {tmp_path}", f"-o ../../..{tmp_path}", f"-o hostfs={tmp_path}"):
            kind = place.hypervisor.capabilities.share
            status, output, _ = await booted.shell_status(
                f"mkdir -p /other; busybox mount -t {kind} {options} share /other && cat /other/secret"
            )
            assert (status != 0, output) == (True, b""), options


async def test_shares_come_and_go_while_the_guest_runs(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    async with place.booted() as booted:
        await booted.shell(mount_share(place))
        for name in ("one", "two", "one"):
            await booted.machine.add_share(Share(name="data", path=tmp_path / name, read_only=name == "two"))
            with pytest.raises(HypervisorError):
                await booted.machine.add_share(Share(name="data", path=tmp_path, read_only=True))
            assert await booted.shell("cat /share/data/file") == name.encode()
            status, _, _ = await booted.shell_status("echo more > /share/data/more && sync")
            assert (status == 0) == (name == "one")
            await booted.machine.remove_share("data")
            assert (await booted.shell_status("cat /share/data/file"))[0] != 0
        await booted.machine.remove_share("data")  # one that is not there is no error
        assert (tmp_path / "one/more").exists()


async def test_shares_are_seen_by_the_machine_alone_and_end_with_it(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").touch()
    machine = await place.launch(place.config(shares=(a_share(tmp_path / "data"),)))
    async with await connected(machine):
        assert list((machine.run_dir / "shares/data").iterdir()) == []
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    os.kill(machine.process.pid, signal.SIGKILL)
    await machine.wait()
    (machine.run_dir / "shares/data").rmdir()  # nothing is mounted there
    assert (tmp_path / "data/file").exists()


async def test_what_cannot_be_shared_is_an_error_that_leaves_nothing(place: Place, tmp_path: Path) -> None:
    needs_share(place)
    run_dir = place.run_dir()
    with pytest.raises(HypervisorError, match="missing"):
        await place.launch(place.config(shares=(a_share(tmp_path / "missing"),)), run_dir)
    for name in ("", ".", "..", "a/b", "-o", "x" * 256):
        with pytest.raises(InvalidRequest):
            await place.launch(
                place.config(shares=(Share(name=name, path=tmp_path, read_only=True),)), place.run_dir()
            )
    twice = (a_share(tmp_path), a_share(tmp_path))
    with pytest.raises(InvalidRequest):
        await place.launch(place.config(shares=twice), place.run_dir())
    assert list(run_dir.iterdir()) == []


async def test_shares_of_namespaces_are_where_they_say(place: Place, tmp_path: Path) -> None:
    needs(place.hypervisor.capabilities.share is ShareKind.BIND, "share that is bound")
    (tmp_path / "file").write_text("of the host")
    config = place.config(shares=(a_share(tmp_path, read_only=True), a_share(tmp_path / "file")))
    async with place.booted(config) as booted:
        at = f"cd {place.hypervisor.capabilities.share_options}; "
        assert await booted.shell(f"{at} cat {tmp_path.name}/file; echo new > file") == b"of the host"
        status, _, _ = await booted.shell_status(f"{at} echo broken > {tmp_path.name}/file")
        assert status != 0
        with pytest.raises(Unsupported):
            await booted.machine.add_share(a_share(tmp_path))
    assert (tmp_path / "file").read_text() == "new\n"
