"""What the write-up wants watched while its network trains: the metrics of its section 5.1, and the maps beside them.

The functions take tensors and return numbers by the write-up's names; `Monitor` calls them every few updates. Words are
told apart in classes here, which the network never sees: `left` and `right`, which the write-up's implementation counts
as structure, and `turn`, which it counts as content, have numbers of their own.

Letters in names: B commands, N words, K slots, D width, F features, T places of the decoder, V symbols.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trimtab import Detector
from trimtab.records import Finding, Severity, Unknown
from trimtab.system import Recorder
from trimtab.trace import Trace
from trimtab_systems.sci import view
from trimtab_systems.sci.data import (
    ACTION_WORDS,
    DIRECTION_WORDS,
    EOS,
    JOIN_WORDS,
    PAD,
    REPEAT_WORDS,
    WAY_WORDS,
    WORDS,
    Example,
    encode,
)
from trimtab_systems.sci.scores import similarity
from trimtab_systems.sci.write_up.losses import entropy, slot_shares
from trimtab_systems.sci.write_up.model import Encoding
from trimtab_systems.sci.write_up.objective import Learner, Objective

INTERVAL = 10
"""Updates between two records, `log_interval` of the write-up."""
MAPS_EVERY = 500
"""Updates between two drawings of attention and scores."""
EPOCH_AFTER = 100
"""What belongs to the end of an epoch comes after so many updates at least: some ends of short epochs are left out."""
ALERT = 100.0
"""A gradient norm above this is alarming, and one below 10 healthy, by the write-up's sections 3.4 and 7."""
CLASSES: Mapping[str, tuple[str, ...]] = {
    "content_word": ACTION_WORDS,
    "structure_word": (*REPEAT_WORDS, *JOIN_WORDS, *WAY_WORDS),
    "direction_word": DIRECTION_WORDS,
    "turn_word": ("turn",),
}
"""What the mean scores are of."""
ALIASES = {"content_avg_score": "content_word_avg_score", "structure_avg_score": "structure_word_avg_score"}
"""Names in the write-up's checks -> those in its list of metrics, which are recorded."""

# --- numbers --------------------------------------------------------------------------------------


def score_metrics(words_BN: torch.Tensor, scores_BN: torch.Tensor) -> dict[str, float]:
    """Return the mean score of each class of words that occurs, the spread of all scores, and how far classes part.

    `score_separation_ratio` is the mean of structure words over that of content words; 1 where nothing is told apart.
    """
    scores_BN = scores_BN.detach()
    found = {}
    for name, words in CLASSES.items():
        here_BN = torch.isin(words_BN, torch.tensor([WORDS.index(word) + 1 for word in words], device=words_BN.device))
        if bool(here_BN.any()):
            found[f"{name}_avg_score"] = float(scores_BN[here_BN].mean())
    valid = scores_BN[words_BN != 0]
    found["score_std"] = float(valid.std()) if len(valid) > 1 else 0.0
    if {"content_word_avg_score", "structure_word_avg_score"} <= found.keys():
        ratio = found["structure_word_avg_score"] / (found["content_word_avg_score"] + 1e-6)
        found["score_separation_ratio"] = ratio
    return found


def slot_metrics(slots_BKD: torch.Tensor, attention_BKN: torch.Tensor, mask_BN: torch.Tensor) -> dict[str, float]:
    """Return how many slots are used, how evenly, and how alike two slots of a command are.

    `slot_utilization` is the share of the slots that have more than half of an even share of all words; `slot_entropy`
    is 1 where all have the same; `slot_cosine` is the mean cosine of two slots.
    """
    slots = slots_BKD.shape[1]
    share_K = slot_shares(attention_BKN.detach(), mask_BN)
    even = float(entropy(share_K)) / math.log(slots) if slots > 1 else 1.0
    found = {"slot_utilization": float((share_K > 0.5 / slots).double().mean()), "slot_entropy": even}
    if slots > 1:
        unit_BKD = functional.normalize(slots_BKD.detach(), dim=-1)
        cosine = (unit_BKD.sum(1).square().sum(-1) - slots).mean() / (slots * (slots - 1))
        found["slot_cosine"] = float(cosine)
    return found


def edge_metrics(edges_BKK: torch.Tensor) -> dict[str, float]:
    """Return the share of edges between two slots that are below a half, and how much is missing of them on average."""
    slots = edges_BKK.shape[1]
    if slots < 2:
        return {}
    between = edges_BKK.detach()[:, ~torch.eye(slots, dtype=torch.bool, device=edges_BKK.device)]
    return {"edge_sparsity": float((between < 0.5).double().mean()), "edges_missing": float(1 - between.mean())}


