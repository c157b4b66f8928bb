import os
import socket
import threading
from contextlib import suppress
from typing import Any

import pytest
import ray
from ray._private.node import Node

from core.errors import UserError
from search.cluster.connection import QUIET, SERVICES, connect, count_slots, require_cluster


def nodes(*resources: dict[str, float]) -> list[dict[str, object]]:
    return [{"Alive": True, "Resources": held} for held in resources]


@pytest.mark.parametrize(
    ("held", "cpu", "gpu", "slots"),
    [
        ([{"CPU": 2.0}], 1, 0, 2),
        ([{"CPU": 2.0}, {"CPU": 3.0}], 2, 0, 2),
        ([{"CPU": 16.0, "GPU": 2.0}], 1, 0.25, 8),
        ([{"CPU": 16.0, "GPU": 2.0}], 1, 0.3, 6),  # three fit one GPU; none straddles two
        ([{"CPU": 4.0, "GPU": 2.0}], 1, 0.25, 4),
        ([{"CPU": 8.0, "GPU": 3.0}], 1, 2, 1),
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 1.0}], 1, 1, 1),
    ],
)
def test_slots_are_what_fits_each_node(
    monkeypatch: pytest.MonkeyPatch, held: list[dict[str, float]], cpu: float, gpu: float, slots: int
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: nodes(*held))
    assert count_slots(cpu=cpu, gpu=gpu) == slots


def test_dead_nodes_have_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = [{"Alive": False, "Resources": {"CPU": 8.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: dead)
    with pytest.raises(UserError, match="no node has 1 CPUs and 0 GPUs for a trial; change resources"):
        count_slots(cpu=1, gpu=0)


def test_an_address_without_an_answer_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"), connect("127.0.0.1:1"):
        pass


@pytest.mark.parametrize(
    "address",
    [
        *("", "foo", "localhost", "local", ":6379", "ray://", "ray://head", "http://foo", "http://127.0.0.1:8265"),
        *("host:99999", "host:0", "host:", "host:port", "host:-1", "a b:1", "user@host:1", "host:1/path", "x" * 5000),
    ],
)
def test_what_is_no_address_is_one_line_at_once(address: str) -> None:
    with pytest.raises(UserError, match="not the address of a Ray cluster; give auto, host:port or ray://") as refused:
        require_cluster(address)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("address", ["no-such-host.invalid:6379", "ray://no-such-host.invalid:1", f"{'a' * 70}.b:1"])
def test_a_host_that_is_not_there_is_one_line(address: str) -> None:
    with pytest.raises(UserError, match="no Ray cluster answers at") as refused:
        require_cluster(address)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+PONG\r\n", b""])
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_that_is_not_ray_is_one_line(answer: bytes, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UserError, match="the server there is not Ray"):
            require_cluster(f"{scheme}127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def _variable(name: str) -> str:
    return os.environ[name]


@pytest.mark.slow
def test_workers_that_start_ahead_inherit_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    started = {name: getattr(Node, name) for name in SERVICES}
    with connect(None, workers_ahead=True):
        assert {name: getattr(Node, name) for name in SERVICES} == started, "others start Ray as ever"

        read: Any = ray.remote(num_cpus=1)(_variable)
        assert ray.get(read.remote("RAY_CHDIR_TO_TRIAL_DIR")) == QUIET["RAY_CHDIR_TO_TRIAL_DIR"]
    assert not ray.is_initialized()


@pytest.mark.slow
def test_ray_is_stopped_by_an_error_while_it_runs() -> None:
    with suppress(KeyboardInterrupt), connect(None):
        assert ray.is_initialized()
        raise KeyboardInterrupt
    assert not ray.is_initialized()
