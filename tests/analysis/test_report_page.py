import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.confirmation import Confirmed
from analysis.report_findings import Findings, read_findings
from analysis.report_page import write_campaign_page
from core.evaluation.examples import load_examples
from core.files.folders import CampaignFolder
from core.records import Examples, Interval
from tests.browser import Page, browser, find_browser

BROWSER = find_browser()
WIDE = "document.documentElement.scrollWidth - innerWidth"
PLOTS = """
[...document.querySelectorAll('.plotly-graph-div')].map(plot => ({
    name: plot.id,
    traces: plot.data.length,
    drawn: plot.querySelectorAll('.scatterlayer .trace, .barlayer .trace, .parcoords').length,
    width: plot.getBoundingClientRect().width,
    room: plot.parentElement.getBoundingClientRect().width,
    message: [...plot.querySelectorAll('.no-webgl, .nsewdrag-error')].map(each => each.textContent).join(),
}))
"""
ALL_DRAWN = "[...document.querySelectorAll('.plotly-graph-div')].every(plot => plot.querySelector('.main-svg'))"
PICTURES = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture
def findings(finished_campaign: CampaignFolder) -> Findings:
    return read_findings(finished_campaign)


@pytest.fixture
def examples(findings: Findings) -> Examples:
    assert findings.model is not None
    return load_examples(findings.model)


@pytest.fixture
def page(findings: Findings, examples: Examples, tmp_path: Path) -> Path:
    write_campaign_page(tmp_path / "report.html", findings, examples)
    return tmp_path / "report.html"


def body(page: Path) -> str:
    """The page without plotly's script."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page.read_text(), flags=re.DOTALL)


def test_the_page_holds_everything_itself(page: Path) -> None:
    assert page.read_text().count("* plotly.js v") == 1
    text = body(page)
    assert len(text) < page.stat().st_size / 2, "plotly's script is left"
    assert "<link" not in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "http" not in text


def test_every_section_and_searched_setting_is_there(page: Path, findings: Findings) -> None:
    text = body(page)
    names = re.findall(r'<section id="([\w-]+)"', text)
    assert names == [
        "searched", "found", "confirmed", "leaderboard", "pictures", "settings", "history", "importance", "parallel",
        "slices", "curves", "pruning", "stages", "losses", "pareto", "bounds", "failures",
    ]  # fmt: skip
    assert re.findall(r'href="#([\w-]+)"', text) == names
    assert all(f"<h3>{setting.name}</h3>" in text for setting in findings.settings)
    assert "Nothing is confirmed yet" in text
    assert "Caution: only 5 trials are complete" in text
    assert "No trial failed." in text


def test_recall_is_in_percent_and_the_best_trial_in_bold(page: Path, findings: Findings) -> None:
    assert findings.best is not None
    (row,) = re.findall(r'<tr class="marked">(.*?)</tr>', body(page))
    cells = re.findall(r"<td>(.*?)</td>", row)
    assert cells[1] == f"{findings.best_number}"
    assert cells[2] == f"{100 * float(findings.best['value']):.1f}"


def test_pictures_are_framed_where_right(page: Path, examples: Examples) -> None:
    text = body(page)
    queries = [*examples.right, *examples.wrong]
    right = sum(each.is_right for query in queries for each in query.found)
    assert text.count('class="right"') == right
    assert text.count("data:image/jpeg") == sum(1 + len(query.found) for query in queries) + len(examples.regions)
    for query in examples.wrong:
        assert f"Wrong (the first right image is number {query.rank})" in text


def test_without_pictures_the_page_says_why(findings: Findings, tmp_path: Path) -> None:
    write_campaign_page(tmp_path / "report.html", findings, "the store is <gone>")
    text = body(tmp_path / "report.html")
    assert "No pictures: the store is &lt;gone&gt;" in text
    assert "data:image/jpeg" not in text


def test_a_missing_image_leaves_the_pictures_out(findings: Findings, examples: Examples, tmp_path: Path) -> None:
    gone = replace(examples, right=[replace(query, image=tmp_path / "gone.png") for query in examples.right])
    write_campaign_page(tmp_path / "report.html", findings, gone)
    text = body(tmp_path / "report.html")
    assert f"No pictures: {tmp_path}/gone.png: the image is missing" in text
    assert "data:image/jpeg" not in text


def test_failures_and_a_confirmation_have_their_tables(findings: Findings, tmp_path: Path) -> None:
    interval = Interval(0.4, 0.35, 0.45)
    repeated = Confirmed(1, 1, [1, 2], [0.4, 0.4], interval, interval, searched=0.5)
    told = replace(findings, confirmed=[repeated], failures={"no <GPU>": 3})
    write_campaign_page(tmp_path / "report.html", told, "none")
    text = body(tmp_path / "report.html")
    assert '<td>3</td><td class="words">no &lt;GPU&gt;</td>' in text
    assert "<td>40.0</td><td>35.0 to 45.0</td><td>+40.0</td><td>+35.0 to +45.0</td><td>50.0</td><td>+10.0</td>" in text


def test_a_campaign_whose_files_are_lost_has_a_page(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    shutil.copytree(
        finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions", "trials")
    )
    write_campaign_page(tmp_path / "report.html", read_findings(CampaignFolder(tmp_path / "c")), "lost")
    assert "The epochs of the trials are lost with their files." in body(tmp_path / "report.html")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_the_page_without_errors_at_any_width(page: Path, findings: Findings, width: int) -> None:
    assert BROWSER is not None
    with browser(BROWSER) as opened:
        opened.open(page, width=width)
        _wait_until_drawn(opened)
        assert opened.evaluate(WIDE) <= 0, "something runs off the right edge"
        plots = opened.evaluate(PLOTS)
        assert len(plots) == 8 + 2 + len(findings.settings) - 1
        for plot in plots:
            assert plot["traces"] > 0, plot
            assert plot["drawn"] > 0, plot
            assert not plot["message"], plot
            assert 0 < plot["width"] <= plot["room"] + 1, plot
        pictures = opened.evaluate(PICTURES)
        assert pictures
        assert all(pictures)
        assert (opened.errors, opened.requests) == ([], [])


def _wait_until_drawn(page: Page) -> None:
    while not page.evaluate(ALL_DRAWN):
        assert not page.errors
