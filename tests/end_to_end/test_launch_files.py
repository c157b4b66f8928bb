"""The launch files of configs/cluster, run or checked as far as possible without those systems."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from ray.autoscaler._private.util import prepare_config, validate_config

from analysis.trials import load_trials
from core.files.folders import CampaignFolder
from tests.commands import LAST_RESORT_S, environment, free_port, run, wait_until
from tests.conftest import ONE_AT_A_TIME, common_folder

pytestmark = pytest.mark.slow
LAUNCH = Path("configs/cluster").resolve()
BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1"


@pytest.fixture
def _no_other_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Heads that `ray start` starts listen on fixed ports, too."""
    with FileLock(common_folder(tmp_path_factory) / "ray start.lock"):
        yield


@pytest.fixture
def prepared(endless_campaign: Path, tmp_path: Path, _no_other_head: None) -> Path:
    """An endless campaign whose features are extracted, for clusters of two CPUs."""
    endless_campaign.write_text(endless_campaign.read_text().replace(ONE_AT_A_TIME, "resources: {cpu: 2}\n"))
    assert run("features", "extract", "--config", tmp_path / "train.yaml", cwd=tmp_path).code == 0
    return endless_campaign


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    checked = subprocess.run([BIN / "shellcheck", script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert os.access(script, os.X_OK)


def test_the_image_copies_what_an_installation_of_the_dependencies_needs(tmp_path: Path) -> None:
    """Without Docker: the files it copies and the folders it creates must yield the project's metadata."""
    instructions = (LAUNCH / "Dockerfile").read_text()
    (copied,) = [line.split()[1:-1] for line in instructions.splitlines() if line.startswith("COPY")]
    for name in copied:
        shutil.copy(LAUNCH.parent.parent / name, tmp_path)
    for package in ("core", "search", "analysis"):
        assert f"/tmp/project/{package} " in instructions
        (tmp_path / package).mkdir()
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    built = subprocess.run([*pip, tmp_path, tmp_path], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert list(tmp_path.glob("crossmodal_search-*.whl"))


def test_ray_itself_accepts_the_cluster_file() -> None:
    content = yaml.safe_load((LAUNCH / "ray_up.yaml").read_text())
    validate_config(prepare_config(content))  # as `ray up` does: defaults, then its JSON schema
    assert content["max_workers"] == len(content["provider"]["worker_ips"])
    for commands in (content["head_start_ray_commands"], content["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
        assert "--head" in commands[-1] or "--address=$RAY_HEAD_IP:6379" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in content["head_start_ray_commands"][-1]


RAYJOB_FIELDS = {
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"),
        *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata"),
        *("rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig"),
        *("submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
    },
    "rayClusterSpec": {
        *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"),
        *("headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs"),
    },
    "headGroupSpec": {
        *("enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"),
    },
    "workerGroupSpecs": {
        *("groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams"),
        *("replicas", "resources", "scaleStrategy", "suspend", "template"),
    },
}
"""From the KubeRay API reference (ray.io/v1)."""


def test_the_rayjob_has_only_documented_fields_and_keeps_authentication() -> None:
    job = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    workers = cluster["workerGroupSpecs"]
    objects: list[tuple[str, dict[str, Any]]] = [("RayJob", job), ("spec", job["spec"]), ("rayClusterSpec", cluster)]
    objects += [("headGroupSpec", cluster["headGroupSpec"]), *(("workerGroupSpecs", group) for group in workers)]
    for name, content in objects:
        assert content.keys() <= RAYJOB_FIELDS[name], name
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert cluster["authOptions"] == {"mode": "token"}
    nodes = 1 + sum(group["replicas"] for group in workers)
    assert f"--nodes {nodes}" in job["spec"]["entrypoint"]
    for group in (cluster["headGroupSpec"], *workers):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.fixture
def submit_to(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of `ray job submit` to a cluster of one node, started with its dashboard and a token."""
    (tmp_path / "token").write_text("a-token-of-this-test-alone-0123456789abcdef")
    port, dashboard = free_port(), free_port()
    temporary = Path(f"/tmp/xmjob-{os.getpid()}")  # short, since it contains sockets
    extra = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_API_SERVER_ADDRESS": f"http://{ADDRESS}:{dashboard}",
        "RAY_TMPDIR": str(temporary),
    }
    head = ["--head", f"--node-ip-address={ADDRESS}", f"--port={port}", f"--dashboard-port={dashboard}", "--block"]
    head += [f"--dashboard-agent-listen-port={free_port()}"]  # jobs go there; another Ray may use the default port
    options = ["--num-cpus=2", f"--temp-dir={temporary}", "--disable-usage-stats", "--include-dashboard=true"]
    with (tmp_path / "ray.log").open("w") as log:
        server = subprocess.Popen(
            [BIN / "ray", "start", *head, *options], env=environment(extra), stdout=log, stderr=log, cwd=tmp_path
        )
    yield extra
    server.terminate()
    server.wait(timeout=LAST_RESORT_S)
    shutil.rmtree(temporary, ignore_errors=True)


def test_a_campaign_is_submitted_as_a_job(prepared: Path, submit_to: dict[str, str], tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "c")
    command: list[str | Path] = [LAUNCH / "job_submit.sh", prepared, "--output-dir", folder.root, "--trials", "2"]

    def submit(extra: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environ = environment(extra)
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LAST_RESORT_S)

    attempts = [submit(submit_to)]

    def taken() -> bool:
        """Whether the agent accepted the job; it accepts none until it is up."""
        if attempts[-1].returncode and not folder.root.exists():
            attempts.append(submit(submit_to))
        return attempts[-1].returncode == 0 or folder.root.exists()

    wait_until(taken)
    done = attempts[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials complete" in done.stdout
    assert load_trials(folder)["state"].tolist() == ["complete", "complete"]
    without = submit_to | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}
    (tmp_path / "other").write_text("another-token-0123456789abcdef0123456789")
    assert submit(without).returncode != 0


SCONTROL = """#!/bin/sh
echo "$@" >> "{log}"
[ "$1" = show ] && echo one || true
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch job of one node; srun and scontrol are stand-ins that run or log their arguments."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stubs = {"scontrol": SCONTROL.format(log=tmp_path / "scontrol.log"), "srun": SRUN}
    stubs["hostname"] = f"#!/bin/sh\necho {ADDRESS}\n"
    for name, content in stubs.items():
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    (tmp_path / ".venv").symlink_to(BIN.parent)
    job = {"SLURM_JOB_NODELIST": "one", "SLURM_JOB_ID": "42", "SLURM_CPUS_PER_TASK": "2"}
    return job | {"RAY_PORT": str(free_port()), "PATH": f"{programs}:{os.environ['PATH']}"}


def test_a_slurm_job_that_runs_out_of_time_queues_again_and_continues(
    prepared: Path, slurm: dict[str, str], tmp_path: Path
) -> None:
    folder = CampaignFolder(tmp_path / "c")
    command: list[str | Path] = ["bash", LAUNCH / "slurm.sh", prepared, "--output-dir", folder.root]
    with (tmp_path / "slurm.log").open("w") as log:
        job = subprocess.Popen(command, env=environment(slurm), cwd=tmp_path, stdout=log, stderr=log, text=True)
    wait_until(folder.trial(1).best_checkpoint.exists, during=job)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=LAST_RESORT_S) == 143, (tmp_path / "slurm.log").read_text()
    assert "requeue 42" in (tmp_path / "scontrol.log").read_text()
    assert "Run the same command to continue" in (tmp_path / "slurm.log").read_text()
    assert not list(tmp_path.glob(".ray_token*"))
    limit = int((load_trials(folder)["state"] == "complete").sum()) + 2
    again = subprocess.run([*command, "--trials", str(limit)], env=environment(slurm), cwd=tmp_path,
                           capture_output=True, text=True, timeout=LAST_RESORT_S)  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert (load_trials(folder)["state"] == "complete").sum() == limit


def test_the_manifest_names_the_ray_that_is_pinned() -> None:
    pinned = next(line for line in Path("constraints.txt").read_text().splitlines() if line.startswith("ray=="))
    job = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    assert json.dumps(job["spec"]["rayClusterSpec"]["rayVersion"]) == f'"{pinned.removeprefix("ray==")}"'
