"""The keys of a Kubernetes Pod manifest, v1: what is supported, ignored, and refused with which reason."""
# ruff: noqa: E501  # a key and its meaning stand on one line

from __future__ import annotations

from hypercontainer.cli.podfile.keys import ABSOLUTE, NAMED
from hypercontainer.cli.podfile.shapes import Flag, Ignored, Key, Keys, Names, Refused, Several, Text, Whole

QUANTITY = Text(
    pattern=r"[0-9]{1,15}(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2}|[KMGTPE]i|[mkMGTPE])?",
    form="quantity, such as 500m, 64Mi or 1.5",
    numbers=(0, 2**53),
    fractions=True,
)
TEXTS = Several(Text())
PORT = Whole(0, 65535)
NUMBER = Whole(0, 2**31 - 1)

_OUTSIDE = "a pod is a machine of its own, and shares nothing with its host"
_ONE_NODE = "there is one node here, and nothing to choose"
_NO_CLUSTER = "there is no cluster here that keeps it"
_NOT_BUILT = "hyper cannot do this yet"
_GUEST = "hyper does not set this in the guest; the machine is what isolates"


def _refused(why: str, *names: str, hint: str = "", harmless: tuple[object, ...] = ()) -> tuple[Key, ...]:
    return tuple(Key(name, Refused(why=why, hint=hint, harmless=harmless)) for name in names)


def _ignored(*names: str) -> tuple[Key, ...]:
    return tuple(Key(name, Ignored()) for name in names)


METADATA = Keys(
    "metadata",
    (
        Key("name", NAMED, "the pod's name", "made up"),
        Key("labels", Names(), "kept with the pod", "none"),
        *_refused(_NO_CLUSTER, "namespace", hint="leave it out", harmless=("default",)),
        *_refused("the name is made up when there is none", "generateName"),
        *_ignored(
            "annotations", "creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid",
        ),
    ),
)  # fmt: skip

FIELD_REFERENCE = Keys(
    "a fieldRef",
    (
        Key("apiVersion", Text(choices=("v1",)), "", "`v1`"),
        Key("fieldPath", Text(), "`metadata.name`, `metadata.labels['KEY']`", "an error", required=True),
    ),
)

VALUE_SOURCE = Keys(
    "a valueFrom",
    (
        Key("fieldRef", FIELD_REFERENCE, "a field of this manifest", "an error"),
        *_refused(_NO_CLUSTER, "configMapKeyRef", "secretKeyRef", hint="write the 'value' here"),
        *_refused(_NOT_BUILT, "resourceFieldRef", "fileKeyRef", hint="write the 'value' here"),
    ),
)

VARIABLE = Keys(
    "a variable",
    (
        Key("name", Text(pattern="[^=]+", form="name of a variable"), "", "an error", required=True),
        Key("value", Text(), "`$(NAME)` is the value of an earlier one", "empty"),
        Key("valueFrom", VALUE_SOURCE, "`fieldRef`: `metadata.name` or `metadata.labels['KEY']`", "none"),
    ),
)

PORT_OF_CONTAINER = Keys(
    "a port",
    (
        Key("name", Text(), "for readers", "none"),
        Key("containerPort", PORT, "", "an error", required=True),
        Key("hostPort", PORT, "that leads to it; without one, nothing is published", "none"),
        Key("hostIP", Text(), "address of the host", "every one"),
        Key("protocol", Text(choices=("TCP", "UDP")), "", "`TCP`"),
    ),
)

AMOUNTS = Keys(
    "an amount of resources",
    (
        Key("cpu", QUANTITY, "CPUs: `0.5`, `500m`", "no limit"),
        Key("memory", QUANTITY, "bytes: `64Mi`", "no limit"),
        *_refused(_NOT_BUILT, "ephemeral-storage", "hugepages-2Mi", "hugepages-1Gi"),
    ),
)

RESOURCES = Keys(
    "resources",
    (
        Key("limits", AMOUNTS, "what it may use", "the machine"),
        Key("requests", AMOUNTS, "for the size of the machine, where there is no limit", "nothing"),
        *_refused("it is Kubernetes' dynamic allocation of devices", "claims"),
    ),
)

VOLUME_MOUNT = Keys(
    "a volumeMount",
    (
        Key("name", NAMED, "of the volume", "an error", required=True),
        Key("mountPath", ABSOLUTE, "", "an error", required=True),
        Key("readOnly", Flag(), "", "false"),
        *_refused(
            "a volume is mounted whole", "subPath", "subPathExpr", hint="mount it whole, or make two volumes"
        ),
        *_refused(_OUTSIDE, "mountPropagation", harmless=("None",)),
        *_refused(_NOT_BUILT, "recursiveReadOnly", harmless=("Disabled",)),
    ),
)

