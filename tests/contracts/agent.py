"""What every analytic promises, whatever it makes of readings. A test class inherits this and says which there are."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Analytic, loader
from agents.engine import Engine, Outputs, rows_after
from isotherm.errors import SettingsError
from isotherm.limits import SECOND
from isotherm.names import is_metric_name
from isotherm.pack import Pack

BASE = 1_790_000_000 * SECOND
DEVICES = ("room-1", "room-2", "boiler")

OF_ITS_FORM = {"inputs", "output", "unit", "max_age"}
"""Parameters that ``agents.forms`` documents."""

SOURCE = re.compile(r"https?://|RFC \d|\b(1[89]|20)\d\d\b")
MAX_ROW_BYTES = 4096

Row = tuple[int, int, int, float]
"""Device, metric, time in s, value."""


@dataclass
class Case:
    """An analytic, and how it is tried.

    Attributes:
        path: Its file.
        parameters: Those that it needs, or that let it get to work sooner.
        prepare: Tells an engine what it has to know of the world.
        rows: How many rows of state there may be for a series.
    """

    path: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], None] = lambda _: None
    rows: int = 1

    @cached_property
    def analytic(self) -> Analytic:
        return loader.load(self.path)

    @property
    def metrics(self) -> list[str]:
        """Metrics that it reads, three of them where it reads any."""
        patterns = self.analytic.inputs(self.analytic.parameters(self.parameters))
        named = [pattern.partition("/")[2] for pattern in patterns]
        return named if all(map(is_metric_name, named)) else ["temperature", "power", "bme280/humidity"]

    def engine(self) -> Engine:
        engine = self.analytic.build(self.analytic.name, self.analytic.parameters(self.parameters))
        self.prepare(engine)
        return engine

    def packs(self, rows: Sequence[Sequence[Row]], arrivals: Sequence[int] | None = None) -> list[Pack]:
        """Return rows as packs that arrive some seconds apart."""
        received = np.cumsum([0] * len(rows) if arrivals is None else arrivals) * SECOND + BASE
        return [self._pack(some, int(at)) for some, at in zip(rows, received, strict=False)]

    def _pack(self, rows: Sequence[Row], received_at: int) -> Pack:
        metrics = self.metrics
        named = [f"{DEVICES[device % len(DEVICES)]}/{metrics[metric % len(metrics)]}" for device, metric, *_ in rows]
        numbers: dict[str, int] = {}
        return Pack(
            series=np.array([numbers.setdefault(name, len(numbers)) for name in named], dtype=np.int32),
            names=list(numbers),
            time=np.array([BASE + int(time * SECOND) for _, _, time, _ in rows], dtype=np.int64),
            value=np.array([value for *_, value in rows], dtype=np.float64),
            connector="tcp/1",
            received_at=received_at,
        )

    def history(self, seed: int, packs: int = 30, readings: int = 40) -> list[Pack]:
        """Return readings of all devices, a few s apart, some late or twice, some far out."""
        random = Random(seed)
        made, at = [], 0
        for _ in range(packs):
            rows: list[Row] = []
            for _ in range(readings):
                at += random.choice((0, 0, 1, 1, 1, 7))
                value = random.gauss(20, 2) + (random.random() < 0.02) * random.choice((-500, 500))
                rows.append((random.randrange(3), random.randrange(3), at - random.choice((0, 0, 0, 30)), value))
            made.append(rows)
        return self.packs(made, [random.choice((0, 1, 5, 120)) for _ in made])


def told(*outputs: Outputs) -> Any:
    """Return everything that came, in no order: the one across series is not promised."""
    whole = Outputs()
    for one in outputs:
        whole.add(one)
    failures = [(type(error).__name__, sorted(pack.names), pack.time.tolist()) for pack, error in whole.failures]
    return sorted(whole.readings()), sorted(event.to_json() for event in whole.events), sorted(failures)


def run_over(
    case: Case, packs: Sequence[Pack], together: Callable[[int], int] = lambda _: 1, *, restart: bool = False
) -> Any:
    """Return what comes of packs: so many together, with a new engine each time if there is to be a restart."""
    engine, rows, outputs, at = case.engine(), dict[str, bytes](), list[Outputs](), 0
    while at < len(packs):
        count = max(1, together(at))
        outputs.append(engine.run(packs[at : at + count]))
        rows = rows_after(rows, engine.changes())
        if restart:
            engine = case.engine()
            engine.load(rows)
        at += count
    return told(*outputs)


values = st.one_of(
    st.floats(-200, 200, width=16), st.sampled_from([0.0, 20.0, 21.0]), st.floats(allow_nan=False, allow_infinity=False)
)
rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 60), values), max_size=12)
packs_of_rows = st.lists(rows, min_size=1, max_size=8)
arrivals = st.lists(st.sampled_from([0, 1, 2, 60]), min_size=8, max_size=8)
modest = settings(max_examples=25)

ODD: dict[str, Callable[[int], float]] = {
    "zeros": lambda _: 0.0,
    "negative": lambda i: -1.0 - i % 7,
    "constant": lambda _: 21.5,
    "a step after a constant": lambda i: 0.0 if i < 150 else 1.0,
    "subnormal": lambda i: 5e-324 * (i % 5),
    "huge": lambda i: 1e300 * (i % 3),
    "as far apart as can be": lambda i: 1.7976931348623157e308 * (-1) ** i,
    "huge once": lambda i: 1e300 if i == 100 else 20.0 + i % 3,
    "huge at first": lambda i: 1e300 if i < 2 else 20.0 + i % 3,
}


class AgentContract(ABC):
    """The promises; the fixture ``case`` goes through all analytics."""

    @pytest.fixture(scope="class")
    @classmethod
    @abstractmethod
    def case(cls) -> Case:
        """One of the analytics."""

    @given(packs_of_rows, arrivals)
    @modest
    def test_it_makes_the_same_of_the_same(self, case: Case, rows: list[list[Row]], arrivals: list[int]) -> None:
        packs = case.packs(rows, arrivals)
        assert run_over(case, packs) == run_over(case, packs)

    @given(packs_of_rows, arrivals, st.lists(st.integers(1, 8), min_size=8, max_size=8))
    @modest
    def test_which_packs_come_together_does_not_matter(
        self, case: Case, rows: list[list[Row]], arrivals: list[int], together: list[int]
    ) -> None:
        packs = case.packs(rows, arrivals)
        assert run_over(case, packs, together.__getitem__) == run_over(case, packs)

    @given(packs_of_rows, arrivals)
    @modest
    def test_a_restart_between_any_two_packs_changes_nothing(
        self, case: Case, rows: list[list[Row]], arrivals: list[int]
    ) -> None:
        packs = case.packs(rows, arrivals)
        assert run_over(case, packs, restart=True) == run_over(case, packs)

    @pytest.mark.parametrize("seed", range(3))
    def test_over_a_long_history_neither_packing_nor_restarts_matter(self, case: Case, seed: int) -> None:
        packs = case.history(seed)
        undisturbed = run_over(case, packs)
        assert undisturbed[0] or undisturbed[1]
        assert run_over(case, packs, lambda at: 1 + (at * 7 + seed) % 5, restart=True) == undisturbed
        assert run_over(case, packs, lambda _: len(packs)) == undisturbed

    @given(packs_of_rows, arrivals, st.randoms(use_true_random=False))
    @modest
    def test_late_and_repeated_readings_change_nothing_or_order_does_not_matter(
        self, case: Case, rows: list[list[Row]], arrivals: list[int], random: Random
    ) -> None:
        packs = case.packs(rows, arrivals)
        if case.analytic.is_order_insensitive:
            disturbed = random.sample(packs, len(packs))
        else:
            disturbed = []
            for at, pack in enumerate(packs):
                again = random.choice(packs[: at + 1])
                disturbed += [pack, again, self._earlier(again)]
        assert run_over(case, disturbed) == run_over(case, packs)

    @staticmethod
    def _earlier(pack: Pack) -> Pack:
        """Return other readings of the same series, from before all others."""
        time, value = pack.time - 3600 * SECOND, pack.value / 2 + 1
        return Pack(pack.names, pack.series, time, value, pack.connector, pack.received_at)

    @pytest.mark.parametrize("odd", ODD)
    def test_it_survives_odd_values(self, case: Case, odd: str) -> None:
        rows: list[list[Row]] = [
            [(0, metric, 10 * at + i, ODD[odd](10 * at + i)) for i in range(10) for metric in range(3)] for at in range(30)
        ]
        self._gives_finite_readings(case, case.packs(rows, [10] * len(rows)))

    @pytest.mark.parametrize("count", [1, 10_000])
    def test_it_survives_one_reading_and_many_of_one_time(self, case: Case, count: int) -> None:
        self._gives_finite_readings(case, case.packs([[(0, i % 3, 0, float(i)) for i in range(count)]]))

    def test_it_survives_packs_without_readings(self, case: Case) -> None:
        self._gives_finite_readings(case, case.packs([[], [(0, 0, 1, 20.0)], []]))

    @staticmethod
    def _gives_finite_readings(case: Case, packs: Sequence[Pack]) -> None:
        engine = case.engine()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs = engine.run(packs)
            outputs.add(engine.tick(packs[-1].received_at + 3600 * SECOND))
        assert [str(failure.error) for failure in outputs.failures] == []
        assert all(np.isfinite(value) for _, _, value in outputs.readings())

    def test_what_it_makes_is_of_devices_that_sent_something_and_named_as_declared(self, case: Case) -> None:
        packs = case.history(4)
        engine = case.engine()
        outputs = engine.run(packs)
        outputs.add(engine.tick(packs[-1].received_at + 3600 * SECOND))
        analytic = case.analytic
        declared = analytic.outputs(analytic.parameters(case.parameters))
        names = {metric.replace("{metric}", own): unit for metric, unit in declared.items() for own in case.metrics}
        for derived in outputs.derived:
            for name in derived.names:
                device, _, metric = name.partition("/")
                assert device in DEVICES
                assert names[metric] == derived.unit
        for event in outputs.events:
            assert event.device in DEVICES
            assert event.kind
            assert event.message

    def test_its_parameters_have_types_and_defaults_and_are_explained(self, case: Case) -> None:
        analytic = case.analytic
        for name, one in analytic.model.model_fields.items():
            assert one.annotation is not None
            assert not one.is_required()
            assert name in OF_ITS_FORM or re.search(rf"\b{name}\b", analytic.text), f"{name} is not in the text"

    def test_impossible_parameters_are_refused_by_name(self, case: Case) -> None:
        analytic = case.analytic
        with pytest.raises(SettingsError, match="nonsense"):
            analytic.parameters({**case.parameters, "nonsense": 1})
        for name, one in analytic.model.model_fields.items():
            if one.annotation in (int, float):
                for impossible in (float("nan"), float("inf"), "many"):
                    with pytest.raises(SettingsError, match=name):
                        analytic.parameters({**case.parameters, name: impossible})

    def test_it_says_what_it_does_and_where_that_is_from(self, case: Case) -> None:
        text = case.analytic.text
        assert len(text.split("\n")[0]) > 20
        assert SOURCE.search(text), "no year, RFC or address of a source"

    def test_its_state_does_not_grow_with_the_number_of_readings(self, case: Case) -> None:
        engine, rows, sizes = case.engine(), dict[str, bytes](), []
        values = Random(1)
        for at in range(20):
            some: list[Row] = [(0, 0, at * 500 + i, values.gauss(20, 1)) for i in range(500)]
            engine.run(case.packs([some], [at * 500]))
            rows = rows_after(rows, engine.changes())
            sizes.append(max(map(len, rows.values()), default=0))
        assert len(rows) <= case.rows
        assert max(sizes) <= MAX_ROW_BYTES
        assert max(sizes[10:]) <= max(sizes[:10]) + 16  # numbers of a few more digits
