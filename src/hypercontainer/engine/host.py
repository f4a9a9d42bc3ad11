"""What the pods of one daemon share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypercontainer.config import Paths, Settings
from hypercontainer.engine.choice import Drivers
from hypercontainer.engine.events import Events
from hypercontainer.engine.pool import Pool
from hypercontainer.engine.records import Records
from hypercontainer.engine.tasks import Tasks
from hypercontainer.engine.templates import Templates
from hypercontainer.images.store import Images
from hypercontainer.model.network import Lease
from hypercontainer.network.base import Networks
from hypercontainer.network.probe import open_networks
from hypercontainer.storage.disks import PodDisks
from hypercontainer.storage.sources import DiskClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The stores and services below the engine, and what no two pods may choose at once."""

    paths: Paths
    settings: Settings
    records: Records
    events: Events
    images: Images
    disks: PodDisks
    networks: Networks
    drivers: Drivers
    tasks: Tasks
    templates: Templates
    pool: Pool
    leases: dict[str, Lease]  # of pods that hold one now, by pod id
    leasing: asyncio.Lock  # no two choices of an address at once
    disk_claims: DiskClaims

    @classmethod
    def open(cls, paths: Paths, settings: Settings) -> Host:
        """Make the directories, open the stores, and hand everyone what they need; nothing runs yet."""
        for directory in (paths.state, paths.run, paths.machines, paths.pods, paths.cache):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        events = Events()
        tasks = Tasks()
        drivers, templates = Drivers(cache=paths.cache), Templates(paths, settings, tasks)
        networks, disks = open_networks(settings, paths), PodDisks(cache=paths.cache)
        leases: dict[str, Lease] = {}
        leasing = asyncio.Lock()
        pool = Pool(
            paths=paths,
            settings=settings,
            tasks=tasks,
            drivers=drivers,
            templates=templates,
            networks=networks,
            disks=disks,
            leases=leases,
            leasing=leasing,
        )
        return cls(
            paths=paths,
            settings=settings,
            records=Records(paths.database, pods=paths.pods, listener=events),
            events=events,
            images=_open_images(paths, settings, events),
            disks=disks,
            networks=networks,
            drivers=drivers,
            tasks=tasks,
            templates=templates,
            pool=pool,
            leases=leases,
            leasing=leasing,
            disk_claims=DiskClaims(),
        )

    async def close(self) -> None:
        """Close the network and the stores; tasks, pool and pods, which use them, have been closed."""
        await self.networks.close()
        self.images.close()
        self.records.close()


def _open_images(paths: Paths, settings: Settings, events: Events) -> Images:
    """The store of images; what changes in it is an event."""
    return Images(
        paths.images,
        settings=settings,
        certificates=paths.config / "certs.d",
        changed=lambda action, image, name: events.publish("image", action, image, name),
    )
