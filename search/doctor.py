"""What works on this machine: each check with what it found and, if need be, what to do about it.

Nothing is started but Ray on request, nothing is downloaded, and what is written to try a folder is removed.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from core.backbone.checkpoint_files import backbone_files
from core.campaign.campaign import Campaign
from core.config import TrainConfig
from core.errors import UserError
from core.features.vectors import read_vector_set
from core.files.folders import CampaignFolder
from core.tracking import Mode, has_credentials, resolve_mode
from search.campaign import campaign_readings
from search.reaching import ANSWERS_WITHIN_S, host_of, is_reachable, within

Verdict = Literal["ok", "note", "problem"]
PACKAGES = ("torch", "transformers", "ray", "optuna", "wandb", "pandas", "pyarrow", "pydantic")
EXTRAS = {
    "samplers": ("scipy", "cmaes", "greenlet"),
    "dashboard": ("optuna_dashboard",),
    "serve": ("fastapi", "uvicorn"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "faiss": ("faiss",),
    "mlflow": ("mlflow",),
}
"""Extra → modules that it brings."""
LITTLE_DISK, LITTLE_MEMORY, LITTLE_SHARED = 5e9, 4e9, 256 * 2**20
"""Bytes below which a note is given: a feature store, the backbone in float32, Ray's object store."""


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the report."""

    check: str
    verdict: Verdict
    """A note is a fact that may matter; a problem will stop something."""
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the machine is to be used for; without a campaign or a configuration, anything."""

    config: TrainConfig | None = None
    campaign: Campaign | None = None
    folder: CampaignFolder | None = None
    """Of the campaign; need not exist."""
    address: str | None = None
    start_ray: bool = False


def diagnose(subject: Subject) -> Iterator[Check]:
    """All checks that concern a subject, one after the other."""
    yield check_python()
    yield check_packages()
    yield from check_extras()
    yield check_gpu(subject)
    yield check_memory()
    yield check_ray(subject)
    yield check_wandb("auto" if subject.campaign is None else subject.campaign.wandb.mode)
    yield check_backbone(subject.config)
    if subject.config is not None:
        yield check_data(subject.config)
        if subject.config.features.vectors is not None:
            yield check_vectors(subject.config, subject.campaign)
        yield check_folder("features", subject.config.features.store)
    if subject.campaign is None:
        yield check_folder("output", Path("output"))
        return
    assert subject.folder is not None, "a campaign has a folder"
    yield check_folder("campaign", subject.folder.root)
    if subject.campaign.storage is not None:
        yield check_storage(subject.campaign.storage)
    yield check_study(subject.campaign, subject.folder)


def check_python() -> Check:
    """The interpreter; an old one could not have installed this package."""
    return Check("python", "ok", f"{sys.version.split()[0]}, {sys.executable}")


def check_packages() -> Check:
    """The largest dependencies and their versions."""
    versions = {name: _version(name) for name in PACKAGES}
    if missing := [name for name, version in versions.items() if version is None]:
        return Check("packages", "problem", f"{', '.join(missing)} not installed", f"pip install {' '.join(missing)}")
    return Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_extras() -> Iterator[Check]:
    """The optional dependencies, each under its name in `pip install 'crossmodal-search[…]'`."""
    for name, modules in EXTRAS.items():
        missing = [module for module in modules if util.find_spec(module) is None]
        if missing:
            advice = f"pip install 'crossmodal-search[{name}]' if you want it"
            yield Check(f"extra {name}", "note", f"{', '.join(missing)} not installed", advice)
        else:
            yield Check(f"extra {name}", "ok", "installed")


def check_gpu(subject: Subject) -> Check:
    """The GPUs that torch sees."""
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        found = ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards)
        return Check("gpu", "ok", f"{found}, CUDA {torch.version.cuda}")
    if shutil.which("nvidia-smi"):
        advice = "install a build of torch for your driver: pytorch.org/get-started"
        return Check("gpu", "problem", f"torch {torch.__version__} sees none, but there is an NVIDIA driver", advice)
    wanted = subject.campaign is not None and subject.campaign.resources.gpu > 0 and subject.address is None
    if wanted or (subject.config is not None and subject.config.device == "cuda"):
        advice = "set device: auto and resources.gpu: 0, or name a cluster with --address"
        return Check("gpu", "problem", "torch sees none, but the configuration asks for one", advice)
    return Check("gpu", "note", "none; everything runs on the CPU", "extracting features is slow without one")


