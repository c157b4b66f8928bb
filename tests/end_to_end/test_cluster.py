"""Several nodes: a cluster with fake GPUs in this machine, and real hosts in network namespaces where root allows."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from analysis.trials import load_trials
from core.files import CampaignFolder, read_json_lines
from tests.commands import COMMAND, environment, run, start
from tests.conftest import CAMPAIGN, write_campaign

pytestmark = pytest.mark.slow

ONE_LONG_TRIAL = (
    CAMPAIGN.replace("trials: 5", "trials: 2") + "checkpoint_every_s: 0\nresources: {cpu: 1, gpu: 1}\nstorage: shared\n"
)


def wait_for_epochs(folder: CampaignFolder, epochs: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
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


class Hosts:
    """Three hosts joined by a bridge: network namespaces, with a home folder each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[str]] = []
        (folder / "token").write_text("a-token-of-this-test-alone-0123456789abcdef")

    def home(self, name: str) -> Path:
        return self._folder / f"home-{name}"

    def start(self, name: str, *command: object, hide: Path | None = None) -> subprocess.Popen[str]:
        """Start a command on a host, which does not see the folder `hide`."""
        words = list(map(str, command))
        if hide:
            words = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hide), *words]
        self.home(name).mkdir(exist_ok=True)
        log = (self._folder / f"{name}.log").open("a")
        extra = {
            "HOME": str(self.home(name)),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._folder / "token"),
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
            "RAY_health_check_timeout_ms": "2000",
        }
        with log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, *words],
                cwd=self._folder,
                env=environment(extra),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def wait_for_nodes(self, number: int) -> None:
        """Until so many nodes have joined."""
        deadline = time.monotonic() + 120
        code = f"import ray; ray.init(address='{HOSTS['xmhead']}:6379'); print('joined', len(ray.nodes()))"
        while f"joined {number}" not in self.log("xmhead"):
            assert time.monotonic() < deadline, self.log("xmhead")
            self.start("xmhead", sys.executable, "-c", code).wait(timeout=60)

    def stop(self) -> None:
        for name in HOSTS:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for process in self._started:
            process.wait(timeout=30)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if not namespaces_are_permitted():
        pytest.skip("network namespaces are not permitted here")
    made = Hosts(tmp_path)
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
        yield made
    finally:
        made.stop()
        for name in HOSTS:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)


def test_a_host_that_is_cut_off_costs_no_trial(hosts: Hosts, demo: Path, tmp_path: Path) -> None:
    """A real cluster of three hosts, started with `ray start` and its authentication token. The two that train do not
    see the features and get copies; one goes dark mid-run.
    """
    content = ONE_LONG_TRIAL.replace("gpu: 1", "gpu: 0")
    campaign = write_campaign(tmp_path, demo, content, epochs=400)
    extracted = run("features", "extract", "--config", tmp_path / "train.yaml", cwd=tmp_path)
    assert extracted.code == 0, extracted.err
    folder = CampaignFolder(tmp_path / "c")
    ray = Path(sys.executable).parent / "ray"
    head, port = HOSTS["xmhead"], 6379
    options = ["--disable-usage-stats", "--block", "--object-store-memory", 100 * 2**20]
    temporary = ["--include-dashboard=false", f"--temp-dir=/tmp/xmray-{os.getpid()}"]
    first = ["--head", f"--node-ip-address={head}", f"--port={port}", "--num-cpus=0", *temporary]
    hosts.start("xmhead", ray, "start", *first, *options)
    hosts.wait_for_nodes(1)
    for count, name in enumerate(("xmone", "xmtwo"), start=2):  # one by one: they share this machine's /tmp
        join = [f"--address={head}:{port}", f"--node-ip-address={HOSTS[name]}", "--num-cpus=1"]
        hosts.start(name, ray, "start", *join, *options, hide=demo / "features")
        hosts.wait_for_nodes(count)
    address = ["--output-dir", folder.root, "--address", f"{head}:{port}"]
    driver = hosts.start("xmhead", *COMMAND, "search", campaign, *address)
    wait_for_epochs(folder, 20, driver)
    sudo_ip("link", "set", "xmtwo0", "down")
    assert driver.wait(timeout=240) == 0, hosts.log("xmhead")
    assert load_trials(folder)["state"].tolist() == ["complete", "complete"]
    for number in (0, 1):
        assert [row["epoch"] for row in read_json_lines(folder.trial(number).metrics)] == list(range(400))
    for name in ("xmone", "xmtwo"):
        assert list((hosts.home(name) / ".cache" / "crossmodal-search" / "features").glob("*/manifest.json"))