def content_structure_cosine(slots_BKD: torch.Tensor, content_BND: torch.Tensor, mask_BN: torch.Tensor) -> float:
    """Return the mean absolute cosine of the mean slot and the mean content of a command; about 0 is wanted."""
    there_BN1 = mask_BN.unsqueeze(-1).to(content_BND.dtype)
    content_BD = (content_BND.detach() * there_BN1).sum(1) / there_BN1.sum(1)
    return float(functional.cosine_similarity(slots_BKD.detach().mean(1), content_BD, dim=-1).abs().mean())


def binding_metrics(binding_BKN: torch.Tensor, mask_BN: torch.Tensor) -> dict[str, float]:
    """Return how widely a slot reads, 1 for all words of the command alike, and the weight of the word it reads most.

    Commands of one word leave no choice and do not count for the entropy.
    """
    binding_BKN = binding_BKN.detach()
    count_B = mask_BN.sum(1)
    several_B = count_B > 1
    found = {"binding_confidence": float(binding_BKN.amax(-1).mean())}
    if bool(several_B.any()):
        share_B = entropy(binding_BKN[several_B]).mean(1) / count_B[several_B].to(binding_BKN.dtype).log()
        found["binding_entropy"] = float(share_B.mean())
    return found


def eos_accuracy(logits_BTV: torch.Tensor, labels_BT: torch.Tensor, stop_BT: torch.Tensor | None = None) -> float:
    """Return the share of examples that, fed the true actions, end at the true end and nowhere before.

    Args:
        logits_BTV: of the symbols; they end where EOS is preferred.
        labels_BT: actions and EOS, padded.
        stop_BT: logits of a stop head, which then decides in their place.
    """
    ends_BT = logits_BTV.argmax(-1) == EOS if stop_BT is None else stop_BT > 0
    counted_BT = labels_BT != PAD
    return float(((ends_BT == (labels_BT == EOS)) | ~counted_BT).all(1).double().mean())


def encoding_metrics(encoding: Encoding, rows: int) -> dict[str, float]:
    """Return all of the above that an encoding holds, of its first rows; nothing without a structure stream."""
    if not encoding.slots_BKD.shape[1]:
        return {}
    words_BN, mask_BN, slots_BKD = encoding.words_BN[:rows], encoding.mask_BN[:rows], encoding.slots_BKD[:rows]
    return {
        **score_metrics(words_BN, encoding.scores_BN[:rows]),
        **slot_metrics(slots_BKD, encoding.slot_attention_BKN[:rows], mask_BN),
        **edge_metrics(encoding.edges_BKK[:rows]),
        "content_structure_cosine": content_structure_cosine(slots_BKD, encoding.content_BND[:rows], mask_BN),
        **binding_metrics(encoding.binding_BKN[:rows], mask_BN),
    }


def memory_metrics() -> dict[str, float]:
    """Return the GiB on the GPU where there is one in use, else the most that the process ever had."""
    if torch.cuda.is_initialized():
        return {"gpu_memory_used": torch.cuda.memory_allocated() / 2**30}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"memory_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}


# --- the alarm ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GradientNormAlarming(Detector):
    """The norm of the gradient before clipping is above what the write-up calls alarming.

    `gradient-exploding` of the catalogue compares a training with its own beginning and needs no threshold; this is the
    write-up's absolute one (section 3.4), and judges where a `Monitor` records.
    """

    reads: tuple[str, ...] = ("gradient_norm/all",)
    confirm: int = 2
    release: int = 5
    limit: float = ALERT
    """Norms above it are alarming. They are those of one update in ten; two in a row count."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Judge the latest recorded norm."""
        norm = trace.scalar("gradient_norm/all")
        if norm is None:
            return self.unknown(trace, "no gradient norm was recorded")
        if norm <= self.limit:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"gradient norm {norm:.4g} before clipping at step {trace.step}, alarming above {self.limit:g}",
            measured=norm,
            threshold=self.limit,
        )


DETECTORS: tuple[Detector, ...] = (GradientNormAlarming(),)
"""For `System.detectors`."""

# --- the monitor ----------------------------------------------------------------------------------


