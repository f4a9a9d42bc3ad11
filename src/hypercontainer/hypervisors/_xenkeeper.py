"""The process of a Xen machine on the host: creates the domain, and is its channel and console until its end.

    python -m hypercontainer.hypervisors._xenkeeper NAME TAP... -- CONFIG...

The domain NAME has the lines CONFIG of xl.cfg(5).  It inherits the listening socket of the channel as
descriptor 3 and the machine's run directory as 4; standard output is the console's log.  When the domain
ends, so does the keeper, and the other way around it is the driver that ends the domain.

It imports little, as each machine has one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
import tty

from hypercontainer.hypervisors._xenring import EventChannel, Ring, RingError, map_pages
from hypercontainer.hypervisors._xenstore import Store

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing costs as much to import as sockets and signals
    from _typeshed import HasFileno

READY = "ready"
XL_LOG = "xl.log"
_CONFIG = "domain.cfg"
_LISTENER = 3
_RUN_DIR = 4
_CHUNK = 1 << 14
_CONSOLE_WAIT = 10.0  # seconds for xenconsoled to see a new domain
_INIT_WAIT, _INITIALISED, _CONNECTED = "2", "3", "4"  # enum xenbus_state, public/io/xenbus.h
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 2, 0x1000, 0x4000


class KeeperError(Exception):
    """What the driver shows as the last words."""


def main() -> int:
    os.fchdir(_RUN_DIR)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    name, *rest = sys.argv[1:]
    separator = rest.index("--")
    try:
        taps = [_hold_tap(tap) for tap in rest[:separator]]
        _keep(name, rest[separator + 1 :])
        del taps
    except (KeeperError, RingError, OSError) as error:
        print(error, flush=True)
        return 1
    return 0


def _keep(name: str, config: list[str]) -> None:
    try:
        _create(config)
        with Store() as store:
            Keeper(store, _find(store, name)).run()
    finally:
        _xl("destroy", name)


def _hold_tap(name: str) -> int:
    """A tap has a carrier while a process has it open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    return descriptor


def _create(config: list[str]) -> None:
    with open(_CONFIG, "w") as file:  # noqa: PTH123 -- pathlib is a sixth of this process' start
        file.writelines(f"{line}\n" for line in config)
    if _xl("create", "-q", "-e", "-p", _CONFIG):
        with open(XL_LOG) as log:  # noqa: PTH123
            raise KeeperError(_first_errors(log.read()) or "xl create failed")


def _first_errors(said: str) -> str:
    """The first is the cause, and the others follow from it: each library that failed says so."""
    errors = [line.strip() for line in said.splitlines() if "error" in line.lower()]
    return "\n".join(errors[:3]) or said[-1000:].strip()


