"""The ports of a local stack."""

import os
import socket

import pytest

from isotherm.errors import StackError
from isotherm.local.ports import Ports
from tests.support.ports import free_ports


def test_ports_are_consecutive_and_distinct() -> None:
    ports = Ports.from_base(7300)
    assert [getattr(ports, name) for name in Ports.__slots__] == list(range(7300, 7300 + len(Ports.__slots__)))


@pytest.mark.parametrize("base", [0, 80, 65_530, 70_000, -1])
def test_an_impossible_base_is_refused(base: int) -> None:
    with pytest.raises(StackError, match="--port-base is"):
        Ports.from_base(base)


def test_busy_ports_are_named_with_their_part_and_user() -> None:
    ports = Ports.from_base(free_ports(len(Ports.__slots__)))
    ports.check_free("127.0.0.1")
    with socket.create_server(("127.0.0.1", ports.redis)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", ports.coap))
        with pytest.raises(StackError) as caught:
            ports.check_free("127.0.0.1")
    text = str(caught.value)
    for port, name in ((ports.redis, "redis"), (ports.coap, "coap")):
        assert f"port {port} ({name}), used by" in text
    assert f"(pid {os.getpid()})" in text
    assert "--port-base" in text
