"""The whole error tree.

    HyperError
    ├── InvalidRequest      what was asked makes no sense: a bad flag, field or file
    ├── NotFound
    │   ├── PodNotFound
    │   ├── ContainerNotFound
    │   ├── ExecNotFound
    │   └── ImageNotFound
    ├── Conflict            a name, port or address is taken, or the thing is in use
    ├── InvalidState        the verb is not legal in the state the thing is in
    ├── Unauthorized        a registry wants (other) credentials
    ├── Unsupported         this driver, host or version cannot do it
    ├── Unavailable         something that is needed is missing, full or not answering
    ├── RegistryError       a registry answered what it should not
    ├── GuestError          hyperstart refused a request, or the guest broke the protocol
    │   ├── CommandNotFound         execve said ENOENT: exit status 127, as shells have it
    │   └── CommandNotExecutable    execve said anything else: exit status 126
    └── HypervisorError     the VMM could not be started or died

A message says what failed, on what, and why; ``hint`` says what to do next.  The API renders
``{"code", "message", "hint"}``, and the client raises the same class again by ``code``: nobody
matches words.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class HyperError(Exception):
    """Anything that hyper reports to its user, with its HTTP status and exit status."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 125
    registry: ClassVar[dict[str, type[HyperError]]] = {}

    def __init_subclass__(cls) -> None:
        if "code" in cls.__dict__:  # one class for each code: a private variant has its parent's
            HyperError.registry[cls.code] = cls

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidRequest(HyperError):
    code = "invalid_request"
    http_status = 400


class NotFound(HyperError):
    code = "not_found"
    http_status = 404


class PodNotFound(NotFound):
    code = "pod_not_found"


class ContainerNotFound(NotFound):
    code = "container_not_found"


class ExecNotFound(NotFound):
    code = "exec_not_found"


class ImageNotFound(NotFound):
    code = "image_not_found"


class Conflict(HyperError):
    code = "conflict"
    http_status = 409


class InvalidState(HyperError):
    code = "invalid_state"
    http_status = 409


class Unauthorized(HyperError):
    code = "unauthorized"
    http_status = 401


class Unsupported(HyperError):
    code = "unsupported"
    http_status = 501


class Unavailable(HyperError):
    code = "unavailable"
    http_status = 503


class RegistryError(HyperError):
    code = "registry_error"
    http_status = 502


class GuestError(HyperError):
    """``errno`` is the guest's, 0 when there is none; ``operation`` is what it tried: "execve", "mount"."""

    code = "guest_error"
    http_status = 500

    def __init__(self, message: str, *, hint: str = "", errno: int = 0, operation: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.operation = operation


class CommandNotFound(GuestError):
    code = "command_not_found"
    http_status = 400
    exit_status = 127


class CommandNotExecutable(GuestError):
    code = "command_not_executable"
    http_status = 400
    exit_status = 126


class HypervisorError(HyperError):
    code = "hypervisor_error"
    http_status = 500


def from_code(code: str, message: str, hint: str) -> HyperError:
    """The error that a daemon of any version reported, as the nearest class that we know."""
    return HyperError.registry.get(code, HyperError)(message, hint=hint)
