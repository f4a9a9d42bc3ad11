"""The promises of a network: what the engine asks for, and in which order.

The engine owns the records.  A network keeps nothing across a restart of the daemon but what the
kernel keeps for it (bridge, taps, rules, processes), and all of that can be rebuilt from the leases.

    allocate ──▶ (the engine stores the lease) ──▶ attach ──▶ ready ──▶ (containers run) ──▶ detach
                                                                            │    ▲
                          revise ──▶ (the engine stores the new lease) ──▶ switch
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from hypercontainer.model.machine import Nic, NicKind
from hypercontainer.model.network import AllowLists, InterfaceSpec, Lease, PortMapping


class Networks(ABC):
    """Gives pods their NICs.  A pod without a network needs none of this: the engine just doesn't ask."""

    @abstractmethod
    def check(
        self, interfaces: Sequence[InterfaceSpec], ports: Sequence[PortMapping], allow: AllowLists | None
    ) -> None:
        """Refuse what can be seen to be impossible before anything is made.

        Raises InvalidRequest, and Unsupported for what this kind of network cannot do.
        """

    @abstractmethod
    async def allocate(
        self,
        pod_id: str,
        ports: Sequence[PortMapping] = (),
        *,
        interfaces: Sequence[InterfaceSpec] = (),
        allow: AllowLists | None = None,
        others: Collection[Lease] = (),
        previous: Lease | None = None,
    ) -> Lease:
        """Choose addresses, and host ports for those asked as 0; nothing is made but the network itself.

        No ``interfaces`` means one, as the network likes.  ``others`` are the leases of the other pods;
        ``previous`` is what the pod had, and its addresses are kept when they are still free.  The
        caller lets no two calls overlap, as only its own record makes a choice known to the next one.

        Raises what ``check`` does; Conflict that names a host port, address or MAC which is taken,
        InvalidRequest for what the host does not have, Unavailable when the network is full or cannot
        be had here.
        """

    @abstractmethod
    async def attach(self, lease: Lease, kinds: frozenset[NicKind]) -> tuple[Nic, ...]:
        """Make the NICs' backends, so that a machine can be launched with them, and begin with the rest.

        What an earlier, broken attach left is replaced.  Raises Unsupported when the network has none
        of ``kinds``.
        """

    @abstractmethod
    async def ready(self, lease: Lease) -> None:
        """Wait until all that ``attach`` began is done: ports are open, and who is to be kept out is.

        To be called before a container runs.  Raises Unavailable when the host refused.
        """

    @abstractmethod
    async def detach(self, lease: Lease) -> None:
        """Take away all that ``allocate`` and ``attach`` made; nothing there is no error."""

    @abstractmethod
    async def revise(
        self,
        lease: Lease,
        ports: Sequence[PortMapping] = (),
        *,
        interfaces: Sequence[InterfaceSpec] = (),
        allow: AllowLists | None = None,
        others: Collection[Lease] = (),
    ) -> Lease:
        """What ``lease`` becomes with other ports and white lists, for its pod or for one that takes over
        its machine; NICs and addresses stay.  Only host ports are taken; ``switch`` does the rest.

        ``others`` are as for ``allocate``, and ``lease`` is none of them.  Raises as ``allocate``, and
        Unsupported when the NICs would have to be others.
        """

    @abstractmethod
    async def switch(self, before: Lease, after: Lease) -> None:
        """Have the host follow from ``before`` to ``after``, which ``revise`` made; may be repeated.

        The other way round it takes back a ``switch`` or a ``revise``.  It returns when what is new in
        ``after`` works; what only ``before`` had is gone soon after.  A daemon that dies in between
        leaves it to ``reconcile``.
        """

    @abstractmethod
    async def reconcile(self, live: Collection[Lease]) -> None:
        """Make the host match ``live``, the leases of running pods: once, when the daemon starts."""

    @abstractmethod
    async def close(self) -> None:
        """The daemon ends.  Running pods keep their network; without any, the host is left as found."""
