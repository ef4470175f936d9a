"""The ports of a local stack: consecutive, from a base that a setting moves."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import psutil

from isotherm.errors import StackError

DEFAULT_BASE = 7300


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each part of a local stack listens. CoAP's is UDP."""

    web: int
    tcp: int
    coap: int
    mqtt: int
    kafka: int
    redis: int
    tcp_health: int
    mqtt_health: int
    coap_health: int
    worker_health: int
    http: int
    http_health: int
    tcp_tls: int
    http_tls: int
    coap_tcp: int
    coap_tls: int
    agents_health: int

    @classmethod
    def from_base(cls, base: int) -> Ports:
        """Return consecutive ports.

        Raises:
            StackError: they would not be port numbers.
        """
        count = len(cls.__slots__)
        if not 1024 <= base <= 65535 - count:
            raise StackError(f"--port-base is {base}, expected 1024 to {65535 - count}")
        return cls(*range(base, base + count))

    def check_free(self, host: str) -> None:
        """See that nothing listens there.

        Raises:
            StackError: something does; it is named.
        """
        busy = [
            f"{getattr(self, name)} ({name}), used by {_user(getattr(self, name))}"
            for name in self.__slots__
            if _is_busy(host, getattr(self, name), udp=name == "coap")
        ]
        if busy:
            raise StackError(f"busy: port {'; port '.join(busy)}. Stop it, or choose other ports with --port-base")


def _is_busy(host: str, port: int, *, udp: bool) -> bool:
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if not udp:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _user(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="inet"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another process"
