"""What a training of SCI-Loop records and shows beside its loss: roles of words, what is learnt now, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trimtab.system import Recorder
from trimtab_systems.sci import scores, view
from trimtab_systems.sci.course import Course, Part
from trimtab_systems.sci.data import (
    ACTION_WORDS,
    ACTIONS,
    DIRECTION_WORDS,
    JOIN_WORDS,
    REPEAT_WORDS,
    WAY_WORDS,
    WORDS,
    Encoded,
)
from trimtab_systems.sci.model import ROLES, SCILoop

EVERY = 10
"""Updates between two records."""
SHOW_EVERY = 50
"""Updates between two drawings of the panels."""
STRUCTURE_WORDS = (*REPEAT_WORDS, *JOIN_WORDS)
"""What comes out as structure here; the write-up also counts `around` and `opposite`, which no outer loop of 8 calls
could afford. The model is not told."""
_PARTS: Mapping[Part, int] = {"outer": 0, "inner": 1, "whole": 2}


class Watch:
    """Records and shows; changes nothing and draws nothing.

    Args:
        model: what is trained.
        course: where it stands.
        held: validation commands.
        asked: their actions.
    """

    def __init__(self, model: SCILoop, course: Course, held: Encoded, asked: Sequence[Sequence[int]]):
        self.model, self.course, self.held = model, course, held
        self.asked = [tuple(one) for one in asked]
        self.commands = [[WORDS[word - 1] for word in row if word] for row in held.words_BN.tolist()]
        self.words_BN = torch.arange(1, len(WORDS) + 1)[:, None]
        self.history: list[tuple[int, Mapping[str, float]]] = []
        self.part: Part = "outer"

    @torch.no_grad()
    def observe(self, guard: Recorder, done: int) -> None:
        """Record every `EVERY` updates and where a part begins, and show every `SHOW_EVERY`."""
        place = self.course.place
        changed = place.part != self.part
        self.part = place.part
        if changed:
            guard.note("curriculum", steps=50, text=f"now the {place.part} part; drawn anew {place.redrawn} times")
        if done % EVERY and not changed and not place.done:
            return
        structure_W, pattern_W = (one[:, 0] for one in self.model.scores(self.words_BN))
        of = dict(zip(WORDS, structure_W.tolist(), strict=True))
        structural, content = _mean(of, STRUCTURE_WORDS), _mean(of, ACTION_WORDS)
        found: dict[str, Any] = {
            "structure_word_avg_score": structural,
            "content_word_avg_score": content,
            "direction_word_avg_score": _mean(of, DIRECTION_WORDS),
            "way_word_avg_score": _mean(of, WAY_WORDS),
            "turn_word_avg_score": of["turn"],
            "score_separation_ratio": structural / (content + 1e-6),
            "score_std": float(structure_W.std()),
            "pattern_score_std": float(pattern_W.std()),
            "structure_temperature": float(self.model.structure.tau()),
            "pattern_temperature": float(self.model.pattern.tau()),
            "part": _PARTS[place.part],
            "fit": place.fit,
            "explorations": place.redrawn,
        }
        if self.course.latest is not None:
            found["task_loss"] = float(self.course.latest.task.detach())
            found["likelihoods"] = self.course.latest.rows
        guard.record(**found)
        if done % SHOW_EVERY == 0 or changed or place.done:
            self._show(guard, done, of)

    def state_dict(self) -> dict[str, Any]:
        """Return the scores of words so far, and the part that was announced last."""
        return {"part": self.part, "history": [{"step": step, "scores": dict(of)} for step, of in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.part = state["part"]
        self.history = [(int(one["step"]), dict(one["scores"])) for one in state["history"]]

    def _show(self, guard: Recorder, done: int, of: Mapping[str, float]) -> None:
        self.history.append((done, of))
        if len(self.history) > 60:
            del self.history[1::2]
        roles_W = self.model.hard_roles(self.words_BN)[:, 0].tolist()
        structure_BN, pattern_BN = self.model.scores(self.held.words_BN)
        roles = {word: ROLES[role] for word, role in zip(WORDS, roles_W, strict=True)}
        guard.show(
            "word-roles",
            view.word_roles_table(
                self.held.words_BN, {"structure": structure_BN, "pattern": pattern_BN}, roles, closing=True
            ),
        )
        guard.show("scores-of-words", view.word_roles_map(self.history))
        features_WNF = self.model.features_of(self.words_BN)
        guard.show("features", view.features_map(self.words_BN, features_WNF))
        guard.show("features-read", view.features_table(self.words_BN, features_WNF))
        said = self.model.predict(self.held.words_BN)
        by_length = scores.by_length(said, self.asked, (5, 10, 15, 22))
        caption = "Validation commands, answered without help."
        guard.show("exact-match-by-length", view.rates_table("Exact match", caption, "actions", by_length, True))
        guard.show("mistakes", view.mistakes_table(self.commands, said, self.asked, ACTIONS))


def _mean(of: Mapping[str, float], words: Sequence[str]) -> float:
    return sum(of[word] for word in words) / len(words)
