import json
import shutil
from pathlib import Path

import pytest

from analysis.report_findings import read_findings
from core.campaign.study import read_importance
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.records import RETRIEVAL_KEYS, Evaluation


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def test_a_campaign_is_read_whole(campaign: CampaignFolder) -> None:
    findings = read_findings(campaign)
    assert findings.best_number == findings.ranked["number"].iloc[0]
    assert findings.baseline is not None
    assert findings.baseline["number"] == 0
    assert findings.best_config is not None
    assert findings.best_number is not None
    assert findings.model == campaign.trial(findings.best_number).best_checkpoint
    assert findings.model_name == f"trial {findings.best_number}"
    assert len(findings.history) == 5 * 3
    assert (findings.final, list(findings.confirmed), dict(findings.failures)) == (None, [], {})


def test_importance_is_shared_among_the_settings_that_are_shown(campaign: CampaignFolder) -> None:
    findings = read_findings(campaign)
    assert sum(findings.importance.values()) == pytest.approx(1)
    assert findings.importance.keys() <= {setting.name for setting in findings.settings}
    assert list(findings.importance) == [name for name in read_importance(campaign) if name in findings.importance]


def test_the_model_is_the_final_one_where_there_is_one(campaign: CampaignFolder) -> None:
    campaign.final_checkpoint.parent.mkdir(parents=True)
    campaign.final_checkpoint.touch()
    metrics = {"building": 0.5, "image": 0.2}
    evaluations = [
        Evaluation("test", protocol, rerank, 9, 3, 2, dict.fromkeys(RETRIEVAL_KEYS, value + rerank)).to_json()
        for protocol, value in metrics.items()
        for rerank in (0, 4)
    ]
    campaign.final_metrics.write_text(json.dumps({"trial": 1, "evaluations": evaluations, "grounding": {}}))
    findings = read_findings(campaign)
    assert (findings.model, findings.model_name) == (campaign.final_checkpoint, "the final model")
    assert findings.final is not None
    assert findings.final.metrics["t2i_r1"] == 0.5


def test_a_damaged_scorecard_is_named(campaign: CampaignFolder) -> None:
    campaign.final_metrics.parent.mkdir()
    campaign.final_metrics.write_text('{"evaluations": [{}]}')
    with pytest.raises(UserError, match="is not a final model's scorecard"):
        read_findings(campaign)


def test_lost_files_of_the_best_trial_leave_its_figures(campaign: CampaignFolder) -> None:
    shutil.rmtree(campaign.root / "trials")
    findings = read_findings(campaign)
    assert findings.best is not None
    assert findings.best_config is None
    assert findings.history.empty


def test_a_folder_without_a_campaign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign"):
        read_findings(CampaignFolder(tmp_path))
