"""Sealed chunks: columns instead of rows, each compressed by pcodec.

A chunk is sealed once its time is past and stragglers have had theirs. What comes later still goes into an open chunk of the
same name beside it, and is merged with it when it is sealed again: so the commit script need not know what is sealed.

    | bytes | what                                                          |
    |-------|---------------------------------------------------------------|
    | 0     | u8: version of this format, 1                                 |
    | 1–4   | u32: number of rows n                                         |
    | 5–    | for each field of the row: u32 length of its column, column   |

A column is a pcodec standalone file, or, where that is longer, as with three rows, the n numbers as they are: then its
length is n times the width of the number. Rows of points keep their order of arrival. pcodec: https://arxiv.org/abs/2502.06112.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, standalone

from isotherm.errors import IsothermError
from isotherm.store.layout import POINT, RAW, SLOT, Tier

VERSION = 1
_HEAD, _LENGTH = struct.Struct("<BI"), struct.Struct("<I")
_CONFIG = ChunkConfig(compression_level=8)


class MalformedChunk(IsothermError):
    """The bytes are no chunk of this version."""


def row_of(tier: Tier) -> np.dtype[np.void]:
    """Return what a row of a tier is made of."""
    return POINT if tier is RAW else SLOT


def seal(rows: NDArray[np.void]) -> bytes:
    """Compress rows, shape (n,), of dtype POINT or SLOT.

    >>> rows = np.zeros(1000, dtype=POINT)
    >>> rows["time"] = np.arange(1000) * 1_000_000
    >>> len(rows.tobytes()), len(seal(rows)) < 400
    (16000, True)
    >>> bool((unseal(seal(rows), POINT) == rows).all())
    True
    """
    return _HEAD.pack(VERSION, len(rows)) + b"".join(_columns(rows))


def _columns(rows: NDArray[np.void]) -> Iterator[bytes]:
    for name in rows.dtype.names or ():
        column = rows[name].copy()  # in one piece and aligned
        packed = standalone.simple_compress(column, _CONFIG)
        if len(packed) >= column.nbytes:
            packed = column.tobytes()
        yield _LENGTH.pack(len(packed)) + packed


def count_of(data: bytes) -> int:
    """Return how many rows a sealed chunk has; its first five bytes will do.

    Raises:
        MalformedChunk: it is none.
    """
    try:
        version, count = _HEAD.unpack_from(data)
    except struct.error as error:
        raise MalformedChunk(f"{len(data)} bytes") from error
    if version != VERSION:
        raise MalformedChunk(f"version {version}, expected {VERSION}")
    return int(count)


def unseal(data: bytes, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Return the rows, shape (n,), of dtype POINT or SLOT.

    Raises:
        MalformedChunk: the bytes are no sealed chunk of these.
    """
    rows = np.empty(count_of(data), dtype=dtype)
    at = _HEAD.size
    for name in dtype.names or ():
        field = dtype[name]
        try:
            [length] = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            packed = data[at : at + length]
            plain = len(rows) * field.itemsize
            rows[name] = np.frombuffer(packed, field) if length == plain else standalone.simple_decompress(packed)
        except (struct.error, ValueError, RuntimeError) as error:
            raise MalformedChunk(f"column {name!r}: {error}") from error
        at += length
    return rows


def merge_slots(early: NDArray[np.void], late: NDArray[np.void]) -> NDArray[np.void]:
    """Merge two runs of slots of one chunk into one, ascending; of equal times of ``last`` the late one counts."""
    if not len(early) or not len(late):
        return late if len(late) else early
    both = np.concatenate([early, late])
    both = both[np.lexsort((both["last_at"], both["index"]))]  # stable: late ones after early ones
    first = np.flatnonzero(np.diff(both["index"].astype(np.int64), prepend=-1))
    merged: NDArray[np.void] = both[np.append(first, len(both))[1:] - 1]
    with np.errstate(over="ignore", invalid="ignore"):  # a sum of extreme values is infinite
        for name, ufunc in (("count", np.add), ("sum", np.add), ("min", np.minimum), ("max", np.maximum)):
            merged[name] = ufunc.reduceat(both[name], first)
    return merged


def combine(tier: Tier, sealed: bytes | None, open_: bytes | None) -> NDArray[np.void]:
    """Return the rows of a chunk from what is sealed of it and what has come since; slots ascend by index.

    Raises:
        MalformedChunk: one of them is none.
    """
    dtype = row_of(tier)
    if open_ and len(open_) % dtype.itemsize:
        raise MalformedChunk(f"{len(open_)} bytes of {tier.name}, expected rows of {dtype.itemsize}")
    rows = np.frombuffer(open_ or b"", dtype=dtype)
    if not sealed:
        return rows
    before = unseal(sealed, dtype)
    return np.concatenate([before, rows]) if tier is RAW else merge_slots(before, rows)
