"""How a training of the write-up's network is made of its settings, and the presets.

Source: the write-up, sections 3 to 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from trimtab.batches import NumberedBatches
from trimtab.checkpoint import Constructor
from trimtab.milestone import Milestone
from trimtab.patience import Patience
from trimtab.system import Training
from trimtab_systems.sci.data import ACTIONS, EOS, PAD, Example, carve, encode, proxy_of, targets, train_of
from trimtab_systems.sci.pairs import CONTENT, LeakGuard, Pool
from trimtab_systems.sci.scores import rates
from trimtab_systems.sci.write_up import spikes, yaml_keys
from trimtab_systems.sci.write_up.answers import Answers
from trimtab_systems.sci.write_up.binding import Binding, Reader
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.content import ContentEncoder
from trimtab_systems.sci.write_up.curriculum import Batch, Curriculum, Plan, sizes, starts
from trimtab_systems.sci.write_up.generate import generate
from trimtab_systems.sci.write_up.losses import Heads, task_loss
from trimtab_systems.sci.write_up.milestones import milestones as checkpoints
from trimtab_systems.sci.write_up.monitor import Monitor
from trimtab_systems.sci.write_up.objective import Learner, Objective
from trimtab_systems.sci.write_up.schedule import Course, Rates, groups
from trimtab_systems.sci.write_up.structure import AbstractionLayer, SlotAttention, StructuralEncoder

PARTS: tuple[tuple[str, type[nn.Module] | tuple[type[nn.Module], ...]], ...] = (
    ("abstraction_layer", AbstractionLayer),
    ("structural_encoder", StructuralEncoder),
    ("content_encoder", ContentEncoder),
    ("cbm", (Binding, Reader)),
)
"""The write-up's names of the parts that have a rate of their own, and the modules that they are."""
_SAMPLE = 2
"""What a generator is for; with the seed it makes each generator one of its own."""
STOPPING = "exact_match_last_phase"
"""The metric that the patience waits for: exact match, recorded from the last phase of the curriculum on."""
BETTER: Mapping[str, Literal["higher", "lower"]] = {
    "exact_match": "higher",
    STOPPING: "higher",
    "token_accuracy": "higher",
    "length_accuracy": "higher",
    "eos_accuracy": "higher",
    "task_loss": "lower",
}


class Examples(NamedTuple):
    """What a training may see.

    Attributes:
        train: it learns from these.
        validation: it is measured on these; none of them comes from the test of the split.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]


def examples(config: WriteUpConfig) -> Examples:
    """Return the examples of a training; the same for all seeds of a training."""
    all_of_them = train_of(config.split, config.split_seed)
    if config.validation == "proxy":
        train, validation = proxy_of(all_of_them)
    else:
        train, validation = carve(all_of_them, config.validation_share, config.split_seed)
    return Examples(_drawn(train, config.examples, config), _drawn(validation, config.evaluate_examples, config))


def _drawn(some: tuple[Example, ...], count: int, config: WriteUpConfig) -> tuple[Example, ...]:
    if not count or count >= len(some):
        return some
    drawn = np.random.default_rng((config.split_seed, _SAMPLE)).choice(len(some), count, replace=False)
    return tuple(some[place] for place in sorted(drawn.tolist()))


def plan(config: WriteUpConfig, train: tuple[Example, ...], seed: int) -> Plan:
    """Return the updates of a training.

    Raises:
        ConfigError: swapping content words would make a test command, or a phase of the curriculum admits no example.
    """
    guard = None
    if config.swap_rate:
        guard = LeakGuard(train_of(config.split, config.split_seed), config.split, config.split_seed)
    content = (*CONTENT, "turn") if config.turn_is_content else CONTENT
    return Plan(
        train,
        Pool(train, guard, content, config.direction_is_content),
        _curriculum(config),
        epochs=config.epochs,
        batch=config.batch,
        accumulate=config.accumulate,
        seed=seed,
        swap_rate=config.swap_rate,
        counterfactual_share=config.counterfactual_share if config.sci else 0.0,
        wrong_pairs=config.pairs == "wrong",
    )


def _curriculum(config: WriteUpConfig) -> Curriculum:
    return Curriculum(
        length_phases=config.length_phases,
        structure_phases=config.structure_phases,
        oversampling=config.oversampling,
        short=config.short,
    )


def milestones(config: WriteUpConfig) -> tuple[Milestone, ...]:
    """Return the write-up's debug checkpoints at the updates with which its epochs end."""
    counts = sizes(examples(config).train, _curriculum(config), config.epochs, 0)
    return checkpoints(config, starts(counts, config.batch * config.accumulate)[1:])


