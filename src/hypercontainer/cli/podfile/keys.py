"""The keys of a podfile: the original HyperContainer's, and ours, which are marked so.

tools/gen_podfile.py makes the JSON Schema and the tables of docs/podfile.md of this.
"""
# ruff: noqa: E501  # a key and its meaning stand on one line

from __future__ import annotations

from hypercontainer.cli.podfile.shapes import Flag, Key, Keys, Names, Number, Refused, Several, Text, Whole
from hypercontainer.cli.sizes import SIZE

NAME = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}"
PORTS = "[0-9]{1,5}(-[0-9]{1,5})?"
TEXTS = Several(Text())

NAMED = Text(pattern=NAME, form="name: letters, digits, '_', '.' and '-', at most 128; the first is no sign")
ABSOLUTE = Text(pattern=r"/[^\x00]*", form="absolute path")
PORT_RANGE = Text(pattern=PORTS, form="port or range of ports", numbers=(0, 65535))
PROTOCOL = Text(choices=("tcp", "udp"), any_case=True)
RESTART = Text(choices=("never", "onFailure", "always"), any_case=True)
CACHE = Text(choices=("none", "off", "directsync", "writeback", "unsafe", "writethrough"))
MEMORY = Text(pattern=SIZE, form="size: MiB, or with a unit such as 64m or 1g", numbers=(0, 1 << 30))

LOG = Keys(
    "a log",
    (
        Key(
            "type",
            Text(
                choices=("json-file", "none"),
                refused=tuple(
                    (driver, "hyper keeps logs itself, as 'json-file' or not at all ('none')")
                    for driver in ("awslogs", "fluentd", "gelf", "journald", "splunk", "syslog")
                ),
            ),
            "`json-file` keeps the output for `hyper logs`, `none` does not",
            "`json-file`",
        ),
        Key("config", Names(), "of `json-file`: `max-size` (such as `10m`) and `max-file`", "no rotation"),
    ),
)

LABELS = Key("labels", Names(), "text to text", "none")
SYSCTL = Key(
    "sysctl",
    Names(),
    "kernel parameters, text to text; the containers share them, so they hold for the whole pod",
    "the kernel's",
)

VOLUME = Keys(
    "a volume",
    (
        Key("name", NAMED, "by which containers mention it"),
        Key(
            "source",
            Text(),
            "a directory, a file or a disk image of the host, from the podfile's directory on; "
            "of `nas` SERVER:/PATH",
            "fresh storage that lives as long as the pod",
        ),
        Key(
            "format",
            Text(
                choices=("vfs", "raw", "qcow2", "nas"),
                any_case=True,
                refused=(
                    ("vdi", "it is VirtualBox's; convert it: qemu-img convert -O qcow2"),
                    ("rbd", "hyper does not speak to Ceph; map the device and say 'raw'"),
                ),
            ),
            "`vfs`: of the host's file system; `raw`, `qcow2`: a disk image; `nas`: NFS",
            "`vfs` with a `source`",
            other_names=("driver",),
        ),
        Key("fstype", Text(), "the file system of a disk image; of `nas` `nfs` or `nfs4`", "found out"),
        Key("cache", CACHE, "how the host caches a disk image; `off` is `none`", "the hypervisor's choice"),
        Key("mountOptions", TEXTS, "of `nas`, as mount(8) has them (not in the original)", "none"),
        Key("option", Refused(why="it is Ceph's, which hyper does not speak")),
    ),
)

FILE = Keys(
    "a file",
    (
        Key("name", NAMED, "by which containers mention it"),
        Key("encoding", Text(choices=("raw", "base64"), any_case=True), "of the content", "`raw`"),
        Key("content", Text(), "what is in it", "nothing"),
        Key(
            "uri",
            Text(),
            "where the content is: `http://`, `https://`, or `file://`, which without a third slash is "
            "relative to the podfile; read when the pod is created",
            "`content` holds",
        ),
    ),
)

MOUNT = Keys(
    "a mount of a volume",
    (
        Key("volume", NAMED, "name of a volume of the pod", "the one of `detail`"),
        Key("path", ABSOLUTE, "where it is in the container", "an error", required=True),
        Key("readOnly", Flag(), "it cannot be written through this mount", "false"),
        Key("detail", VOLUME, "the volume itself, instead of an entry in the pod's `volumes`", "none"),
    ),
)

