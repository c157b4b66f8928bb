"""Starting or joining a Ray cluster, and counting how many trials fit on it at once."""

import logging
import math
import os
import re
import socket
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from core.errors import UserError

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # no tables; we print our own progress
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they leak about 300 KB per trial
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a slow exit would fail the next trial of a reused actor
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # our handler stops at the end of an epoch and updates the ledger
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",  # do not wait for a hanging worker
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
SERVICES = ("start_api_server", "start_monitor", "start_log_monitor")
"""What starts the dashboard's server, the autoscaler and the reader of logs. Nothing here uses them."""
ANSWER_WITHIN_S = 10
ADDRESS = re.compile(r"(ray://)?(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\s:/?#@\[\]]+):(?P<port>[0-9]{1,5})")
HTTP2_SETTINGS = 4
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, HTTP2_SETTINGS, 0, 0, 0, 0, 0])
"""A gRPC server, such as a Ray head, answers with its own settings (RFC 9113, sections 3.4 and 6.5)."""
NODES_JOIN_WITHIN_S = 300
OBJECT_STORE_BYTES = 128 * 2**20
"""Features are memory-mapped from disk, so Ray's object store holds little."""


@contextmanager
def connect(address: str | None, *, nodes: int = 1, workers_ahead: bool = False) -> Iterator[None]:
    """Join the cluster at `address`, or start Ray on this machine and stop it afterwards.

    Args:
        nodes: minimum number of nodes to wait for, including the head.
        workers_ahead: on this machine, start a worker per CPU at once instead of when its first trial starts.
    Raises:
        UserError: no cluster answers at the address, or too few nodes join in time.
    """
    if address is not None:
        require_cluster(address)
    os.environ.update(QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the ledger reports why a trial failed, in one line
    if address is None:
        _start_here(workers_ahead=workers_ahead)
    else:
        _join(address)
    try:
        _wait_for_nodes(nodes)
        yield
    finally:
        ray.shutdown()


def _start_here(*, workers_ahead: bool) -> None:
    """Workers inherit the environment of this process: started ahead, they could not have one of their own."""
    # Without RAY_preload_python_modules: a worker that still imports is not idle, and Ray would start another one.
    os.environ.update({"RAY_prestart_worker_first_driver": f"{workers_ahead:d}"})
    with _without_services():
        ray.init(
            "local",  # do not join a cluster that happens to run on this machine
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=OBJECT_STORE_BYTES,
        )


@contextmanager
def _without_services() -> Iterator[None]:
    """Ray has no options for these, and waits more than a second for the first; a Ray without them starts as usual."""
    node = _ray_node()
    starts = {name: getattr(node, name) for name in SERVICES if hasattr(node, name)}
    for name in starts:
        setattr(node, name, lambda self, **options: None)
    try:
        yield
    finally:
        for name, start in starts.items():
            setattr(node, name, start)


def _ray_node() -> type | None:
    """Ray's own class of a node, which is not part of its interface; None in a Ray that has none."""
    try:
        from ray._private.node import Node
    except ImportError:
        return None
    return Node  # type: ignore[no-any-return]


def _join(address: str) -> None:
    modules = [str(folder) for folder in _our_packages()]  # nodes have only the dependencies
    runtime_env: dict[str, Any] = {"env_vars": QUIET, "py_modules": modules}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", runtime_env=runtime_env)
    except (ConnectionError, RuntimeError, ValueError) as error:  # no server, another Ray version, no token
        raise _no_answer(address, str(error)) from None


def _our_packages() -> list[Path]:
    root = Path(__file__).parents[2]
    return [root / name for name in ("core", "search", "analysis")]


def require_cluster(address: str) -> None:
    """Check that an address can be a Ray cluster; Ray itself would retry for minutes, or wait forever.

    `auto` is left to Ray.

    Raises:
        UserError: it is not an address, or the server there is not Ray.
    """
    if address == "auto":
        return
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        given = textwrap.shorten(address, 60, placeholder="…") or "an empty string"
        raise UserError(
            f"{given} is not the address of a Ray cluster",
            where="--address",
            how="give auto, host:port or ray://host:port",
        )
    try:
        greeted = _greets_as_grpc(match["host"].strip("[]"), int(match["port"]))
    except (OSError, UnicodeError) as error:
        raise _no_answer(address, getattr(error, "strerror", None) or str(error)) from None
    if not greeted and not os.environ.get("RAY_USE_TLS"):
        raise _no_answer(address, "the server there is not Ray")


def _greets_as_grpc(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=ANSWER_WITHIN_S) as connection:
        connection.sendall(HTTP2_GREETING)
        answer = connection.makefile("rb").read(9)
    return len(answer) == 9 and answer[3] == HTTP2_SETTINGS


def _no_answer(address: str, reason: str) -> UserError:
    summary = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return UserError(f"no Ray cluster answers at {address} ({summary})", how="check --address")


def _wait_for_nodes(number: int) -> None:
    """Nodes of a cluster rarely start at the same time."""
    deadline = time.monotonic() + NODES_JOIN_WITHIN_S
    while (alive := sum(node["Alive"] for node in ray.nodes())) < number:
        if time.monotonic() > deadline:
            raise UserError(f"{alive} of {number} nodes joined within {NODES_JOIN_WITHIN_S} s", how="check their logs")
        time.sleep(1)


def count_slots(*, cpu: float, gpu: float) -> int:
    """Number of trials of this size that fit on the live nodes at once.

    Raises:
        UserError: none fits.
    """
    slots = sum(slots_of(node["Resources"], cpu, gpu) for node in ray.nodes() if node["Alive"])
    if slots == 0:
        raise UserError(
            f"no node has {cpu:g} CPUs and {gpu:g} GPUs for a trial", how="change resources in the campaign"
        )
    return slots


def slots_of(node: dict[str, float], cpu: float, gpu: float) -> int:
    """Number of trials of this size that fit on a node with these resources (CPU, GPU)."""
    by_cpu = node.get("CPU", 0) / cpu if cpu else math.inf
    # A fractional trial cannot straddle two GPUs.
    by_gpu = _fractions_of(node.get("GPU", 0), gpu) if gpu else math.inf
    return int(min(by_cpu, by_gpu))


def _fractions_of(gpus: float, gpu: float) -> float:
    return gpus * math.floor(1 / gpu + 1e-9) if gpu <= 1 else gpus / gpu
