"""Several nodes: a cluster with fake GPUs in this machine, and real hosts in network namespaces where root allows."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from analysis.trials import load_trials
from core.files import CampaignFolder, read_json_lines
from tests.commands import environment, run, start
from tests.conftest import CAMPAIGN, write_campaign

pytestmark = pytest.mark.slow

ONE_LONG_TRIAL = (
    CAMPAIGN.replace("trials: 5", "trials: 2") + "checkpoint_every_s: 0\nresources: {cpu: 1, gpu: 1}\nstorage: shared\n"
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and two nodes with a fake GPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1, num_gpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def wait_for_epochs(folder: CampaignFolder, epochs: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not all(len(read_json_lines(folder.trial(number).metrics)) >= epochs for number in (0, 1)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no epoch was reported"
        time.sleep(0.1)


def test_trials_of_a_lost_node_continue_elsewhere_from_their_checkpoint(
    cluster: Cluster, demo: Path, tmp_path: Path
) -> None:
    campaign = write_campaign(tmp_path, demo, ONE_LONG_TRIAL, epochs=300)
    folder = CampaignFolder(tmp_path / "c")
    process = start("search", campaign, "--output-dir", folder.root, "--address", cluster.address, cwd=tmp_path)
    wait_for_epochs(folder, 30, process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    trials = load_trials(folder)
    assert trials["state"].tolist() == ["complete", "complete"], trials["reason"].tolist()
    for number in (0, 1):
        rows = read_json_lines(folder.trial(number).metrics)
        assert [row["epoch"] for row in rows] == list(range(300))


def test_a_node_that_lacks_the_features_gets_a_copy(cluster: Cluster, demo: Path, tmp_path: Path) -> None:
    """The nodes share this machine's disk, so the cache is filled by hand and the original moved away."""
    campaign = write_campaign(tmp_path, demo, ONE_LONG_TRIAL, epochs=2)
    folder = CampaignFolder(tmp_path / "c")
    outcome = run("search", campaign, "--output-dir", folder.root, "--address", cluster.address, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "2 trials complete" in outcome.out


BRIDGE = "xmbridge"
HOSTS = {"xmhead": "10.201.77.1", "xmone": "10.201.77.2", "xmtwo": "10.201.77.3"}


def sudo_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def namespaces_are_permitted() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        sudo_ip("netns", "add", "xmprobe")
        sudo_ip("netns", "del", "xmprobe")
    except subprocess.CalledProcessError:
        return False
    return True


@pytest.fixture
def hosts() -> Iterator[None]:
    """Three hosts joined by a bridge."""
    if not namespaces_are_permitted():
        pytest.skip("network namespaces are not permitted here")
    try:
        sudo_ip("link", "add", BRIDGE, "type", "bridge")
        sudo_ip("link", "set", BRIDGE, "up")
        for name, address in HOSTS.items():
            sudo_ip("netns", "add", name)
            sudo_ip("link", "add", f"{name}0", "type", "veth", "peer", "name", "eth0", "netns", name)
            sudo_ip("link", "set", f"{name}0", "master", BRIDGE, "up")
            sudo_ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            sudo_ip("-n", name, "link", "set", "eth0", "up")
            sudo_ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in HOSTS:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)


def on_host(name: str, *command: object, cwd: Path, extra: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", name, *map(str, command)],
        cwd=cwd,
        env=environment(extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_host_that_is_cut_off_costs_no_trial(hosts: None, demo: Path, tmp_path: Path) -> None:
    """A real cluster of three hosts, started with `ray start` and its authentication token; one goes dark mid-run."""
    content = ONE_LONG_TRIAL.replace("gpu: 1", "gpu: 0")
    campaign = write_campaign(tmp_path, demo, content, epochs=400)
    folder = CampaignFolder(tmp_path / "c")
    ray = Path(sys.executable).parent / "ray"
    (tmp_path / "token").write_text("a-token-of-this-test-alone-0123456789abcdef")
    extra = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_health_check_timeout_ms": "2000",
    }
    head = HOSTS["xmhead"]
    options = ["--disable-usage-stats", "--block", "--object-store-memory", 100 * 2**20]
    daemons = [
        on_host(
            "xmhead",
            *(ray, "start", "--head", f"--node-ip-address={head}", "--port=6379", "--num-cpus=0"),
            *("--include-dashboard=false", f"--temp-dir=/tmp/xmray-{os.getpid()}", *options),
            cwd=tmp_path,
            extra=extra,
        )
    ]
    time.sleep(8)
    for name in ("xmone", "xmtwo"):
        join = [ray, "start", f"--address={head}:6379", f"--node-ip-address={HOSTS[name]}", "--num-cpus=1", *options]
        daemons.append(on_host(name, *join, cwd=tmp_path, extra=extra))
    time.sleep(8)
    assert [daemon.poll() for daemon in daemons] == [None] * 3
    search = [sys.executable, "-c", "from search.cli import main; main()", "search", campaign]
    driver = on_host(
        "xmhead",
        *(*search, "--output-dir", folder.root, "--address", f"{head}:6379"),
        cwd=tmp_path,
        extra=extra,
    )
    wait_for_epochs(folder, 20, driver)
    sudo_ip("link", "set", "xmtwo0", "down")
    out, _ = driver.communicate(timeout=100)
    assert driver.returncode == 0, out
    assert load_trials(folder)["state"].tolist() == ["complete", "complete"]
    for number in (0, 1):
        assert [row["epoch"] for row in read_json_lines(folder.trial(number).metrics)] == list(range(400))
