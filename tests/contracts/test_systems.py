"""What every System promises: it trains the same way twice, ends clean when healthy, and breaks as its faults say."""

import ast
import dataclasses
import inspect
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from trimtab.detectors import DETECTORS
from trimtab.diagnose import diagnose
from trimtab.errors import ConfigError, UserError
from trimtab.hypotheses import HYPOTHESES
from trimtab.probes import PROBES
from trimtab.records import Severity
from trimtab.run import Run, list_runs
from trimtab.system import find_system
from trimtab.train import train

SYSTEMS = sorted(entry.name for entry in entry_points(group="trimtab.systems"))
FAULTS = [(name, fault.name) for name in SYSTEMS for fault in find_system(name).faults]
SEEN = [(name, fault) for name, fault in FAULTS if find_system(name).fault(fault).expect]
"""The faults that a training shows; the others are for probes alone, whose own contract tries them."""
SETTLED = 40
"""So many updates after its budget a faulty training is ended: rows may come 32 late, and an evaluation closes it."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small are many times slower on two threads when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Ended(BaseException):
    """What ends a training early."""


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """(system, fault or None, seed) -> the finished tiny run, or that of the fault up to its budget; trained once."""
    root = tmp_path_factory.mktemp("runs")

    @cache
    def trained(name, fault, seed) -> Run:
        if fault is None:
            return train(name, seed=seed, root=root)
        until = find_system(name).fault(fault).budget + SETTLED
        folder = root / f"{name}-{fault}-{seed}"

        def end(done, steps, loss):
            if done >= until:
                raise Ended

        with suppress(Ended):
            train(name, fault=fault, seed=seed, root=folder, progress=end, checkpoint_every=0)
        (run,) = list_runs(folder)
        return run

    return trained


def losses_of(run):
    return [(row.stream, row.step, row.values["loss"]) for row in run.rows() if "loss" in row.values]


def grave(findings):
    return [finding for finding in findings if finding.severity >= Severity.WARNING and finding.event != "resolved"]


def test_some_system_is_installed():
    assert "separability" in SYSTEMS


@pytest.mark.parametrize("name", SYSTEMS)
def test_stopping_and_going_on_is_exact(name, run_of, tmp_path):
    """The same seed gives the same losses: up to where the second training is stopped, and from its checkpoint on."""

    def metrics_of(run, attempt, after=-1):
        rows = [row for row in run.rows() if row.attempt == attempt and row.step > after]
        rows = [row for row in rows if "trimtab_seconds" not in row.values]
        return [(r.stream, r.step, r.values[m]) for r in rows for m in r.values if m == "loss" or "validation/" in m]

    def end(done, steps, loss):
        if done * 2 >= steps:
            raise Ended

    first = run_of(name, None, 0)
    whole = metrics_of(first, 0)
    assert len(whole) >= 50
    with pytest.raises(Ended):
        train(name, seed=0, root=tmp_path, progress=end)
    run = train(resume="last", root=tmp_path)
    before = metrics_of(run, 0)
    assert len(before) >= 25
    assert before == whole[: len(before)]
    (outcome,) = run.outcomes()
    assert outcome.to_step > 0
    assert metrics_of(run, 1) == metrics_of(first, 0, outcome.to_step)
    other = losses_of(run_of(name, None, 1))
    assert [loss for _, _, loss in other] != [loss for _, _, loss in losses_of(first)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_healthy_training_ends_clean(name, seed, run_of):
    run = run_of(name, None, seed)
    assert run.status == "finished"
    assert [finding.summary for finding in grave(run.findings())] == []


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_milestones_of_a_healthy_training_are_judged(name, run_of):
    """A milestone whose metric nobody records, or that lies after the end, could never be missed."""
    system = find_system(name)
    config = system.presets["tiny"]()
    recorded = {metric for row in run_of(name, None, 0).rows() for metric in row.values}
    steps = max(row.step for row in run_of(name, None, 0).rows()) + 1
    for milestone in system.milestones(config):
        assert milestone.metric in recorded
        assert milestone.by_step <= steps
    judged = run_of(name, None, 0).facts.judged
    assert "milestone-missed" in judged or not system.milestones(config)


@pytest.mark.parametrize(("name", "fault"), SEEN)
def test_each_fault_raises_its_findings_within_its_budget(name, fault, run_of):
    declared = find_system(name).fault(fault)
    opened: dict[str, int] = {}
    for finding in grave(run_of(name, fault, 0).findings()):
        opened.setdefault(finding.code, finding.step)
    late = {
        code: opened.get(code, "never") for code in declared.expect if not opened.get(code, 10**9) <= declared.budget
    }
    assert late == {}


@pytest.mark.parametrize(("name", "fault"), SEEN)
def test_the_first_ranked_cause_of_each_fault_is_a_right_one(name, fault, run_of):
    """The budget is one of updates; a cause that needs more than that is found too late."""
    ranked = diagnose(run_of(name, fault, 0)).diagnoses
    assert ranked
    assert ranked[0].cause in find_system(name).fault(fault).causes, [(d.cause, d.score) for d in ranked]


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_each_fault_names_settings_codes_and_causes_that_exist(name, fault):
    system = find_system(name)
    declared = system.fault(fault)
    assert declared.preset in system.presets
    start = system.presets[declared.preset]()
    assert set(declared.change) <= {field.name for field in dataclasses.fields(start)}
    assert all(getattr(start, key) != value for key, value in declared.change.items()), "it changes nothing"
    assert declared.expect or declared.probes or declared.refused
    assert not (declared.refused and (declared.expect or declared.probes))
    assert set(declared.probes) <= {probe.claim for probe in PROBES}
    assert set(declared.expect) <= {detector.code for detector in (*DETECTORS, *system.detectors)}
    assert bool(declared.causes) == bool(declared.expect) == bool(declared.budget)
    assert set(declared.causes) <= {hypothesis.cause for hypothesis in (*HYPOTHESES, *system.hypotheses)}


@pytest.mark.parametrize(("name", "fault"), [pair for pair in FAULTS if find_system(pair[0]).fault(pair[1]).refused])
def test_a_fault_that_is_refused_never_trains(name, fault, tmp_path):
    with pytest.raises(ConfigError):
        train(name, fault=fault, root=tmp_path)
    assert list_runs(tmp_path) == []


@pytest.mark.parametrize("name", SYSTEMS)
def test_there_is_a_tiny_and_a_reference_configuration(name):
    presets = find_system(name).presets
    assert {"tiny", "reference"} <= set(presets)
    for make in presets.values():
        config = make()
        assert type(config).__dataclass_params__.frozen
        assert dataclasses.replace(config) == config == make()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_setting_is_followed_by_its_docstring(name):
    kinds = {type(make()) for make in find_system(name).presets.values()}
    sources = [ast.parse(inspect.getsource(kind)) for kind in kinds]
    bodies = [node.body for source in sources for node in source.body if isinstance(node, ast.ClassDef)]
    assert len(bodies) == len(kinds)
    bare = [
        node.target.id
        for body in bodies
        for node, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if not (
            isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and str(after.value.value).strip()
        )
    ]
    assert bare == []


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_its_six_files(name):
    (entry,) = (entry for entry in entry_points(group="trimtab.systems") if entry.name == name)
    folder = Path(inspect.getfile(entry.load().build)).parent
    wanted = {"data.py", "model.py", "losses.py", "recipe.py", "faults.py", "README.md"}
    assert wanted <= {file.name for file in folder.iterdir()}
    assert entry.load().name == name


def test_an_unknown_system_is_refused_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"no system 'separabilty'\. Did you mean 'separability'\?"):
        find_system("separabilty")
