"""The final measurement of a finished run, on the test commands of its split: `python -m trimtab_systems.sci.evaluate`.

This is the one place, beside the benchmark that calls it, where test commands are looked at with a trained model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trimtab import checkpoint
from trimtab.checkpoint.rotation import Checkpoints, damage
from trimtab.errors import RunError, TrimtabError, UserError
from trimtab.resume import FOLDER, config_of, own_random_numbers
from trimtab.run import Run, find_run, list_runs
from trimtab.run.writer import default_root
from trimtab.system import Training
from trimtab_systems.sci import scores
from trimtab_systems.sci.data import ACTIONS, Example, clauses, encode_words, open_test, seen_clauses, train_of
from trimtab_systems.sci.program import Predict, table
from trimtab_systems.sci.recipe import SYSTEM, predictor_of
from trimtab_systems.sci.scores import KINDS, Rates

ENDED = ("finished", "stopped")
"""How a run stands whose weights are those it was made for; a response or spent patience stopped the second kind."""
BATCH = 4096
"""Commands that a model answers at a time."""
COMMAND = "python -m trimtab_systems.sci.evaluate"
RUN_HELP = "a run: its folder, the beginning of its id, or 'last', the last that finished (the default)"
MINUTES = 2
"""About so long the preset "reference" trains, on one core; up to four where it draws anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model with the weights of a run, and what it was trained with.

    Attributes:
        run: the name of the run.
        preset: where its settings started from.
        config: its settings.
        seed: its seed.
        step: updates that were taken before these weights were stored.
        model: with them, in evaluation mode.
        predict: its answers.
    """

    run: str
    preset: str
    config: Any
    seed: int
    step: int
    model: nn.Module
    predict: Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a model reaches on a set of commands.

    Attributes:
        all: of all of them.
        by_length: number of actions that are asked for -> of these.
        by_clauses: "seen clauses": of the commands whose every clause stands in training; "an unseen clause": others.
        mistakes: class -> by how much (see `scores.Mistake`) -> how many commands; all classes, together all mistakes.
        examples: class -> the first command with such a mistake, what was answered, and what was asked for.
        cpu_seconds: what the answers took.
    """

    all: Rates
    by_length: Mapping[str, Rates]
    by_clauses: Mapping[str, Rates]
    mistakes: Mapping[str, Mapping[int, int]]
    examples: Mapping[str, tuple[str, str, str]]
    cpu_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **self.all._asdict(),
            "by_length": {name: one._asdict() for name, one in self.by_length.items()},
            "by_clauses": {name: one._asdict() for name, one in self.by_clauses.items()},
            "mistakes": {name: {str(by): count for by, count in its.items()} for name, its in self.mistakes.items()},
            "examples": {
                name: {"command": command, "answer": answer, "target": target}
                for name, (command, answer, target) in self.examples.items()
            },
            "cpu_seconds": self.cpu_seconds,
        }


def open_run(run: Run | str = "last") -> Trained:
    """Return the model of a run of this system that came to its end, with the newest weights that were stored.

    Of a run that was stopped early these are its best weights; `Trained.step` says from when.

    Args:
        run: itself, its folder, the beginning of its id, or "last": the last one that came to its end and has a
            checkpoint.

    Raises:
        RunError: there is no such run; it trained something else, did not come to its end, or its checkpoint is gone.
    """
    run = _last() if run == "last" else find_run(run) if isinstance(run, str) else run
    if run.facts.system != SYSTEM.name:
        raise RunError(f"run {run.id} trained {run.facts.system or 'no system'!r}, expected one of {SYSTEM.name!r}")
    if run.status not in ENDED:
        raise RunError(
            f"run {run.id} has the status {run.status!r}, expected one that came to its end; go on with it first: "
            f"trimtab train --resume {run.id}"
        )
    with own_random_numbers(run.facts.seed or 0):
        training = SYSTEM.build(config_of(run, SYSTEM), run.facts.seed or 0)
    path, step = _newest(run)
    last = training.steps if training.finished is None else Checkpoints(run.path / FOLDER).all()[0].step
    if run.status == "finished" and step != last:
        raise RunError(
            f"run {run.id} took {last:,} updates, and its newest whole checkpoint is from after {step:,}; "
            "train anew, or restore the folder of the last one from a copy"
        )
    checkpoint.load(path, training.model, name="model")
    return trained_of(run, training, step)


def trained_of(run: Run, training: Training, step: int) -> Trained:
    """Return the model of a training that has ended, as it is now, after so many updates."""
    config = config_of(run, SYSTEM)
    return Trained(
        run=run.id,
        preset=str(run.settings().get("preset", "")),
        config=config,
        seed=run.facts.seed or 0,
        step=step,
        model=training.model.eval(),
        predict=predictor_of(config, training.model),
    )


def final(trained: Trained, split: str = "") -> Result:
    """Open the test of a split and return what a model reaches there.

    Args:
        trained: the model.
        split: which test; that of its own training where it is empty.

    Raises:
        UserError: the model was trained on commands of that test.
    """
    split = split or trained.config.split
    train = train_of(trained.config.split, trained.config.split_seed)
    test = open_test(split, trained.config.split_seed)
    known = {example.words for example in train}
    both = [example for example in test if example.words in known]
    if both:
        raise UserError(
            f"split: {len(both):,} of the {len(test):,} test commands of {split!r} were trained on in run "
            f"{trained.run} (its split is {trained.config.split!r}), for instance {' '.join(both[0].words)!r}; "
            f"evaluate it on {trained.config.split!r}, or train with split={split}"
        )
    return measure(trained.predict, test, train)


