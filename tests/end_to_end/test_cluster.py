"""Several nodes: a cluster with fake GPUs in this machine, and real hosts in network namespaces if run as root."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from analysis.trials import load_trials
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from tests.commands import LAST_RESORT_S, command_of, environment, finish, hold, run, start, wait_until, wait_until_held
from tests.conftest import CAMPAIGN, write_campaign
from tests.end_to_end.conftest import epochs_of

pytestmark = pytest.mark.slow

TWO_TRIALS = (
    CAMPAIGN.replace("trials: 5", "trials: 2") + "checkpoint_every_s: 0\nresources: {cpu: 1, gpu: 1}\nstorage: shared\n"
)
EPOCHS = 20
MID_RUN = ("0000/metrics.jsonl", 20)  # twice an epoch: a torn line is looked for first


def figures(folder: CampaignFolder, number: int) -> list[dict[str, object]]:
    return read_json_lines(folder.trial(number).metrics)


def test_trials_of_a_lost_node_continue_elsewhere_from_their_checkpoint(
    cluster: Cluster, demo: Path, tmp_path: Path
) -> None:
    campaign = write_campaign(tmp_path, demo, TWO_TRIALS, epochs=EPOCHS)
    folder = CampaignFolder(tmp_path / "c")
    (first,) = cluster.worker_nodes
    command = ("search", campaign, "--output-dir", folder.root, "--address", cluster.address)
    with start(*command, cwd=tmp_path, command=hold(*MID_RUN)) as process:
        wait_until_held(process)
        before = figures(folder, 0)
        assert 5 <= len(before) < EPOCHS
        cluster.add_node(num_cpus=1, num_gpus=1)
        cluster.remove_node(first, allow_graceful=False)
        process.send_signal(signal.SIGCONT)
        ended = finish(process)
    assert ended.code == 0, ended.out + ended.err
    trials = load_trials(folder)
    ended_trials = trials[trials["reason"] != "stale"]  # Ray may give up what it moves; that is put back in the queue
    assert ended_trials["state"].tolist() == ["complete", "complete"], trials["reason"].tolist()
    for number in ended_trials["number"]:
        assert epochs_of(folder, int(number)) == list(range(EPOCHS))
    (first_again,) = ended_trials[(ended_trials["number"] == 0) | (ended_trials["retry_of"] == 0)]["number"]
    assert figures(folder, int(first_again))[: len(before)] == before  # not trained again


MARK = f"xm{os.getpid() % 100_000}"
"""Prefix of the kernel objects of this process, so that two of them can test concurrently."""
BRIDGE = f"{MARK}bridge"
HEAD, ONE, TWO = f"{MARK}head", f"{MARK}one", f"{MARK}two"
HOSTS = {HEAD: "10.201.77.1", ONE: "10.201.77.2", TWO: "10.201.77.3"}


def sudo_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def namespaces_are_permitted() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        sudo_ip("netns", "add", f"{MARK}probe")
        sudo_ip("netns", "del", f"{MARK}probe")
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
            "RAY_health_check_timeout_ms": "8000",  # a busy host is not a dead one
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
        """Wait until this many nodes have joined."""
        code = f"import ray; ray.init(address='{HOSTS[HEAD]}:6379'); print('joined', len(ray.nodes()))"

        def joined() -> bool:
            self.start(HEAD, sys.executable, "-c", code).wait(timeout=LAST_RESORT_S)
            return f"joined {number}" in self.log(HEAD)

        wait_until(joined)

    def pids(self, name: str) -> list[int]:
        """Of the processes on a host."""
        listing = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
        return list(map(int, listing.split()))

    def trains(self, name: str) -> bool:
        """Whether a trial is running on a host."""
        return any("ray::ImplicitFunc" in command_of(pid) for pid in self.pids(name))

    def stop(self) -> None:
        for name in HOSTS:
            for pid in self.pids(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait(timeout=LAST_RESORT_S)


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
    """A real cluster of three hosts, started with `ray start` and its authentication token. The two that may train
    do not see the features and get copies; the one that trains goes dark mid-run.
    """
    content = TWO_TRIALS.replace("gpu: 1", "gpu: 0")
    campaign = write_campaign(tmp_path, demo, content, epochs=EPOCHS)
    extracted = run("features", "extract", "--config", tmp_path / "train.yaml", cwd=tmp_path)
    assert extracted.code == 0, extracted.err
    folder = CampaignFolder(tmp_path / "c")
    ray = Path(sys.executable).parent / "ray"
    head, port = HOSTS[HEAD], 6379
    options = ["--disable-usage-stats", "--block", "--object-store-memory", 100 * 2**20]
    temporary = ["--include-dashboard=false", f"--temp-dir=/tmp/xmray-{os.getpid()}"]
    first = ["--head", f"--node-ip-address={head}", f"--port={port}", "--num-cpus=0", *temporary]
    hosts.start(HEAD, ray, "start", *first, *options)
    hosts.wait_for_nodes(1)

    for count, name in enumerate((ONE, TWO), start=2):  # one by one: they share this machine's /tmp
        join = [f"--address={head}:{port}", f"--node-ip-address={HOSTS[name]}", "--num-cpus=1"]
        hosts.start(name, ray, "start", *join, *options, hide=demo / "features")
        hosts.wait_for_nodes(count)
    address = ["--output-dir", folder.root, "--address", f"{head}:{port}", "--trials", 1]
    driver = hosts.start(HEAD, *hold(*MID_RUN), "search", campaign, *address)
    wait_until_held(driver)
    before = figures(folder, 0)
    assert 5 <= len(before) < EPOCHS
    (at_work,) = [name for name in (ONE, TWO) if hosts.trains(name)]
    sudo_ip("link", "set", f"{at_work}0", "down")
    driver.send_signal(signal.SIGCONT)
    assert driver.wait(timeout=LAST_RESORT_S) == 0, hosts.log(HEAD)
    assert load_trials(folder)["state"].tolist() == ["complete"]
    assert epochs_of(folder, 0) == list(range(EPOCHS))
    assert figures(folder, 0)[: len(before)] == before  # not trained again
    for name in (ONE, TWO):
        assert list((hosts.home(name) / ".cache" / "crossmodal-search" / "features").glob("*/manifest.json"))
