"""Campaign folders as a search and a confirmation leave them, with figures of one's choice: nothing is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import Notes, confirmation_study, open_journal
from core.files.folders import CampaignFolder
from core.files.json_files import write_json
from core.records import RETRIEVAL_KEYS, EpochMetrics, Samples
from core.samples import write_samples
from core.sections import dump_yaml, parse
from tests.conftest import epoch_metrics

BUILDINGS, VIEWS = 30, 3
GROUPS = np.repeat(np.arange(BUILDINGS), VIEWS)
RATES = optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
SPLITS = optuna.distributions.IntDistribution(0, 2)


def metrics(recall: float, **figures: Any) -> EpochMetrics:
    """The best epoch of a trial whose recalls are all alike."""
    gallery = {"gallery_images": BUILDINGS * VIEWS, "gallery_texts": BUILDINGS * VIEWS, "gallery_groups": BUILDINGS}
    recalls = dict.fromkeys((*RETRIEVAL_KEYS, "recall_mean"), recall)
    return epoch_metrics(**{**gallery, **recalls, "box_iou": None, "relation_accuracy": None, **figures})


def searched(
    root: Path, best: Sequence[EpochMetrics | None], *, name: str = "made", data: str = "digest", **settings: Any
) -> CampaignFolder:
    """A campaign whose trial of each number has these metrics; one without is still running.

    Args:
        data: digest of annotations and images.
        settings: of the campaign.
    """
    folder = CampaignFolder(root)
    space = {"optimizer.learning_rate": {"log": [1e-4, 1e-2]}, "recipe.stage1_epochs": {"int": [0, 2]}}
    train = {"features": {"backbone": "org/made"}, "data": {"test_annotations": "test.json"}}
    content = {"name": name, "train": train, "space": space, **settings}
    root.mkdir(parents=True, exist_ok=True)
    folder.campaign.write_text(dump_yaml(parse(Campaign, content, where="test", base=root)))
    write_json(folder.features, {"448 px": {"data": data}})
    study = optuna.create_study(study_name=name, storage=open_journal(folder.journal), direction="maximize")
    for number, found in enumerate(best):
        _add(study, number, found, Notes(seconds=1.5, config_hash=f"hash {number}"))
    return folder


def _add(study: optuna.Study, number: int, best: EpochMetrics | None, notes: Notes) -> None:
    known = {} if best is None else {"best": best.to_json(), "best_value": best.recall_mean}
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING if best is None else TrialState.COMPLETE,
            value=None if best is None else best.recall_mean,
            params={"optimizer.learning_rate": 1e-3, "recipe.stage1_epochs": number % 3},
            distributions={"optimizer.learning_rate": RATES, "recipe.stage1_epochs": SPLITS},
            user_attrs={**notes.attributes(), **known},
            intermediate_values={} if best is None else {0: best.recall_mean},
        )
    )


def confirm(folder: CampaignFolder, chances: Mapping[int, float], *, seeds: int = 4) -> None:
    """Confirm trials of a campaign, each of which finds a query by a chance."""
    files = folder.confirmation
    files.root.mkdir()
    files.campaign.write_text(folder.campaign.read_text())
    study_name = confirmation_study(read_campaign(folder))
    study = optuna.create_study(study_name=study_name, storage=open_journal(files.journal), direction="maximize")
    repeats = [(parent, seed, chance) for seed in range(1, seeds + 1) for parent, chance in chances.items()]
    for number, (parent, seed, chance) in enumerate(repeats):
        rng = np.random.default_rng([parent, seed])
        samples = {key: Samples((rng.random(len(GROUPS)) < chance).astype(float), GROUPS) for key in RETRIEVAL_KEYS}
        recalls = {key: float(each.values.mean()) for key, each in samples.items()}
        best = metrics(float(np.mean(list(recalls.values()))), **recalls)
        _add(study, number, best, Notes(confirms=parent, seed=seed, seconds=1.0))
        files.samples(number).parent.mkdir(parents=True)
        write_samples(files.samples(number), samples)
