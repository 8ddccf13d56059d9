"""The bench of `sci`: failures and restarts count, seconds of all attempts count, what is done is not done again."""

import shutil
import sys
from types import SimpleNamespace

import pytest
from torch import nn

from benchmarks import sci as bench
from trimtab.train import resolve
from trimtab_systems.sci.recipe import SYSTEM

CASE = bench.CASES[0]


def row(seed=0, *, right=1.0, attempts=1, seconds=100.0, error="", part="loop", name="length", draws=0):
    clauses = {"seen clauses": {"exact": 776, "n": 776}, "an unseen clause": {"exact": 0, "n": 3144}}
    tested = {} if error else {"test": {"exact_match": right, "by_clauses": clauses}}
    return {
        "part": part, "name": name, "seed": seed, "commit": "c", "error": error,
        "attempts": [{"last_validation": {"explorations": draws}}] * attempts,
        "train_exact_match": 1.0, "cpu_seconds": seconds, **tested,
    }  # fmt: skip


def trained_with(fits, monkeypatch):
    """Let attempts reach these shares of training, one after the other; return the seeds that were trained."""
    seeds, left = [], iter(fits)

    def attempt(case, seed, root):
        seeds.append(seed)
        fit = next(left)
        one = SimpleNamespace(seed=seed, step=10, model=nn.Linear(1, 1), predict=fit)
        return SimpleNamespace(trained=one, metrics={"exact_match": fit}, commands=())

    def rates(fit, examples=()):
        return SimpleNamespace(all=SimpleNamespace(exact_match=fit), as_dict=lambda: {"exact_match": fit})

    monkeypatch.setattr(bench, "attempt", attempt)
    monkeypatch.setattr(bench, "measure", rates)
    monkeypatch.setattr(bench, "final", lambda trained, split: rates(trained.predict))
    return seeds


def test_what_died_or_was_restarted_counts_against_the_model():
    rows = [row(0), row(1, attempts=3, seconds=300.0), row(2, right=0.5), bench.failed(CASE, 3, 40.0, "exit code 1")]
    assert bench.figures_of([*rows, row(4, draws=2)])["loop_length_seeds_without_redraw"] == 1
    figures = bench.figures_of(rows)
    assert figures["loop_length_em_min"] == 0.0
    assert figures["loop_length_em_mean"] == pytest.approx(2.5 / 4)
    assert figures["loop_length_seeds"] == 2
    assert figures["loop_length_seeds_without_restart"] == 1
    assert figures["loop_length_seeds_measured"] == 4
    assert figures["loop_restarts"] == 2
    assert figures["loop_crashes"] == 1
    assert figures["loop_cpu_seconds_median"] == 100.0
    assert figures["loop_cpu_seconds_max"] == 300.0


def test_each_split_and_model_has_its_mean_over_all_seeds():
    rows = [row(seed, right=right, part="splits", name="template-around-right") for seed, right in ((0, 1.0), (1, 0.5))]
    rows += [row(0, right=0.2, part="models", name="flat"), row(1, error="exit code 1", part="models", name="flat")]
    figures = bench.figures_of(rows)
    assert figures["around_right_em_mean"] == 0.75
    assert figures["around_right_em_min"] == 0.5
    assert figures["flat_length_em_mean"] == 0.1


def test_a_seed_is_trained_again_until_training_is_fitted(monkeypatch):
    seeds = trained_with([0.6, 0.5, 0.995], monkeypatch)
    made = bench.row_of(CASE, 7)
    assert seeds == [7, 1007, 2007]
    assert [one["train_exact_match"] for one in made["attempts"]] == [0.6, 0.5, 0.995]
    assert made["test"]["exact_match"] == 0.995


def test_after_the_last_attempt_the_one_that_fits_best_is_tested(monkeypatch):
    seeds = trained_with([0.6, 0.9, 0.1, 0.2, 0.3, 1.0], monkeypatch)
    made = bench.row_of(CASE, 7)
    assert len(seeds) == bench.ATTEMPTS
    assert made["test"]["exact_match"] == made["train_exact_match"] == 0.9


def test_models_that_are_compared_with_have_one_attempt(monkeypatch):
    (flat,) = (case for case in bench.CASES if case.name == "flat")
    assert trained_with([0.1, 1.0], monkeypatch) == []
    assert len(bench.row_of(flat, 7)["attempts"]) == 1


def test_an_ablation_opens_no_test(monkeypatch):
    trained_with([1.0], monkeypatch)
    made = bench.row_of(next(case for case in bench.CASES if case.part == "ablations"), 7)
    assert "test" not in made
    assert bench.exact_match(made) == 1.0


def test_a_process_that_dies_leaves_a_row_that_failed(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    made = bench.in_own_process(CASE, 42)
    assert made["error"].startswith("exit code 1")
    assert made["seed"] == 42
    assert bench.exact_match(made) == 0.0
    assert bench.figures_of([made])["loop_length_seeds"] == 0


def test_what_is_stored_for_this_commit_is_not_run_again(monkeypatch):
    rows = [row(42), {**row(123), "commit": "another"}]
    monkeypatch.setattr(bench, "load", lambda name: {"detail": {"rows": rows}})
    monkeypatch.setattr(bench, "commit", lambda: "c")
    left = [(case.name, seed) for case, seed in bench.jobs(["loop"], bench.stored_rows())]
    assert left == [("length", seed) for seed in bench.SEEDS if seed != 42]
    assert len(left) == 9


@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: f"{case.part}-{case.name}")
def test_each_case_has_a_configuration_of_its_own_split(case):
    config = resolve(SYSTEM, preset=case.preset, overrides=case.overrides)
    assert config.split == (case.split or "length")


def test_the_table_has_a_line_for_each_training():
    lines = bench.table([row(0), bench.failed(CASE, 3, 40.0, "exit code 1")]).splitlines()[2:]
    assert "776/776 | 0/3144" in lines[0]
    assert "exit code 1" in lines[1]