class GradientNorms:
    """Takes the norm of each parameter's gradient as backward leaves it, in the updates for which it was asked.

    Args:
        groups: of an optimizer; those with one "part" belong together.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]]):
        self.wanted = False
        self._norms: dict[int, torch.Tensor] = {}
        self.part_of: dict[int, str] = {}
        for number, group in enumerate(groups):
            for parameter in group["params"]:
                self.part_of[id(parameter)] = str(group.get("part", number))
                parameter.register_post_accumulate_grad_hook(self._hook)

    def _hook(self, parameter: torch.Tensor) -> None:
        if self.wanted and parameter.grad is not None:
            self._norms[id(parameter)] = torch.linalg.vector_norm(parameter.grad.detach())

    def take(self) -> dict[str, float]:
        """Return `gradient_norm/<part>`, that of all, and how many parameters outside of the base got no gradient.

        Nothing where no gradient was seen since the last call.
        """
        seen, self._norms = self._norms, {}
        if not seen:
            return {}
        values = dict(zip(seen, torch.stack([norm.float() for norm in seen.values()]).tolist(), strict=True))
        squares: dict[str, float] = {}
        without = 0
        for key, part in self.part_of.items():
            norm = values.get(key, 0.0)
            squares[part] = squares.get(part, 0.0) + norm**2
            without += part != "base" and norm == 0.0
        total = math.sqrt(math.fsum(squares.values()))
        found = {f"gradient_norm/{part}": math.sqrt(square) for part, square in squares.items()}
        return {
            **found, "gradient_norm/all": total, "gradient_alert": float(not total <= ALERT),
            "sci_parameters_without_gradient": float(without),
        }  # fmt: skip


class Monitor:
    """Records the write-up's metrics every few updates, and shows its maps.

    Terms of the loss are means over the updates since the last record; the rest is of the latest update. It reads, and
    changes nothing; it belongs to the parts of the training, so that a training that is gone on with tells the same.

    Args:
        learner: the network and its heads.
        objective: whose latest update is read.
        optimizer: its groups say their part, "base" or one of the write-up's.
        examples: training examples for the maps; some are chosen of them.
        epoch_of: number of an update -> its epoch, from 0.
        interval: updates between two records.
        maps_every: updates between two drawings of maps.
        answers: called with the Guard at the end of an epoch, to look at what the network answers; `Answers.show`.
        steps: updates of the whole training, where it is to look at the answers once more; 0 for not.
    """

    def __init__(
        self,
        learner: Learner,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        examples: Sequence[Example],
        epoch_of: Callable[[int], int],
        interval: int = INTERVAL,
        maps_every: int = MAPS_EVERY,
        answers: Callable[[Recorder], None] | None = None,
        steps: int = 0,
    ):
        self.learner, self.objective, self.optimizer, self.epoch_of = learner, objective, optimizer, epoch_of
        self.interval, self.maps_every, self.answers, self.steps = interval, maps_every, answers, steps
        self.gradients = GradientNorms(optimizer.param_groups)
        self.gradients.wanted = interval == 1
        self.shown = chosen(examples)
        self._sums: dict[str, float | torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._first: dict[str, float] = {}
        self._history: list[tuple[int, dict[str, float]]] = []
        self._ended_at = 0

    def observe(self, guard: Recorder, done: int) -> None:
        """Take note of the latest update, and record where it is time; for `Training.observe`."""
        latest = self.objective.latest
        if latest is None:
            return
        for name, term in latest.terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + term.detach()
            self._counts[name] = self._counts.get(name, 0) + 1
        if "task_loss" in latest.terms and not self._first:
            self._first["task_loss"] = float(latest.terms["task_loss"])
        if done % self.interval == 0:
            guard.record(**self._metrics())
        self.gradients.wanted = (done + 1) % self.interval == 0
        over = self.epoch_of(done) != self.epoch_of(done - 1) or done == self.steps
        ended = over and done - self._ended_at >= EPOCH_AFTER
        self._draw(guard, done, ended)
        if ended:
            self._ended_at = done
        if self.answers is not None and (ended or done == self.steps):
            self.answers(guard)

    def _metrics(self) -> dict[str, Any]:
        """Return everything that is recorded now, and begin the means anew."""
        latest = self.objective.latest
        assert latest is not None
        found: dict[str, Any] = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        if self._first.get("task_loss"):
            found["task_loss_over_first"] = found["task_loss"] / self._first["task_loss"]
        passed, micro = latest.passed, latest.batch.micros[-1]
        encoding, rows = passed.encoding, len(micro.words_BS)
        found |= encoding_metrics(encoding, rows)
        found["eos_accuracy"] = eos_accuracy(passed.decoded.logits_BTV, micro.labels_BT, passed.decoded.stop_BT)
        if self.learner.heads.contrast is not None:
            found |= self._similarity(encoding, micro.template_B, micro.template_partner_B)
        for group in self.optimizer.param_groups:
            found.setdefault(f"learning_rate/{group.get('part', 'main')}", float(group["lr"]))
        return {**found, **self.gradients.take(), **memory_metrics()}

    def _similarity(
        self, encoding: Encoding, template_B: torch.Tensor, template_partner_B: torch.Tensor
    ) -> dict[str, float]:
        slots_PKD = encoding.slots_BKD.detach()
        templates = torch.cat([template_B, template_partner_B])[: len(slots_PKD)].tolist()
        with torch.no_grad():
            structure_PC = self.learner.heads.structure(slots_PKD)
        cosines = similarity(structure_PC, templates)
        named = {
            "same_structure_similarity": cosines.same,
            "different_structure_similarity": cosines.different,
            "invariance_ratio": cosines.ratio,
        }
        return {name: value for name, value in named.items() if not math.isnan(value)}

    def _draw(self, guard: Recorder, done: int, ended: bool) -> None:
        """Show the maps every so many updates, and the slots at the end of an epoch."""
        if not self.learner.network.config.sci or not self.shown:
            return
        maps = done % self.maps_every == 0
        if not (maps or ended):
            return
        words_BN = encode(self.shown).words_BN.to(next(self.learner.parameters()).device)
        with _evaluating(self.learner), torch.no_grad():
            encoding = self.learner.network.encode(words_BN)
        if maps:
            self._draw_maps(guard, done, encoding)
        if ended:
            labels = [" ".join(example.words) for example in self.shown]
            title = f"Slots after epoch {self.epoch_of(done - 1) + 1}"
            guard.show("slots", view.slots_scatter(encoding.slots_BKD, labels, title))

    def _draw_maps(self, guard: Recorder, done: int, encoding: Encoding) -> None:
        words_BN, note = encoding.words_BN.cpu(), f"After {done} updates."
        self._history.append((done, view.word_means(words_BN, encoding.scores_BN)))
        guard.show("word-roles", view.word_roles_table(words_BN, {"structural": encoding.scores_BN.cpu()}))
        guard.show("word-roles-over-time", view.word_roles_map(self._history))
        features_BNF = encoding.features_BNF.cpu()
        guard.show("features", view.features_map(words_BN, features_BNF))
        guard.show("feature-readings", view.features_table(words_BN, features_BNF))
        for number, row in enumerate(_longest(self.shown, 2), start=1):
            command = self.shown[row].words
            attention_KN, binding_KN = encoding.slot_attention_BKN[row], encoding.binding_BKN[row]
            title = f"Slots and words ({number})"
            guard.show(f"attention-{number}", view.attention_map(title, command, attention_KN, note))
            title = f"Content bound to slots ({number})"
            guard.show(f"binding-{number}", view.attention_map(title, command, binding_KN, note))

    def state_dict(self) -> dict[str, Any]:
        """Return what was noted since the last record, the first loss, and the scores of words so far."""
        return {
            "sums": {name: float(total) for name, total in self._sums.items()},
            "counts": dict(self._counts),
            "first": dict(self._first),
            "wanted": self.gradients.wanted,
            "ended_at": self._ended_at,
            "history": [{"step": step, "scores": dict(means)} for step, means in self._history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._first, self.gradients.wanted = dict(state["first"]), bool(state["wanted"])
        self._ended_at = int(state["ended_at"])
        self._history = [(int(one["step"]), dict(one["scores"])) for one in state["history"]]


def chosen(examples: Sequence[Example], count: int = 48) -> tuple[Example, ...]:
    """Return some of the examples, the same ones each time: evenly spaced by the number of words."""
    ordered = sorted(dict.fromkeys(examples), key=lambda one: (len(one.words), one.words))
    if len(ordered) <= count:
        return tuple(ordered)
    return tuple(ordered[round(place * (len(ordered) - 1) / (count - 1))] for place in range(count))


def _longest(examples: Sequence[Example], count: int) -> list[int]:
    """Return the places of the commands with most words, the first of equals."""
    return sorted(range(len(examples)), key=lambda row: (-len(examples[row].words), row))[:count]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode while a block runs, and each module back into its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
