"""Sharding."""

import pytest

from isotherm.topics import partition_of


@pytest.mark.parametrize(("device", "partition"), [("room-1", 7), ("sensor-001", 6), ("a", 4)])
def test_partitions_are_those_of_kafkas_default_partitioner(device: str, partition: int) -> None:
    from aiokafka.partitioner import DefaultPartitioner

    every = list(range(8))
    assert partition_of(device, 8) == DefaultPartitioner()(device.encode(), every, every)
    assert partition_of(device, 8) == partition
