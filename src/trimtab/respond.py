"""The policy: which action answers which finding, how often, and what happens when that is not enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from trimtab.errors import TrainingStopped, UserError, nearest
from trimtab.live import Live
from trimtab.records import Finding, Note, Outcome, Severity

SPENT_KIND = "response-budget-spent"
"""Kind of the Note that says that an action's budget is spent; the detector of the same name reads it."""

ANY = "*"
"""A policy key that answers every finding at error or above which has no answer of its own."""

ITSELF = ("response-budget-spent", "trimtab-failed")
"""Codes that are about Trimtab and not about the training: no `"*"` that changes anything answers them."""

HARMLESS = ("logged-loss-not-finite",)
"""Codes that say that the training goes well: no action that changes weights may answer them."""


class Action(Protocol):
    """What the policy needs of an action; `trimtab.actions` has the real ones.

    Two things an action may say besides: `each_update` (True: it holds for one update only, so a finding that goes on
    is answered again at each update), and `needed(live, finding)` (False: there is nothing to do; no outcome, no
    budget).
    """

    @property
    def name(self) -> str: ...
    @property
    def changes(self) -> Literal["nothing", "schedule", "weights"]: ...
    @property
    def at_most(self) -> int | None: ...

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Do it, or decline; return what happened."""
        ...


Policy = Mapping[str, "Action | Sequence[Action]"]
"""Code, or `"*"` for every finding at error or above, -> one action, or several that are done in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one finding: the outcome, and a note when the budget of its action is spent."""

    outcome: Outcome
    note: Note | None = None


class Respond:
    """Answers findings from a plain mapping `code -> action`, or several actions that are done in order.

    An opened or worsened finding is answered once; one that goes on, by the actions that hold for one update only, at
    each update. What was declined does not count against an action's budget.

    Args:
        policy: code, or `"*"` for every finding at error or above, -> action or actions.
        known: the codes that exist, so that a misspelt one is an error now and not silence later.

    Raises:
        UserError: the policy is no mapping, names a code that no detector has or something that is no action, or
            would change the weights of a training that the finding says goes well.
    """

    def __init__(self, policy: Policy, known: Iterable[str]):
        codes = set(known)
        self.policy: dict[str, tuple[Action, ...]] = {}
        for code, actions in actions_of(policy).items():
            if code != ANY and code not in codes:
                raise UserError(f"respond: no detector has the code {code!r}.{nearest(code, codes)}")
            self.policy[code] = actions
            wrong = [action.name for action in actions if action.changes == "weights" and code in HARMLESS]
            if wrong:
                raise UserError(
                    f"respond: {code!r} says that only a reported number is broken while the gradients are right; "
                    f"{wrong[0]!r} changes the weights and would harm a training that goes well. Use notify"
                )
        self._used: dict[tuple[str, int], int] = {}
        self._declined: set[tuple[str, int, str]] = set()

    def remember(self, outcomes: Iterable[Outcome]) -> None:
        """Count what was done before this process against the budgets."""
        for outcome in outcomes:
            key = next((key for key in (outcome.code, ANY) if key in self.policy), None)
            if key is None or outcome.result == "declined":
                continue
            for place, action in enumerate(self.policy[key]):
                if action.name == outcome.action:
                    self._used[key, place] = self._used.get((key, place), 0) + 1
                    break

    @property
    def actions(self) -> list[Action]:
        """Every action of the policy."""
        return [action for actions in self.policy.values() for action in actions]

    def key_of(self, finding: Finding) -> str | None:
        """Return the key of the policy that answers a finding, None when it has no answer."""
        if finding.severity <= Severity.INFO:
            return None
        if finding.code in self.policy:
            return finding.code
        if ANY not in self.policy or finding.severity < Severity.ERROR:
            return None
        changes = any(action.changes != "nothing" for action in self.policy[ANY])
        return None if changes and finding.code in ITSELF else ANY

    def changes(self, finding: Finding) -> bool:
        """Say whether the answer to a finding changes anything in the training."""
        key = self.key_of(finding)
        return key is not None and any(action.changes != "nothing" for action in self.policy[key])

    def answers(self, finding: Finding, live: Live | None, *, only_harmless: bool = False) -> Iterator[Answer]:
        """Answer one finding, one action after the other.

        Nothing comes of one that has no answer here, that is resolved, or that is only info.

        Args:
            finding: opened, worsened, or "judged" for one that goes on.
            live: the update that is about to be taken, None between updates.
            only_harmless: leave out the actions that change anything: the training has just gone back.
        """
        key = self.key_of(finding)
        if key is None or finding.event == "resolved":
            return
        goes_on = finding.event == "judged"
        for place, action in enumerate(self.policy[key]):
            if (only_harmless and action.changes != "nothing") or (
                goes_on and not getattr(action, "each_update", False)
            ):
                continue
            known = (key, place, finding.id)
            if goes_on and known in self._declined:
                continue
            answer = self._answer(action, (key, place), finding, live)
            if answer is None:
                continue
            if answer.outcome.result == "declined":
                self._declined.add(known)
            yield answer
            if answer.outcome.stops:
                return

    def _answer(self, action: Action, key: tuple[str, int], finding: Finding, live: Live | None) -> Answer | None:
        used = self._used.get(key, 0)
        spent = action.at_most is not None and used >= action.at_most
        try:
            needed = getattr(action, "needed", None)
            if needed is not None and not needed(live, finding):
                return None
            if spent:
                return _spent(action, finding, used)
            outcome = action.apply(live, finding)
        except TrainingStopped:
            raise
        except Exception as error:  # noqa: BLE001 - an action that raises has failed, and that is an outcome
            if spent:
                return _spent(action, finding, used)
            outcome = _outcome(action.name, finding, "failed", f"{type(error).__name__}: {error}")
        if outcome.result != "declined":
            self._used[key] = used + 1
        return Answer(outcome=replace(outcome, step=finding.step))


def actions_of(policy: Policy) -> dict[str, tuple[Action, ...]]:
    """Return code -> its actions in order; raise UserError that names what is no action."""
    if not isinstance(policy, Mapping):
        raise UserError(
            f"respond={policy!r}; expected 'safe', or a mapping from finding codes to actions, such as "
            "{'loss-spike': RollBack()}"
        )
    found: dict[str, tuple[Action, ...]] = {}
    for code, given in policy.items():
        actions: tuple[Any, ...] = (given,)
        if isinstance(given, Sequence) and not isinstance(given, str):
            actions = tuple(given)
        if not actions:
            raise UserError(f"respond: {code!r} has no action; leave it out where nothing shall answer it")
        for action in actions:
            if isinstance(action, type) and callable(getattr(action, "apply", None)):
                raise UserError(f"respond: {code!r} got the class {action.__name__}; write {action.__name__}()")
            if isinstance(action, type) or not callable(getattr(action, "apply", None)):
                raise UserError(
                    f"respond: {code!r} got {action!r}; expected an action such as SkipStep(), or several in a tuple"
                )
        found[code] = actions
    return found


def _outcome(name: str, finding: Finding, result: Any, because: str, *, stops: bool = False) -> Outcome:
    return Outcome(
        action=name, code=finding.code, subject=finding.subject, stream=finding.stream, attempt=finding.attempt,
        step=finding.step, result=result, changes="nothing", because=because, stops=stops,
    )  # fmt: skip


def _spent(action: Action, finding: Finding, used: int) -> Answer:
    text = f"{action.name} answered {finding.code} {used} times and it came again; the training is stopped"
    facts: dict[str, float | str] = {"action": action.name, "code": finding.code, "at_most": float(used)}
    return Answer(
        outcome=_outcome("stop", finding, "done", text, stops=True),
        note=Note(kind=SPENT_KIND, step=finding.step, text=text, facts=facts),
    )
