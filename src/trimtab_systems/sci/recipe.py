"""How SCI-Loop is trained: the settings, the presets of all models of this system, and the System value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from trimtab.batches import NumberedBatches
from trimtab.checkpoint import Constructor
from trimtab.errors import ConfigError, nearest
from trimtab.milestone import Milestone
from trimtab.system import System, Training
from trimtab_systems.sci import faults
from trimtab_systems.sci.baselines import recipe as baselines
from trimtab_systems.sci.baselines.recipe import BaselineConfig
from trimtab_systems.sci.course import Course, Plan
from trimtab_systems.sci.data import SPLITS, Encoded, Example, carve, encode, proxy_of, train_of
from trimtab_systems.sci.losses import copy_loss, loop_loss
from trimtab_systems.sci.model import SCILoop, cut
from trimtab_systems.sci.pairs import Pool
from trimtab_systems.sci.program import Predict
from trimtab_systems.sci.scores import rates
from trimtab_systems.sci.variants import Variations
from trimtab_systems.sci.watch import Watch
from trimtab_systems.sci.write_up import alarms, hypotheses, monitor
from trimtab_systems.sci.write_up import recipe as write_up
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.generate import generate


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Variations):
    """The settings of one training of SCI-Loop; the defaults are the reference run, chosen on the proxy split."""

    split: str = "length"
    """One of the splits of `sci.data`; only its training half is read."""
    validation: Literal["carved", "proxy"] = "carved"
    """"carved": a share of the training examples. "proxy": trained on up to 15 actions, validated on longer ones."""
    validation_share: float = 0.02
    """Share of the distinct training commands that "carved" sets aside."""
    split_seed: int = 0
    """Of the draw of the validation set, so that trainings of all seeds are measured on the same."""
    examples: int = 0
    """Train on the first so many of a draw from the training examples; 0 for all."""

    width: int = 64
    """Of embeddings, slots and states."""
    heads: int = 4
    """Attention heads of the outer loop."""
    features: int = 8
    """Features of each abstraction layer."""
    slots: int = 8
    """Calls of a command, at most; with `longest` it is what makes `twice` structure."""
    longest: int = 8
    """Actions of a phrase, at most."""
    contextual: bool = False
    """Score each occurrence of a word in its command, instead of each word once."""

    outer_steps: int = 300
    """Updates that the outer loop and the first score have at most; what then answers too little is drawn anew."""
    inner_steps: int = 250
    """Updates of the inner loop and the second score, at most; about a tenth of the price of the others."""
    whole_steps: int = 150
    """Updates of everything together, at most."""
    explorations: int = 6
    """How often what failed is drawn anew, at most; training fit alone decides."""
    fit: float = 0.97
    """Share of the sampled training commands that must be right before a part counts as learnt."""
    check_every: int = 25
    """Updates between two looks at that share."""
    fit_examples: int = 1000
    """Training commands in that sample; the last part is judged on all of them."""

    batch: int = 128
    """Commands in a batch."""
    balanced: float = 0.25
    """Share of a batch that is drawn evenly over the numbers of words, after the first part: `look thrice` is rare."""
    lr: float = 3e-3
    """Peak rate of AdamW."""
    role_lr: float = 3e-3
    """The same for both abstraction layers; 1e-2 takes wrong roles before it knows better."""
    warmup: int = 100
    """Updates over which the rate rises."""
    weight_decay: float = 0.01
    """Of AdamW."""
    clip: float = 1.0
    """Largest global gradient norm; larger ones are scaled down to it."""

    guesses: int = 2
    """Choices of roles that are tried for each command at first, each also with one word changed; later one."""
    guesses_until: int = 135
    """Update of the first part from which one is enough."""
    span_guesses: int = 8
    """The same for each span, all the time."""
    content_cost: float = 0.3
    """Nats that each content word costs: a word is content only where it has to be copied."""
    call_bonus: float = 0.35
    """Nats that each call earns at first; without it few calls are learnt, with 0.7 phrases are cut too short."""
    call_until: int = 225
    """Update of the first part at which that is gone."""
    structure_floor: float = 0.06
    """Least probability of either side of the first score at first."""
    pattern_floor: float = 0.3
    """The same for the second score."""
    pattern_from: int = 75
    """Update of the inner part from which the second score learns; before, which words are pattern is drawn evenly."""
    end_floor: float = 0.1
    """Least probability of a phrase to end, and to go on, at first."""
    stop_floor: float = 0.03
    """The same for the caller."""
    floors_until: int = 270
    """Update of the first part at which the floors are gone."""
    steady_from: int = 150
    """Update of the first part from which the length of a span's phrase is drawn once a command."""
    steady: int = 3
    """Lengths of each span that are then tried."""

    evaluate_every: int = 50
    """Updates between two evaluations."""
    reaches: float = 0.99
    """Exact match on the validation commands that must be reached."""

    def __post_init__(self) -> None:
        self.check_variations(self.contextual)
        if self.split not in SPLITS:
            raise ConfigError(
                f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}.{nearest(self.split, SPLITS)}"
            )
        if self.validation not in ("carved", "proxy"):
            raise ConfigError(
                f"validation: expected one of carved, proxy, got {self.validation!r}; the test commands are for the "
                "last measurement of a finished model alone"
            )
        counts = dict.fromkeys(
            ("width", "heads", "features", "slots", "longest", "outer_steps", "inner_steps", "whole_steps", "batch",
             "check_every", "fit_examples", "warmup", "guesses", "span_guesses", "evaluate_every", "call_until",
             "floors_until"), (1.0, math.inf)
        )  # fmt: skip
        least = dict.fromkeys(
            ("explorations", "examples", "split_seed", "guesses_until", "steady_from", "steady", "content_cost",
             "pattern_from",
             "weight_decay", "call_bonus"), (0.0, math.inf)
        )  # fmt: skip
        shares = dict.fromkeys(("fit", "balanced", "reaches"), (0.0, 1.0))
        floors = dict.fromkeys(("structure_floor", "pattern_floor", "end_floor", "stop_floor"), (0.0, 0.5))
        above = dict.fromkeys(("lr", "role_lr", "clip"), (1e-12, math.inf))
        bounds = {**counts, **least, **shares, **floors, **above, "validation_share": (1e-6, 0.9)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                limit = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
                raise ConfigError(f"{name}: expected {limit}, got {getattr(self, name)!r}")
        if self.pattern_from >= self.inner_steps:
            raise ConfigError(
                f"pattern_from: expected less than inner_steps = {self.inner_steps}, got {self.pattern_from}; the "
                "second score would never learn"
            )
        if self.width % (2 * self.heads):
            raise ConfigError(
                f"width: expected a multiple of 2 * heads = {2 * self.heads}, got {self.width}; each head and each "
                "direction of the inner loop takes an equal part"
            )

    @property
    def attempt(self) -> int:
        """Updates of one attempt, at most."""
        return self.outer_steps + self.inner_steps + self.whole_steps

    @property
    def steps(self) -> int:
        """Updates in all if everything fails; a sound training ends after about 300."""
        return self.attempt * (1 + self.explorations)


class Step(NamedTuple):
    """One batch and the number of its update, which decides what is learnt from it and which guesses are made."""

    number: int
    examples: Encoded
    partners_BN: torch.Tensor | None = None
    """Words of other training commands with the same templates, where the loss has a contrast."""


def tiny() -> Config:
    """Return the settings of a run of some seconds: the outer loop and the roles of few commands, no more."""
    return Config(
        width=32, batch=32, outer_steps=60, pattern_from=5, inner_steps=20, whole_steps=20, explorations=0,
        guesses_until=60,
        fit_examples=100, evaluate_every=25, reaches=0.0, examples=2000,
    )  # fmt: skip


def reference() -> Config:
    """Return the settings of the published run: 40 to 230 seconds on one core, in the median 90."""
    return Config()


def proxy() -> Config:
    """Return the settings by which all others were chosen: up to 15 actions to learn from, 16 to 22 to answer."""
    return Config(validation="proxy")


def of_split(split: str) -> Callable[[], Config]:
    """Return a preset for another split, with the same settings."""
    return lambda: Config(split=split)


AnyConfig = Config | WriteUpConfig | BaselineConfig


def examples(config: Config) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return what is learnt from and what is measured; the same for all seeds of a training."""
    everything = train_of(config.split, config.split_seed)
    if config.validation == "proxy":
        train, validation = proxy_of(everything)
    else:
        train, validation = carve(everything, config.validation_share, config.split_seed)
    if config.examples and config.examples < len(train):
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.split_seed))
        train = tuple(train[place] for place in drawn[: config.examples].sort().values.tolist())
    return tuple(train), tuple(validation)


def build(config: AnyConfig, seed: int) -> Training:
    """Return a training whose weights, batches and guesses are a function of `seed` alone."""
    if isinstance(config, WriteUpConfig):
        return write_up.build(config, seed)
    if isinstance(config, BaselineConfig):
        return baselines.build(config, seed)  # type: ignore[arg-type]  # the two kinds are all that there are
    train, validation = examples(config)
    encoded = encode(train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Constructor.of(
            SCILoop, width=config.width, heads=config.heads, features=config.features, slots=config.slots,
            longest=config.longest, contextual=config.contextual, **config.of_model(),
        ).build()  # fmt: skip
    assert isinstance(model, SCILoop)
    scores = [*model.structure.parameters(), *model.pattern.parameters()]
    own = {id(parameter) for parameter in scores}
    others = [parameter for parameter in model.parameters() if id(parameter) not in own]
    optimizer = torch.optim.AdamW(
        [{"params": others, "peak": config.lr}, {"params": scores, "peak": config.role_lr}],
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=True,
    )
    fit = Fit(model, encoded, config, seed)
    plan = Plan(
        outer=config.outer_steps, inner=config.inner_steps, whole=config.whole_steps, check_every=config.check_every,
        fit=config.fit, warmup=config.warmup, floors_until=config.floors_until, call_until=config.call_until,
        structure_floor=config.structure_floor, pattern_floor=config.pattern_floor,
        pattern_from=config.pattern_from, end_floor=config.end_floor,
        stop_floor=config.stop_floor, call_bonus=config.call_bonus, steady_from=config.steady_from,
        steady=config.steady, guesses=config.guesses, guesses_until=config.guesses_until,
        explorations=config.explorations,
    )  # fmt: skip
    course = Course(plan, model, optimizer, fit.commands, fit.spans, seed)
    draw = Draw(encoded, config, seed, course, Pool(train) if config.scl_weight else None)

    def loss(module: nn.Module, step: Step) -> torch.Tensor:
        assert isinstance(module, SCILoop)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step.number) * 2 + 1)
        aids = course.aids(step.number)
        if course.place.part == "inner":
            found = copy_loss(module, step.examples, aids, config.span_guesses, config.content_cost, generator)
        else:
            found = loop_loss(
                module, step.examples, aids, course.guesses(step.number), generator, config.of_loss(), step.partners_BN
            )
        course.latest = found
        return found.task + found.roles

    held = encode(validation)
    asked = [target[:length] for target, length in zip(held.actions_BT.tolist(), held.lengths_B.tolist(), strict=True)]

    def evaluate() -> Mapping[str, float]:
        model.eval()
        said = model.predict(held.words_BN)
        found = rates(said, [tuple(one) for one in asked])
        by_scaffold = model.predict(held.words_BN, scaffold=True)
        model.train()
        return {
            **found._asdict(),
            "scaffold_exact_match": rates(by_scaffold, [tuple(one) for one in asked]).exact_match,
            "train_exact_match": fit.commands(False),
            "explorations": course.place.redrawn,
        }

    watch = Watch(model, course, held, asked)
    return Training(
        model=model,
        optimizers={"main": optimizer},
        batches=NumberedBatches(draw),
        loss=loss,
        evaluate=evaluate,
        better={"exact_match": "higher", "token_accuracy": "higher", "length_accuracy": "higher"},
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        clip=config.clip,
        schedule=course.after,
        parts={"course": course, "watch": watch},
        finished=lambda: course.place.done,
        observe=watch.observe,
        represent=represent,
    )


class Draw:
    """Makes the batch of an update, a function of seed and number alone but for what the course has reached.

    A batch is the next part of a reshuffled pass over the examples; after the first part of an attempt a share of it is
    drawn evenly over the numbers of words.
    """

    def __init__(self, encoded: Encoded, config: Config, seed: int, course: Course, pool: Pool | None = None):
        self.encoded, self.config, self.seed, self.course, self.pool = encoded, config, seed, course, pool
        words_N = (encoded.words_BN > 0).sum(1)
        self.by_words = [(words_N == count).nonzero()[:, 0] for count in words_N.unique().tolist()]

    def __call__(self, number: int) -> Step:
        """Return the batch of an update."""
        count, size = len(self.encoded.lengths_B), min(self.config.batch, len(self.encoded.lengths_B))
        per_pass = count // size
        shuffled = torch.Generator().manual_seed((self.seed * 1_000_003 + number // per_pass) * 2)
        place = number % per_pass * size
        rows = torch.randperm(count, generator=shuffled)[place : place + size]
        even = 0 if self.course.place.part == "outer" else int(self.config.balanced * size)
        if even:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) * 2 + 1)
            kinds = torch.randint(len(self.by_words), (even,), generator=generator).tolist()
            share = torch.rand(even, generator=generator).tolist()
            picked = [self.by_words[k][int(s * len(self.by_words[k]))] for k, s in zip(kinds, share, strict=True)]
            rows = torch.cat([rows[even:], torch.stack(picked)])
        partners_BN = None
        if self.pool is not None:
            others_B = self.pool.partners(rows.numpy(), np.random.default_rng((self.seed, number)))
            partners_BN = self.encoded.words_BN[torch.from_numpy(others_B)]
        return Step(number, Encoded(*(part[rows] for part in self.encoded)), partners_BN)


class Fit:
    """How well the training commands are answered: all that the course may look at."""

    def __init__(self, model: SCILoop, encoded: Encoded, config: Config, seed: int):
        self.model, self.all = model, encoded
        rows = torch.randperm(len(encoded.lengths_B), generator=torch.Generator().manual_seed(seed))
        self.sample = Encoded(*(part[rows[: config.fit_examples]] for part in encoded))

    def commands(self, scaffold: bool) -> float:
        """Return the share of commands that are right: of the sample with the scaffold, of all without."""
        examples = self.sample if scaffold else self.all
        said = self.model.predict(examples.words_BN, scaffold=scaffold)
        asked = zip(examples.actions_BT.tolist(), examples.lengths_B.tolist(), strict=True)
        right = [answer == tuple(target[:length]) for answer, (target, length) in zip(said, asked, strict=True)]
        return sum(right) / len(right)

    @torch.no_grad()
    def spans(self) -> float:
        """Return the share of the sample's distinct spans whose phrase the inner loop says as the scaffold does."""
        words_BN = self.sample.words_BN
        spans = cut(words_BN, self.model.hard_roles(words_BN))
        here_U = (spans.words_UN > 0).any(-1).repeat(self.model.calls)
        taught = self.model.taught(spans.words_UN)
        said, _ = self.model.phrases(spans.patterns_UN, spans.words_UN)
        pairs = list(zip(taught.greedy(), said.greedy(), here_U.tolist(), strict=True))
        same = [one == other for one, other, here in pairs if here]
        return sum(same) / max(len(same), 1)


def represent(model: nn.Module, step: Step, shift: int) -> torch.Tensor:
    """Return what stands for each word of a batch whose commands were moved by `shift` places: (words, D + 2).

    Embedding and both scores. The places before a command are padding, which is no word.
    """
    assert isinstance(model, SCILoop)
    words_BN = step.examples.words_BN
    moved_BN = torch.cat([words_BN.new_zeros(len(words_BN), shift), words_BN], 1)[:, : words_BN.shape[1] + shift]
    with torch.no_grad():
        rows_BND = torch.cat([model.embedding(moved_BN), *(one[..., None] for one in model.scores(moved_BN))], -1)
    return rows_BND[moved_BN > 0]


def predictor_of(config: AnyConfig, model: nn.Module) -> Predict:
    """Return how a trained model answers commands."""
    if isinstance(model, SCILoop):
        return model.predict
    network = model.network if isinstance(config, WriteUpConfig) else model
    assert isinstance(network, nn.Module)
    assert not isinstance(config, Config)
    return lambda words_BN: generate(network, words_BN, config.generation)


def milestones(config: AnyConfig) -> tuple[Milestone, ...]:
    """Return the checks of a training; for SCI-Loop the write-up's, with its own structure words and in updates."""
    if isinstance(config, WriteUpConfig):
        return write_up.milestones(config)
    if isinstance(config, BaselineConfig) or not config.reaches:
        return ()
    stages: tuple[tuple[str, Literal[">", "<"], float, int], ...] = (
        ("score_std", ">", 0.01, 100),
        ("score_separation_ratio", ">", 1.2, 150),
        ("structure_word_avg_score", ">", 0.7, 250),
        ("content_word_avg_score", "<", 0.3, 250),
        ("validation/scaffold_exact_match", ">", 0.8, 250),
        ("validation/exact_match", ">", config.reaches, config.attempt),
    )
    return tuple(
        Milestone(metric=name, comparison=sign, value=value, by_step=step) for name, sign, value, step in stages
    )


def _presets() -> Iterator[tuple[str, Callable[[], Any]]]:
    yield from {"tiny": tiny, "reference": reference, "proxy": proxy}.items()
    yield from ((split, of_split(split)) for split in SPLITS if split != "length")
    yield from write_up.PRESETS.items()
    yield from faults.PRESETS.items()
    yield from baselines.PRESETS.items()


SYSTEM = System(
    name="sci",
    summary="commands as programs of calls: structure and content told apart, on the splits of SCAN",
    presets=dict(_presets()),
    build=build,
    faults=faults.FAULTS,
    milestones=milestones,
    detectors=(*monitor.DETECTORS, *alarms.DETECTORS),
    hypotheses=(*hypotheses.HYPOTHESES, *alarms.HYPOTHESES),
)
