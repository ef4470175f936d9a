"""The series store on each server that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.contracts.store import PARTITION, StoreContract
from tests.support.redis_cluster import RedisCluster
from tests.support.valkey import Valkey


class TestEmbeddedValkey(StoreContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
        with Valkey(tmp_path_factory.mktemp("valkey")) as server:
            yield server


class TestRedis(StoreContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[Valkey]:
        with Valkey(tmp_path_factory.mktemp("redis"), binary=tool("redis-server")) as server:
            yield server


class TestRedisCluster(StoreContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[RedisCluster]:
        with RedisCluster(tmp_path_factory.mktemp("cluster"), tool("redis-server"), PARTITION) as server:
            yield server
