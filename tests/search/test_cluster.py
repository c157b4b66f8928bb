import pytest

from core.errors import UserError
from search import cluster
from search.cluster import connect, count_slots


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
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes(*held))
    assert count_slots(cpu=cpu, gpu=gpu) == slots


def test_dead_nodes_have_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = [{"Alive": False, "Resources": {"CPU": 8.0}}]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: dead)
    with pytest.raises(UserError, match="no node has 1 CPUs and 0 GPUs for a trial; change resources"):
        count_slots(cpu=1, gpu=0)


def test_an_address_where_nobody_answers_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"), connect("127.0.0.1:1"):
        pass
