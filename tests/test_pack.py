"""Packs and their form on the wire."""

import contextlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotherm.pack import NO_SEQ, Attribute, MalformedPack, Pack

finite = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**52), finite), max_size=50)


def pack_of(columns: list[tuple[int, int, float]], seq: bool = False) -> Pack:
    return Pack(
        names=[f"d{i}/m" for i in range(5)],
        series=np.array([row[0] for row in columns], dtype=np.int32),
        time=np.array([row[1] for row in columns], dtype=np.int64),
        value=np.array([row[2] for row in columns], dtype=np.float64),
        connector="tcp/1",
        received_at=1_790_000_000_000_000,
        units={"d0/m": "Cel"},
        seq=np.arange(len(columns), dtype=np.uint64) if seq else None,
    )


@given(rows, st.booleans())
def test_a_pack_survives_the_wire(columns: list[tuple[int, int, float]], seq: bool) -> None:
    pack = pack_of(columns, seq)
    back = Pack.from_ipc(pack.to_ipc())
    assert (list(back.names), back.connector, back.received_at, back.units) == (
        list(pack.names),
        "tcp/1",
        1_790_000_000_000_000,
        {"d0/m": "Cel"},
    )
    for name in ("series", "time", "value"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pack, name))
    if seq and columns:
        assert back.seq is not None
        np.testing.assert_array_equal(back.seq, np.arange(len(columns)))


def test_any_arrow_reader_understands_a_pack() -> None:
    table = pa.ipc.open_stream(pack_of([(1, 1_790_000_000_000_000, 21.5)]).to_ipc()).read_all()
    assert table.schema.field("series").type == pa.dictionary(pa.int32(), pa.utf8())
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")
    assert table.to_pylist()[0]["series"] == "d1/m"
    assert table.to_pylist()[0]["value"] == 21.5


@pytest.mark.parametrize("junk", [b"", b"\x00" * 100, b"\xff\xff\xff\xff" * 8, b"hello"])
def test_what_is_no_pack_is_told_apart(junk: bytes) -> None:
    with pytest.raises(MalformedPack):
        Pack.from_ipc(junk)


@given(st.data())
def test_a_damaged_pack_never_raises_anything_else(data: st.DataObject) -> None:
    wire = bytearray(pack_of([(1, 2, 3.0), (2, 3, 4.0)]).to_ipc())
    cut = data.draw(st.integers(0, len(wire)))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(MalformedPack):
        Pack.from_ipc(bytes(wire[:cut]))


def test_an_index_beyond_the_dictionary_is_refused() -> None:
    with pytest.raises(MalformedPack):
        Pack.from_ipc(pack_of([(7, 2, 3.0)]).to_ipc())


def test_packing_does_not_import_pandas() -> None:
    program = (
        "import sys, numpy as np; from isotherm.pack import Pack;"
        "p = Pack(['a/b'], np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1), 'tcp/1', 0);"
        "Pack.from_ipc(p.to_ipc()); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@given(st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 2)), max_size=40))
def test_sequence_numbers_survive_the_wire_with_their_gaps(numbers: list[int | None]) -> None:
    seq = np.array([NO_SEQ if number is None else number for number in numbers], dtype=np.uint64)
    back = Pack.from_ipc(replace(pack_of([(0, 0, 0.0)] * len(numbers)), seq=seq).to_ipc())
    if all(number is None for number in numbers):
        assert back.seq is None
    else:
        assert back.seq is not None
        assert back.seq.tolist() == seq.tolist()


def test_a_missing_sequence_number_is_null_to_any_arrow_reader() -> None:
    seq = np.array([7, NO_SEQ], dtype=np.uint64)
    wire = replace(pack_of([(0, 0, 0.0)] * 2), seq=seq).to_ipc()
    assert pa.ipc.open_stream(wire).read_all().column("seq").to_pylist() == [7, None]


def test_string_values_survive_the_wire_and_are_counted() -> None:
    attributes = [Attribute("d/fw", 5, "1.2 \u00e9"), Attribute("d/fw", 6, "")]
    for columns in ([], [(0, 0, 0.0)]):
        pack = replace(pack_of(columns), attributes=attributes)
        back = Pack.from_ipc(pack.to_ipc())
        assert back.attributes == attributes
        assert len(back) == len(columns) + 2
