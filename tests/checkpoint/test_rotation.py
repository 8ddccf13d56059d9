"""Rotation: the newest few checkpoints and always a good one, whatever is saved, marked or killed in which order."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab.checkpoint import TrainingState, resume
from trimtab.checkpoint import rotation as module
from trimtab.checkpoint.rotation import Checkpoints, not_finite
from trimtab.errors import CheckpointError, UserError


def training(fill=0.0):
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, fill)
    return TrainingState({"model": model}, {"main": torch.optim.Adam(model.parameters())})


def saved(folder, steps, **given):
    """Return Checkpoints with these steps saved, each with weights that tell its step."""
    checkpoints = Checkpoints(folder, **given)
    for step in steps:
        assert checkpoints.save(training(float(step)), step).path is not None
    return checkpoints


def there(checkpoints):
    return [(one.step, one.good) for one in checkpoints.all()]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


# --- what is kept ---------------------------------------------------------------------------------


def test_the_newest_are_kept(tmp_path):
    assert there(saved(tmp_path, range(0, 50, 10), keep=3)) == [(40, False), (30, False), (20, False)]


def test_a_checkpoint_is_good_after_so_many_clean_steps(tmp_path):
    checkpoints = saved(tmp_path, [10], good_after=5)
    for step in range(11, 15):
        assert checkpoints.mark_clean(step) == []
    assert checkpoints.newest_good() is None
    (good,) = checkpoints.mark_clean(15)
    assert good == checkpoints.newest_good() == tmp_path / "step-000000000010"
    assert (good / "GOOD").read_bytes() == b""


def test_trouble_before_it_was_good_keeps_it_from_ever_being_so(tmp_path):
    checkpoints = saved(tmp_path, [10], good_after=5)
    checkpoints.mark_clean(14)
    checkpoints.mark_clean(15, clean=False)
    checkpoints.mark_clean(40)
    assert there(checkpoints) == [(10, False)]


def test_the_last_good_one_stays_whatever_its_age(tmp_path):
    checkpoints = saved(tmp_path, [10], keep=2, good_after=1)
    checkpoints.mark_clean(11)
    for step in range(20, 80, 10):
        checkpoints.save(training(), step)
        checkpoints.mark_clean(step + 1, clean=False)
    assert there(checkpoints) == [(70, False), (60, False), (10, True)]
    checkpoints.save(training(), 80)
    checkpoints.mark_clean(81)
    checkpoints.save(training(), 90)
    assert there(checkpoints) == [(90, False), (80, True)]


def test_a_good_one_that_is_damaged_does_not_count_as_the_last_good_one(tmp_path):
    saved(tmp_path, [10], good_after=1).mark_clean(11)
    checkpoints = saved(tmp_path, [20], good_after=1)
    checkpoints.mark_clean(21)
    checkpoints.close()
    (tmp_path / "step-000000000020" / "model.safetensors").write_bytes(b"nothing")
    checkpoints = saved(tmp_path, [30, 40], keep=3)
    assert checkpoints.newest_good() == tmp_path / "step-000000000010"
    assert "step-000000000020 was passed over" in checkpoints.remarks[0]
    checkpoints.keep = 1
    checkpoints.save(training(), 50)
    assert there(checkpoints) == [(50, False), (10, True)]


def test_one_that_cannot_be_read_back_is_never_marked_good(tmp_path):
    checkpoints = saved(tmp_path, [10], good_after=1)
    (tmp_path / "step-000000000010" / "state.json").write_bytes(b"{}")
    assert checkpoints.mark_clean(11) == []
    assert "cannot be marked good" in checkpoints.remarks[0]


# --- what is refused ------------------------------------------------------------------------------


def spoil_weight(state):
    state.models["model"].weight.data[0, 1] = float("inf")


def spoil_moment(state):
    state.optimizers["main"].state[state.models["model"].bias] = {"exp_avg": torch.tensor([float("nan")])}


def spoil_buffer(state):
    state.models["model"].register_buffer("mean", torch.tensor([float("nan"), 0.0]))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_weight, "parameter 'weight' of 'model' is not finite"),
        (spoil_moment, "'exp_avg' of 'model.bias' in optimizer 'main' is not finite"),
        (spoil_buffer, "buffer 'mean' of 'model' is not finite"),
    ],
)
def test_what_is_not_finite_is_never_stored(tmp_path, spoil, said):
    checkpoints = saved(tmp_path, [10])
    state = training()
    spoil(state)
    answer = checkpoints.save(state, 20)
    assert (answer.path, answer.refused) == (None, said)
    assert there(checkpoints) == [(10, False)]


def test_a_mask_of_infinities_is_no_trouble(tmp_path):
    state = training()
    state.models["model"].register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    assert not_finite(state) == ""
    assert Checkpoints(tmp_path).save(state, 1).path is not None


def test_a_step_is_saved_once(tmp_path):
    checkpoints = saved(tmp_path, [10])
    with pytest.raises(CheckpointError, match="exists already"):
        checkpoints.save(training(), 10)


def test_settings_without_meaning_are_refused(tmp_path):
    for wrong in ({"keep": 0}, {"keep": 2.5}, {"good_after": 0}):
        with pytest.raises(UserError, match="expected whole numbers keep >= 1 and good_after >= 1"):
            Checkpoints(tmp_path, **wrong)


def test_a_file_where_the_folder_should_be_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(CheckpointError, match=r"file is a file; nothing was stored"):
            Checkpoints(folder).save(training(), 10)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_mark_that_the_disk_refuses_costs_a_remark_and_is_tried_again(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, [10], good_after=1)
    real = module._touch

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module, "_touch", refuse)
    assert checkpoints.mark_clean(11) == []
    assert "Read-only" in checkpoints.remarks[0]
    monkeypatch.setattr(module, "_touch", real)
    assert checkpoints.mark_clean(12) == [tmp_path / "step-000000000010"]


def test_a_relative_folder_stays_where_it_was_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = saved("here", [10], good_after=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    checkpoints.save(training(), 20)
    assert checkpoints.mark_clean(11) == [tmp_path / "here" / "step-000000000010"]
    assert there(checkpoints) == [(20, False), (10, True)]
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- going on -------------------------------------------------------------------------------------


def test_resuming_takes_the_newest_good_one_and_lets_go_of_later_ones(tmp_path):
    with saved(tmp_path, [10, 20], good_after=5) as checkpoints:
        checkpoints.mark_clean(16)
    state = training(-1.0)
    checkpoints = Checkpoints(tmp_path, good_after=5)
    assert checkpoints.resume(state) == 10
    assert state.models["model"].weight.tolist() == [[10.0, 10.0]]
    assert there(checkpoints) == [(10, True)]
    assert checkpoints.save(training(), 20).path is not None


def test_where_none_is_good_the_newest_whole_one_is_taken_and_may_become_good(tmp_path):
    saved(tmp_path, [10, 20, 30]).close()
    (tmp_path / "step-000000000030" / "manifest.json").unlink()
    checkpoints = Checkpoints(tmp_path, good_after=2)
    assert checkpoints.resume(training()) == 20
    assert there(checkpoints) == [(20, False), (10, False)]
    assert (tmp_path / "damaged-step-000000000030-1").is_dir()
    assert len(checkpoints.mark_clean(22)) == 1


class Knob:
    """A part that moves a dropout while the training goes on."""

    def __init__(self, dropout):
        self.dropout = dropout

    def state_dict(self):
        return {"p": self.dropout.p}

    def load_state_dict(self, state):
        self.dropout.p = state["p"]


def test_a_setting_that_moved_must_be_brought_back_by_a_part(tmp_path):
    def moving(*, with_knob=True, p=0.1):
        model = nn.Sequential(nn.Linear(2, 1), nn.Dropout(p))
        return model, TrainingState({"model": model}, {}, {"knob": Knob(model[1])} if with_knob else {})

    model, state = moving()
    model[1].p = 0.4
    with Checkpoints(tmp_path / "a") as checkpoints:
        checkpoints.save(state, 10)
    model, state = moving()
    with Checkpoints(tmp_path / "a") as checkpoints:
        assert checkpoints.resume(state) == 10
    assert model[1].p == 0.4
    with Checkpoints(tmp_path / "b") as checkpoints:
        checkpoints.save(moving(with_knob=False, p=0.4)[1], 10)
        with pytest.raises(
            CheckpointError, match=r"1\.p: 0\.4 stored, 0\.1 here .*accept the present ones with override"
        ):
            checkpoints.resume(moving(with_knob=False)[1])
        assert checkpoints.resume(moving(with_knob=False)[1], override={"1.p": 0.1}) == 10


def test_nothing_to_resume_is_none(tmp_path):
    state = training(3.0)
    assert Checkpoints(tmp_path / "new").resume(state) is None
    assert state.models["model"].weight.tolist() == [[3.0, 3.0]]


# --- two writers ----------------------------------------------------------------------------------

HOLD = """
import sys, time
from trimtab.checkpoint.rotation import Checkpoints
Checkpoints(sys.argv[1]).acquire(); held = True
checkpoints = Checkpoints(sys.argv[1] + "/x"); checkpoints.acquire()
print("held", flush=True); time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=rf"another process writes there \(pid {holder.pid}, since 20"):
            saved(tmp_path / "x", [10])
        assert Checkpoints(tmp_path / "x").newest_good() is None  # reading needs no lock
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert there(saved(tmp_path / "x", [10])) == [(10, False)]


