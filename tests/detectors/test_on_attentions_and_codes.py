"""Attentions, representations and latents on real small trainings under a Guard, each with its healthy twin."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.detectors.kit import row
from trimtab.detectors.attention_saturated import AttentionSaturated
from trimtab.diagnose import diagnose
from trimtab.guard import Guard
from trimtab.records import Finding, Severity
from trimtab.run import Run
from trimtab.trace import Trace

OURS = (
    "attention-uniform", "attention-saturated", "attention-logits-growing", "representation-collapsed", "latent-unused"
)  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def train(path, model, loss_of, steps, optimizer=None):
    """Train under a Guard; return the opened findings of these rules at warning or above, and the first cause."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=3e-3)
    with Guard(path / "run", model, optimizer, overhead=None) as guard:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(guard).backward()
            optimizer.step()
    assert not [note for note in guard.history.notes if note.kind == "trimtab-failed"]
    found = [
        e for e in guard.events
        if isinstance(e, Finding) and e.event == "opened" and e.severity >= Severity.WARNING and e.code in OURS
    ]  # fmt: skip
    causes = [diagnosis.cause for diagnosis in diagnose(Run(path / "run")).diagnoses]
    return found, causes[0] if causes else None


class Gpt(nn.Module):
    """One causal attention that must find the token before."""

    def __init__(self, written_out):
        super().__init__()
        self.embed, self.place = nn.Embedding(12, 32), nn.Embedding(16, 32)
        self.qkv, self.out, self.written_out = nn.Linear(32, 96), nn.Linear(32, 12), written_out

    def forward(self, tokens):
        x = self.embed(tokens) + self.place.weight
        query, key, value = self.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        if self.written_out:
            scores = query @ key.transpose(-1, -2) / 8**0.5
            future = torch.ones(16, 16, dtype=torch.bool).triu(1)
            mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(x + mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("factor", [1.0, 20.0])
def test_queries_and_keys_that_are_too_large(tmp_path, written_out, factor):
    model = Gpt(written_out)
    with torch.no_grad():
        model.qkv.weight[:64] *= factor

    def loss(guard):
        tokens = torch.randint(12, (16, 16))
        return F.cross_entropy(model(tokens)[:, 1:].flatten(0, 1), tokens[:, :-1].flatten())

    findings, cause = train(tmp_path, model, loss, 200 if factor == 1 else 40)
    if factor == 1:
        assert findings == []
    else:
        assert [finding.code for finding in findings] == ["attention-saturated"]
        assert findings[0].step <= 8
        assert findings[0].evidence["at_start"] == 1
        assert cause == "attention-logits-too-large"


@pytest.mark.parametrize("stopped", [True, False])
def test_two_views_with_and_without_a_stopped_gradient(tmp_path, stopped):
    centres = 2 * torch.randn(40, 24)
    encoder = nn.Sequential(nn.Linear(24, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 24))
    if stopped:  # without this the representation would lose its spread even so
        encoder.append(nn.BatchNorm1d(24))
    predictor = nn.Sequential(nn.Linear(24, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 24))
    model = nn.ModuleDict({"encoder": encoder, "predictor": predictor})

    def towards(one, two):
        return F.cosine_similarity(predictor(one), two.detach() if stopped else two)

    def loss(guard):
        x = centres[torch.randint(40, (64,))] + 0.5 * torch.randn(64, 24)
        one, two = (encoder(x + 0.3 * torch.randn_like(x)) for _ in range(2))
        return -(towards(one, two) + towards(two, one)).mean() / 2

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    findings, cause = train(tmp_path, model, loss, 200, optimizer)
    if stopped:
        assert findings == []
    else:
        assert [finding.code for finding in findings] == ["representation-collapsed"]
        assert findings[0].evidence["similarity"] == 1
        assert cause == "missing-stop-gradient"


@pytest.mark.parametrize("told", ["latent", "divergence"])
@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_a_divergence_that_weighs_too_much(tmp_path, weight, told):
    basis = torch.randn(4, 32)
    encoder, decoder = nn.Linear(32, 12), nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32))
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def loss(guard):
        x = torch.randn(64, 4) @ basis
        mean, log_variance = encoder(x / 2).chunk(2, -1)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        if told == "latent":
            guard.examine(kind="latent", code=mean)
        else:
            guard.record(kl=divergence.item())
        return 0.5 * (decoder(code) - x).square().sum(1).mean() / 5 + weight * divergence

    findings, cause = train(tmp_path, model, loss, 160)
    if weight == 1:
        assert findings == []
    else:
        assert [finding.code for finding in findings] == ["latent-unused"]
        assert cause == "kl-weight-too-strong"


def test_an_attention_that_is_first_finite_late_is_judged_by_what_is_known_of_it():
    """The first looks at it were NaN, so that nothing stands at its beginning."""
    trace = Trace()
    rule = AttentionSaturated()
    for step in range(4 * rule.looks):
        entropy = math.nan if step < 2 * rule.looks else 0.0
        trace.append(row(step, {"own/entropy": entropy, "loss": 1.0}))
    found = rule.detect(trace)
    assert isinstance(found, Finding)
    assert found.evidence["entropy_first"] == 0.0
