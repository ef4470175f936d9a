# A device's readings to Isotherm, for MicroPython 1.20 and later (and CPython): copy this file to the device.
#
#     from isotherm import Device
#
#     pump = Device("iot.example", "pump-7", token="...")
#     while True:
#         pump.add("temperature", read_sensor(), "Cel")
#         pump.work(1000)                # connects, sends, listens, for at most so many ms
#
# What is added is kept until the platform has acknowledged it, and sent again after a lost connection with the same number,
# by which the platform knows it. A device whose clock is not set (before 2020) sends no times, and the platform takes that
# of their arrival; give it `first`, a number greater than all that it has used, kept in its flash, for instance.

import errno
import json
import select
import socket
import sys
import time

CAPACITY = 200
CONNECT_MS = 10000
ANSWER_MS = 60000
MIN_BACKOFF_MS = 500
MAX_BACKOFF_MS = 30000
MAX_ANSWER_BYTES = 8192
KNOWN_COMMANDS = 64

OK, PENDING, DROPPED = 0, 1, 2
UNREACHABLE, UNAUTHORIZED, UNAVAILABLE = -3, -4, -5

# Of the epoch of some ports, which is 2000, in s of Unix's
_EPOCH = 0 if time.gmtime(0)[0] == 1970 else 946684800
_SET = 1577836800

if hasattr(time, "ticks_ms"):
    _ticks, _since = time.ticks_ms, time.ticks_diff
else:

    def _ticks():
        return int(time.monotonic() * 1000)

    def _since(later, earlier):
        return later - earlier


def _now_us():
    """Return the time, us since 1970, or None where the clock is not set."""
    now = time.time_ns() // 1000 + _EPOCH * 1000000 if hasattr(time, "time_ns") else int(time.time() + _EPOCH) * 1000000
    return now if now >= _SET * 1000000 else None


class _Told(Exception):
    pass