_SECURITY_OF_BOTH = (
    Key("runAsUser", NUMBER, "the user's number", "the image's"),
    Key("runAsGroup", NUMBER, "the group's number; needs `runAsUser`", "the user's"),
    Key("runAsNonRoot", Flag(), "needs a `runAsUser` that is not 0", "false"),
    *_refused(_GUEST, "seccompProfile", "appArmorProfile", "seLinuxOptions", "windowsOptions"),
)

CONTAINER_SECURITY = Keys(
    "a securityContext",
    (
        *_SECURITY_OF_BOTH,
        Key("readOnlyRootFilesystem", Flag(), "", "false"),
        *_refused("a container cannot get the whole machine yet", "privileged"),
        Key("allowPrivilegeEscalation", Flag(), "only true: hyper does not prevent it in the guest", "true"),
        *_refused(_GUEST, "capabilities"),
        *_refused(_GUEST, "procMount", harmless=("Default",)),
    ),
)

POD_SECURITY = Keys(
    "a securityContext",
    (
        *_SECURITY_OF_BOTH,
        Key("supplementalGroups", Several(NUMBER), "further groups", "the image's"),
        Key(
            "sysctls",
            Several(
                Keys(
                    "a sysctl",
                    (
                        Key("name", Text(), "", "an error", required=True),
                        Key("value", Text(), "", "an error", required=True),
                    ),
                )
            ),
            "kernel parameters of the pod",
            "the kernel's",
        ),
        *_refused(_NOT_BUILT, "fsGroup", "fsGroupChangePolicy", "seLinuxChangePolicy"),
        *_refused(_NOT_BUILT, "supplementalGroupsPolicy", harmless=("Merge",)),
    ),
)

CONTAINER = Keys(
    "a container",
    (
        Key("name", NAMED, "", "an error", required=True),
        Key("image", Text(), "", "an error", required=True),
        Key("command", TEXTS, "instead of the image's entrypoint; `$(NAME)` is a variable's value", "the image's"),
        Key("args", TEXTS, "instead of the image's command; `$(NAME)` is a variable's value", "the image's"),
        Key("workingDir", Text(), "", "the image's"),
        Key("env", Several(VARIABLE), "`value`, or `valueFrom` a field of the manifest", "only the image's"),
        Key("ports", Several(PORT_OF_CONTAINER), "published where there is a `hostPort`", "none"),
        Key("resources", RESOURCES, "`limits` and `requests` of `cpu` and `memory`", "the whole machine"),
        Key("volumeMounts", Several(VOLUME_MOUNT), "", "none"),
        Key("tty", Flag(), "", "false"),
        Key("stdin", Flag(), "", "false"),
        Key("securityContext", CONTAINER_SECURITY, "", "the pod's"),
        *_refused(
            "`hyper run --pull` says it", "imagePullPolicy", hint="--pull always, --pull never",
            harmless=("IfNotPresent",),
        ),
        *_refused("hyper asks no container how it is", "livenessProbe", "readinessProbe", "startupProbe"),
        *_refused(_NOT_BUILT, "lifecycle", "stdinOnce", "restartPolicy", "restartPolicyRules", "resizePolicy"),
        *_refused(_NO_CLUSTER, "envFrom", hint="write the variables in 'env'"),
        *_refused("volumes are mounted", "volumeDevices"),
        *_refused(_NOT_BUILT, "terminationMessagePath", harmless=("/dev/termination-log",)),
        *_refused(_NOT_BUILT, "terminationMessagePolicy", harmless=("File",)),
    ),
)  # fmt: skip

