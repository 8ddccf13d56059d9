"""A sweep in plain text: what matters comes first, every line fits, nothing is claimed that the seeds do not show."""

from dataclasses import replace

import pytest

from tests.report.swept import EVERY, result, summary_of
from trimtab.compare.summary import PhaseFacts
from trimtab.compare.words import number
from trimtab.report.sweep_text import COLUMNS, by_phase, closing, duration, headline, sentences

LONG = "step_decay with a name that is rather long=0.0001"


@pytest.fixture(scope="module")
def lines():
    return closing(summary_of(EVERY["seven_phases"]())[0])


@pytest.mark.parametrize("name", [name for name in EVERY if name != "a_search"])
def test_every_line_fits_a_terminal_of_eighty_columns_save_long_names(name):
    said = closing(summary_of(EVERY[name]())[0])
    assert [line for line in said if len(line) > COLUMNS and LONG not in line] == []
    assert all(line == line.rstrip() for line in said)


def test_what_must_be_known_first_stands_first(lines):
    text = "\n".join(lines)
    assert lines[0] == "In 2 of 4 phases the best arm is ahead of others by the interval alone."
    counts = next(line for line in lines if line.startswith("55 trials: "))
    assert counts.startswith("55 trials: 52 finished, 2 stopped, 1 failed, ")
    first = text.index("  error: ")
    assert first < text.index("  warning: ") < text.index("phase curvature: ")
    assert "(too-few-seeds, phase loss-weights)" in text.replace("\n    ", " ")


def test_the_tables_hold_the_numbers_of_the_summary(lines):
    summary, _ = summary_of(EVERY["seven_phases"]())
    arm = summary.phases[3].arm("lr=0.001")
    row = next(line.split() for line in lines if line.startswith("  lr=0.001 ") and "+-" in line)
    assert row[1] == "6"
    assert float(row[2]) == pytest.approx(arm.mean, abs=5e-4)
    assert float(row[4]) == pytest.approx(arm.sd, abs=5e-4)
    assert float(row[5].strip("[,")) == pytest.approx(arm.interval.low, abs=5e-3)
    assert float(row[7]) == pytest.approx(arm.best, abs=5e-4)  # the phase is scored by the end
    assert row[8] == f"{arm.best_step:.0f}"
    pair = next(pair for pair in summary.phases[3].pairs if pair.arm == "lr=0.001")
    row = next(line.split() for line in lines if line.startswith("  lr=0.001 ") and "+-" not in line)
    assert float(row[2]) == pytest.approx(pair.difference, abs=5e-3)
    assert float(row[5]) == pytest.approx(pair.p, abs=1e-3)
    assert float(row[6]) == pytest.approx(pair.smallest_detectable, abs=5e-4)


def test_failed_trials_and_a_different_name_width_stand_in_the_table(lines):
    assert any(line.split() == ["lr=1", "0/1", "-", "-", "-", "-"] for line in lines)
    place = lines.index(f"  {LONG}")
    assert lines[place + 1].split()[0] == "2"


def test_checkpoints_are_listed_with_what_measuring_them_anew_gave():
    results = [result("a", 0), result("b", 0, evaluations_again=(0.5, 0.5)), result("c", 0, evaluations_again=())]
    said = closing(summary_of((results, {}))[0])
    rows = said[said.index("best checkpoint of each arm") + 2 :][:3]
    assert rows[0].split()[-2] == "agrees"
    assert rows[1].split()[4:-1] == ["0.5", "DIFFERS"]
    assert rows[2].split()[4:-1] == ["not", "measured"]


def test_the_headline_says_what_can_be_told_and_no_more():
    def line(*results):
        return headline(summary_of((list(results), {}))[0])

    far = [result(arm, seed, mean=mean, spread=0.01) for arm, mean in (("a", -0.5), ("b", -0.9)) for seed in range(8)]
    near = [result(arm, seed, mean=-0.7, spread=0.1) for arm in "ab" for seed in range(3)]
    assert line(*far).startswith("b is best (best ")
    assert line(*far).endswith("told from the other one.")
    assert line(*near).startswith("No arm can be told from ")
    assert line(result("a", 0)).startswith("a: best -0.7")
    assert line(*far[:2], *far[8:10]).endswith(
        "ahead of the other one by the interval alone; 2 seeds an arm are too few for the test, 6 could settle it."
    )
    assert line(far[0], far[8]).endswith("but one seed an arm tells nothing apart.")
    assert headline(summary_of(EVERY["all_failed"]())[0]) == "No trial has a result."


def test_what_each_phase_found_stands_below_the_headline(lines):
    text = " ".join(line.strip() for line in lines[:20])
    for name in ("curvature", "loss-weights", "scheduling", "learning-rate", "stability", "extended"):
        assert f" {name}: " in text[: text.index(" error: ")]
    assert "learning-rate: lr=0.001 is best by its mean (final " in text
    assert by_phase(summary_of(EVERY["one_run"]())[0]) == []


def test_an_arm_without_a_result_is_said_once():
    results = [result("a", 0), replace(result("b", 0), status="waiting", points=())]
    said = sentences(summary_of((results, {"": PhaseFacts(baseline="a")}))[0].phases[0])
    assert [sentence for sentence in said if "b" in sentence.split(":")[0]] == ["b: 1 of 1 not done"]


def test_nothing_is_written_as_minus_zero():
    assert [number(-0.0), number(-0.0001, 0.5), number(-0.04, 0.5)] == ["0", "0.00", "-0.04"]


def test_arms_that_cannot_be_told_from_the_same_one_share_a_sentence():
    phase = summary_of(EVERY["seven_phases"]())[0].phases[1]
    said = sentences(phase)
    assert sum("not distinguishable" in sentence for sentence in said) == 1
    assert all(arm.name in said[-1] for arm in phase.arms)


def test_a_time_is_said_as_a_person_says_it():
    assert [duration(seconds) for seconds in (0.0, 4.24, 360.0, 9000.0)] == ["0.0 s", "4.2 s", "6.0 min", "2.5 h"]
