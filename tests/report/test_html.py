"""The page says what the verdict says, holds together for every kind of run, and never depends on anything outside."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.report.recorded import NAN, broken, record, training
from trimtab.diagnose import diagnose
from trimtab.errors import UserError
from trimtab.records import Outcome, Signal, Value
from trimtab.report import html as html_report
from trimtab.report.html import MOST_BYTES, prose, render, write
from trimtab.run import Run

VOID = {"meta", "link", "br", "img", "hr", "path", "use", "rect"}


class Page(HTMLParser):
    """Collects the text, the tags and the ids of a page, and complains when tags are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags, self.ids, self.texts, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        facts = dict(attributes)
        self.ids += [facts["id"]] if "id" in facts else []
        self.links += [facts[name] for name in ("href", "src", "xlink:href") if name in facts]
        assert not [name for name in facts if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(run):
    return Page(render(run, diagnose(run)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return broken(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def text(run):
    return render(run, diagnose(run))


def test_the_page_needs_nothing_from_outside_and_runs_no_script(text):
    page = Page(text)
    assert "script" not in page.tags
    assert [link for link in page.links if not link.startswith(("#", "data:,"))] == []
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", text)


def test_every_id_stands_once_and_every_inner_link_has_its_place(text):
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_what_the_user_wrote_is_text_and_never_markup(text):
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;b&gt;harder&lt;/b&gt; pages" in text
    assert "diverging &lt;net&gt;" in text


def test_the_page_names_verdict_causes_findings_and_what_was_not_judged(run, text):
    verdict, words = diagnose(run), Page(text).text
    assert verdict.findings
    for finding in verdict.findings:
        assert finding.code in words
        assert " ".join(finding.summary.replace("`", "").split()) in words
    for diagnosis in verdict.diagnoses:
        assert diagnosis.cause in words
        assert diagnosis.summary.replace("`", "") in words
    for code, reason in verdict.unknown.items():
        assert code in words
        assert reason in words


def test_the_terms_of_each_cause_add_up_as_they_are_written(run, text):
    tables = re.findall(r'<table class="terms">.*?</table>', text, re.DOTALL)
    diagnoses = diagnose(run).diagnoses
    assert len(tables) == len(diagnoses) >= 3
    for table, diagnosis in zip(tables, diagnoses, strict=True):
        cells = re.findall(r'<td class="number">([^<]*)', table)
        *terms, score = [float(cell.replace("\N{MINUS SIGN}", "-")) for cell in cells]
        assert sum(terms) == pytest.approx(score, abs=1e-9)
        assert score == pytest.approx(diagnosis.score)


def test_the_record_stands_at_the_end(text):
    words = Page(text).text
    for expected in (
        "RuntimeError: boom", "data-change", "level 2", "notify done", "learning-rate-zero", "never matched",
        "train.py, --lr, 0.001", "optimizer.lr", "Higher is better", "milestones.0.by_step 150", "opened error",
    ):  # fmt: skip
        assert expected in words


def test_every_figure_has_a_title_and_the_metrics_are_drawn_with_their_milestone(text):
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == 6  # loss, gradient norm, learning rate, update ratio, accuracy, heat map
    assert all("<figcaption><strong>" in figure for figure in figures)
    assert all('role="img"' in figure for figure in figures)
    accuracy = next(figure for figure in figures if "Recorded as" in figure)
    assert "≥ 0.9 by 150" in accuracy
    heat = figures[-1]
    assert "blocks.0.attention.qkv.weight" in heat
    assert 'class="bad"' in heat


def test_the_same_run_gives_the_same_bytes_in_any_process(run, text):
    code = (
        "import sys; from trimtab.run import Run; from trimtab.diagnose import diagnose;"
        "from trimtab.report.html import render; run = Run(sys.argv[1]);"
        "sys.stdout.buffer.write(render(run, diagnose(run)).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, check=True, env=environment)
    assert done.stdout.decode() == text


def test_a_clean_run_says_what_was_judged_and_claims_no_more(tmp_path):
    page = page_of(record(tmp_path, training(60)))
    assert "Nothing wrong found" in page.text
    assert "None. Every rule that could judge stayed silent" in page.text
    assert "no milestone was declared" in page.text
    assert "Causes, the likeliest first" not in page.text


@pytest.mark.parametrize("rows", [0, 1])
def test_a_run_without_measurements_says_that_nothing_was_judged(tmp_path, rows):
    run = record(tmp_path, list(training(rows)), ended=None)
    page = page_of(run)
    assert "svg" in page.tags if rows else "No measurement was written" in page.text
    assert ("Not judged" in page.text) if rows else ("Nothing could be judged" in page.text)


def test_a_killed_run_with_a_torn_last_line_has_a_page_that_says_so(tmp_path):
    run = record(tmp_path, training(80), ended=None)
    part = run.path / "signals" / "part-000001.jsonl"
    part.write_bytes(part.read_bytes()[:-40])
    run = Run(run.path)
    run.close_as("killed", {"reason": "killed by SIGKILL", "signal": "SIGKILL"})
    page = page_of(run)
    assert "killed by SIGKILL" in page.text
    assert "the last line is torn and left out" in page.text
    assert "svg" in page.tags


def test_a_damaged_file_of_the_run_costs_its_section_and_not_the_page(tmp_path):
    run = record(tmp_path, training(80))
    (run.path / "settings.json").write_text("{not json")
    (run.path / "environment.json").write_text("[]")
    (run.path / "log.txt").unlink(missing_ok=True)
    page = page_of(run)
    assert "settings.json is damaged" in page.text
    assert "Training loss" in page.text


def test_a_run_in_which_everything_is_nan_has_a_page(tmp_path):
    page = page_of(record(tmp_path, training(30, loss=lambda step: NAN)))
    assert "not finite" in page.text


def test_two_streams_are_drawn_apart(tmp_path):
    pairs = zip(training(30, stream="generator"), training(30, stream="critic", loss=lambda step: 0.7), strict=True)
    page = page_of(record(tmp_path, [row for pair in pairs for row in pair]))
    assert page.text.count("Gradient norm of every tensor, stream") == 2
    assert "Streams generator, critic" in page.text


@pytest.mark.parametrize(("rows", "stay"), [(1, False), (2, True)])
def test_names_that_tensors_had_in_the_first_bin_alone_are_left_out_of_the_heat_map(tmp_path, rows, stay):
    early, late = (list(training(30, tensors=(f"{prefix}weight", f"{prefix}bias"))) for prefix in ("early.", "late."))
    words = page_of(record(tmp_path, [*early[:rows], *late[rows:]])).text
    assert "late.weight late.bias" in words
    assert ("early.weight early.bias" in words) is stay
    assert ("2 names that tensors had in the first steps only are left out" in words) is not stay


def test_the_page_of_a_long_run_of_a_large_model_stays_below_its_limit(tmp_path):
    tensors = tuple(f"decoder.layers.{place}.attention.projection.weight" for place in range(220))
    labels = {"gradient_norms": tensors, "learning_rate": tuple(str(place) for place in range(12))}

    def rows():
        for step in range(9000):
            noise = 1 + 0.5 * ((step * 7919) % 101) / 101
            values: dict[str, Value] = {
                "loss": noise,
                "gradient_norm": noise * 2,
                "learning_rate": (1e-3 * noise,) * 12,
                "gradients_carried": 0.0,
            }
            if step % 45 == 0:
                values["gradient_norms"] = tuple(noise * (place % 17) for place in range(220))
            yield Signal(step=step, update=step, time=step * 0.01, values=values, labels=labels)
            if step % 9 == 0:
                metrics: dict[str, Value] = {f"validation/metric_{place}": noise + place for place in range(14)}
                yield Signal(step=step, update=step, time=step * 0.01, values=metrics)

    text = render(run := record(tmp_path, rows()), diagnose(run))
    assert len(text.encode()) < MOST_BYTES
    assert "Neighbouring tensors are joined" in text
    assert "6 more are not drawn" in text


def test_write_puts_the_page_into_the_run_folder_or_where_it_is_told(tmp_path):
    run = record(tmp_path, training(5))
    assert write(run) == run.path / "report.html"
    assert write(run, tmp_path / "x.html").read_text() == (run.path / "report.html").read_text()
    with pytest.raises(UserError, match=r"report: cannot write .*nowhere.*-o"):
        write(run, tmp_path / "nowhere" / "x.html")


def test_code_between_backticks_is_set_as_code_and_the_rest_is_escaped():
    assert prose("call `zero_grad()` <now>") == "call <code>zero_grad()</code> &lt;now&gt;"


def test_the_names_of_the_template_are_all_known():
    assert html_report.environment().undefined.__name__ == "StrictUndefined"


def test_a_training_that_went_back_says_what_was_done_and_where_its_findings_ended(tmp_path):
    back = Outcome(
        action="roll-back", code="loss-not-finite", step=60, after_rows=61, result="done", changes="weights",
        because="went back to the state after update 40", to_step=40, to_steps={"main": 40},
    )  # fmt: skip
    first = list(training(61, loss=lambda step: NAN if step == 60 else 1.0 - step / 100))
    rest = [replace(row, attempt=1, update=row.update + 20) for row in list(training(100))[41:]]
    run = record(tmp_path, [*first, *rest], outcomes=[back])
    page = Page(render(run, diagnose(run)))
    assert "answers" in page.ids
    text = " ".join(" ".join(page.texts).split())
    assert "What Trimtab did" in text
    assert "roll-back done loss-not-finite went back to the state after update 40" in text
    assert "step 60, in attempt 1, which was left" in text
    assert "Nothing wrong since the training went back to step 40" in text
    assert "Pale lines lead to where the training went back" in text
    quiet = record(tmp_path, training(50))
    assert "answers" not in Page(render(quiet, diagnose(quiet))).ids
