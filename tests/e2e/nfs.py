"""An NFS server in a pod, with a share /export that is kept in its memory."""

from __future__ import annotations

import base64

from tests.e2e.distribution import debian_archive
from tests.e2e.hyper import Hyper
from tests.e2e.servers import start

IMAGE = "nfs-server"
GANESHA = """
NFS_CORE_PARAM { Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }
NFSv4 { Graceless = true; Only_Numeric_Owners = true; }
MEM { Inode_Size = 65536; }
EXPORT {
    Export_Id = 1; Path = /export; Pseudo = /export; Protocols = 4; Transports = TCP;
    Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL { Name = MEM; }
}
"""
RUN = "mkdir -p /run/ganesha; exec ganesha.nfsd -F -L STDOUT -f /etc/nfs.conf -p /run/ganesha.pid"


def start_server(hyper: Hyper) -> str:
    """Its address, once it serves; the server needs no kernel of its own."""
    hyper.ok("load", "-q", "-i", str(debian_archive(IMAGE, "nfs-ganesha,nfs-ganesha-mem")))
    settings = {"path": "/etc/nfs.conf", "data": base64.b64encode(GANESHA.encode()).decode()}
    view = start(hyper, "nfs", RUN, image=IMAGE, files=[settings], memory_mib=256)
    hyper.eventually("NFS SERVER INITIALIZED", "logs", "nfs")
    return str(view["address"])
