"""Sockets for datagrams: answers come from the address that was asked."""

from __future__ import annotations

import socket

import pytest

from connectors.coap.sockets import DatagramSocket, WildcardSocket, bound_socket


def exchange(server: DatagramSocket, family: int, host: str) -> tuple[bytes, str]:
    """Send a datagram to one of the server's addresses and answer it; returns the answer, and where it came from."""
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.settimeout(10)
        peer.sendto(b"hello", (host, server.port))
        received = server.receive()
        assert received is not None
        datagram, address = received
        server.send(b"re: " + datagram, address)
        answer, source = peer.recvfrom(100)
        assert str(address).endswith(f":{peer.getsockname()[1]}")
    return answer, str(source[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.0.0.77"])
def test_a_socket_on_every_address_answers_from_the_one_that_was_asked(host: str) -> None:
    server = bound_socket("0.0.0.0", 0, reuse_port=False)
    assert isinstance(server, WildcardSocket)
    assert exchange(server, socket.AF_INET, host) == (b"re: hello", host)
    server.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
def test_the_same_with_ipv6() -> None:
    server = bound_socket("::", 0, reuse_port=False)
    assert isinstance(server, WildcardSocket)
    assert exchange(server, socket.AF_INET6, "::1") == (b"re: hello", "::1")
    assert exchange(server, socket.AF_INET, "127.0.0.2") == (b"re: hello", "127.0.0.2")
    server.close()


def test_a_socket_on_one_address_answers_from_it() -> None:
    server = bound_socket("127.0.0.2", 0, reuse_port=False)
    assert not isinstance(server, WildcardSocket)
    assert exchange(server, socket.AF_INET, "127.0.0.2") == (b"re: hello", "127.0.0.2")
    server.close()


def test_what_is_sent_to_many_is_passed_over() -> None:
    server = bound_socket("0.0.0.0", 0, reuse_port=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        peer.sendto(b"hello", ("127.255.255.255", server.port))
    assert server.receive() is None
    with pytest.raises(BlockingIOError):
        server.receive()
    server.close()
