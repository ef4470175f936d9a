"""A decoder of the user's, made into one of ours: a function that turns bytes into SenML records.

It is a stranger's code in the connector's own process. Whatever it raises becomes a reject with the original bytes, and so
does what it yields that is no reading; what it yields besides is taken. A payload is refused once, however much is wrong in
it, because each reject holds all of its bytes: replaying one through a mended decoder also takes once more what was good.

The function runs on the event loop: between two records that it yields others have their turn, but a function that
computes for long, sleeps, or asks somebody else holds up the whole connector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import msgspec

from connectors.formats.acceptable import check_name, check_size, check_time, check_value
from connectors.formats.decoded import PIECE, Decoded
from connectors.formats.escape import NameCache
from connectors.formats.records import Collector, Record, times_us
from isotherm.errors import InvalidReading
from isotherm.limits import MAX_PACK_READINGS
from isotherm.rejects import Rejected

Function = Callable[[bytes], Iterable[Mapping[str, object]]]
"""A payload in, SenML records out."""

MAX_ERROR_CHARS = 200
"""How much of an exception's text a reject tells."""

_ALONE = frozenset({"n", "u", "v", "vs", "vb", "vd", "t", "seq"})

_names = NameCache(check_name)


class HookDecoder:
    """Turns payloads into readings with a function of the user's."""

    def __init__(self, name: str, function: Function) -> None:
        """Prepare.

        Args:
            name: What the decoder is called in rejects.
            function: Is given a payload and yields SenML records (RFC 8428) as dicts: ``n`` a metric of the channel's
                device, or device/metric; one of ``v``, ``vb``, ``vs``, ``vd``; and if it likes ``u``, ``t`` (s) and ``seq``.
        """
        self._name = name
        self._function = function

    def __call__(self, data: bytes, now: int) -> Iterator[Decoded]:
        """Decode a payload.

        Args:
            data: The payload.
            now: µs since the epoch UTC; relative and missing times count from here.
        """
        try:
            check_size(data)
        except InvalidReading as error:
            yield Decoded.nothing(Rejected(error.reason, error.detail, data))
            return
        collector = Collector(now, msgspec.json.encode)
        errors: list[InvalidReading | Rejected] = []
        at = 0
        for at, item in enumerate(self._items(data), 1):
            try:
                collector.add(_record(item, now), at, data)
            except InvalidReading as error:
                errors.append(error)
            except Exception as error:  # noqa: BLE001 - what it yields is a stranger's too
                errors.append(_failed(error))
            if len(collector) >= PIECE:
                yield _taken(collector, errors)
        if len(collector):
            yield _taken(collector, errors)
        if errors:
            yield Decoded.nothing(self._rejected(errors, data))
        elif not at:
            yield Decoded.nothing(Rejected("no_value", f"decoder {self._name} found nothing in it", data))

    def _items(self, data: bytes) -> Iterator[object]:
        """Yield what the function does, and last what it raised."""
        try:
            for at, item in enumerate(self._function(data)):
                if at == MAX_PACK_READINGS:
                    yield InvalidReading("malformed", f"more than {MAX_PACK_READINGS} records, expected at most so many")
                    return
                yield item
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
            yield _failed(error)

    def _rejected(self, errors: list[InvalidReading | Rejected], data: bytes) -> Rejected:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        detail = errors[0].detail.encode(errors="backslashreplace").decode()
        return Rejected("malformed", f"decoder {self._name}: {detail[:MAX_ERROR_CHARS]}{more}", data)


def _failed(error: BaseException) -> InvalidReading:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of a stranger's may not be able to say what it is
        text = "?"
    return InvalidReading("malformed", f"{type(error).__name__}: {text}")


def _taken(collector: Collector, errors: list[InvalidReading | Rejected]) -> Decoded:
    """Return what a collector has but for its rejects, which are noted."""
    piece = collector.take()
    errors += piece.rejects
    return replace(piece, rejects=())


def _record(item: object, now: int) -> Record:
    """Return a record that stands alone and that intake can take.

    Raises:
        InvalidReading: it is none.
    """
    if isinstance(item, InvalidReading):
        raise item
    if not isinstance(item, Mapping):
        raise InvalidReading(
            "type", f"it yielded {type(item).__name__}, expected a dict such as {{'n': 'temperature', 'v': 21.5}}"
        )
    if not item.keys() <= _ALONE:
        strange = min(map(str, item.keys() - _ALONE))
        raise InvalidReading("malformed", f"it yielded a field {strange[:80]!r}, expected n, u, v, vb, vs, vd, t, seq")
    try:
        record = msgspec.convert(item, Record)
    except msgspec.ValidationError as error:
        raise InvalidReading("type", f"it yielded {_shown(item)}: {error}") from error
    _names[record.n or ""]
    for text in (record.u, record.vs, record.vd):
        (text or "").encode()  # a lone surrogate could go no further
    if record.v is not None:
        check_value(record.v)
    if record.t is not None:
        [time] = times_us([record.t], now).tolist()
        check_time(time, now)
    return record


def _shown(item: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r:.40}" for key, value in item.items())