class Device:
    """One device. `acknowledged`, `refused` and `dropped` count readings; `problem` says what is wrong, or is empty."""

    def __init__(self, host, device, port=7301, token=None, capacity=CAPACITY, first=None, wrap=None):
        """Prepare. `capacity` readings of some 150 bytes have to fit into memory.

        `wrap` makes a socket one of TLS, for port 7312: lambda plain: context.wrap_socket(plain, server_hostname=host)
        """
        self.acknowledged = self.refused = self.dropped = self.connections = 0
        self.problem = ""
        self._host, self._port, self._wrap = host, port, wrap
        self._hello = {"device": device, "ack": True}
        if token:
            self._hello["token"] = token
        self._capacity = capacity
        self._first = first if first is not None else _now_us() or 0
        self._lines = []  # kept, the first is number `_head`
        self._head = self._sent = self._base = 0
        self._handlers = {}
        self._replies = []  # (id, line)
        self._untold = {}  # id: line, of replies that the platform has not said to have
        self._socket = None
        self._poll = None
        self._out = self._in = b""
        self._proven = False
        self._connection = [0, 0]  # acknowledged and refused on it
        self._failures = 0
        self._status = PENDING
        self._tried = self._heard = _ticks()
        self._rest = 0

    def on_command(self, name, handler):
        """Carry out commands of this name: handler(parameters) returns the result, or raises. Before it works first."""
        self._handlers[name] = handler

    def add(self, metric, value, unit="", at=None):
        """Keep a reading; `at` in us since 1970. Returns OK, or DROPPED when the oldest one had to go."""
        value = float(value)
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("a value must be finite")
        at = _now_us() if at is None else at
        line = '{"n":%s,"v":%s' % (json.dumps(metric), _number(value))
        if unit:
            line += ',"u":%s' % json.dumps(unit)
        if at is not None:
            line += ',"t":%d.%06d' % (at // 1000000, at % 1000000)
        line += ',"seq":%d}\n' % (self._first + self._head + len(self._lines))
        status = OK
        if len(self._lines) == self._capacity:
            status = self._drop()
        self._lines.append(line.encode())
        return status

    def _drop(self):
        self._lines.pop(0)
        self._head += 1
        self.dropped += 1
        if self._sent < self._head:  # not sent, so this connection never counts it
            self._base += 1
            self._sent = self._head
        return DROPPED

    def pending(self):
        """Return how many readings are not acknowledged."""
        return len(self._lines)

    def work(self, ms=0):
        """Connect if there is something to send, send and listen for at most `ms`; ends when all is acknowledged.

        Returns OK, PENDING, UNREACHABLE, UNAUTHORIZED or UNAVAILABLE. With handlers of commands it is always connected, and
        listens for all of `ms`.
        """
        began = _ticks()
        while True:
            left = ms - _since(_ticks(), began)
            try:
                if self._socket is None and (self._lines or self._handlers):
                    if _since(_ticks(), self._tried) >= self._rest:
                        self._connect()
                    elif left > 0:
                        time.sleep(min(left, self._rest - _since(_ticks(), self._tried), 1000) / 1000)
                if self._socket is not None:
                    self._exchange(max(0, left))
            except _Told as told:
                self._lost(told.args[0], told.args[1])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._lost(UNREACHABLE if self._status != UNAVAILABLE else UNAVAILABLE, repr(error))
            if not self._lines and not self._handlers:
                return OK
            if _since(_ticks(), began) >= ms:
                return self._status if self._lines else OK

    def close(self):
        """Disconnect; what is not acknowledged is still kept."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._poll = None

    def _connect(self):
        self._tried = _ticks()
        self._rest = MIN_BACKOFF_MS
        found = socket.getaddrinfo(self._host, self._port, 0, socket.SOCK_STREAM)[0]
        way = socket.socket(found[0], found[1], found[2])
        try:
            way.settimeout(CONNECT_MS / 1000)
            way.connect(found[-1])
            if self._wrap:
                way = self._wrap(way)
            way.setblocking(False)
        except Exception:
            way.close()
            raise
        self._socket = way
        self._poll = select.poll()
        self._poll.register(way, select.POLLIN)
        self.connections += 1
        if self._status == UNREACHABLE:
            self._status = PENDING
        hello = dict(self._hello)
        if self._handlers:
            hello["commands"] = True
        self._out = _line("hello", hello) + b"".join(self._untold.values())
        self._in = b""
        self._proven = False
        self._connection = [0, 0]
        self._base = self._sent = self._head
        self._heard = _ticks()

    def _lost(self, status, problem):
        self.close()
        self._status, self.problem = status, problem
        most = min(MIN_BACKOFF_MS << min(self._failures, 10), MAX_BACKOFF_MS)
        self._failures += 1
        self._tried = _ticks()
        self._rest = most // 2 + hash(str(_ticks())) % (most // 2)

    def _exchange(self, ms):
        """Send what there is, and take what comes within `ms`."""
        if not self._out:
            # One reading first: what comes from a device that is not let in, the platform keeps as rejects.
            count = 20 if self._proven else int(self._sent == self._base)
            some = self._lines[self._sent - self._head : self._sent - self._head + count]
            if some and self._sent == self._head:
                self._heard = _ticks()
            self._sent += len(some)
            self._out = b"".join(some)
        self._flush()
        if not self._lines and not self._handlers:
            return
        if self._sent > self._head and _since(_ticks(), self._heard) > ANSWER_MS:
            raise OSError(errno.ETIMEDOUT)
        more = self._proven and self._sent - self._head < len(self._lines)
        self._poll.modify(self._socket, select.POLLIN | select.POLLOUT if self._out or more else select.POLLIN)
        for _, event in self._poll.poll(min(ms, 1000)):
            if event & ~select.POLLOUT:
                self._receive()

    def _flush(self):
        while self._out:
            count = _unless_blocking(self._socket.send, self._out)
            if not count:
                return
            self._out = self._out[count:]

    def _receive(self):
        data = _unless_blocking(self._socket.recv, 1024)
        if data is None:
            return
        lines = (self._in + data).split(b"\n")
        self._in = lines.pop()
        for line in lines:
            self._take(json.loads(line))
        if not data or len(self._in) > MAX_ANSWER_BYTES:
            status = self._status if self._status == UNAVAILABLE else UNREACHABLE
            raise _Told(status, self.problem if status == UNAVAILABLE else "the platform closed the connection")

    def _take(self, answer):
        self._heard = _ticks()
        if "ack" in answer:
            self.acknowledged += answer["ack"] - self._connection[0]
            self._connection[0] = answer["ack"]
            self._settle()
        elif "error" in answer:
            error = answer["error"]
            self.problem = "%s: %s" % (error["reason"], error["detail"])
            if error["reason"] == "auth":
                raise _Told(UNAUTHORIZED, self.problem)
            if error["reason"] == "busy":
                raise _Told(UNAVAILABLE, self.problem)
            if error["reason"] == "unavailable":
                self._status = UNAVAILABLE
                return
            if not error["count"]:  # a reply was refused, whichever it was
                self._untold = {}
                return
            self.refused += error["count"]
            self._connection[1] += error["count"]
            self._settle()
        elif "replied" in answer:
            self._untold.pop(answer["replied"], None)
        elif "command" in answer and self._handlers:
            self._proven = True
            self._failures = 0
            self._command(answer["command"])

    def _settle(self):
        until = self._base + self._connection[0] + self._connection[1]
        if until > self._sent:
            raise ValueError("the platform acknowledged more than it was sent")
        if until > self._head:
            del self._lines[: until - self._head]
            self._head = until
        self._proven = True
        self._failures = 0
        self._status = PENDING

    def _command(self, command):
        known = [line for id, line in self._replies if id == command["id"]]
        if not known:
            self._out += _line("reply", {"id": command["id"], "received": True})
            self._flush()
            known = [self._carry_out(command)]
            self._replies = self._replies[1 - KNOWN_COMMANDS :] + [(command["id"], known[0])]
            self._untold[command["id"]] = known[0]
            if len(self._untold) > KNOWN_COMMANDS:
                self._untold = dict(self._replies)
        self._out += known[0]

    def _carry_out(self, command):
        reply = {"id": command["id"]}
        try:
            if command["name"] not in self._handlers:
                raise ValueError("there is no command %s" % command["name"])
            reply["result"] = self._handlers[command["name"]](command.get("parameters") or {})
            return _line("reply", reply)
        except Exception as error:  # noqa: BLE001, whatever a handler raises is its answer
            return _line("reply", {"id": command["id"], "error": repr(error)})


def _unless_blocking(act, argument):
    """Return what a call on a socket returns, or None when it would have to wait."""
    try:
        return act(argument)
    except OSError as error:
        if error.args[0] in (errno.EAGAIN, errno.EINPROGRESS):
            return None
        raise


def _line(name, content):
    return (json.dumps({name: content}) + "\n").encode()


def _number(value):
    """Return a number as JSON: where repr does not give all digits, with as many as are needed."""
    text = repr(value)
    if float(text) != value:
        text = "%.17g" % value
    return text


def main(arguments):
    """Send what comes on standard input, a line each: METRIC UNIT VALUE [TIME]; print what became of it."""
    host, port, name = arguments[:3]
    token, capacity, seconds = (arguments[3:] + ["", str(CAPACITY), "60"][len(arguments) - 3 :])[:3]
    device = Device(host, name, int(port), token or None, int(capacity))
    while True:
        line = sys.stdin.readline()
        if not line:
            break
        words = line.split()
        unit = "" if words[1] == "-" else words[1]
        device.add(words[0], float(words[2]), unit, int(words[3]) if len(words) > 3 else None)
        device.work(0)
    status = device.work(int(float(seconds) * 1000))
    counts = {"acknowledged": device.acknowledged, "refused": device.refused, "dropped": device.dropped}
    counts.update({"status": status, "connections": device.connections, "pending": device.pending()})
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1:])
