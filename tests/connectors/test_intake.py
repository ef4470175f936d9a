"""Intake, against a Kafka that is switched off and on again: what is checked, sharded, kept in order and bounded."""

import asyncio

import msgspec
import numpy as np
import pytest

from connectors import intake as module
from connectors.formats.senml import decode_lines, decode_payload
from isotherm.clock import now_us
from isotherm.kafka import MAX_VALUE_BYTES
from isotherm.topics import partition_of
from tests.support.intake import Bench


async def test_readings_arrive_in_their_partition_in_order_with_their_units() -> None:
    bench = Bench()
    async with bench.intake.running():
        for value in range(50):
            await bench.send(b'{"n":"a/t","u":"Cel","v":%d}\n{"n":"b/t","v":%d}' % (value, -value))
    assert bench.producer.values_of("a/t") == list(range(50))
    assert bench.producer.values_of("b/t") == [-value for value in range(50)]
    assert bench.account.accepted == 100
    units = [pack.units for pack in bench.producer.packs[partition_of("a", 8)] if pack.units]
    assert units == [{"a/t": "Cel"}]  # told once


async def test_a_changed_unit_is_told() -> None:
    bench = Bench()
    async with bench.intake.running():
        for unit in (b"Cel", b"Cel", b"K", b"Cel"):
            receipt = await bench.send(b'{"n":"a/t","u":"%b","v":1}' % unit)
            await receipt.durable()
    told = [pack.units["a/t"] for pack in bench.producer.packs[partition_of("a", 8)] if pack.units]
    assert told == ["Cel", "K", "Cel"]


async def test_bad_readings_are_refused_and_good_ones_beside_them_are_kept() -> None:
    bench = Bench()
    now = now_us() / 1e6
    lines = [
        b'{"n":"a/t","v":1}',
        b'{"n":"no device","v":2}',
        b'{"n":"a/t","v":3,"t":%f}' % (now + 3600),
        b'{"n":"a/t","v":4,"t":%f}' % (now - 400 * 86400),
        b'{"n":"a/t","v":5,"t":1e300}',
        b"junk",
        b'{"n":"a/t","v":6}',
    ]
    async with bench.intake.running():
        receipt = await bench.send(b"\n".join(lines))
        await receipt.durable()
    assert receipt.accepted == 2
    assert bench.producer.values_of("a/t") == [1.0, 6.0]
    assert {one.raw: one.reason for one in bench.producer.rejects} == {
        lines[1].decode(): "no_device",
        lines[2].decode(): "time",
        lines[3].decode(): "time",
        lines[4].decode(): "time",
        lines[5].decode(): "malformed",
    }
    assert bench.account.rejected == {"no_device": 1, "time": 3, "malformed": 1}
    assert (bench.producer.rejects[0].protocol, bench.producer.rejects[0].peer) == ("tcp", "peer")


async def test_infinite_values_are_refused() -> None:
    bench = Bench()
    decoded = decode_lines(b'{"n":"a/t","v":1}\n{"n":"a/t","v":2}\n{"n":"a/t","v":3}', now_us())
    decoded.value[0], decoded.value[1] = np.inf, np.nan
    async with bench.intake.running():
        await (await bench.intake.accept(decoded, peer="peer")).durable()
    assert bench.producer.values_of("a/t") == [3.0]
    assert bench.account.rejected == {"not_finite": 2}


async def test_the_channels_device_is_the_only_one_that_may_be_named() -> None:
    bench = Bench()
    async with bench.intake.running():
        receipt = await bench.send(b'{"n":"t","v":1}\n{"n":"a/t","v":2}\n{"n":"b/t","v":3}', device="a")
    assert bench.producer.values_of("a/t") == [1.0, 2.0]
    assert [one.reason for one in receipt.rejects] == ["identity"]


async def test_nothing_is_acknowledged_while_kafka_is_away_and_everything_arrives_when_it_returns() -> None:
    bench = Bench()
    async with bench.intake.running():
        bench.producer.on.clear()
        receipts = [await bench.send(b'{"n":"a/t","v":%d}\njunk' % value) for value in range(20)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await receipts[0].durable()
        assert bench.account.accepted == 0
        bench.producer.on.set()
        for receipt in receipts:
            await receipt.durable()
        assert bench.producer.values_of("a/t") == list(range(20))
        assert (bench.account.accepted, bench.account.rejected["malformed"]) == (20, 20)


async def test_too_much_in_flight_makes_senders_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 100)
    bench = Bench()
    async with bench.intake.running():
        bench.producer.on.clear()
        for value in range(100):
            await bench.send(b'{"n":"a/t","v":%d}' % value)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await bench.send(b'{"n":"a/t","v":100}')
        bench.producer.on.set()
        await bench.send(b'{"n":"a/t","v":100}')
    assert bench.producer.values_of("a/t") == list(range(101))


async def test_names_are_forgotten_without_mixing_up_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN_NAMES", 10)
    bench = Bench()
    async with bench.intake.running():
        for value in range(100):
            await bench.send(b'{"n":"d%d/t","v":%d}' % (value, value))
            assert len(bench.intake._series) <= 12
    for value in range(100):
        assert bench.producer.values_of(f"d{value}/t") == [value]


async def test_refused_names_are_not_remembered() -> None:
    bench = Bench()
    async with bench.intake.running():
        for number in range(50):
            await bench.send(b'{"n":"bad name %d","v":1}' % number)
    assert len(bench.intake._series) == 0
    assert bench.account.rejected == {"no_device": 50}


async def test_packs_whose_names_are_too_long_for_one_record_are_sent_in_several() -> None:
    bench = Bench()
    device = "D" * 128
    records = [{"n": f"{device}/{'m' * 122}{i:06d}", "v": i, "u": "u" * 32} for i in range(10_000)]
    async with bench.intake.running():
        await (await bench.intake.accept(decode_payload(msgspec.json.encode(records[:3_000]), now_us()), peer="p")).durable()
        lines = b"\n".join(msgspec.json.encode(record) for record in records[3_000:])
        await (await bench.send(lines)).durable()
    packs = bench.producer.packs[partition_of(device, 8)]
    assert sum(map(len, packs)) == 10_000
    assert sum(len(pack.units) for pack in packs) == 10_000
    assert max(len(pack.to_ipc()) for pack in packs) <= MAX_VALUE_BYTES
    assert [value for pack in packs for value in pack.value.tolist()] == list(range(10_000))


async def test_large_inputs_are_cut_into_packs_of_bounded_size() -> None:
    bench = Bench()
    line = b'{"n":"a/t","v":1}\n'
    async with bench.intake.running():
        await bench.send(line * 25_000)
    sizes = [len(pack) for pack in bench.producer.packs[partition_of("a", 8)]]
    assert sum(sizes) == 25_000
    assert max(sizes) <= 10_000
