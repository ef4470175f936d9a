"""A trial: what would become of a payload, without a stack."""

from __future__ import annotations

from dataclasses import dataclass, field

from connectors.formats.acceptable import check_name, check_time, check_value
from connectors.formats.catalogue import Catalogue, detect_body
from connectors.formats.decoded import Decoded
from connectors.process import catalogue_of, decoders_of
from isotherm.errors import InvalidReading
from isotherm.pack import NO_SEQ, STAMPED, Attribute
from isotherm.rejects import Rejected
from isotherm.settings import Settings


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading.

    Attributes:
        name: SenML name; a bare one is a metric of the peer's own device.
        value: The sample.
        unit: Its unit, or empty.
        time: µs since the epoch UTC.
        seq: The device's own number of it, or None.
    """

    name: str
    value: float
    unit: str
    time: int
    seq: int | None = None


@dataclass(slots=True)
class Trial:
    """What became of a payload.

    Attributes:
        form: The format that it was read as.
    """

    form: str
    readings: list[Reading] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)


class Bench:
    """Tries payloads with the decoders that a connector of these settings would have."""

    def __init__(self, settings: Settings) -> None:
        """Load the decoders.

        Raises:
            SettingsError: a file of the user's cannot be loaded.
        """
        decoders = decoders_of(settings)
        self._by_type = decoders.by_type
        self._catalogue: Catalogue = catalogue_of(settings, decoders)

    def form_of(self, type: str) -> str:
        """Return the format that is meant by a decoder's name or a format's.

        Raises:
            SettingsError: there is none.
        """
        form = self._by_type(type) or type
        self._catalogue.decoder(form)
        return form

    def attempt(self, payload: bytes, now: int, form: str = "") -> Trial:
        """Decode a payload and check what is in it as intake would, but for who sends it.

        Args:
            payload: The bytes.
            now: µs since the epoch UTC; relative and missing times count from here.
            form: Its format; empty to look at the payload.

        Raises:
            SettingsError: there is no such format.
        """
        trial = Trial(form or detect_body(payload))
        for piece in self._catalogue.decoder(trial.form)(payload, now):
            _add(trial, piece, now)
        return trial


def _add(trial: Trial, piece: Decoded, now: int) -> None:
    trial.rejects += piece.rejects
    numbers = [None] * len(piece.names) if piece.seq is None else piece.seq.tolist()
    columns = zip(piece.names, piece.value.tolist(), piece.time.tolist(), numbers, strict=True)
    for i, (name, value, time, seq) in enumerate(columns):
        try:
            check_name(name)
            check_value(value)
            check_time(time, now)
        except InvalidReading as error:
            at, raw = piece.source(i)
            trial.rejects.append(Rejected(error.reason, error.detail, raw, at=at))
        else:
            number = None if seq is None or seq == NO_SEQ else seq & ~STAMPED
            trial.readings.append(Reading(name, value, piece.units.get(name, ""), time, number))
    for attribute in piece.attributes:
        try:
            check_name(attribute.series)
            check_time(attribute.time, now)
        except InvalidReading as error:
            trial.rejects.append(Rejected(error.reason, f"attribute {attribute.series!r}: {error.detail}", b""))
        else:
            trial.attributes.append(attribute)
