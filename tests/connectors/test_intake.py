"""Intake, against a Kafka that is switched off and on again: what is checked, sharded, kept in order and bounded."""

import asyncio
import pickle

import msgspec
import numpy as np
import pytest

from connectors import intake as module
from connectors import series_table
from connectors.formats.senml import decode_lines, decode_payload
from connectors.identity import Identity, only
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.kafka import MAX_VALUE_BYTES
from isotherm.pack import NO_SEQ, STAMPED
from isotherm.topics import partition_of
from tests.support.formats import joined
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


async def test_of_a_long_unit_is_kept_what_is_told_of_it() -> None:
    bench = Bench()
    async with bench.intake.running():
        for unit in (b"u" * 50_000, b"u" * 50_001):
            await (await bench.send(b'{"n":"a/t","u":"%b","v":1}' % unit)).durable()
    told = [pack.units["a/t"] for pack in bench.producer.packs[partition_of("a", 8)] if pack.units]
    assert told == ["u" * series_table.MAX_UNIT_CHARS]
    assert len(pickle.dumps(bench.intake._units)) < 1_000


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
    assert [(one.reason, one.count, one.raw) for one in bench.producer.rejects] == [
        ("malformed", 1, "junk"),
        ("no_device", 1, lines[1].decode()),
        ("time", 3, b"\n".join(lines[2:5]).decode()),  # what differs in its bytes alone is one record
    ]
    assert bench.account.rejected == {"no_device": 1, "time": 3, "malformed": 1}
    assert (bench.producer.rejects[0].protocol, bench.producer.rejects[0].peer) == ("tcp", "peer")


async def test_infinite_values_are_refused() -> None:
    bench = Bench()
    decoded = joined(decode_lines(b'{"n":"a/t","v":1}\n{"n":"a/t","v":2}\n{"n":"a/t","v":3}', now_us()))
    decoded.value[0], decoded.value[1] = np.inf, np.nan
    async with bench.intake.running():
        await (await bench.intake.accept(iter([decoded]), peer="peer")).durable()
    assert bench.producer.values_of("a/t") == [3.0]
    assert bench.account.rejected == {"not_finite": 2}


async def test_the_channels_device_is_the_only_one_that_may_be_named() -> None:
    bench = Bench()
    async with bench.intake.running():
        receipt = await bench.send(b'{"n":"t","v":1}\n{"n":"a/t","v":2}\n{"n":"b/t","v":3}', only("a"))
    assert bench.producer.values_of("a/t") == [1.0, 2.0]
    assert [one.reason for one in receipt.refusals] == ["identity"]


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


def line(device: str, value: int, **fields: object) -> bytes:
    return msgspec.json.encode({"n": f"{device}/t", "v": value, **fields})


async def test_a_gateway_may_send_for_its_children_and_for_nobody_else() -> None:
    bench = Bench()
    async with bench.intake.running():
        lines = b"\n".join([line("gw", 1), line("child", 2), line("stranger", 3), b'{"n":"own","v":4}'])
        receipt = await bench.send(lines, Identity("gw", frozenset({"child"})))
    assert (receipt.accepted, [one.reason for one in receipt.refusals]) == (3, ["identity"])
    assert bench.producer.values_of("child/t") == [2]
    assert bench.producer.values_of("gw/own") == [4]
    assert bench.producer.values_of("stranger/t") == []


async def test_who_may_send_is_asked_anew_for_each_input() -> None:
    bench = Bench()
    async with bench.intake.running():
        for others, accepted in ((frozenset({"child"}), 1), (frozenset[str](), 0), (frozenset({"child"}), 1)):
            assert (await bench.send(line("child", 1), Identity("gw", others))).accepted == accepted