def parameter_groups(config: WriteUpConfig, model: nn.Module) -> list[dict[str, object]]:
    """Return the parameter groups of the optimizer, each with the peak of its rate.

    The heads of the auxiliary losses are new like the rest of the write-up's parts and learn at `sci_lr`.
    """
    sci = config.sci_lr
    peaks = {
        "base": config.base_lr,
        "abstraction_layer": sci * config.abstraction_rate,
        "structural_encoder": sci * config.structural_rate,
        "content_encoder": sci * config.content_rate,
        "cbm": sci * config.binding_rate,
        "slot_queries": sci * config.slot_queries_rate,
        "heads": sci,
    }
    queries = [module.query_KD for module in model.modules() if isinstance(module, SlotAttention)]
    return groups(model, (*PARTS, ("heads", Heads)), queries, peaks, config.weight_decay)


def build(config: WriteUpConfig, seed: int) -> Training:
    """Return a training whose weights and batches are a function of `seed`.

    Raises:
        ConfigError: see `plan`; there is no such split.
    """
    train, validation = examples(config)
    updates = plan(config, train, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = Constructor.of(Learner, config=config).build()
    assert isinstance(learner, Learner)
    optimizer = torch.optim.AdamW(parameter_groups(config, learner), betas=(0.9, 0.999), eps=1e-8, fused=True)
    rates_of = Rates(
        optimizer,
        Course(
            steps=updates.steps,
            warmup_ratio=config.warmup_ratio,
            start=config.warmup_start,
            end=config.min_lr_ratio,
            constant=config.scheduler == "constant",
        ),
        {step: config.boundary_rate for step in updates.starts[1:-1] if config.boundary_rate != 1},
    )
    per_epoch = updates.steps / config.epochs
    objective = Objective(config=config, ramp_steps=updates.steps_in(config.scl_warmup_epochs))
    answers = Answers(learner.network, validation, train, config.generation)
    monitor = Monitor(learner, objective, optimizer, train, updates.epoch_of, answers=answers.show, steps=updates.steps)
    batches = NumberedBatches(updates.make)
    last_phase = max(updates.changes(), default=0)
    evaluation = Evaluation(config=config, model=learner, validation=validation, full_from=last_phase, batches=batches)
    return Training(
        model=learner,
        optimizers={"main": optimizer},
        batches=batches,
        loss=objective.loss,
        evaluate=evaluation.measure,
        better=BETTER,
        steps=updates.steps,
        evaluate_every=max(round(per_epoch * config.evaluate_every_epochs), 1),
        clip=config.clip,
        schedule=rates_of.after,
        early_stop=Patience(
            metric=f"validation/{STOPPING}", better="higher", patience=config.patience, min_delta=config.min_delta
        )
        if config.patience
        else None,
        parts={"monitor": monitor},
        observe=monitor.observe,
        represent=represent if config.sci else None,
        respond=spikes.policy(config),
        detectors=(spikes.detector(config, (*updates.changes(), round(objective.ramp_steps))),),
    )


def represent(model: nn.Module, batch: Batch, shift: int) -> torch.Tensor:
    """Return content and binding of every word of a batch whose commands were moved by `shift` places, (words, D + K).

    The places before a command are padding, which nothing reads.
    """
    assert isinstance(model, Learner)
    words_BS = batch.micros[0].words_BS
    moved_BS = torch.cat([words_BS.new_zeros(len(words_BS), shift), words_BS], dim=1)
    with torch.no_grad():
        encoding = model.network.encode(moved_BS)
    rows_BSD = torch.cat([encoding.content_BND, encoding.binding_BKN.transpose(1, 2)], dim=-1)
    return rows_BSD[encoding.mask_BN]


@dataclass(kw_only=True)
class Evaluation:
    """Measures a network on the validation examples, which it answers word for word without help.

    Attributes:
        config: how answers are written.
        model: what is measured.
        validation: the examples.
        full_from: the update from which on exact match is what the patience waits for as well.
        batches: where the training stands.
    """

    config: WriteUpConfig
    model: Learner
    validation: tuple[Example, ...]
    full_from: int
    batches: NumberedBatches

    def __post_init__(self) -> None:
        self._encoded = encode(self.validation)
        self._inputs_BT, self._labels_BT = targets(self._encoded)
        number = {action: place for place, action in enumerate(ACTIONS)}
        self._answers = [tuple(number[action] for action in example.actions) for example in self.validation]

    def measure(self) -> dict[str, float]:
        """Return the metrics of `BETTER`."""
        said = self.answers()
        found = rates(said, self._answers)
        loss, ends = self._with_the_truth()
        metrics = {
            "exact_match": found.exact_match,
            "token_accuracy": found.token_accuracy,
            "length_accuracy": found.length_accuracy,
            "eos_accuracy": ends,
            "task_loss": loss,
        }
        return metrics | ({STOPPING: found.exact_match} if self.batches.position >= self.full_from else {})

    def answers(self) -> list[tuple[int, ...]]:
        """Return what the network writes for each validation command, as numbers of actions."""
        return generate(self.model.network, self._encoded.words_BN, self.config.generation)

    def _with_the_truth(self) -> tuple[float, float]:
        """Return the task loss, and the share of examples of which the true end and no earlier one is preferred."""
        network, was_training = self.model.network, self.model.training
        self.model.eval()
        losses, ends, sizes = [], 0, []
        with torch.no_grad():
            for rows in torch.arange(len(self.validation)).split(256):
                labels_BT = self._labels_BT[rows]
                _, decoded = network(self._encoded.words_BN[rows], self._inputs_BT[rows])
                losses.append(float(task_loss(decoded.logits_BTV, labels_BT, None, "reweight", 1.0).task))
                sizes.append(int((labels_BT != PAD).sum()))
                stop_BT = decoded.stop_BT
                ending_BT = decoded.logits_BTV.argmax(-1) == EOS if stop_BT is None else stop_BT > 0
                there_BT = labels_BT != PAD
                ends += int(((ending_BT == (labels_BT == EOS)) | ~there_BT).all(1).sum())
        self.model.train(was_training)
        mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
        return mean, ends / len(self.validation)


# --- presets --------------------------------------------------------------------------------------


def write_up() -> WriteUpConfig:
    """Return the write-up's system from scratch, with what contradicts itself put right, for one core of a CPU."""
    return WriteUpConfig(width=64, edge_dim=16)


def tiny() -> WriteUpConfig:
    """Return one for a few seconds: narrow, on few short examples."""
    return WriteUpConfig(
        width=32, heads=2, binding_heads=2, slots=4, edge_dim=8, encoder_layers=1, decoder_layers=2, dropout=0.0,
        examples=512, evaluate_examples=64, epochs=4, batch=32, length_phases=((0, 12), (2, 22)),
        structure_phases=(), patience=0, base_lr=3e-3, sci_lr=3e-3,
    )  # fmt: skip


def as_written() -> WriteUpConfig:
    """Return the write-up's own values, those of its final file (section 6) and of its sections 2 to 4."""
    return yaml_keys.load()


PRESETS: Mapping[str, Callable[[], WriteUpConfig]] = {
    "write-up": write_up,
    "write-up-tiny": tiny,
    "as-written": as_written,
}