VOLUME = Keys(
    "a volume",
    (
        Key("name", NAMED, "", "an error", required=True),
        Key(
            "emptyDir",
            Keys(
                "an emptyDir",
                (
                    Key("medium", Text(choices=("Memory",)), "in memory, for one container", "on disk"),
                    Key("sizeLimit", QUANTITY, "of one in memory", "half of the memory"),
                ),
            ),
            "lives as long as the pod",
            "one of these three",
        ),
        Key(
            "hostPath",
            Keys(
                "a hostPath",
                (
                    Key("path", ABSOLUTE, "", "an error", required=True),
                    Key(
                        "type",
                        Text(
                            choices=("Directory", "DirectoryOrCreate", "File"),
                            refused=tuple(
                                (kind.lower(), "only directories and files can be shared with a machine")
                                for kind in ("FileOrCreate", "Socket", "CharDevice", "BlockDevice")
                            ),
                        ),
                        "what has to be there",
                        "whatever is there",
                    ),
                ),
            ),
            "of the host",
            "one of these three",
        ),
        Key(
            "nfs",
            Keys(
                "an nfs",
                (
                    Key("server", Text(), "", "an error", required=True),
                    Key("path", ABSOLUTE, "", "an error", required=True),
                    Key("readOnly", Flag(), "", "false"),
                ),
            ),
            "mounted by the guest",
            "one of these three",
        ),
        *_refused(_NO_CLUSTER, "configMap", "secret", "downwardAPI", "projected", hint="a hostPath has files too"),
        *_refused(_NO_CLUSTER, "persistentVolumeClaim", "ephemeral", "csi", hint="use a hostPath or nfs"),
        *_refused(
            "only emptyDir, hostPath and nfs can be had", "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs",
            "cinder", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "image", "iscsi",
            "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
        ),
    ),
)  # fmt: skip

DNS_CONFIG = Keys(
    "a dnsConfig",
    (
        Key("nameservers", TEXTS, "needs `dnsPolicy: None`", "the host's"),
        Key("searches", TEXTS, "", "the host's"),
        Key(
            "options",
            Several(Keys("an option", (Key("name", Text(), required=True), Key("value", Text())))),
            "`name` and `value`",
            "the host's",
        ),
    ),
)

HOST_ALIAS = Keys(
    "a hostAlias",
    (
        Key("ip", Text(), "", "an error", required=True),
        Key("hostnames", TEXTS, "", "none"),
    ),
)

SPEC = Keys(
    "a spec",
    (
        Key("containers", Several(CONTAINER), "see below", "an error", required=True),
        Key("volumes", Several(VOLUME), "`emptyDir`, `hostPath` or `nfs`", "none"),
        Key("restartPolicy", Text(choices=("Always", "OnFailure", "Never")), "", "`Always`, as in Kubernetes"),
        Key("hostname", Text(), "", "12 digits of the pod's id"),
        Key(
            "dnsPolicy",
            Text(choices=("Default", "None", "ClusterFirst")),
            "`None`: only `dnsConfig`; the others are the host's name servers",
            "`Default`",
        ),
        Key("dnsConfig", DNS_CONFIG, "`nameservers`, `searches`, `options`", "the host's"),
        Key("hostAliases", Several(HOST_ALIAS), "`ip` and `hostnames`, for /etc/hosts", "none"),
        Key("securityContext", POD_SECURITY, "of every container; `sysctls`", "the images'"),
        Key("resources", RESOURCES, "the size of the machine: `cpu` rounded up, `memory`", "see below"),
        Key("terminationGracePeriodSeconds", Whole(0, 86400), "until `hyper stop` kills; 0: at once", "10"),
        Key("shareProcessNamespace", Flag(), "only true: containers of a pod share their processes", "true"),
        Key("os", Keys("an os", (Key("name", Text(choices=("linux",)), "", "`linux`"),)), "", "linux"),
        *_refused(_NOT_BUILT, "initContainers", hint="run a pod before it, on a volume of the host"),
        *_refused(_NOT_BUILT, "ephemeralContainers", "activeDeadlineSeconds", "readinessGates", "resourceClaims"),
        *_refused(_OUTSIDE, "hostNetwork", "hostPID", "hostIPC", "hostUsers"),
        *_refused("nothing resolves it; say 'hostname'", "subdomain", "setHostnameAsFQDN", "hostnameOverride"),
        *_refused(_ONE_NODE, "nodeSelector", "affinity", "topologySpreadConstraints", "schedulingGates"),
        *_refused("hypervisors are chosen by flag", "runtimeClassName", "overhead", hint="hyper run --hypervisor"),
        *_refused("registries' logins are Docker's", "imagePullSecrets", hint="docker login"),
        *_refused(_NO_CLUSTER, "serviceAccountName", "serviceAccount", harmless=("default",)),
        *_refused(_NO_CLUSTER, "automountServiceAccountToken", "priorityClassName"),
        *_ignored(
            "enableServiceLinks", "nodeName", "preemptionPolicy", "priority", "schedulerName", "tolerations",
        ),
    ),
)  # fmt: skip

MANIFEST = Keys(
    "a manifest",
    (
        Key("apiVersion", Text(choices=("v1",)), "`v1`", "an error", required=True),
        Key("kind", Text(choices=("Pod",)), "`Pod`", "an error", required=True),
        Key("metadata", METADATA, "`name` and `labels`", "none"),
        Key("spec", SPEC, "the pod", "an error", required=True),
        *_ignored("status"),
    ),
)
