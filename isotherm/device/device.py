"""A device's readings to Isotherm, from Python 3.9 on, with the standard library alone: copy this file where it is needed.

    from device import Device

    with Device("iot.example", "pump-7", token="…") as pump:
        while True:
            pump.send("temperature", read_sensor(), "Cel")
            time.sleep(1)

``send`` never waits: a thread connects, sends, and keeps what the platform has not acknowledged, to send it again after a
lost connection with the same number, by which the platform knows it. It is kept in memory, and ends with the program.
TLS: ``Device("iot.example", "pump-7", 7312, token="…", tls=ssl.create_default_context())``.
MQTT: ``Device("broker.example", "pump-7", 1883, token="…", mqtt=True)``; the broker acknowledges there, and the platform has
it from the broker. The token is the password, and the device's name that of the user and of the client.

As a program it sends what comes on its standard input, a line each: METRIC UNIT VALUE [TIME], the unit "-" for none, the
time in µs since the epoch, and prints what became of it.

    echo "temperature Cel 21.5" | python3 device.py 127.0.0.1 7301 pump-7 TOKEN     # HOST may be mqtt://HOST, of a broker
"""

from __future__ import annotations

import json
import logging
import math
import random
import select
import socket
import ssl
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple, Union

CAPACITY = 10_000
"""Readings that are kept while they are not acknowledged."""

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""What was sent and is not answered for so long is sent anew."""

MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 30.0
BATCH_BYTES = 1 << 16
MAX_ANSWER_BYTES = 1 << 20

MESSAGE_BYTES = 1 << 15
"""Of the readings in one message of MQTT, about."""

MAX_MESSAGES = 20
"""Messages of MQTT that the broker has not acknowledged."""

KEEPALIVE_SECONDS = 60
"""How long MQTT may be silent; it is asked after half of it whether the broker is there."""

KNOWN_COMMANDS = 64
"""Commands whose replies are remembered: one that comes again is answered, and not carried out again."""

Handler = Callable[[Dict[str, Any]], Any]
"""Carries out a command: takes its parameters, returns its result (what JSON can hold), or raises."""

log = logging.getLogger("isotherm.device")


class Counts(NamedTuple):
    """What became of the readings of this program, and how often it has connected."""

    acknowledged: int
    refused: int
    dropped: int
    pending: int
    connections: int


class Device:
    """One device, or gateway. Any thread may send; use it as a context manager, or ``start`` and ``close`` it.

    Attributes:
        problem: What keeps it from sending, ``unreachable: …``, ``auth: …``, ``unavailable: …`` or ``busy: …``; else None.
    """

    def __init__(
        self,
        host: str,
        device: str,
        port: int = 7301,
        *,
        token: Optional[str] = None,
        capacity: int = CAPACITY,
        tls: Optional[ssl.SSLContext] = None,
        mqtt: bool = False,
        first: Optional[int] = None,
    ) -> None:
        """Prepare.

        Args:
            host: Of the connector.
            device: Its name; bare metrics are its own.
            port: Of the connector: 7301, with TLS 7312.
            token: Of the device, or of its gateway.
            capacity: Readings that are kept, at least 1; when there are more the oldest is lost, and counted.
            tls: Speak TLS, with what this trusts and shows.
            mqtt: Speak MQTT 3.1.1 with a broker, at that port.
            first: Number of the first reading, greater than all before; by default µs since the epoch, by the clock.
        """
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected at least 1")
        self.problem: Optional[str] = None
        self._host, self._port, self._tls, self._mqtt = host, port, tls, mqtt
        self._hello: Dict[str, Any] = {"device": device, **({"token": token} if token else {}), "ack": True}
        self._kept = _Kept(capacity, time.time_ns() // 1000 if first is None else first)
        self._commands = _Commands()
        self._way: Union[socket.socket, ssl.SSLSocket, None] = None
        self._settled = threading.Condition()
        self._is_closing = False
        self._acknowledged = self._refused = self._connections = self._failures = 0
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"isotherm-{device}", daemon=True)

    def __enter__(self) -> Device:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(0.0 if kind else 10.0)

    def on_command(self, name: str, handler: Handler) -> None:
        """Carry out commands of this name. Handlers run one at a time, in the thread that sends: nothing is sent meanwhile.

        Raises:
            RuntimeError: it has been started, and has said whether it takes commands.
        """
        if self._thread.is_alive():
            raise RuntimeError("register commands before the device is started")
        self._commands.handlers[name] = handler

    def start(self) -> None:
        """Begin to connect and send."""
        self._thread.start()

    def send(self, metric: str, value: float, unit: str = "", at: Optional[int] = None) -> None:
        """Keep a reading, to be sent as soon as that goes; does not wait.

        Args:
            metric: Of this device, or ``child/metric`` of a gateway's child.
            value: In ``unit``; True and False are 1 and 0.
            unit: RFC 8428 §12.1, or empty.
            at: µs since the epoch; now by default.

        Raises:
            ValueError: the value is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"{metric} is {value}, expected a finite number")
        seconds, micros = divmod(time.time_ns() // 1000 if at is None else at, 1_000_000)
        units = f',"u":{json.dumps(unit)}' if unit else ""
        record = f'{{"n":{json.dumps(metric)}{units},"v":{float(value)!r},"t":{seconds}.{micros:06}'
        with self._settled:
            self._kept.add(record)
        self._nudge()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is acknowledged or refused, for at most so many s; returns whether it is."""
        with self._settled:
            return self._settled.wait_for(lambda: not self._kept.lines, seconds)

    def close(self, seconds: float = 10.0) -> bool:
        """Wait for what is on its way, and disconnect; returns whether everything was acknowledged or refused."""
        is_running = self._thread.is_alive()
        done = self.flush(seconds if is_running else 0.0)
        self._is_closing = True
        self._nudge()
        if is_running and self._thread is not threading.current_thread():
            self._thread.join(CONNECT_SECONDS + 1)
        if not self._thread.is_alive():
            self._wake.close()
            self._woken.close()
        return done

    @property
    def counts(self) -> Counts:
        """What became of the readings so far."""
        kept = self._kept
        return Counts(self._acknowledged, self._refused, kept.dropped, len(kept.lines), self._connections)

    def _nudge(self) -> None:
        with suppress(OSError):  # it has enough to wake up from
            self._wake.send(b"\0")

    def _run(self) -> None:
        while not self._is_closing:
            try:
                self._connect_and_send()
            except _Told as told:
                self._note(str(told))
            except (OSError, ValueError, TypeError, KeyError) as error:
                self._note(f"unreachable: {error!r}")
            self._failures += 1
            most = min(MIN_BACKOFF_SECONDS * 2.0 ** min(self._failures - 1, 20), MAX_BACKOFF_SECONDS)
            until = time.monotonic() + most * random.uniform(0.5, 1.0)
            while not self._is_closing and (left := until - time.monotonic()) > 0:
                self._sleep([], [], left)

    def _connect_and_send(self) -> None:
        with socket.create_connection((self._host, self._port), CONNECT_SECONDS) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            way = self._tls.wrap_socket(plain, server_hostname=self._host) if self._tls else plain
            way.setblocking(False)
            self._connections += 1
            self._way = way
            with way:
                (_MqttConnection if self._mqtt else _Connection)(self, way).work()

    def _sleep(self, readers: Sequence[socket.socket], writers: Sequence[socket.socket], seconds: float) -> bool:
        """Wait until a socket is ready, there is something to send, or it is closed; returns whether one can be read."""
        ready, _, _ = select.select([*readers, self._woken], writers, [], max(0.0, seconds))
        if self._woken in ready:
            self._woken.recv(4096)
        return any(one in ready for one in readers)

    def _note(self, problem: Optional[str]) -> None:
        if problem is not None and problem.partition(":")[0] != (self.problem or "").partition(":")[0]:
            log.warning("%s at %s:%s: %s", self._hello["device"], self._host, self._port, problem)
        self.problem = problem


class _Told(Exception):
    """The platform said that it takes nothing from this connection."""


class _Kept:
    """Readings that are not acknowledged, by their place in the order in which they came.

    Kept from ``head``, sent until ``sent``, which are counted on this connection from ``base``; added until ``tail``.
    """

    def __init__(self, capacity: int, first: int) -> None:
        self.lines: Dict[int, bytes] = {}
        self.head = self.sent = self.tail = self.base = self.dropped = 0
        self._capacity = capacity
        self._first = first

    def add(self, record: str) -> None:
        if len(self.lines) == self._capacity:
            del self.lines[self.head]
            self.head += 1
            self.dropped += 1
            if self.sent < self.head:  # it was not sent, so this connection never counts it
                self.base += 1
                self.sent = self.head
        self.lines[self.tail] = f'{record},"seq":{self._first + self.tail}}}\n'.encode()
        self.tail += 1

    def begin(self) -> None:
        """Begin anew on another connection."""
        self.base = self.sent = self.head

    def batch(self, most: int) -> bytes:
        """Return the next lines to send."""
        found = []
        while self.sent < self.tail and most > 0:
            found.append(self.lines[self.sent])
            most -= len(found[-1])
            self.sent += 1
        return b"".join(found)

    def settle(self, count: int) -> None:
        """Forget the first ``count`` of this connection."""
        if self.base + count > self.sent:
            raise ValueError("the platform acknowledged more than it was sent")
        while self.head < self.base + count:
            del self.lines[self.head]
            self.head += 1


class _Commands:
    """Handlers, and what was replied to the last commands."""

    def __init__(self) -> None:
        self.handlers: Dict[str, Handler] = {}
        self.untold: Dict[str, bytes] = {}  # replies that the platform has not said to have
        self._replies: OrderedDict[str, bytes] = OrderedDict()

    def known(self, id: str) -> Optional[bytes]:
        """Return what was replied to a command before."""
        return self._replies.get(id)

    def carry_out(self, command: Dict[str, Any]) -> bytes:
        """Return the reply to a new command."""
        reply: Dict[str, Any] = {"id": command["id"]}
        handler = self.handlers.get(command["name"])
        try:
            if handler is None:
                raise LookupError(f"there is no command {command['name']!r}")
            line = _line("reply", {**reply, "result": handler(command.get("parameters") or {})})
        except Exception as error:  # noqa: BLE001, whatever a handler raises is its answer
            line = _line("reply", {**reply, "error": f"{type(error).__name__}: {error}"[:1000]})
        self._replies[command["id"]] = self.untold[command["id"]] = line
        if len(self._replies) > KNOWN_COMMANDS:
            self.untold.pop(self._replies.popitem(last=False)[0], None)
        return line


class _Connection:
    """One connection, until it ends."""

    def __init__(self, device: Device, way: Union[socket.socket, ssl.SSLSocket]) -> None:
        self._device, self._way = device, way
        self._kept, self._commands = device._kept, device._commands
        hello = {**device._hello, "commands": True} if self._commands.handlers else device._hello
        self._out = _line("hello", hello) + b"".join(self._commands.untold.values())
        self._in = b""
        self._has_answered = False  # readings, or asked for something
        self._acknowledged = self._refused = 0
        self._heard_at = time.monotonic()
        with device._settled:
            self._kept.begin()

    def work(self) -> None:
        """Send and listen until the device is closed, or the connection is lost."""
        while not self._device._is_closing:
            self._fill()
            self._write()
            now = time.monotonic()
            if self._kept.sent == self._kept.head:
                self._heard_at = now
            if now - self._heard_at > ANSWER_SECONDS:
                raise OSError(f"no answer for {ANSWER_SECONDS:.0f} s")
            if self._device._sleep([self._way], [self._way] if self._out else [], ANSWER_SECONDS / 4):
                self._read()

    def _fill(self) -> None:
        """Take what is to be sent next: one reading first, for what comes from who is not let in becomes a reject."""
        with self._device._settled:
            if not self._has_answered:
                if self._kept.sent == self._kept.base:
                    self._out += self._kept.batch(1)
            elif len(self._out) < BATCH_BYTES:
                self._out += self._kept.batch(BATCH_BYTES)

    def _write(self) -> None:
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self._out:
                self._out = self._out[self._way.send(self._out) :]

    def _read(self) -> None:
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while True:
                data = self._way.recv(1 << 16)
                self._in += data
                self._feed()
                if not data or len(self._in) > MAX_ANSWER_BYTES:
                    raise _Told(self._device.problem or "unreachable: the platform closed the connection")

    def _feed(self) -> None:
        """Take what has come."""
        *lines, self._in = self._in.split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, answer: Dict[str, Any]) -> None:
        self._heard_at = time.monotonic()
        if "ack" in answer:
            self._settle(acknowledged=answer["ack"] - self._acknowledged, refused=0)
        elif "error" in answer:
            self._take_error(answer["error"])
        elif "replied" in answer:
            self._commands.untold.pop(answer["replied"], None)
        elif "command" in answer and self._commands.handlers:
            self._command(answer["command"])

    def _command(self, command: Dict[str, Any]) -> None:
        self._has_answered = True
        self._device._failures = 0
        reply = self._commands.known(command["id"])
        if reply is None:
            self._reply(command["id"], _line("reply", {"id": command["id"], "received": True}))
            self._write()
            reply = self._commands.carry_out(command)
        self._reply(command["id"], reply)

    def _reply(self, id: str, line: bytes) -> None:
        self._out += line

    def _take_error(self, error: Dict[str, Any]) -> None:
        said = f"{error['reason']}: {error['detail']}"
        if error["reason"] in ("auth", "busy"):
            raise _Told(said)
        if error["reason"] == "unavailable":  # it goes on by itself, or closes the connection
            self._device._note(said)
            return
        if not error["count"]:
            log.warning("a reply was refused: %s", said)
            self._commands.untold.clear()  # whichever it was
            return
        log.warning("%d readings were refused: %s", error["count"], said)
        self._settle(acknowledged=0, refused=error["count"])

    def _settle(self, acknowledged: int, refused: int) -> None:
        device = self._device
        self._has_answered = True
        self._acknowledged += acknowledged
        self._refused += refused
        with device._settled:
            self._kept.settle(self._acknowledged + self._refused)
            device._acknowledged += acknowledged
            device._refused += refused
            device._failures = 0
            device._note(None)
            device._settled.notify_all()


class _MqttConnection(_Connection):
    """The same over MQTT 3.1.1 (OASIS, 2014), with QoS 1: the broker acknowledges message by message."""

    def __init__(self, device: Device, way: Union[socket.socket, ssl.SSLSocket]) -> None:
        super().__init__(device, way)
        self._name, token = device._hello["device"], device._hello.get("token")
        flags = 0x82 | 0x40 * (token is not None) if token is not None else 0x02
        names = [self._name, *([self._name, token] if token is not None else [])]
        head = _text("MQTT") + bytes((4, flags)) + KEEPALIVE_SECONDS.to_bytes(2, "big")
        self._out = _packet(0x10, head + b"".join(map(_text, names)))
        self._is_there = False
        self._id = 0
        self._sent: OrderedDict[int, int] = OrderedDict()  # message id -> how many readings, of those not settled
        self._acked: Dict[int, bool] = {}
        self._replies: Dict[int, str] = {}  # message id -> the command that it answers
        self._said_at = time.monotonic()

    def _fill(self) -> None:
        if not self._is_there:
            return
        with self._device._settled:
            while len(self._sent) < MAX_MESSAGES:
                before = self._kept.sent
                lines = self._kept.batch(MESSAGE_BYTES)
                if not lines:
                    break
                self._sent[self._publish("readings", b"[" + lines[:-1].replace(b"\n", b",") + b"]")] = (
                    self._kept.sent - before
                )
        now = time.monotonic()
        if self._out:
            self._said_at = now
        elif now - self._said_at > KEEPALIVE_SECONDS / 2:
            if self._heard_at < self._said_at - KEEPALIVE_SECONDS:
                raise OSError("the broker does not answer")
            self._said_at = now
            self._out += _packet(0xC0, b"")

    def _publish(self, topic: str, payload: bytes) -> int:
        self._id = self._id % 0xFFFF + 1
        where = _text(f"devices/{self._name}/{topic}")
        self._out += _packet(0x32, where + self._id.to_bytes(2, "big") + payload)
        return self._id

    def _reply(self, id: str, line: bytes) -> None:
        message = self._publish("replies", line[len(b'{"reply":') : -2])
        if line == self._commands.known(id):
            self._replies[message] = id

    def _feed(self) -> None:
        while (found := _packet_in(self._in)) is not None:
            head, body, length = found
            self._in = self._in[length:]
            self._heard_at = time.monotonic()
            self._take_packet(head, body)

    def _take_packet(self, head: int, body: bytes) -> None:
        kind = head >> 4
        if kind == 2:
            self._greeted(body[1])
        elif kind == 3:
            self._published(head, body)
        elif kind == 4:
            self._acknowledge(int.from_bytes(body[:2], "big"))
        elif kind == 9 and body[2] > 2:
            log.warning("%s may not subscribe to its commands", self._name)

    def _greeted(self, code: int) -> None:
        if code:
            raise _Told("auth: the broker does not let it in" if code in (4, 5) else f"unavailable: the broker says {code}")
        self._is_there = self._has_answered = True
        if self._commands.handlers:
            self._out += _packet(0x82, b"\0\1" + _text(f"devices/{self._name}/commands/#") + b"\1")
            self._id = max(self._id, 1)
        for id, line in list(self._commands.untold.items()):
            self._reply(id, line)

    def _published(self, head: int, body: bytes) -> None:
        at = 2 + int.from_bytes(body[:2], "big")
        if head >> 1 & 3:
            self._out += _packet(0x40, body[at : at + 2])
            at += 2
        self._command(json.loads(body[at:]))

    def _acknowledge(self, id: int) -> None:
        if (answered := self._replies.pop(id, None)) is not None:
            self._commands.untold.pop(answered, None)
        if id in self._sent:
            self._acked[id] = True
        while self._sent and next(iter(self._sent)) in self._acked:
            first, count = self._sent.popitem(last=False)
            del self._acked[first]
            self._settle(acknowledged=count, refused=0)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(head: int, body: bytes) -> bytes:
    """Return a packet of MQTT (§2.2): its length in groups of seven bits, the lowest first."""
    length, size = b"", len(body)
    while True:
        size, group = size >> 7, size & 0x7F
        length += bytes((group | 0x80 if size else group,))
        if not size:
            return bytes((head,)) + length + body


def _packet_in(data: bytes) -> Optional[Tuple[int, bytes, int]]:
    """Return head, body and length of the packet that data begins with, or None when it has not all come."""
    size = 0
    for at in range(1, min(5, len(data))):
        size |= (data[at] & 0x7F) << 7 * (at - 1)
        if not data[at] & 0x80:
            end = at + 1 + size
            return (data[0], data[at + 1 : end], end) if len(data) >= end else None
    return None


def _line(name: str, content: Dict[str, Any]) -> bytes:
    return json.dumps({name: content}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def main(arguments: Sequence[str]) -> int:
    """Send what comes on standard input."""
    if not 3 <= len(arguments) <= 6:
        print("usage: device.py HOST PORT DEVICE [TOKEN [CAPACITY [SECONDS]]]", file=sys.stderr)
        return 2
    host, port, name, token, capacity, seconds = [*arguments, *("", str(CAPACITY), "60")[len(arguments) - 3 :]]
    address = host[len("mqtt://") :] if host.startswith("mqtt://") else host
    device = Device(address, name, int(port), token=token or None, capacity=int(capacity), mqtt=address != host)
    device.start()
    for line in sys.stdin:
        metric, unit, value, *at = line.split()
        device.send(metric, float(value), "" if unit == "-" else unit, int(at[0]) if at else None)
    done = device.flush(float(seconds))
    status = (
        0 if done else {"unreachable": -3, "auth": -4, "unavailable": -5}.get((device.problem or "").partition(":")[0], 1)
    )
    print(json.dumps({"status": status, **device.counts._asdict()}))
    device.close(0.0)
    return 0 if status == 0 and not device.counts.refused else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
