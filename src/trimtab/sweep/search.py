"""A search: Optuna suggests the arms of a phase, every arm runs all its seeds, and the sweep tells what came of it.

An arm stands for the mean of its scores over its seeds. One with a failed trial, or with a score that is no number, is
told as pruned and without a value: samplers that look at such trials (TPE) take it for worse than every other, and no
number is made up. A pruner watches the first seed of each arm while it runs, against the first seeds of the arms before
it, which had the same data and the same start; the other seeds begin only when it was not pruned. The Wilcoxon pruner
compares seed with seed instead, so there the seeds run one after the other.

Arms are suggested a few at once (`Search.at_once`), and each by a sampler seeded with the arm's number, so that the
same search suggests the same arms however many slots and workers there are, and after a pause. (Two workers that ask in
the very same moment may begin the next few early.)
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import UserError, nearest
from trimtab.sweep.plan import Arm, Found, Phase, Plan, score_of, value_text
from trimtab.sweep.space import Choice
from trimtab.trial import ENDED, Point, Trial, TrialResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SAMPLERS = ("random", "tpe", "gp", "qmc", "nsgaii", "cmaes")
"""Names of samplers: at random, by Parzen estimators, by a Gaussian process, evenly spread, by evolution (two ways)."""
PRUNERS = ("none", "median", "percentile", "hyperband", "wilcoxon")
"""Names of pruners; each is Optuna's class of that name."""

_PERCENTILE = 25.0
"""The percentile pruner keeps the best quarter at each evaluation: Optuna's own example."""
_STARTUP_ARMS = 5
"""So many arms run to their end before one is pruned: Optuna's default."""
_HALF_ASKED_SECONDS = 60.0
"""An arm that has no values so long after it was asked for was asked for by a worker that died in that moment."""


def check_names(sampler: str, pruner: str) -> None:
    """Raise UserError where a sampler or a pruner is unknown, or its package is missing."""
    if sampler not in SAMPLERS:
        raise UserError(
            f"there is no sampler {sampler!r}.{nearest(str(sampler), SAMPLERS)} Known: grid, {', '.join(SAMPLERS)}"
        )
    if pruner not in PRUNERS:
        raise UserError(f"there is no pruner {pruner!r}.{nearest(str(pruner), PRUNERS)} Known: {', '.join(PRUNERS)}")
    if sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise UserError("sampler cmaes needs the package of that name; pip install cmaes, or use another sampler")


@contextmanager
def storage_beside(store: str) -> Iterator[BaseStorage]:
    """Give where Optuna keeps its study while the block runs.

    Args:
        store: as `Store.open` takes it; the study is in the same PostgreSQL database, or in a file beside the SQLite
            one.
    """
    from optuna import storages
    from optuna.storages.journal import JournalFileBackend

    if not store.startswith(("postgresql", "postgres:")):
        path = Path(store.removeprefix("sqlite:///"))
        with _quiet():
            made = storages.JournalStorage(JournalFileBackend(str(path.with_name(f"{path.stem}.search.jsonl"))))
        yield made
        return
    database = storages.RDBStorage("postgresql+psycopg://" + store.partition("://")[2])
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


