#!/usr/bin/env python3
"""Make an image out of this host's Debian packages, as an archive for ``hyper load``.

    tools/make_image.py busybox busybox.tar
    tools/make_image.py debian debian.tar --packages python3,nginx,redis-server

Only the standard library is used, so that it runs before anything is installed.  Root isn't needed where
mmdebstrap does without (user namespaces and uidmap).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# As Debian's own slim images do: what nobody reads in a container.
EXCLUDED = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*")
INCLUDED = ("/usr/share/doc/*/copyright",)
EPOCH = 1_600_000_000  # seconds: files that come from no package all have this time


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=["busybox", "debian"])
    parser.add_argument("output", type=Path)
    parser.add_argument("--tag", help="default: KIND:latest")
    parser.add_argument("--packages", default="", help="Debian packages beside the smallest set, with commas")
    asked = parser.parse_args()
    tag = asked.tag or f"{asked.kind}:latest"
    temporary = asked.output.with_name(asked.output.name + ".tmp")
    try:
        with temporary.open("wb") as output:
            if asked.kind == "busybox":
                write_archive(output, busybox_layer(), command=["sh"], tag=tag)
            else:
                write_debian(output, [name for name in asked.packages.split(",") if name], tag=tag)
        temporary.replace(asked.output)
    finally:
        temporary.unlink(missing_ok=True)


def busybox_layer() -> bytes:
    """The root file system: the host's static busybox, a link for each applet, and what programs expect."""
    binary = Path("/bin/busybox")
    if not binary.exists():
        sys.exit("make_image: /bin/busybox is missing: apt-get install busybox-static")
    listed = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout
    users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for name in (
            "bin",
            "dev",
            "etc",
            "home",
            "mnt",
            "proc",
            "run",
            "sys",
            "usr",
            "usr/bin",
            "var",
            "var/log",
        ):
            layer.addfile(_member(name, tarfile.DIRTYPE, 0o755))
        layer.addfile(_member("root", tarfile.DIRTYPE, 0o700))
        for name in ("tmp", "var/tmp"):
            layer.addfile(_member(name, tarfile.DIRTYPE, 0o1777))
        _add_file(layer, "etc/passwd", users.encode())
        _add_file(layer, "etc/group", b"root:x:0:\nnogroup:x:65534:\n")
        _add_file(layer, "etc/os-release", b'NAME="BusyBox"\nID=busybox\nPRETTY_NAME="BusyBox"\n')
        _add_file(layer, "bin/busybox", binary.read_bytes(), mode=0o755)
        for applet in sorted({"env", *listed.split()} - {"busybox"}):
            layer.addfile(_member(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox"))
        layer.addfile(_member("usr/bin/env", tarfile.SYMTYPE, 0o777, link="../../bin/busybox"))
    return output.getvalue()


def _member(name: str, kind: bytes, mode: int, *, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname, member.mtime = kind, mode, link, EPOCH
    return member


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    member = _member(name, tarfile.REGTYPE, mode)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_debian(output: io.BufferedIOBase, packages: Sequence[str], *, tag: str) -> None:
    """A Debian of this host's release, from the mirror that this host uses."""
    if not shutil.which("mmdebstrap"):
        sys.exit("make_image: mmdebstrap is missing: apt-get install mmdebstrap")
    with tempfile.TemporaryDirectory() as directory:
        layer = Path(directory) / "layer.tar"
        command = debian_command(packages, layer)
        print("+", " ".join(command), file=sys.stderr)
        if (status := subprocess.run(command).returncode) != 0:
            sys.exit(f"make_image: mmdebstrap failed with status {status}")
        write_archive(output, layer, command=["bash"], tag=tag)


def debian_command(packages: Sequence[str], layer: Path) -> list[str]:
    """mmdebstrap leaves the host's sources in the image, so that apt works inside, and cleans its lists."""
    sources = apt_sources()
    wanted = [*packages]
    if any("https://" in source.read_text() for source in sources):
        wanted.append("ca-certificates")
    options = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    options += [f"--include={','.join(wanted)}"] if wanted else []
    options += [f"--aptopt={line}" for line in apt_options()]
    options += [f"--dpkgopt=path-exclude={path}" for path in EXCLUDED]
    options += [f"--dpkgopt=path-include={path}" for path in INCLUDED]
    # Nothing starts a service by itself in a container (policy-rc.d(8): 101 is "forbidden").
    options += ["--customize-hook=printf '#!/bin/sh\\nexit 101\\n' > \"$1/usr/sbin/policy-rc.d\""]
    options += ['--customize-hook=chmod 755 "$1/usr/sbin/policy-rc.d"']
    return [*options, release(), str(layer), *map(str, sources)]


def release() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def apt_sources() -> list[Path]:
    """The host's files of sources, of either format, that say anything (sources.list(5))."""
    candidates = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    found = [path for path in candidates if path.suffix in {".list", ".sources"} and path.is_file()]
    return [path for path in found if any(map(_is_source, path.read_text().splitlines()))]


def _is_source(line: str) -> bool:
    return line.startswith(("deb ", "deb\t", "URIs:"))


def apt_options() -> list[str]:
    """How this host reaches its mirror, and how old it lets it be: the image's apt must do the same."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    wanted = re.compile(r'Acquire::(https?::.*Proxy|Check-Valid-Until|Check-Date) ".+";')
    return [line for line in dump.splitlines() if wanted.match(line)]


def write_archive(
    output: io.BufferedIOBase, layer: bytes | Path, *, command: Sequence[str], tag: str
) -> None:
    """One image of one layer, as ``docker save`` writes it."""
    document = json.dumps(_config(_digest(layer), command)).encode()
    name = hashlib.sha256(document).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [tag], "Layers": [f"{name}/layer.tar"]}]
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        if isinstance(layer, bytes):
            _add_file(archive, f"{name}/layer.tar", layer)
        else:
            member = _member(f"{name}/layer.tar", tarfile.REGTYPE, 0o644)
            member.size = layer.stat().st_size
            with layer.open("rb") as content:
                archive.addfile(member, content)
        _add_file(archive, f"{name}.json", document)
        _add_file(archive, "manifest.json", json.dumps(manifest).encode())


def _config(diff_id: str, command: Sequence[str]) -> Mapping[str, object]:
    return {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2020-09-13T12:26:40Z",
        "config": {"Cmd": list(command), "Env": [PATH]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }


def _digest(layer: bytes | Path) -> str:
    if isinstance(layer, bytes):
        return "sha256:" + hashlib.sha256(layer).hexdigest()
    with layer.open("rb") as content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    os.umask(0o022)
    main()
