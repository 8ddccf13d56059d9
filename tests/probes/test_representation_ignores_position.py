"""What moves with its place is found, at whatever strength; what does not is let pass, and an empty question is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.probes.small import Config
from trimtab.batches import Batches
from trimtab.errors import UserError
from trimtab.probes import RepresentationIgnoresPosition, Subject
from trimtab.records import Severity
from trimtab.system import Training

WORDS, PLACES, WIDTH = 7, 6, 8


class Reader(nn.Module):
    """Words (B, N) -> a vector for each; 0 pads. Positions: none, learned from zero or drawn, or a distance penalty."""

    def __init__(self, positions: str = "none", strength: float = 1.0, longest: int = 40):
        super().__init__()
        self.embed = nn.Embedding(WORDS + 1, WIDTH)
        self.places = nn.Embedding(longest, WIDTH) if positions == "learned" else None
        if self.places is not None:
            nn.init.normal_(self.places.weight, std=strength)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.penalty = positions == "distance"
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(WIDTH, WORDS)

    def represent(self, words_BN: torch.Tensor) -> torch.Tensor:
        x_BND = self.embed(words_BN)
        place_N = torch.arange(words_BN.shape[1])
        if self.places is not None:
            x_BND = x_BND + self.places(place_N)
        score_BNN = self.query(x_BND) @ x_BND.transpose(1, 2) / WIDTH**0.5
        if self.penalty:
            score_BNN = score_BNN - 0.5 * (place_N[:, None] - place_N).abs()
        score_BNN = score_BNN.masked_fill((words_BN == 0)[:, None], -torch.inf)
        out_BND: torch.Tensor = self.drop(x_BND + score_BNN.softmax(-1) @ x_BND)
        return out_BND

    def forward(self, words_BN: torch.Tensor) -> torch.Tensor:
        out_BNW: torch.Tensor = self.head(self.represent(words_BN))
        return out_BNW


def moved(model, batch, shift):
    """Put pads in front, and return the rows of the words that were there."""
    words_BN, _ = batch
    padded_BN = nn.functional.pad(words_BN, (shift, 0))
    return model.represent(padded_BN)[:, shift:].flatten(0, 1)


def subject(represent=moved, **options):
    def make(config, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Reader(**options)
        generator = torch.Generator().manual_seed(seed)
        words_BN = torch.randint(1, WORDS + 1, (32, PLACES), generator=generator)

        def loss(model, batch):  # the next word: what stands where matters to it
            out = model(batch[0])
            return nn.functional.cross_entropy(out[:, :-1].flatten(0, 1), batch[1][:, 1:].flatten() - 1)

        return Training(
            model=model, optimizers={"main": torch.optim.Adam(model.parameters(), 1e-2)},
            batches=Batches((words_BN, words_BN), 8, seed), loss=loss, evaluate=lambda: {"loss": 0.0},
            better={"loss": "lower"}, steps=20, evaluate_every=20, represent=represent,
        )  # fmt: skip

    return Subject(name="reader", make=make, config=Config())


def probe(subject, **settings):
    return RepresentationIgnoresPosition(**settings).run(subject)


@pytest.mark.parametrize("positions", ["none", "distance"])
def test_positions_that_enter_as_differences_pass_with_an_interval(positions):
    result = probe(subject(positions=positions))
    assert (result.verdict, result.findings) == ("holds", ())
    assert result.n == 4 * 8 * PLACES
    assert result.interval is not None
    assert -1e-6 < result.interval[0] <= result.interval[1] < 1e-5
    assert "after 10 updates" in result.summary


@pytest.mark.parametrize("strength", [1.0, 0.02])
def test_learned_absolute_positions_are_refuted_at_the_start(strength):
    result = probe(subject(positions="learned", strength=strength))
    assert result.verdict == "fails"
    (found,) = result.findings
    assert (found.code, found.severity) == ("representation-depends-on-position", Severity.WARNING)
    assert found.measured > 5 * found.threshold > 0.0
    assert "before the first update: moved by" in found.summary
    assert result.interval[0] > 1e-3


def test_positions_that_begin_at_zero_are_refuted_once_they_were_trained():
    result = probe(subject(positions="learned", strength=0.0))
    assert result.verdict == "fails"
    assert result.findings[0].evidence["updates"] == 10.0
    assert probe(subject(positions="learned", strength=0.0), updates=0).verdict == "holds"


def test_what_is_allowed_is_a_setting():
    assert probe(subject(positions="learned", strength=1e-3), updates=0, tolerance=0.1).verdict == "holds"


def test_a_place_that_the_model_was_not_made_for_refutes_it():
    result = probe(subject(positions="learned", strength=0.0, longest=PLACES), updates=0)
    assert result.verdict == "fails"
    assert "moved by 1, the model cannot represent it (IndexError" in result.findings[0].summary


def test_shifts_that_the_training_leaves_out_are_left_out():
    def near(model, batch, shift):
        return moved(model, batch, shift) if shift < 3 else None

    result = probe(subject(near))
    assert (result.verdict, result.n) == ("holds", 2 * 8 * PLACES)
    assert probe(subject(lambda *_: None)).verdict == "unknown"


def test_a_question_that_moves_nothing_is_no_pass():
    still = probe(subject(lambda model, batch, shift: moved(model, batch, 0), positions="learned"))
    assert still.verdict == "unknown"
    assert "represent moves nothing" in still.reason


def test_one_row_for_everything_is_no_pass():
    alike = probe(subject(lambda model, batch, shift: torch.ones(4, 3) * moved(model, batch, shift).isfinite().all()))
    assert alike.verdict == "unknown"
    assert "do not differ" in alike.reason
    lost = probe(subject(lambda model, batch, shift: moved(model, batch, shift) * float("nan")))
    assert lost.verdict == "unknown"


def test_rows_that_become_nan_where_they_are_moved_are_refuted():
    broken = probe(subject(lambda model, batch, shift: moved(model, batch, shift) * (float("nan") if shift else 1.0)))
    assert broken.verdict == "fails"


def test_other_rows_than_before_are_an_error_that_says_what_is_expected():
    with pytest.raises(UserError, match=r"gave \(43, 8\) at shift 1 and \(48, 8\) at 0; return the same things"):
        probe(subject(lambda model, batch, shift: moved(model, batch, shift)[5 * shift :]))
    with pytest.raises(UserError, match="expected a tensor with a row for each thing"):
        probe(subject(lambda model, batch, shift: 3.0))


def test_without_represent_nothing_is_said():
    result = probe(subject(None))
    assert (result.verdict, result.findings) == ("unknown", ())
    assert "give it represent=" in result.reason


def test_dropout_is_off_and_on_again_for_the_updates():
    modes = []

    def noted(model, batch, shift):
        modes.append(model.training)
        return moved(model, batch, shift)

    def make(config, seed):
        training = subject(noted).make(config, seed)
        plain = training.loss

        def loss(model, batch):
            modes.append(model.training)
            return plain(model, batch)

        training.loss = loss
        return training

    assert probe(Subject(name="reader", make=make, config=Config()), updates=2).verdict == "holds"
    assert modes == [False] * 5 + [True] * 2 + [False] * 5