def measure(predict: Predict, examples: Sequence[Example], train: Sequence[Example] = ()) -> Result:
    """Return what the answers to these examples are worth.

    Args:
        predict: gives the answers.
        examples: commands and what they ask for.
        train: what the model was trained on; decides which commands are made of clauses that it knows.
    """
    began = time.process_time()
    answers = answers_to(predict, examples)
    seconds = time.process_time() - began
    targets = [tuple(ACTIONS.index(name) for name in example.actions) for example in examples]
    seen = scores.clauses_seen([clauses(example.words) for example in examples], seen_clauses(train))
    wrong = [scores.mistake(answer, target) for answer, target in zip(answers, targets, strict=True)]
    shown = {
        one.kind: (" ".join(example.words), _named(answer), _named(target))
        for one, example, answer, target in reversed(list(zip(wrong, examples, answers, targets, strict=True)))
        if one is not None
    }
    counted = {kind: Counter(one.amount for one in wrong if one is not None and one.kind == kind) for kind in KINDS}
    return Result(
        all=scores.rates(answers, targets),
        by_length=scores.by_length(answers, targets),
        by_clauses=scores.by_clauses(answers, targets, seen) if train else {},
        mistakes={kind: dict(sorted(amounts.items())) for kind, amounts in counted.items()},
        examples={kind: shown[kind] for kind in KINDS if kind in shown},
        cpu_seconds=round(seconds, 3),
    )


def answers_to(predict: Predict, examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """Return the indices of the actions that a model answers to each command."""
    words_BN = encode_words([example.words for example in examples])
    with torch.no_grad():
        return [tuple(answer) for part_BN in words_BN.split(BATCH) for answer in predict(part_BN)]


def text(trained: Trained, split: str, result: Result) -> list[str]:
    """Return a result as lines for a person."""
    title = f"run {trained.run}: preset {trained.preset}, seed {trained.seed}, {trained.step:,} updates"
    groups = {"all": result.all, **result.by_clauses}
    groups |= {f"{length} actions": one for length, one in result.by_length.items()}
    lines = [title, f"test of the split {split}, answered in {result.cpu_seconds:.1f} CPU seconds", ""]
    lines += table(
        ("commands", "right", "of", "exact match", "actions right", "length right"),
        [
            (name, f"{one.exact:,}", f"{one.n:,}", *(f"{value:.4f}" for value in one[2:]))
            for name, one in groups.items()
        ],
    )
    if result.examples:
        rows = [(kind, f"{sum(by.values()):,}", _amounts(by)) for kind, by in result.mistakes.items() if by]
        lines += ["", *table(("mistake", "commands", "by how many actions"), rows), ""]
        for kind, (command, answer, target) in result.examples.items():
            lines += [f"{kind}: {command}", f"  answered: {answer or 'nothing'}", f"  asked for: {target}"]
    return lines


def _amounts(by: Mapping[int, int], most: int = 8) -> str:
    """Return the most frequent amounts, such as "8 (120 times)"."""
    often = sorted(by.items(), key=lambda item: -item[1])
    words = [f"{amount} ({count:,} times)" for amount, count in often[:most]]
    return ", ".join(words) + (f" and {len(often) - most} others" if len(often) > most else "")


def _named(indices: Sequence[int]) -> str:
    return " ".join(ACTIONS[index].removeprefix("I_") for index in indices)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a run reaches on the test of its split; return the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", default="last", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--split", default="", metavar="NAME", help="whose test; that of its training by default")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="for a person, or one JSON document")
    given = parser.parse_args(arguments)
    return answered(lambda: _lines(given.run, given.split, given.format == "json"))


def _lines(run: str, split: str, as_json: bool) -> list[str]:
    trained = open_run(run)
    split = split or trained.config.split
    result = final(trained, split)
    if as_json:
        return [json.dumps({"run": trained.run, "seed": trained.seed, "split": split, **result.as_dict()})]
    return text(trained, split, result)


def answered(lines_of: Callable[[], Sequence[str]]) -> int:
    """Print what a command has to say, or on standard error what a user has to mend; return the exit code."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines_of()))
    except TrimtabError as error:
        sys.stderr.write(f"trimtab: {error}\n")
        return 2
    return 0


def _last() -> Run:
    """Return the run of this system that was started last, among those that ended and hold a checkpoint."""
    for run in list_runs():
        if run.facts.system == SYSTEM.name and run.status in ENDED and Checkpoints(run.path / FOLDER).all():
            return run
    raise RunError(
        f"{default_root()} holds no finished run of {SYSTEM.name!r} with a checkpoint; train one first, about "
        f"{MINUTES} minutes on one core: trimtab train {SYSTEM.name} --preset reference. Or name another folder of "
        "runs with TRIMTAB_RUNS"
    )


def _newest(run: Run) -> tuple[Path, int]:
    """Return the newest checkpoint of a run that is whole, and the number of updates before it.

    That one, and not the newest good one: good is what later updates confirmed, and after the last update come none.
    """
    stored = Checkpoints(run.path / FOLDER).all()
    for one in stored:
        if damage(one.path) is None:
            return one.path, one.step
    what = f"{len(stored)} checkpoints, all damaged" if stored else "no checkpoint"
    raise RunError(f"run {run.id} holds {what}; train anew, and leave --checkpoint-every as it is")


if __name__ == "__main__":
    sys.exit(main())