FILE_REFERENCE = Keys(
    "a file of a container",
    (
        Key("filename", NAMED, "name of a file of the pod", "the one of `detail`"),
        Key("path", ABSOLUTE, "where it goes; with a `/` at its end, a directory for it", "an error", True),
        Key(
            "perm",
            Text(pattern="0?[0-7]{1,4}", form="mode in octal digits"),
            "octal: `0755`, `644`",
            "`0755`",
        ),
        Key("user", Text(), "its owner, by name or number", "root"),
        Key("group", Text(), "its group, by name or number", "the owner's"),
        Key("detail", FILE, "the file itself, instead of an entry in the pod's `files`", "none"),
    ),
)

USER = Keys(
    "a user",
    (
        Key("name", Text(), "by name or number", "the image's, or root"),
        Key("group", Text(), "by name or number; needs `name`", "the user's"),
        Key("additionalGroups", TEXTS, "by name or number", "those of the image's /etc/group"),
    ),
    text=Text(),
)

VARIABLE = Keys(
    "a variable",
    (
        Key("env", Text(pattern="[^=]+", form="name of a variable"), "its name", "an error", required=True),
        Key("value", Text(), "its value", "empty"),
    ),
)

ULIMIT = Keys(
    "a limit",
    (
        Key("name", Text(), "`nofile`, `nproc`, ..., as setrlimit(2) has them", "an error", required=True),
        Key("soft", Whole(-1, 2**63 - 1), "-1: unlimited", "`hard`"),
        Key("hard", Whole(-1, 2**63 - 1), "-1: unlimited", "`soft`"),
    ),
)

OLD_PORT = Keys(
    "a port",
    (
        Key("containerPort", PORT_RANGE, "in the pod", "an error", required=True),
        Key("hostPort", PORT_RANGE, "of the host", "a free one"),
        Key("protocol", PROTOCOL, "", "`tcp`"),
        Key("servicePort", Refused(why="a pod has load balancers in 'services'")),
    ),
)

CONTAINER_RESOURCE = Keys(
    "the resource of a container",
    (
        Key("cpu", Number(0, 255), "CPUs, with fractions: `0.5`", "no limit but the machine's"),
        Key("memory", MEMORY, "MiB, or text with a unit: `64m`", "no limit but the machine's"),
        Key("pids", Whole(0, 1 << 22), "processes and threads", "no limit"),
    ),
)

CONTAINER = Keys(
    "a container",
    (
        Key("name", NAMED, "as the pod's `id`", "made up from the pod's", other_names=("id",)),
        Key("image", Text(), "name of the image", "an error", required=True),
        Key("command", TEXTS, "arguments, Docker's CMD", "the image's"),
        Key("entrypoint", TEXTS, "what runs, Docker's ENTRYPOINT", "the image's"),
        Key("workdir", Text(), "where it starts; made when it is not there", "the image's, or `/`"),
        Key("user", USER, "see below; or text, `user[:group]`", "the image's, or root"),
        Key("envs", Several(VARIABLE), "variables: `env` and `value`", "only the image's"),
        Key("tty", Flag(), "a terminal", "the pod's"),
        Key("readOnly", Flag(), "the root file system cannot be written", "false"),
        Key("StopSignal", Text(), "what `hyper stop` sends first", "the image's, or TERM"),
        Key("restartPolicy", RESTART, "when it is started again after it has ended", "the pod's"),
        Key("volumes", Several(MOUNT), "where it has which volumes, see below", "none"),
        Key("tmpfs", TEXTS, "file systems in memory: `/run` or `/tmp:size=64m` (not in the original)", "none"),
        Key("files", Several(FILE_REFERENCE), "where it has which files, see below", "none"),
        Key("ulimits", Several(ULIMIT), "limits of its processes, see below", "the machine's"),
        Key("resource", CONTAINER_RESOURCE, "its own part of the machine, see below (not in the original)", "all"),
        SYSCTL,
        Key("log", LOG, "as the pod's (not in the original)", "the pod's"),
        Key("logPath", Text(), "of its log file on the host, from the podfile's directory on", "the pod's directory"),
        Key("ports", Several(OLD_PORT), "the older form of `portmappings`", "none"),
        LABELS,
        Key(
            "cache",
            Refused(why="the root of a container is no disk of its own; the host caches the pod's disk"),
        ),
    ),
)  # fmt: skip

PORT_MAPPING = Keys(
    "a port mapping",
    (
        Key("containerPort", PORT_RANGE, "in the pod: `80`, or a range, `8000-8080`", "an error", required=True),
        Key("hostPort", PORT_RANGE, "of the host: a range of the same size", "free ones"),
        Key("protocol", PROTOCOL, "", "`tcp`"),
        Key("hostIP", Text(), "address of the host (not in the original)", "every one"),
    ),
)  # fmt: skip

