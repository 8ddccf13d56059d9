"""The page of a sweep says what its summary says, holds together for every kind of sweep, and needs nothing else."""

import re

import pytest

from tests.report.swept import EVERY, about, result, summary_of
from tests.report.test_html import Page
from trimtab.errors import UserError
from trimtab.report.html import MOST_BYTES
from trimtab.report.sweep import as_json, render, write
from trimtab.report.sweep_page import severity_word
from trimtab.run import safe_json


@pytest.fixture(scope="module")
def seven():
    summary, results = summary_of(EVERY["seven_phases"]())
    return summary, results, render(summary, results, about())


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("a_search", "seven_phases")])
def test_every_kind_of_sweep_has_a_page_that_holds_together(name):
    summary, results = summary_of(EVERY[name]())
    text = render(summary, results, about())
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "nan" not in page.text.replace("NaN", "").split()


def test_the_page_needs_nothing_from_outside_and_runs_no_script(seven):
    page = Page(seven[2])
    assert "script" not in page.tags
    assert [link for link in page.links if not link.startswith(("#", "data:,"))] == []
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", seven[2])
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_what_a_user_wrote_is_text_and_never_markup(seven):
    assert "<script" not in seven[2]
    assert "boom &lt;script&gt;alert(1)" in seven[2]
    assert "&lt;b&gt;curvature&lt;/b&gt;" in seven[2]


def test_the_page_holds_every_remark_verdict_arm_and_failed_trial(seven):
    summary, results, text = seven
    words = Page(text).text
    assert summary.remarks
    for remark in summary.remarks:
        assert remark.code in words
        assert " ".join(remark.summary.split()) in words
    for phase in summary.phases:
        for arm in phase.arms:
            assert arm.name in words
        for pair in phase.pairs:
            assert pair.verdict in words
    assert words.index("too-few-seeds") < words.index("Phase curvature")
    assert "trimtab sweep ternary --phases sweep.yaml" in words
    assert text.count(">finished<") == sum(one.status == "finished" for one in results)


def test_each_phase_is_drawn_and_settings_get_parallel_axes_where_two_vary(seven):
    summary, _, text = seven
    titles = re.findall(r"<figcaption><strong>([^<]*)", text)
    assert titles.count("Every seed of every arm") == len(summary.phases)
    assert titles.count("Over the updates") == titles.count("Best against end") == len(summary.phases)
    assert titles.count("Settings and score") == 1  # loss-weights alone varies more than one
    assert titles.count("Start against best") == 1


def test_the_same_sweep_gives_the_same_bytes(seven):
    summary, results = summary_of(EVERY["seven_phases"]())
    assert render(summary, results, about()) == seven[2]


def test_a_thousand_arms_are_capped_and_it_says_so():
    summary, results = summary_of(EVERY["a_search"](arms=1_050))
    text = render(summary, results, about())
    assert len(text) < MOST_BYTES
    words = Page(text).text
    assert "16 of 1050 arms are drawn" in words
    assert re.search(r"300 of \d+ arms are drawn, from best to worst", words)
    assert "failed ones and the first of the others, 1000 in all" in words
    assert "and 1 more failed ones, in the table below" in words


def test_links_lead_to_what_is_there_from_wherever_the_page_stands(tmp_path):
    folder, runs = tmp_path / "sweeps" / "one & two", [result("a", seed) for seed in (0, 1)]
    (folder / "runs" / runs[0].run).mkdir(parents=True)
    (folder / "runs" / runs[0].run / "report.html").write_text("")
    (folder / "logs").mkdir()
    (folder / "logs" / f"{runs[1].trial.key}.txt").write_text("")
    results = [runs[0], result("a", 1, status="failed", error="boom")]
    summary, _ = summary_of((results, {}))
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "it.html"
    places = {
        "": write(summary, results, about(folder)),
        "../sweeps/one%20%26%20two/": write(summary, results, about(folder), other),
    }
    assert places[""] == folder / "report.html"
    for way, path in places.items():
        links = [link for link in Page(path.read_text()).links if not link.startswith(("#", "data:"))]
        assert sorted(links) == [f"{way}logs/{runs[1].trial.key}.txt", f"{way}runs/{runs[0].run}/report.html"]


def test_a_page_that_cannot_be_written_is_said_and_one_without_a_place_too(tmp_path):
    summary, results = summary_of(EVERY["one_run"]())
    with pytest.raises(UserError, match="name another file with -o"):
        write(summary, results, about(), tmp_path / "missing" / "it.html")
    with pytest.raises(UserError, match="has no folder"):
        write(summary, results, about())


def test_the_severity_of_the_page_is_that_of_the_worst():
    words = {name: severity_word(summary_of(EVERY[name]())[0]) for name in ("one_run", "all_failed", "never_a_number")}
    assert words == {"one_run": "clear", "all_failed": "error", "never_a_number": "unjudged"}


def test_the_document_holds_summary_and_trials_nan_included():
    summary, results = summary_of(EVERY["never_a_number"]())
    document = as_json(summary, results, about())
    assert [trial["key"] for trial in document["trials"]] == [one.trial.key for one in results]
    assert document["summary"]["phases"][0]["arms"][0]["n"] == 0
    assert '"NaN"' in safe_json(document)
