"""The policy: which action answers which finding, how often, and what happens when that is not enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from trimtab.errors import UserError, nearest
from trimtab.live import Live
from trimtab.records import Finding, Note, Outcome, Severity

SPENT_KIND = "response-budget-spent"
"""Kind of the Note that says that an action's budget is spent; the detector of the same name reads it."""

ANY = "*"
"""A policy key that answers every finding at error or above which has no answer of its own."""


class Action(Protocol):
    """What the policy needs of an action; `trimtab.actions` has the real ones."""

    @property
    def name(self) -> str: ...
    @property
    def at_most(self) -> int | None: ...

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Do it, or decline; return what happened."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one finding: the outcome, and a note when the budget of its action is spent."""

    outcome: Outcome
    note: Note | None = None


class Respond:
    """Answers opened and worsened findings from a plain mapping `code -> action`.

    Args:
        policy: code, or `"*"` for every finding at error or above, -> action.
        known: the codes that exist, so that a misspelt one is an error now and not silence later.

    Raises:
        UserError: the policy names a code that no detector has.
    """

    def __init__(self, policy: Mapping[str, Action], known: Iterable[str]):
        codes = set(known)
        for code in policy:
            if code != ANY and code not in codes:
                raise UserError(f"respond: no detector has the code {code!r}.{nearest(code, codes)}")
        self.policy = dict(policy)
        self._used: dict[str, int] = {}

    def answer(self, finding: Finding, live: Live | None) -> Answer | None:
        """Answer one finding; None when the policy has nothing for it, or when it is only info or resolved."""
        if finding.event not in ("opened", "worsened") or finding.severity <= Severity.INFO:
            return None
        action = self.policy.get(finding.code)
        key = finding.code
        if action is None and finding.severity >= Severity.ERROR:
            action, key = self.policy.get(ANY), ANY
        if action is None:
            return None
        used = self._used.get(key, 0)
        if action.at_most is not None and used >= action.at_most:
            text = f"{action.name} answered {finding.code} {used} times and it came again; the training is stopped"
            outcome = Outcome(
                action="stop", code=finding.code, subject=finding.subject, stream=finding.stream,
                attempt=finding.attempt, step=finding.step, result="done", changes="nothing", because=text, stops=True,
            )  # fmt: skip
            facts: dict[str, float | str] = {"action": action.name, "code": finding.code, "at_most": float(used)}
            return Answer(outcome=outcome, note=Note(kind=SPENT_KIND, step=finding.step, text=text, facts=facts))
        self._used[key] = used + 1
        try:
            outcome = action.apply(live, finding)
        except Exception as error:  # noqa: BLE001 - an action that raises has failed, and that is an outcome
            outcome = Outcome(
                action=action.name, code=finding.code, subject=finding.subject, stream=finding.stream,
                attempt=finding.attempt, step=finding.step, result="failed", changes="nothing",
                because=f"{type(error).__name__}: {error}",
            )  # fmt: skip
        return Answer(outcome=replace(outcome, step=finding.step))
