"""A client for Redis Cluster that fails as the client for one server does.

redis-py's has another idea of errors: some are no RedisError, a failed pipeline or subscription does not make it look for
the new primary, and a script is loaded onto every primary, so that one that is away keeps the others from theirs. What
is mended here is only that; where keys lie, redirections and connections are redis-py's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio.cluster import ClusterPipeline, ClusterPubSub, RedisCluster
from redis.exceptions import ClusterError, NoScriptError, RedisClusterException, RedisError, ResponseError

NO_CLUSTER = "Cluster mode is not enabled"
"""What redis-py says when a seed is a single server."""


class Cluster(RedisCluster):
    """Redis Cluster. Every failure is a RedisError, is raised at once, and the next call looks at the topology anew."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._scripts: dict[str, str] = {}

    async def initialize(self, *args: Any, **kwargs: Any) -> Cluster:
        """Learn the topology where it is not known."""
        with _failures(self):
            await super().initialize(*args, **kwargs)
        return self

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Send a command to the node that it concerns."""
        with _failures(self):
            return await super().execute_command(*args, **kwargs)

    async def script_load(self, script: str) -> str:  # type: ignore[override]
        """Return the script's digest; a node is given the script when it turns out not to have it."""
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._scripts[digest] = script
        return digest

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script on the node of its keys."""
        try:
            return await super().evalsha(sha, numkeys, *keys_and_args)
        except NoScriptError:  # a node that was restarted, promoted, or never asked
            if sha not in self._scripts:
                raise
            return await self.eval(self._scripts[sha], numkeys, *keys_and_args)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        """Return a pipeline; with ``transaction`` all its keys must be of one slot."""
        return _Pipeline(self, transaction)  # type: ignore[abstract]  # redis-py's types lack an attribute

    def pubsub(self, *args: Any, **kwargs: Any) -> ClusterPubSub:
        """Return a subscription by way of one node: the cluster passes every message to all of them."""
        return _PubSub(self, *args, **kwargs)

    async def aclose(self) -> None:
        """Close all connections, also when the topology was due to be looked at, where redis-py would leave them."""
        self._initialize = False
        await super().aclose()


class _Pipeline(ClusterPipeline):
    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        with _failures(self.cluster_client):
            return await super().execute(raise_on_error, allow_redirections)


class _PubSub(ClusterPubSub):
    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with _failures(self.cluster):
            await self.cluster.initialize()
            return await super().execute_command(*args, **kwargs)


@contextmanager
def _failures(cluster: RedisCluster) -> Iterator[None]:
    """Make every failure a RedisError, after which the topology is looked at anew."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError, LookupError, AttributeError) as error:
        # LookupError: no node is known for a slot, or none at all, while the topology is looked at. AttributeError: when one
        # command finds the cluster down redis-py closes all connections, also those that others are about to write to.
        if not isinstance(error, ResponseError) or isinstance(error, ClusterError):
            cluster._initialize = True  # what redis-py does after a command, not after a pipeline or a subscription
        if isinstance(error, RedisError):
            raise
        raise ClusterError(f"the cluster is not whole: {error}") from error