class Searching:
    """The search of one phase. Its state is the study in the storage alone, which any number of workers share.

    Args:
        plan: settled, so that it knows which direction is good.
        phase: one with a search.
        found: what the phases that it needs found.
        storage: of Optuna.
        study: name of the study.
    """

    def __init__(self, plan: Plan, phase: Phase, found: Mapping[str, Found], storage: BaseStorage, study: str):
        import optuna

        assert phase.search is not None  # who makes a Searching has looked
        if not plan.better:
            raise UserError("a search needs to know which direction is good; give better='higher' or 'lower'")
        self._plan, self._phase, self._found, self._search = plan, phase, found, phase.search
        self._width = len(str(self._search.arms - 1))
        self._numbers: dict[str, int] = {}
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would say that a study was made
        try:
            with _quiet():
                self._study: Study = optuna.create_study(
                    storage=storage,
                    study_name=study,
                    direction="minimize" if plan.better == "lower" else "maximize",
                    pruner=_pruner(self._search.pruner),
                    load_if_exists=True,
                )
        finally:
            optuna.logging.set_verbosity(verbosity)

    @property
    def done(self) -> bool:
        """Whether every arm was suggested and judged."""
        trials = self._study.get_trials(deepcopy=False)
        return len(trials) >= self._search.arms and all(trial.state.is_finished() for trial in trials)

    def advance(self, results: Mapping[str, TrialResult]) -> list[Trial]:
        """Judge the arms whose trials have ended, suggest the next few where none is open, and say what is to run.

        Args:
            results: key -> every trial of this sweep as it stands.

        Returns:
            The trials of all open arms that may run now; those that are in the store already among them.
        """
        wanted = [trial for one in self._open() for trial in self._next(one, results)]
        asked = len(self._study.get_trials(deepcopy=False))
        if wanted or self._open() or asked >= self._search.arms:
            return wanted
        for _ in range(min(self._search.at_once, self._search.arms - asked)):
            self._ask()
        return [trial for one in self._open() for trial in self._next(one, results)]

    def watch(self, trial: Trial, points: Sequence[Point]) -> int | None:
        """Show the pruner every evaluation of a running trial.

        Args:
            trial: one that `advance` gave.
            points: all evaluations so far.

        Returns:
            The updates done at the evaluation at which the pruner gives the arm up; None to go on.
        """
        if not self._watched or trial.seed != self._seeds[0] or trial.arm not in self._numbers:
            return None
        import optuna

        frozen = self._study.get_trials(deepcopy=False)[self._numbers[trial.arm]]
        if frozen.state.is_finished():
            return None
        one = optuna.trial.Trial(self._study, frozen._trial_id)
        for place, (updates, value) in enumerate(points):
            if place in frozen.intermediate_values:
                continue
            one.report(value, place)
            if place and one.should_prune():  # the start says nothing of the arm
                return updates
        return None

    @property
    def _watched(self) -> bool:
        return self._search.pruner not in ("none", "wilcoxon")

    @property
    def _seeds(self) -> tuple[int, ...]:
        return self._plan.seeds_of(self._phase, Arm(name=""))

    def _open(self) -> list[FrozenTrial]:
        """Return the arms that were suggested and not judged, with all their values."""
        found = []
        for one in self._study.get_trials(deepcopy=False):
            if one.state.is_finished():
                continue
            if one.number >= self._search.arms:  # two workers asked for the last one
                self._tell(one, None)
            elif set(one.params) == set(self._search.space):
                found.append(one)
            elif one.datetime_start and (datetime.now() - one.datetime_start).total_seconds() > _HALF_ASKED_SECONDS:
                self._tell(one, None)
        return found

    def _ask(self) -> None:
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = _sampler(self._search.sampler, self._search.seed, number)
        with _quiet():
            self._study.ask({key: space.distribution() for key, space in self._search.space.items()})

    def _arm(self, one: FrozenTrial) -> Arm:
        settings = {
            key: _as_given(one.params[key], isinstance(space, Choice)) for key, space in self._search.space.items()
        }
        words = " ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value_text(value)}"
            for key, value in settings.items()
        )
        name = f"{one.number:0{self._width}}: {words}"
        self._numbers[name] = one.number
        return Arm(name=name, settings=settings)

    def _next(self, one: FrozenTrial, results: Mapping[str, TrialResult]) -> list[Trial]:
        """Return what an open arm still has to run; judge it where that is nothing."""
        trials = self._plan.trials(self._phase, self._found, [self._arm(one)])
        ended = [results.get(trial.key) for trial in trials]
        scores: list[float] = []
        for place, (trial, result) in enumerate(zip(trials, ended, strict=True)):
            if result is None or result.status not in ENDED:
                if self._watched and place == 0:
                    return [trial]
                if self._search.pruner == "wilcoxon":
                    return [trial]
                return trials
            score = score_of(result, self._phase.score)
            if not math.isfinite(score):
                break  # failed, pruned or without a number: no other seed can mend that
            scores.append(score)
            if self._search.pruner == "wilcoxon" and self._beaten(one, place, score):
                break
        else:
            self._tell(one, sum(scores) / len(scores))
            return []
        running = [
            trial
            for trial, result in zip(trials, ended, strict=True)
            if result is not None and result.status not in ENDED
        ]
        if running:  # seeds that were begun before it was known; they are counted, so they are waited for
            return running
        self._tell(one, None)
        return []

    def _beaten(self, one: FrozenTrial, place: int, score: float) -> bool:
        import optuna

        if place in one.intermediate_values:
            return False
        trial = optuna.trial.Trial(self._study, one._trial_id)
        with _quiet():
            trial.report(score, place)
            return trial.should_prune()

    def _tell(self, one: FrozenTrial, score: float | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        state = TrialState.PRUNED if score is None else TrialState.COMPLETE
        with suppress(UpdateFinishedTrialError):  # another worker told the same in the same moment
            self._study.tell(one.number, score, state=state, skip_if_finished=True)


def _as_given(value: Any, as_text: bool) -> Any:
    """Return a suggested value as a plain one; a choice was suggested as text."""
    return json.loads(value) if as_text else value


def _sampler(name: str, seed: int, number: int) -> BaseSampler:
    """Return a sampler for the arm of this number; one that keeps its place in the study has the same seed for all."""
    from optuna import samplers

    own = seed * 1_000_003 + number  # the prime keeps searches of neighbouring seeds apart
    with _quiet():
        match name:
            case "random":
                return samplers.RandomSampler(seed=own)
            case "tpe":
                return samplers.TPESampler(seed=own)
            case "gp":
                return samplers.GPSampler(seed=own)
            case "qmc":
                return samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            case "nsgaii":
                return samplers.NSGAIISampler(seed=own)
            case _:
                return samplers.CmaEsSampler(seed=own, warn_independent_sampling=False)


def _pruner(name: str) -> BasePruner:
    from optuna import pruners

    with _quiet():
        match name:
            case "median":
                return pruners.MedianPruner(n_startup_trials=_STARTUP_ARMS)
            case "percentile":
                return pruners.PercentilePruner(_PERCENTILE, n_startup_trials=_STARTUP_ARMS)
            case "hyperband":
                return pruners.HyperbandPruner()
            case "wilcoxon":
                return pruners.WilcoxonPruner()
            case _:
                return pruners.NopPruner()


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out that Optuna calls some of its parts experimental; everything else that it warns of is heard."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