def check_memory() -> Check:
    """Memory that is free, and shared memory for Ray."""
    free, shared = _free_memory(), shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    found = f"{free / 2**30:.1f} GiB available, {shared / 2**30:.1f} GiB shared, {os.cpu_count()} processors"
    if free < LITTLE_MEMORY:
        advice = "the real backbone takes 4 GB in float32; features.dtype: bfloat16 halves it"
        return Check("memory", "note", found, advice)
    if shared < LITTLE_SHARED:
        return Check("memory", "note", found, "Ray's object store falls back to /tmp; a container needs more for it")
    return Check("memory", "ok", found)


def _free_memory() -> float:
    """Bytes that are available, within the limit of a container."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * float(facts["MemAvailable"].split()[0])
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        return min(free, float(most) - float(used.read_text()))
    return free


def check_ray(subject: Subject) -> Check:
    """The cluster at an address, or Ray on this machine if it is to be started."""
    from search.cluster.connection import require_cluster

    if subject.address is None and not subject.start_ray:
        return Check("ray", "ok", "not started", "--ray starts and stops it, which takes some seconds")
    try:
        if subject.address is not None:
            require_cluster(subject.address)
        found = _join(subject)
    except (UserError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        advice = "check that ray status works there" if subject.address else "see /tmp/ray/session_latest/logs"
        return Check("ray", "problem", reason, advice)
    return Check("ray", "ok", found)


def _join(subject: Subject) -> str:
    """Join or start a cluster for a moment, and say what it holds."""
    import ray

    from search.cluster.connection import connect, count_slots

    with connect(subject.address):
        nodes = [node for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (sum(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
        found = f"nodes: {len(nodes)}, {cpus:g} CPUs, {gpus:g} GPUs"
        if subject.campaign is not None:
            resources = subject.campaign.resources
            found += f"; {count_slots(cpu=resources.cpu, gpu=resources.gpu)} trials at once"
    return found


def check_wandb(mode: Mode) -> Check:
    """Whether runs would be written online, and whether the server can be reached."""
    resolved, known = resolve_mode(mode), has_credentials()
    key = "credentials found" if known else "no API key in WANDB_API_KEY, netrc or W&B's settings"
    if resolved == "disabled":
        return Check("wandb", "note", "disabled", "set wandb.mode and WANDB_MODE otherwise to have runs")
    if resolved == "offline":
        advice = "wandb sync uploads the runs later" if known else "wandb login, or set WANDB_API_KEY, to be online"
        return Check("wandb", "note", f"offline ({key}); runs are written to the campaign's folder", advice)
    server = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    if not known:
        return Check("wandb", "problem", f"online, but {key}", "wandb login, or set WANDB_API_KEY")
    if not is_reachable(server):
        found = f"online ({key}), but {host_of(server)} does not answer"
        return Check("wandb", "note", found, "runs go offline by themselves; WANDB_MODE=offline saves the wait")
    return Check("wandb", "ok", f"online ({key}), {host_of(server)} answers")


def check_backbone(config: TrainConfig | None) -> Check:
    """Whether the files of the backbone are here; without a configuration, those of the default one."""
    name = (config or TrainConfig()).features.backbone
    if name is None:
        return Check("backbone", "ok", "none is needed, since all readings are vectors of other encoders")
    try:
        folder = Path(name) if name.startswith("/") else _cached(name)
        if folder is not None:
            size = sum(path.stat().st_size for path in backbone_files(folder).values())
            shown = folder if str(folder) == name else f"{name} in {folder}"
            return Check("backbone", "ok", f"{shown}, {size / 1e9:,.3f} GB")
    except (UserError, OSError) as error:
        return Check("backbone", "problem", str(error), "check features.backbone, or download it again")
    return _missing_from_cache(name, is_needed=config is not None)


def _cached(name: str) -> Path | None:
    """The snapshot of a hub id in the cache; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _missing_from_cache(name: str, *, is_needed: bool) -> Check:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(existing_parent(cache)).free
    found = f"{name} is not in {cache} ({free / 1e9:,.0f} GB free)"
    copying = "download it elsewhere (hf download), copy the folder here and name it as features.backbone"
    if constants.HF_HUB_OFFLINE:
        return Check("backbone", "problem" if is_needed else "note", f"{found}, and HF_HUB_OFFLINE is set", copying)
    if not is_reachable(constants.ENDPOINT):
        found = f"{found}, and {host_of(constants.ENDPOINT)} does not answer"
        return Check("backbone", "problem" if is_needed else "note", found, copying)
    return Check("backbone", "note", found, "it is downloaded when it is first needed")


