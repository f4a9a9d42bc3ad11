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