def test_two_objects_of_one_process_are_told_apart(tmp_path):
    first = saved(tmp_path, [10])
    with pytest.raises(CheckpointError, match="this process writes there already"):
        Checkpoints(tmp_path).save(training(), 20)
    first.close()
    assert there(saved(tmp_path, [20])) == [(20, False), (10, False)]


def test_what_a_killed_writer_left_half_done_is_cleared_away(tmp_path):
    saved(tmp_path, [10]).close()
    for name in (".step-000000000020.77-abc.tmp", ".gone-step-000000000005-77"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    saved(tmp_path, [20])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "step-000000000010", "step-000000000020"]


def test_what_is_not_ours_is_never_cleared_away(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("mine")
    (tmp_path / ".env").write_text("mine")
    (tmp_path / ".export.99-abcd.tmp").mkdir()  # somebody saves another checkpoint beside them
    saved(tmp_path, [10])
    assert {".git", ".env", ".export.99-abcd.tmp"} <= {entry.name for entry in tmp_path.iterdir()}
    assert (tmp_path / ".git" / "HEAD").read_text() == "mine"


def test_a_disk_without_locks_is_written_to_with_a_remark(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    checkpoints = saved(tmp_path, [10])
    assert "knows no locks" in checkpoints.remarks[0]


# --- whatever is killed ---------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a process at once: nothing that it would still do is done."""


class Mortal:
    """Lets the process die in the n-th change to the disk from now on, and all that comes after it fail."""

    CHANGES = ((os, "rename"), (os, "replace"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (os, "open"))

    def __init__(self, patch, dies_at):
        self.left = dies_at
        for owner, name in self.CHANGES:
            patch.setattr(owner, name, self._mortal(getattr(owner, name)))
        patch.setattr(shutil, "rmtree", self._tree(shutil.rmtree))

    def _mortal(self, real):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return real(*args, **kwargs)

        return call

    def _tree(self, real):
        def call(path, *args, **kwargs):
            for file in sorted(Path(path).iterdir()):
                os.unlink(file)
            os.rmdir(path)

        return call


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["save", "save", "clean", "clean", "trouble", "spoilt", "resume"]), st.integers(-60, 60)),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS, keep=st.integers(1, 3))
def test_once_there_was_a_good_one_there_always_is_one_that_loads(operations, keep):
    with tempfile.TemporaryDirectory() as folder:
        checkpoints, had_good, step = Checkpoints(folder, keep=keep, good_after=2), False, 0
        for operation, dies_at in operations:
            step += 2
            with pytest.MonkeyPatch.context() as patch:
                if dies_at >= 0:
                    Mortal(patch, dies_at)
                try:
                    if operation == "save":
                        checkpoints.save(training(float(step)), step)
                    elif operation == "spoilt":
                        state = training()
                        spoil_weight(state)
                        assert checkpoints.save(state, step).path is None
                    elif operation == "resume":
                        checkpoints.resume(training())
                    else:
                        checkpoints.mark_clean(step, clean=operation == "clean")
                except Killed:
                    checkpoints.close()  # the system gives the lock back
                    checkpoints = Checkpoints(folder, keep=keep, good_after=2)
            reader = Checkpoints(folder, keep=keep)
            good = reader.newest_good()
            assert good is not None or not had_good
            assert reader.remarks == []
            had_good = good is not None
            if good is not None:
                state = training(-1.0)
                resume(good, state)
                assert state.models["model"].weight.tolist() == [[float(module.step_of(good))] * 2]
        checkpoints.close()
