"""Ray itself: starting or joining a cluster, and counting how many trials fit on it at once."""

import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from core.errors import UserError

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables; ours are live
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they leak about 300 KB a trial
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a slow exit would fail the next trial of a reused actor
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours stops at the end of an epoch and tells the ledger
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",  # a worker that hangs is not waited for
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
ANSWER_WITHIN_S = 10
NODES_JOIN_WITHIN_S = 300
OBJECT_STORE_BYTES = 128 * 2**20
"""Features are memory-mapped from disk, so little ever travels through Ray's object store."""


@contextmanager
def connect(address: str | None, *, nodes: int = 1) -> Iterator[None]:
    """Join the cluster at `address`, or start Ray on this machine and stop it afterwards.

    Args:
        nodes: that must have joined the cluster, the head included.
    Raises:
        UserError: no cluster answers at the address, or the nodes do not come.
    """
    if address is not None:
        _require_answer(address)
    os.environ.update(QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the ledger tells why a trial failed, in one line
    runtime_env: dict[str, Any] = {"env_vars": QUIET}
    if address is not None:
        runtime_env["py_modules"] = [str(folder) for folder in _our_packages()]  # nodes hold dependencies only
    try:
        if address is None:
            ray.init(
                "local",  # not whatever cluster may have been started on this machine
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=OBJECT_STORE_BYTES,
                runtime_env=runtime_env,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level="error", runtime_env=runtime_env)
    except ConnectionError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no Ray cluster answers at {address} ({reason})", how="check --address") from None
    try:
        _wait_for_nodes(nodes)
        yield
    finally:
        ray.shutdown()


def _our_packages() -> list[Path]:
    root = Path(__file__).parents[1]
    return [root / name for name in ("core", "search", "analysis")]


def _require_answer(address: str) -> None:
    """Ray itself would try for minutes; `auto` is left to it, since it knows where to look."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"no Ray cluster answers at {address} ({reason})", how="check --address") from None


def _wait_for_nodes(number: int) -> None:
    """A cluster's nodes seldom come up all at once."""
    deadline = time.monotonic() + NODES_JOIN_WITHIN_S
    while (alive := sum(node["Alive"] for node in ray.nodes())) < number:
        if time.monotonic() > deadline:
            raise UserError(
                f"{alive} of {number} nodes joined within {NODES_JOIN_WITHIN_S} s", how="look at their logs"
            )
        time.sleep(1)


def count_slots(*, cpu: float, gpu: float) -> int:
    """How many trials of this size run at once on the nodes that are alive.

    Raises:
        UserError: not one fits.
    """
    slots = sum(slots_of(node["Resources"], cpu, gpu) for node in ray.nodes() if node["Alive"])
    if slots == 0:
        raise UserError(
            f"no node has {cpu:g} CPUs and {gpu:g} GPUs for a trial", how="change resources in the campaign"
        )
    return slots


def slots_of(node: dict[str, float], cpu: float, gpu: float) -> int:
    """How many trials of this size fit a node with these resources (CPU, GPU)."""
    by_cpu = node.get("CPU", 0) / cpu if cpu else math.inf
    # A fraction of a GPU cannot straddle two of them.
    by_gpu = _fractions_of(node.get("GPU", 0), gpu) if gpu else math.inf
    return int(min(by_cpu, by_gpu))


def _fractions_of(gpus: float, gpu: float) -> float:
    return gpus * math.floor(1 / gpu + 1e-9) if gpu <= 1 else gpus / gpu