def _xl(*words: str, output: str = XL_LOG) -> int:
    """Run xl to its end; what it says goes to ``output`` in the run directory."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [(os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in (_LISTENER, _RUN_DIR)]
    pid = os.posix_spawnp("xl", ["xl", *words], os.environ, file_actions=actions)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _find(store: Store, name: str) -> int:
    if (domain := store.find_domain(name)) is None:
        raise KeeperError(f"xl created {name}, but XenStore does not know it")
    return domain


class Keeper:
    """A domain's channel, console and end."""

    def __init__(self, store: Store, domain: int) -> None:
        self._store = store
        self._domain = domain
        self._path = f"/local/domain/{domain}"
        self._device = f"{self._path}/device/hyper/0"
        self._listener = socket.socket(fileno=_LISTENER)
        self._listener.setblocking(False)
        self._console: int | None = self._open_console()
        self._ring: Ring | None = None
        self._events: EventChannel | None = None
        self._connection: socket.socket | None = None
        self._output = b""  # of the guest, that the connection has not taken yet

    def run(self) -> None:
        self._offer()
        self._store.watch("@releaseDomain")
        self._store.watch(f"{self._device}/state")
        _xl("unpause", str(self._domain))
        os.close(os.open(READY, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        while self._is_up():
            self._serve()
        self._copy_console()

    def _open_console(self) -> int:
        """The terminal that xenconsoled gives the domain."""
        give_up = time.monotonic() + _CONSOLE_WAIT
        while not (terminal := self._store.read(f"{self._path}/console/tty")):
            if time.monotonic() > give_up:
                raise KeeperError("xenconsoled does not serve the new domain's console: does it run?")
            time.sleep(0.005)
        descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        tty.setraw(descriptor, termios.TCSANOW)
        return descriptor

    def _offer(self) -> None:
        """Tell the guest of its channel.  All of it is below the domain's path, and ends with that."""
        host, guest = "n0", f"n{self._domain}"
        self._store.make(f"{self._path}/hyper", host, f"r{self._domain}")
        self._store.write(f"{self._path}/hyper/frontend", self._device)
        self._store.write(f"{self._path}/hyper/state", _INIT_WAIT)
        self._store.make(self._device, guest, "r0")
        self._store.write(f"{self._device}/backend", f"{self._path}/hyper")
        self._store.write(f"{self._device}/backend-id", "0")
        self._store.write(f"{self._device}/state", "1")

    def _is_up(self) -> bool:
        """Wait until something is to be done; whether the domain still runs."""
        ring, connection = self._ring, self._connection
        readable: list[int | HasFileno] = [
            each for each in (self._store, self._console, self._events) if each is not None
        ]
        writable: list[socket.socket] = []
        if ring and not connection and ring.is_free:
            readable.append(self._listener)
        if ring and connection and ring.room():
            readable.append(connection)
        if connection and self._output:
            writable.append(connection)
        has_more = ring and connection and not self._output and ring.unread()
        ready, _, _ = select.select(readable, writable, [], 0 if has_more else None)
        if self._console in ready:
            self._copy_console()
        return self._store not in ready or self._heed(self._store.changes())

    def _heed(self, changed: list[str]) -> bool:
        if "@releaseDomain" in changed and self._has_ended():
            return False
        if not self._ring and self._store.read(f"{self._device}/state") == _INITIALISED:
            self._connect()
        return True

    def _has_ended(self) -> bool:
        """xl list: Name ID Mem VCPUs State Time; of State's letters, s, c and d are ends."""
        if _xl("list", str(self._domain), output="xl.list"):
            return True
        with open("xl.list") as file:  # noqa: PTH123
            return bool(set("scd") & set(file.read().split()[-2]))

    def _connect(self) -> None:
        pages = self._store.read(f"{self._device}/pages") or ""
        port = self._store.read(f"{self._device}/event-channel") or ""
        try:
            grants = [int(page) for page in pages.split(",")]
            self._events = EventChannel(self._domain, int(port))
        except (ValueError, struct.error) as error:
            raise RingError("the guest's channel is nonsense") from error
        self._ring = Ring(map_pages(self._domain, grants), self._events.knock)
        self._store.write(f"{self._path}/hyper/state", _CONNECTED)

    # --- The channel ---

    def _serve(self) -> None:
        """Whatever can be moved; which of it was announced does not matter."""
        if not (self._ring and self._events):
            return
        self._events.heard()
        if not self._connection and self._ring.is_free:
            self._accept(self._ring)
        if self._connection:
            self._to_guest(self._ring, self._connection)
        if self._connection:
            self._to_host(self._ring, self._connection)

    def _accept(self, ring: Ring) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._connection = self._listener.accept()[0]
            self._connection.setblocking(False)
            ring.begin()

    def _to_guest(self, ring: Ring, connection: socket.socket) -> None:
        if not (room := ring.room()):
            return
        try:
            data = connection.recv(room)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            ring.write(data)
        else:
            self._end(ring, connection)

    def _to_host(self, ring: Ring, connection: socket.socket) -> None:
        """The ring is emptied only into a connection that takes it: a guest that writes more waits."""
        if not self._output:
            self._output = ring.read()
        if not self._output:
            return
        try:
            self._output = self._output[connection.send(self._output) :]
        except BlockingIOError:
            return
        except OSError:
            self._end(ring, connection)

    def _end(self, ring: Ring, connection: socket.socket) -> None:
        connection.close()
        self._connection, self._output = None, b""
        ring.end()

    # --- The console ---

    def _copy_console(self) -> None:
        """What there is now, until xenconsoled takes the terminal away."""
        if self._console is None:
            return
        try:
            while data := os.read(self._console, _CHUNK):
                os.write(1, data)
        except BlockingIOError:
            return
        except OSError:
            pass
        os.close(self._console)
        self._console = None


if __name__ == "__main__":
    sys.exit(main())