def check_data(config: TrainConfig) -> Check:
    """Whether the named files are there; `crossmodal data check` reads them."""
    data = config.data
    named = [data.train_annotations, *([data.test_annotations] if data.test_annotations else [])]
    missing = [path for path in named if not path.is_file()]
    missing += [] if data.image_root is None or data.image_root.is_dir() else [data.image_root]
    if missing:
        gone = " and ".join(map(str, missing))
        return Check("data", "problem", f"there is no {gone}", "check data in the configuration")
    return Check(
        "data",
        "ok",
        f"{data.train_annotations}, {data.image_root or 'no pictures'}",
        "" if data.image_root is None else "crossmodal data check reads them",
    )


def check_vectors(config: TrainConfig, campaign: Campaign | None) -> Check:
    """Whether the set of vectors is there and holds the readings of the configuration, or of all trials."""
    assert config.features.vectors is not None, "there is a set to check"
    try:
        readings = config.readings.all if campaign is None else campaign_readings(campaign)
        read_vector_set(config.features.vectors, config.data.image_root).require(readings)
    except UserError as error:
        return Check("vectors", "problem", str(error))
    return Check("vectors", "ok", str(config.features.vectors))


def existing_parent(path: Path) -> Path:
    """A path itself, or the nearest one above it that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def check_folder(name: str, folder: Path) -> Check:
    """Whether a folder can be made or written, and how much room there is."""
    try:
        with _probe(folder):
            free = shutil.disk_usage(existing_parent(folder)).free
    except OSError as error:
        return Check(name, "problem", f"{folder} cannot be written ({error.strerror})", "name another folder")
    found = f"{folder} can be written, {free / 1e9:,.0f} GB free"
    if free < LITTLE_DISK:
        return Check(name, "note", found, "features of a large data set take more; name a folder on a larger disk")
    return Check(name, "ok", found)


@contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    """A temporary folder inside a folder, or where that would be made."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=existing_parent(folder)) as place:
        yield Path(place)


def check_storage(storage: str) -> Check:
    """Whether checkpoints of workers can be written."""
    from search.session.storage import Storage

    if "://" not in storage:
        return check_folder("storage", Path(storage))
    try:
        within(5 * ANSWERS_WITHIN_S, Storage(storage).require_writable)
    except (UserError, TimeoutError) as error:
        return Check("storage", "problem", str(error), "check the address and the credentials of storage")
    return Check("storage", "ok", f"{storage.partition('?')[0]} can be written")


def check_study(campaign: Campaign, folder: CampaignFolder) -> Check:
    """Whether the study's database answers, or its journal can be locked on this file system."""
    if campaign.study.url_variable is not None:
        return _check_database(campaign.study.url_variable)
    try:
        with _probe(folder.root) as place:
            _require_locks(place)
    except OSError as error:
        advice = "put the campaign on a local disk, or the study into PostgreSQL (study.url_variable)"
        return Check("study", "problem", f"a journal cannot be locked in {folder.root} ({error})", advice)
    return Check("study", "ok", f"a journal can be locked in {folder.root}")


def _require_locks(place: Path) -> None:
    """Take the driver's lock and the journal's, as a campaign does; raises OSError if the file system has none."""
    from filelock import FileLock, Timeout
    from optuna.storages.journal import JournalFileSymlinkLock

    with FileLock(place / "driver.lock", thread_local=False):
        try:
            FileLock(place / "driver.lock", thread_local=False).acquire(blocking=False)
        except Timeout:
            pass
        else:
            raise OSError("a file can be locked twice")
    (place / "study.journal").touch()
    lock = JournalFileSymlinkLock(str(place / "study.journal"))
    within(ANSWERS_WITHIN_S, lock.acquire)
    lock.release()


def _check_database(variable: str) -> Check:
    """Connect to a database without making its tables; its URL is never shown."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    url = os.environ.get(variable)
    if not url:
        return Check("study", "problem", f"the environment variable {variable} is not set", "set it to a database URL")

    def connect() -> str:
        engine = create_engine(url)
        with engine.connect():
            return engine.dialect.name

    try:
        kind = within(3 * ANSWERS_WITHIN_S, connect)
    except (SQLAlchemyError, ImportError, ValueError, TimeoutError) as error:
        reason = type(error).__name__
        advice = "check the URL, and that the database takes connections from here"
        return Check("study", "problem", f"the database behind {variable} cannot be used ({reason})", advice)
    return Check("study", "ok", f"{kind} behind {variable} answers")
