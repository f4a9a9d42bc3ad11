"""The promises of a network: what the engine asks for, and in which order.

The engine owns the records.  A network keeps nothing across a restart of the daemon but what the
kernel keeps for it (bridge, taps, rules, processes), and all of that can be rebuilt from the leases.

    allocate ──▶ (the engine stores the lease) ──▶ attach ──▶ (the machine runs) ──▶ detach
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from hypercontainer.model.machine import Nic, NicKind
from hypercontainer.model.network import Lease, PortMapping


class Networks(ABC):
    """Gives pods a NIC each.  A pod without a network needs none of this: the engine just doesn't ask."""

    @abstractmethod
    async def allocate(
        self,
        pod_id: str,
        ports: Sequence[PortMapping] = (),
        *,
        others: Collection[Lease] = (),
        previous: Lease | None = None,
    ) -> Lease:
        """Choose an address, and host ports for those asked as 0; nothing is made but the network itself.

        ``others`` are the leases of the other pods; ``previous`` is what the pod had, and its address
        is kept when it is still free.  The caller lets no two calls overlap, as only its own record
        makes a choice known to the next one.

        Raises Conflict that names a host port which is taken, InvalidRequest for an address that
        the host does not have, Unavailable when the network is full or cannot be had here.
        """

    @abstractmethod
    async def attach(self, lease: Lease, kinds: frozenset[NicKind]) -> Nic:
        """Make the NIC's backend and open its ports; what an earlier, broken attach left is replaced.

        Raises Unsupported when the network has none of ``kinds``.
        """

    @abstractmethod
    async def detach(self, lease: Lease) -> None:
        """Take away all that ``allocate`` and ``attach`` made; nothing there is no error."""

    @abstractmethod
    async def reconcile(self, live: Collection[Lease]) -> None:
        """Make the host match ``live``, the leases of running pods: once, when the daemon starts."""

    @abstractmethod
    async def close(self) -> None:
        """The daemon ends.  Running pods keep their network; without any, the host is left as found."""
