import json

import pytest

from core.config import TrainConfig
from search.session.task import TrialTask, read_task


@pytest.fixture
def task(small_config: TrainConfig) -> TrialTask:
    return TrialTask(
        7, small_config, "f", storage="s3://bucket/x", resume_from=None, threads=2, gpu=0.5, checkpoint_every_s=10.0
    )


def test_a_task_survives_the_way_to_a_worker_as_plain_data(task: TrialTask) -> None:
    assert read_task(json.loads(json.dumps(task.to_plain()))) == task


@pytest.mark.parametrize("changes", [{"number": "first"}, {"config": {"recipe": {"epochs": -1}}}, {"more": 1}])
def test_what_is_no_task_is_refused(task: TrialTask, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        read_task({**task.to_plain(), **changes})
