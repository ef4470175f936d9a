"""Sockets for datagrams: read without waiting, and answered from the address that was asked.

A socket on one address answers from it by itself. One on every address (0.0.0.0, ::) must be told from which, else the
kernel takes that of the way back, and the peer does not know the answer for its own. There the address that a datagram
came to is also known, and those to many at once, multicast and broadcast, are passed over: we serve none (RFC 7252 §8).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

MAX_DATAGRAM_BYTES = 65_535

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
"""Asked of the kernel, for what comes while we do something else."""

_IPV4_INFO = struct.Struct("=I4s4s")  # in_pktinfo: interface, our address, the address in the header
_IPV6_INFO = struct.Struct("=16sI")  # in6_pktinfo: the address in the header, interface
_IP_PKTINFO = 8  # of Linux; Python 3.11 does not name it
_CONTROL_BYTES = socket.CMSG_SPACE(_IPV6_INFO.size)


class Address(NamedTuple):
    """Of a peer.

    Attributes:
        peer: As the socket gives it: host, port, and more with IPv6.
        own: The control data that say from which of our addresses it is answered; None leaves it to the kernel.
    """

    peer: tuple[str, int] | tuple[str, int, int, int]
    own: tuple[int, int, bytes] | None = None

    def __str__(self) -> str:
        return f"{self.peer[0]}:{self.peer[1]}"


class DatagramSocket:
    """A socket on one address."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._socket.getsockname()[1]
        return port

    def fileno(self) -> int:
        """Return what the event loop knows it by."""
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, Address] | None:
        """Return a datagram and who sent it; None for one that is to be passed over.

        Raises:
            BlockingIOError: there is none.
            OSError: such as for an answer whose address could not be reached.
        """
        datagram, peer = self._socket.recvfrom(MAX_DATAGRAM_BYTES)
        return datagram, Address(peer)

    def send(self, datagram: bytes, address: Address) -> None:
        """Send a datagram.

        Raises:
            OSError: the kernel does not take it.
        """
        self._socket.sendto(datagram, address.peer)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class WildcardSocket(DatagramSocket):
    """A socket on every address."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def receive(self) -> tuple[bytes, Address] | None:
        datagram, control, _, peer = self._socket.recvmsg(MAX_DATAGRAM_BYTES, _CONTROL_BYTES)
        for level, kind, data in control:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                _, own, asked = _IPV4_INFO.unpack(data)
                if own != asked:  # multicast or broadcast
                    return None
                return datagram, Address(peer, (level, kind, _IPV4_INFO.pack(0, own, bytes(4))))
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                asked, interface = _IPV6_INFO.unpack(data)
                if ipaddress.IPv6Address(asked).is_multicast:
                    return None
                return datagram, Address(peer, (level, kind, _IPV6_INFO.pack(asked, interface)))
        return datagram, Address(peer)

    def send(self, datagram: bytes, address: Address) -> None:
        self._socket.sendmsg([datagram], [address.own] if address.own else [], 0, address.peer)


def bound_socket(host: str, port: int, *, reuse_port: bool) -> DatagramSocket:
    """Return a socket that listens for datagrams.

    Raises:
        OSError: it cannot be.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setblocking(False)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            bound.setsockopt(socket.SOL_SOCKET, buffer, SOCKET_BUFFER_BYTES)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return (WildcardSocket if ipaddress.ip_address(address[0]).is_unspecified else DatagramSocket)(bound)