ALLOW = Keys(
    "portmappingWhiteLists",
    (
        Key("internalNetworks", TEXTS, "networks in CIDR form that may reach every port of the pod", "none"),
        Key("externalNetworks", TEXTS, "networks in CIDR form that may reach the published ports", "none"),
    ),
)

INTERFACE = Keys(
    "an interface",
    (
        Key("bridge", Text(), "of the host", "hyper's own"),
        Key("ip", Text(), "address with the length of its prefix: `10.1.0.5/24`", "hyper chooses"),
        Key("ifname", Text(pattern="[^/ ]{1,15}", form="name of an interface"), "in the pod", "`eth0`, `eth1`..."),
        Key("mac", Text(pattern="([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", form="MAC address"), "", "made up"),
        Key("mtu", Whole(0, 65535), "at least 68", "the bridge's"),
        Key("gateway", Text(), "of the default route; one interface has it", "the network's"),
    ),
)  # fmt: skip

BACKEND = Keys(
    "a host of a service",
    (
        Key("hostIP", Text(), "where it listens", "an error", required=True),
        Key("hostPort", Whole(1, 65535), "", "an error", required=True),
    ),
)

SERVICE = Keys(
    "a service",
    (
        Key("serviceIP", Text(), "that containers connect to", "an error", required=True),
        Key("servicePort", Whole(1, 65535), "", "an error", required=True),
        Key("protocol", PROTOCOL, "", "`tcp`"),
        Key(
            "hosts", Several(BACKEND), "`hostIP` and `hostPort` of those that answer, in turn", "none answers"
        ),
    ),
)

RESOURCE = Keys(
    "the resource of a pod",
    (
        Key("vcpu", Whole(0, 255), "virtual CPUs of the machine", "1"),
        Key("memory", MEMORY, "of the machine: MiB, or text with a unit, `1g`", "128"),
    ),
)

POD = Keys(
    "a pod",
    (
        Key("id", NAMED, "the pod's name: letters, digits, `_`, `.`, `-`", "made up", other_names=("name",)),
        Key("containers", Several(CONTAINER), "at least one, see below", "an error"),
        Key("hostname", Text(), "DNS labels, at most 63 characters in all", "12 digits of the pod's id"),
        Key("resource", RESOURCE, "the size of the machine: `vcpu` and `memory`", "1 and 128 MiB"),
        Key("tty", Flag(), "a terminal for every container", "false"),
        Key("restartPolicy", RESTART, "of containers that do not say it", "`never`"),
        Key("stopTimeout", Whole(0, 86400), "seconds until `hyper stop` kills; 0: at once (not in the original)", "10"),
        Key("volumes", Several(VOLUME), "storage that containers mount, see below", "none"),
        Key("files", Several(FILE), "files that are put into containers, see below", "none"),
        Key("log", LOG, "what is kept of the output, see below", "everything"),
        Key("portmappings", Several(PORT_MAPPING), "ports of the host that lead into the pod", "none"),
        Key("portmappingWhiteLists", ALLOW, "who may reach the pod", "everyone its published ports"),
        Key("interfaces", Several(INTERFACE), "its NICs", "one on hyper's bridge"),
        Key("services", Several(SERVICE), "load balancers in the pod", "none"),
        Key("network", Text(choices=("default", "none")), "`none`: only loopback (not in the original)", "`default`"),
        Key("dns", TEXTS, "addresses of name servers", "the host's"),
        Key("dnsSearch", TEXTS, "domains for names without dots", "the host's"),
        Key("dnsOptions", TEXTS, "as resolv.conf(5) has them", "the host's"),
        Key("extraHosts", TEXTS, "`name:address`, for /etc/hosts (not in the original)", "none"),
        SYSCTL,
        Key("shmSize", MEMORY, "of /dev/shm: MiB, or text with a unit (not in the original)", "64 MiB"),
        LABELS,
        Key("hypervisor", Text(), "`kvm`, `xen`, `uml`, `tcg` or `auto` (not in the original)", "`auto`"),
        Key("requireIsolation", Text(choices=("any", "hardware")), "refuse less (not in the original)", "`any`"),
        Key(
            "type",
            Text(
                choices=("pod", "service-discovery"),
                refused=(
                    ("kubernetes", "write the pod as a v1 manifest, with 'apiVersion' and 'kind'"),
                ),
            ),
            "the original's; means nothing",
            "`pod`",
        ),
    ),
)  # fmt: skip
