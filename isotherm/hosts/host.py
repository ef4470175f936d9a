"""What a virtual host is, and what may be asked for."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from isotherm.clock import now_us
from isotherm.errors import BadField

LOGIN = "user"
"""The account within a host that keys let in; it may become root there."""

SSH_PORT = 22
VNC_PORT = 5901
"""Of the desktop, on the host's own loopback."""

KEYS_FOLDER = "/etc/isotherm/keys"
KEYS_FILE = "authorized_keys"
"""Where the image looks for keys (infra/hosts/sshd.conf)."""

HOST_KEY = "/home/.host/ssh_host_ed25519_key.pub"

CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
)
"""What root may do in a host: what sshd, sudo and apt need, and nothing that reaches out of it."""

MAX_NAME_CHARS = 32
NAME = rf"[a-z](?:[a-z0-9-]{{0,{MAX_NAME_CHARS - 2}}}[a-z0-9])?"
"""A DNS label (RFC 1123) that begins with a letter."""

MIB, GIB = 1 << 20, 1 << 30
_UNITS = {"Mi": MIB, "Gi": GIB, "Ti": 1 << 40}
_QUANTITY = re.compile(r"([1-9][0-9]{0,5})(Mi|Gi|Ti)")

CPUS = (0.1, 64.0)
MEMORY_BYTES = (256 * MIB, 1 << 40)
DISK_BYTES = (GIB, 64 << 40)

State = Literal["starting", "running", "stopped", "failed", "kept", "incomplete", "deleting"]
"""running: sshd answers. kept: only its volume is there. incomplete: it is being created, or that was cut off."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; `checked` says whether it may be.

    Attributes:
        name: Of the host, NAME.
        user: Whose it is, an account.
        cpus: How many processors it may use at most.
        memory, disk: Bytes.
        keys: Public keys that let its user in, a line each.
    """

    name: str
    user: str
    cpus: float = 1.0
    memory: int = GIB
    disk: int = 10 * GIB
    keys: tuple[str, ...] = ()


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host, as what runs it says.

    Attributes:
        name, user, cpus, memory, disk: As in Spec.
        state: How it is.
        address: Its own; empty while it has none.
        image: What it was made from; empty when nothing runs it.
        created: µs since the epoch UTC; 0 where it is not known.
        detail: Why it is so, or what does not hold of it.
    """

    name: str
    user: str
    state: State
    cpus: float
    memory: int
    disk: int
    address: str = ""
    image: str = ""
    created: int = 0
    detail: str = ""

    @property
    def ssh(self) -> str:
        """The command that enters it, or an empty text."""
        return f"ssh {LOGIN}@{self.address}" if self.address else ""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What is written on everything that belongs to a host."""

    user: str
    cpus: float
    memory: int
    disk: int
    created: int = 0

    @classmethod
    def of(cls, spec: Spec) -> Label:
        """Return the label of a host that is created now."""
        return cls(user=spec.user, cpus=spec.cpus, memory=spec.memory, disk=spec.disk, created=now_us())

    def host(self, name: str, state: State, *, address: str = "", image: str = "", detail: str = "") -> Host:
        """Return the host that has it."""
        return Host(
            name=name,
            user=self.user,
            state=state,
            cpus=self.cpus,
            memory=self.memory,
            disk=self.disk,
            address=address,
            image=image,
            created=self.created,
            detail=detail,
        )


def checked(spec: Spec) -> Spec:
    """Return what is asked for if it may be; whether the keys are any, `keys.public_keys` has said.

    Raises:
        BadField: it may not.
    """
    check_name(spec.name)
    if not CPUS[0] <= spec.cpus <= CPUS[1]:
        raise BadField("cpus", f"cpus is {spec.cpus:g}, expected {CPUS[0]:g} to {CPUS[1]:g}")
    for field, value, (least, most) in (("memory", spec.memory, MEMORY_BYTES), ("disk", spec.disk, DISK_BYTES)):
        if not least <= value <= most:
            raise BadField(field, f"{field} is {quantity(value)}, expected {quantity(least)} to {quantity(most)}")
    if not spec.keys:
        raise BadField("keys", "there is no key: nobody could enter it")
    return spec


def check_name(name: str) -> str:
    """Return a name if a host may have it.

    Raises:
        BadField: it may not.
    """
    if not re.fullmatch(NAME, name):
        rule = f"1 to {MAX_NAME_CHARS} of a-z, 0-9 and -, the first a letter and the last no -"
        raise BadField("name", f"{name[:80]!r} is no name of a host, expected {rule}", rule)
    return name


def parsed(field: str, text: str) -> int:
    """Return the bytes of a quantity.

    Raises:
        BadField: it is none.

    >>> parsed("memory", "512Mi"), parsed("disk", "10Gi")
    (536870912, 10737418240)
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        rule = "a number with Mi, Gi or Ti behind it, such as 512Mi or 10Gi"
        raise BadField(field, f"{field} is {text[:40]!r}, expected {rule}", rule)
    return int(found[1]) * _UNITS[found[2]]


def quantity(size: int) -> str:
    """Return bytes as a quantity, as Kubernetes writes it.

    >>> quantity(1536 * MIB), quantity(2 * GIB)
    ('1536Mi', '2Gi')
    """
    for unit in ("Ti", "Gi"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size // MIB}Mi"
