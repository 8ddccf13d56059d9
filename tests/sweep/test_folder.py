"""The folder of a sweep says what it holds, refuses what it cannot hold, and keeps no password."""

import json

import pytest

from tests.sweep.pretended import Engine
from trimtab.errors import UserError
from trimtab.sweep import Arm, Phase, Plan, Sweep, find_sweep, is_sweep, read_sweep
from trimtab.sweep.folder import check_name, default_name, open_folder, store_of, without_password

PLAN = Plan(
    target="tests.sweep.toy:SYSTEM",
    phases=(Phase(name="p", arms=(Arm(name="a"), Arm(name="b", settings={"lr": 0.2})), baseline="a"),),
    metric="validation/distance",
    better="lower",
    seeds=(0,),
)


def test_a_stored_sweep_is_read_without_its_system(tmp_path):
    Sweep(PLAN, root=tmp_path, name="s", engine=Engine(), command="trimtab sweep x").run()
    stored = read_sweep(tmp_path / "s")
    assert (stored.name, stored.plan, stored.command, stored.others) == ("s", PLAN, "trimtab sweep x", 0)
    assert [one.trial.arm for one in stored.results] == ["a", "b"]
    assert stored.facts["p"].baseline == "a"
    assert stored.losses(stored.results[0]) == []  # the pretended engine leaves no run
    assert set(stored.versions) >= {"trimtab", "python", "torch"}


def test_trials_of_an_earlier_plan_are_counted_and_not_shown(tmp_path):
    Sweep(PLAN, root=tmp_path, name="s", engine=Engine()).run()
    fewer = Plan.from_dict({**PLAN.as_dict(), "phases": [{**PLAN.as_dict()["phases"][0], "baseline": ""}]})
    fewer = Plan(
        target=fewer.target, phases=(Phase(name="p", arms=fewer.phases[0].arms[:1]),), metric=fewer.metric,
        better=fewer.better, seeds=(0,),
    )  # fmt: skip
    Sweep(fewer, root=tmp_path, name="s", engine=Engine(), extend=True).run()
    stored = read_sweep(tmp_path / "s")
    assert (len(stored.results), stored.others) == (1, 1)


def test_another_plan_under_the_same_name_is_refused_with_what_differs(tmp_path):
    open_folder(tmp_path / "s", PLAN, paths={})
    phase = PLAN.phases[0]
    arms = (phase.arms[0], Arm(name="b", settings={"lr": 0.3}))
    other = Plan(
        target=PLAN.target, phases=(Phase(name="p", arms=arms, baseline="a"),), metric=PLAN.metric, better="lower",
        seeds=(0,),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"phases\.p\.arms\.b\.settings\.lr was 0\.2, is 0\.3"):
        open_folder(tmp_path / "s", other, paths={})
    open_folder(tmp_path / "s", PLAN, paths={})


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty and no sweep"):
        open_folder(tmp_path / "s", PLAN, paths={})


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is damaged"), ("[]", "has format None"), (json.dumps({"format": 99}), "has format 99, this Trimtab reads")],
)
def test_what_cannot_be_read_is_refused(tmp_path, text, message):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_sweep(tmp_path)
    assert is_sweep(tmp_path)


def test_a_sweep_is_found_by_the_beginning_of_its_name(tmp_path):
    for name in ("alpha", "alto", "beta"):
        open_folder(tmp_path / name, PLAN, paths={})
    assert find_sweep("be", tmp_path) == tmp_path / "beta"
    assert find_sweep(str(tmp_path / "alto")) == tmp_path / "alto"
    with pytest.raises(UserError, match=r"2 sweeps in .* begin with 'al': alpha, alto"):
        find_sweep("al", tmp_path)
    with pytest.raises(UserError, match=r"no sweep 'betta' .*Did you mean 'beta'"):
        find_sweep("betta", tmp_path)


def test_a_password_is_never_written(tmp_path):
    url = "postgresql://me:secret@db.example/sweeps?sslpassword=secret&sslmode=require"
    kept = without_password(url)
    assert kept == "postgresql://me@db.example/sweeps?sslmode=require"
    open_folder(tmp_path / "s", PLAN, store=url, paths={})
    assert "secret" not in (tmp_path / "s" / "sweep.json").read_text()
    assert store_of(tmp_path / "s") == kept
    assert store_of(tmp_path / "s", url) == url


def test_names_are_those_of_folders():
    assert default_name(PLAN) == f"toy-{PLAN.hash}"
    with pytest.raises(UserError, match="expected letters, digits"):
        check_name("../up")
