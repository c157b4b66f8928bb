"""Extraction on a cluster: Ray tasks on the GPU workers encode shards, and the driver writes them to disk.

A task that dies with its node or process is retried elsewhere; after a crash, the driver keeps its complete shards.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError

from core.config import TrainConfig
from core.errors import UserError
from core.features.extraction import EncodeShards, Shard, encode_shard
from search.cluster.connection import connect, count_slots

if TYPE_CHECKING:
    from core.backbone.internvl import FrozenBackbone

TASK_RETRIES = 3
"""Retries of a shard whose node or process died."""


def encode_on_cluster(config: TrainConfig, address: str, *, nodes: int = 1) -> EncodeShards:
    """A function that encodes shards on the cluster at `address`, with one GPU per task if the cluster has any.

    Every node must see the images, and a backbone that is a folder, under the same path.
    """

    def encode(shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        with connect(address, nodes=nodes):
            gpus = 1 if config.device != "cpu" and ray.cluster_resources().get("GPU") else 0
            slots = count_slots(cpu=1, gpu=gpus)
            # By default Ray ends a GPU worker after each task, and the next one loads the backbone again.
            options = {"num_cpus": 1, "num_gpus": gpus, "max_calls": 0, "max_retries": TASK_RETRIES}
            task = ray.remote(**options)(_encode)
            yield from _in_flight(task, config, shards, limit=2 * slots)

    return encode


def _in_flight(task: Any, config: TrainConfig, shards: Iterable[Shard], limit: int) -> Iterator[tuple[Shard, bytes]]:
    """Results in order of completion, with few tasks at a time so that results never fill Ray's object store."""
    waiting = iter(shards)
    shard_of = {task.remote(config, shard): shard for shard in islice(waiting, limit)}
    while shard_of:
        (done, *_), _ = ray.wait(list(shard_of))
        shard = shard_of.pop(done)
        yield shard, _content(done)
        for following in islice(waiting, 1):
            shard_of[task.remote(config, following)] = following


def _content(reference: Any) -> bytes:
    try:
        content: bytes = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"a worker could not encode a shard ({reason})", how="fix it and run the same command again"
        ) from None
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"a shard was lost {TASK_RETRIES + 1} times ({reason})", how="check the nodes' logs") from None
    return content


def _encode(config: TrainConfig, shard: Shard) -> bytes:
    """Runs on a node."""
    return encode_shard(_backbone(config), shard)


@lru_cache(maxsize=1)
def _backbone(config: TrainConfig) -> "FrozenBackbone":
    """Loaded once per worker process; the driver needs no transformers."""
    from core.backbone.internvl import load_backbone

    return load_backbone(config.features, config.device)
