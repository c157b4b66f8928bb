"""Checks of every node before the first trial; if one fails, the campaign does not start. Errors name the node.

A node that cannot see the feature store gets its own copy once, under a lock; trials look there second.
"""

import platform
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.campaign.campaign import Campaign
from core.errors import UserError
from core.readings import Reading
from search.session.storage import Storage

COMPARED_PACKAGES = ("torch", "ray", "numpy", "pyarrow", "pydantic")
PIECE_BYTES = 32 * 2**20
NODE_ANSWERS_WITHIN_S = 300


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node reports about itself."""

    host: str
    versions: dict[str, str]
    missing_stores: list[str]
    storage_problem: str | None
    gpu_problem: str | None


def preflight_here(campaign: Campaign, storage: Storage) -> None:
    """The preflight on this machine alone: starts no worker process, since each takes seconds.

    Raises:
        UserError: storage or GPU cannot be used.
    """
    storage.require_writable()
    problem = _gpu_problem() if _asks_gpu(campaign) else None
    if problem:
        raise UserError(problem, where="this machine", how="fix it, or set resources.gpu to 0")


def preflight(campaign: Campaign, stores: Mapping[str, Sequence[Reading]], storage: Storage) -> None:
    """Check every node of a cluster that trials may run on, and copy features to those that lack them.

    Args:
        stores: fingerprint of each feature store, and the readings of it that trials may use.
    Raises:
        UserError: names the node and what is wrong with it.
    """
    storage.require_writable()
    token = uuid.uuid4().hex
    root = campaign.base.features.store
    resources = campaign.resources
    nodes = [
        node for node in ray.nodes() if node["Alive"] and _can_run(node["Resources"], resources.cpu, resources.gpu)
    ]
    arguments = (str(root), stores, storage.root, _asks_gpu(campaign))
    answers = {
        node["NodeID"]: _on(inspect_node, node["NodeID"], cpu=0, gpu=resources.gpu).remote(
            *arguments, f"{token}-{node['NodeID']}"
        )
        for node in nodes
    }
    for node in nodes:
        report = _answer(answers[node["NodeID"]], node)
        _raise_problems(report, _written_by(storage, f"{token}-{node['NodeID']}"))
        for fingerprint in report.missing_stores:
            copy_store(root / fingerprint, node["NodeID"])


def _asks_gpu(campaign: Campaign) -> bool:
    return campaign.resources.gpu > 0 and campaign.base.device != "cpu"


def _can_run(held: dict[str, float], cpu: float, gpu: float) -> bool:
    return held.get("CPU", 0) >= cpu and held.get("GPU", 0) >= gpu


def _on(function: Callable[..., Any], node: str, *, cpu: float, gpu: float) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(function).options(num_cpus=cpu, num_gpus=gpu, scheduling_strategy=strategy, max_retries=0)


def _answer(reference: Any, node: dict[str, Any]) -> NodeReport:
    try:
        report: NodeReport = ray.get(reference, timeout=NODE_ANSWERS_WITHIN_S)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"cannot run our code ({reason})",
            where=f"node {node['NodeManagerHostname']}",
            how="install the same dependencies there",
        ) from None
    return report


def inspect_node(
    root: str, stores: Mapping[str, Sequence[Reading]], storage: str, asks_gpu: bool, token: str
) -> NodeReport:
    """Runs on a node: versions, missing stores, whether storage and GPU can be used."""
    from search.cluster.node_cache import find_store  # imports torch, of no use on this machine alone

    return NodeReport(
        host=socket.gethostname(),
        versions=versions(),
        missing_stores=[name for name, readings in stores.items() if find_store(Path(root), name, readings) is None],
        storage_problem=_write_token(storage, token),
        gpu_problem=_gpu_problem() if asks_gpu else None,
    )


def versions() -> dict[str, str]:
    """Versions that must agree between nodes, so that results do not depend on where a trial ran."""
    from core.training.receipts import module_version

    packages = {name: module_version(name) for name in COMPARED_PACKAGES}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **packages}


def _write_token(storage: str, token: str) -> str | None:
    try:
        filesystem, place = fs.FileSystem.from_uri(storage)
        with filesystem.open_output_stream(f"{place}/.preflight-{token}") as stream:
            stream.write(token.encode())
    except (OSError, ValueError) as error:
        return str(error).splitlines()[0]
    return None


def _gpu_problem() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "torch sees no GPU"


def _written_by(storage: Storage, token: str) -> bool:
    """Whether the driver can read what a node wrote to the storage; removes it."""
    filesystem, place = fs.FileSystem.from_uri(storage.root)
    path = f"{place}/.preflight-{token}"
    try:
        with filesystem.open_input_stream(path) as stream:
            same = bool(stream.read() == token.encode())
        filesystem.delete_file(path)
    except OSError:
        return False
    return same


def _raise_problems(report: NodeReport, was_read_back: bool) -> None:
    here = versions()
    problems = [
        f"{name} is {there} there but {here[name]} here"
        for name, there in report.versions.items()
        if here[name] != there
    ]
    if report.storage_problem:
        problems.append(f"storage cannot be written ({report.storage_problem})")
    elif not was_read_back:
        problems.append("the driver cannot read what it writes to storage; set storage to a shared folder or s3://…")
    if report.gpu_problem:
        problems.append(report.gpu_problem)
    if problems:
        raise UserError("; ".join(problems), where=f"node {report.host}", how="fix the node or leave it out")


def copy_store(folder: Path, node: str) -> None:
    """Copy one feature store to a node's cache, piece by piece; manifests last, so that half a copy is none."""
    from search.cluster.node_cache import write_piece

    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == "manifest.json"
    )
    write = _on(write_piece, node, cpu=0, gpu=0)
    for path in files:
        name = str(path.relative_to(folder.parent))
        for position, piece in _pieces(path):
            ray.get(write.remote(name, position, piece), timeout=NODE_ANSWERS_WITHIN_S)


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            yield stream.tell() - len(piece), piece