async def test_string_values_travel_with_their_time_and_count_as_accepted() -> None:
    bench = Bench()
    now = now_us()
    async with bench.intake.running():
        receipt = await bench.send(b'{"n":"fw","vs":"1.2","t":%d}\n{"n":"a/t","v":1}' % (now // 10**6), Identity("a"))
        await receipt.durable()
    assert [(one.series, one.text, one.time) for one in bench.producer.attributes] == [("a/fw", "1.2", now // 10**6 * 10**6)]
    assert (receipt.accepted, bench.account.accepted) == (2, 2)


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        (b'{"n":"b/fw","vs":"1"}', "identity"),
        (b'{"n":"bad name","vs":"1"}', "name"),
        (b'{"n":"a/fw","vs":"1","t":9999999999}', "time"),
    ],
)
async def test_a_string_value_is_checked_as_a_reading_is(attribute: bytes, reason: str) -> None:
    bench = Bench()
    async with bench.intake.running():
        receipt = await bench.send(attribute, only("a"))
    assert [one.reason for one in receipt.refusals] == [reason]
    assert bench.producer.attributes == []


async def test_many_long_strings_are_sent_in_several_packs() -> None:
    bench = Bench()
    lines = [b'{"n":"a/s%d","vs":"%s"}' % (i, b"x" * 4000) for i in range(500)]
    async with bench.intake.running():
        await (await bench.send(b"\n".join(lines))).durable()
    assert len(bench.producer.attributes) == 500
    assert max(len(pack.to_ipc()) for packs in bench.producer.packs.values() for pack in packs) < MAX_VALUE_BYTES
    assert bench.intake.room.taken == 0


async def test_sequence_numbers_travel_and_those_without_one_have_none() -> None:
    bench = Bench()
    async with bench.intake.running():
        await bench.send(line("a", 1, seq=7) + b"\n" + line("a", 2))
        await bench.send(line("a", 3))
    packs = bench.producer.packs[partition_of("a", 8)]
    seqs = [seq for pack in packs for seq in (pack.seq.tolist() if pack.seq is not None else [NO_SEQ] * len(pack))]
    assert seqs == [7 | STAMPED, NO_SEQ, NO_SEQ]


async def test_a_clock_that_is_ahead_is_flagged_and_its_readings_are_kept() -> None:
    bench = Bench()
    now = now_us() / 1e6
    async with bench.intake.running():
        receipt = await bench.send(b"\n".join([line("a", 1, t=now + 60), line("a", 2, t=now - 3600), line("a", 3)]))
    assert (receipt.accepted, receipt.skewed, bench.account.skewed) == (3, 1, 1)
    assert bench.producer.values_of("a/t") == [1, 2, 3]


async def test_what_comes_while_kafka_is_away_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.05)
    bench = Bench()
    async with bench.intake.running():
        bench.producer.on.clear()
        first = await bench.send(line("a", 1))
        await asyncio.sleep(0.2)
        assert bench.intake.is_away
        with pytest.raises(Unavailable):
            await bench.send(line("a", 2), patient=False)
        elsewhere = next(name for name in "bcdefgh" if partition_of(name, 8) != partition_of("a", 8))
        other = await bench.send(line(elsewhere, 3), patient=False)  # its partition is not known to be away
        patient = asyncio.create_task(bench.send(line("a", 4)))
        bench.producer.on.set()
        await first.durable()
        await other.durable()
        await (await patient).durable()
    assert bench.producer.values_of("a/t") == [1, 4]


async def test_many_rejects_of_one_kind_are_few_records_and_none_is_lost() -> None:
    bench = Bench()
    lines = [b"junk %d" % i for i in range(10_000)]
    async with bench.intake.running():
        receipt = await bench.send(b"\n".join(lines))
        await receipt.durable()
    assert receipt.rejected == bench.account.rejected["malformed"] == 10_000
    assert len(receipt.refusals) == 20
    assert len(bench.producer.rejects) <= 50
    kept = [one for record in bench.producer.rejects for one in (record.raw or "").split("\n")]
    assert kept == [one.decode() for one in lines]
    assert all(record.is_whole and record.form == "ndjson" for record in bench.producer.rejects)


async def test_rejects_take_room_until_kafka_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 100)
    bench = Bench()
    async with bench.intake.running():
        bench.producer.on.clear()
        await bench.send(b"x" * 10_000)
        assert bench.intake.room.is_full
        waiting = asyncio.create_task(bench.send(line("a", 1)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        bench.producer.on.set()
        await waiting
    assert bench.intake.room.taken == 0


async def test_who_may_not_speak_for_a_device_changes_nothing_of_it() -> None:
    bench = Bench()
    async with bench.intake.running():
        await (await bench.send(line("victim", 1, u="Cel"))).durable()
        refused = await bench.send(line("victim", 2, u="HACKED") + b"\n" + line("ghost", 3), only("other"))
        assert refused.accepted == 0
        await (await bench.send(line("victim", 4, u="Cel"))).durable()
        assert bench.intake.new_devices() == ["victim"]
    told = [unit for pack in bench.producer.packs[partition_of("victim", 8)] for unit in pack.units.values()]
    assert told == ["Cel"]


async def test_a_device_has_only_so_many_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_table, "MAX_DEVICE_METRICS", 3)
    bench = Bench()
    async with bench.intake.running():
        receipt = await bench.send(b"\n".join(b'{"n":"a/m%d","v":1}' % i for i in range(5)) + b'\n{"n":"a/fw","vs":"1"}')
        again = await bench.send(b'{"n":"a/m0","v":2}\n{"n":"b/m0","v":2}')
    assert (receipt.accepted, [one.reason for one in receipt.refusals]) == (3, ["too_many"] * 3)
    assert again.accepted == 2


async def test_who_may_not_speak_for_a_device_uses_up_none_of_its_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_table, "MAX_DEVICE_METRICS", 3)
    bench = Bench()
    async with bench.intake.running():
        for number in range(5):
            await bench.send(b'{"n":"a/m%d","u":"Cel","v":1}' % number, identity=only("mallory"))
        receipt = await bench.send(b'{"n":"t","v":1}', identity=only("a"))
    assert (receipt.accepted, receipt.rejected) == (1, 0)
    assert bench.account.rejected == {"identity": 5}
    assert len(bench.intake._series) == 1
