"""The tables of a bridge in the kernel: made once, and filled and emptied as pods come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable

from hypercontainer.errors import HyperError, Unavailable
from hypercontainer.model.network import Lease
from hypercontainer.network import filters, firewall, rules
from hypercontainer.network.filters import Element
from hypercontainer.network.interfaces import Bridge
from hypercontainer.process import run

log = logging.getLogger(__name__)


class Tables:
    """Adding goes on beside the launch; what nobody needs any more is taken out behind the caller's back.

    A removal that a crash loses is no harm: the next daemon makes the tables anew from the leases.
    """

    def __init__(self) -> None:
        self.filtered = False  # whether this kernel has tables of the bridge family; known once made
        self._additions: dict[str, asyncio.Task[None]] = {}  # by the pod's address
        self._removals: dict[asyncio.Task[None], frozenset[Element]] = {}

    async def make(self, bridge: Bridge, live: Collection[Lease]) -> None:
        """The tables with what belongs to ``live``, in place of any that are there."""
        self.filtered = await _has_bridge_family(bridge)
        text = rules.table(bridge.name, bridge.gateway.network)
        if self.filtered:
            text += filters.table(bridge.name, bridge.mac)
        await nft(text + rules.add(bridge.name, self._elements(live)))

    async def make_missing(self, bridge: Bridge) -> None:
        """Make them unless they are there."""
        if not await _has_table(bridge.name):
            await self.make(bridge, ())

    def begin(self, bridge: str, lease: Lease) -> None:
        """Add what belongs to ``lease`` while its machine is launched; ``finish`` tells the outcome."""
        self._additions[lease.ip] = asyncio.create_task(self._add(bridge, self._elements([lease])))

    async def finish(self, lease: Lease) -> None:
        """Wait for what was begun; nothing begun is no error."""
        if task := self._additions.pop(lease.ip, None):
            await task

    async def remove(self, bridge: str, lease: Lease) -> None:
        """Take out what belongs to ``lease``; nothing there is no error."""
        with contextlib.suppress(HyperError):
            await self.finish(lease)
        await self.settle()
        await _remove(bridge, self._elements([lease]))

    async def switch(self, bridge: str, before: Lease, after: Lease) -> None:
        """``after`` in place of ``before``, whose NICs it has.

        New elements are there when this returns; old ones go soon after, but for those in the way.
        """
        old, new = self._elements([before]), self._elements([after])
        gone, added = frozenset(old - new), frozenset(new - old)
        if {each.key for each in gone} & {each.key for each in added} or before.allow != after.allow:
            await self._settle(added)
            await nft(rules.remove(bridge, gone) + rules.add(bridge, added))
            return
        await self._add(bridge, added)
        if gone:
            task = asyncio.create_task(_remove_or_log(bridge, gone))
            self._removals[task] = gone
            task.add_done_callback(self._removals.pop)

    async def settle(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._removals, *self._additions.values(), return_exceptions=True)

    def _elements(self, leases: Iterable[Lease]) -> set[Element]:
        found = (rules.elements(lease, filtered=self.filtered) for lease in leases)
        return set().union(*found)

    async def _add(self, bridge: str, added: Collection[Element]) -> None:
        if added:
            await self._settle(added)
            await nft(rules.add(bridge, added))

    async def _settle(self, added: Iterable[Element]) -> None:
        """Wait for removals that would take out, or stand in the way of, what is to be added."""
        keys = {each.key for each in added}
        await asyncio.gather(
            *(task for task, gone in self._removals.items() if keys & {each.key for each in gone})
        )


async def remove_tables(bridge: str) -> None:
    """Remove both tables, where they are."""
    listed = (await run([firewall.nft(), "list", "tables"])).decode().splitlines()
    await nft(rules.remove_tables(bridge, filtered=f"table bridge {bridge}" in listed))


async def nft(text: str) -> None:
    try:
        await run([firewall.nft(), "-f", "-"], stdin=text.encode())
    except Unavailable as error:
        raise Unavailable(
            f"cannot set the rules of the network: {error.message}",
            hint="restart hyperd if another program flushed the rules; hyper doctor shows what is missing",
        ) from error


async def _remove(bridge: str, gone: Collection[Element]) -> None:
    try:
        await nft(rules.remove(bridge, gone))
    except Unavailable:
        if await _has_table(bridge):
            raise


async def _remove_or_log(bridge: str, gone: Collection[Element]) -> None:
    try:
        await _remove(bridge, gone)
    except HyperError as error:
        log.warning("ports that are published no more could not be closed: %s", error.message)


async def _has_table(name: str) -> bool:
    tables = await run([firewall.nft(), "list", "tables", "ip"])
    return f"table ip {name}" in tables.decode().splitlines()


async def _has_bridge_family(bridge: Bridge) -> bool:
    try:
        await run(
            [firewall.nft(), "--check", "-f", "-"], stdin=filters.table(bridge.name, bridge.mac).encode()
        )
    except Unavailable as error:
        log.warning("pods of %s can take each other's addresses: %s", bridge.name, error.message)
        return False
    return True
