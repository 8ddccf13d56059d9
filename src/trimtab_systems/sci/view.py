"""What a training shows of itself in the report: roles of words, what features say, mistakes, attention, slots.

Every function takes plain tensors and lists and returns a panel of `trimtab.panels`, so that any model of this system
can use it. Nothing draws from the random numbers of the training.

Letters in names: B commands, N words, K slots, D width, F features, M points, W distinct words.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from trimtab.errors import UserError
from trimtab.panels import Map, Scatter, Table
from trimtab_systems.sci.data import ACTION_WORDS, DIRECTION_WORDS, JOIN_WORDS, REPEAT_WORDS, WAY_WORDS, WORDS
from trimtab_systems.sci.scores import KINDS, Actions, Rates, mistake

CLASSES: Mapping[str, tuple[str, ...]] = {
    "action": ACTION_WORDS,
    "direction": DIRECTION_WORDS,
    "turn": ("turn",),
    "way": WAY_WORDS,
    "repeat": REPEAT_WORDS,
    "conjunction": JOIN_WORDS,
}
"""Classes of the 13 words; only what is shown and measured uses them, no model is told."""
CLASS_OF = {word: name for name, words in CLASSES.items() for word in words}
IN_ORDER = tuple(word for words in CLASSES.values() for word in words)
"""The 13 words, class by class: the order in which they are shown."""
READINGS: Mapping[str, tuple[str, ...]] = {
    "a function word": (*REPEAT_WORDS, *JOIN_WORDS),
    "a direction": DIRECTION_WORDS,
    "an action": ACTION_WORDS,
}
"""What the write-up says that features of the abstraction layer ask of a word (its section 2.3)."""
TELLS = 0.9
"""From this AUC on a feature tells a class of words from the others."""
BY_CHANCE = 0.05
"""... unless features tell as large a share of the sets of as many words, drawn at random, as well as that."""
MOST_POINTS = 200
"""t-SNE of so many points takes about half a CPU second."""

# --- roles of words -------------------------------------------------------------------------------


def word_means(words_BN: torch.Tensor, scores_BN: torch.Tensor) -> dict[str, float]:
    """Return the mean score of each word that occurs; words are numbered from 1, and 0 is padding."""
    flat, values = words_BN.flatten(), scores_BN.detach().flatten().double()
    total = torch.zeros(len(WORDS) + 1, dtype=torch.float64).index_add_(0, flat.cpu(), values.cpu())
    count = torch.bincount(flat.cpu(), minlength=len(WORDS) + 1)
    means = {word: float(total[i] / count[i]) for i, word in enumerate(WORDS, start=1) if count[i]}
    return {word: means[word] for word in IN_ORDER if word in means}


def word_roles_table(
    words_BN: torch.Tensor,
    scores: Mapping[str, torch.Tensor],
    roles: Mapping[str, str] | None = None,
    closing: bool = False,
) -> Table:
    """Return a row for each word: its class, its role where there is one, and each score with its spread.

    Args:
        words_BN: numbers of words, 0 is padding.
        scores: what each score is called -> (B, N), such as {"structural": scores_BN}.
        roles: word -> the role that the model gives it.
        closing: also print it at the end of a training.
    """
    roles = roles or {}
    means = {name: word_means(words_BN, scores_BN) for name, scores_BN in scores.items()}
    columns = ["word", "class", *(["role"] if roles else []), "times"]
    for name in scores:
        columns += [name, "least", "largest"] if len(scores) == 1 else [name]
    rows: list[tuple[str | float, ...]] = []
    for word in IN_ORDER:
        here_BN = words_BN == WORDS.index(word) + 1
        times = int(here_BN.sum())
        if not times:
            continue
        row: list[str | float] = [word, CLASS_OF[word], *([roles.get(word, "")] if roles else []), times]
        for name, scores_BN in scores.items():
            row.append(round(means[name][word], 4))
            if len(scores) == 1:
                values = scores_BN.detach()[here_BN]
                row += [round(float(values.min()), 4), round(float(values.max()), 4)]
        rows.append(tuple(row))
    caption = "Mean over all places where the word stands. Classes are ours; the model is not told them."
    return Table("Roles of words", caption, tuple(columns), tuple(rows), closing)


def word_roles_map(history: Sequence[tuple[int, Mapping[str, float]]]) -> Map:
    """Return how the score of each word went: a row for each word, a column for each step of the history."""
    if not history:
        raise UserError("word_roles_map: the history is empty; give (step, word -> score) for at least one step")
    words = tuple(word for word in IN_ORDER if any(word in means for _, means in history))
    values = tuple(tuple(means.get(word, float("nan")) for _, means in history) for word in words)
    caption = "How structural each word is held to be (0 content, 1 structure), over the updates."
    return Map("Scores of words", caption, words, tuple(str(step) for step, _ in history), values, 0.0, 1.0)


# --- what features say ----------------------------------------------------------------------------


def features_map(words_BN: torch.Tensor, features_BNF: torch.Tensor) -> Map:
    """Return the mean activation of each feature for each class of words."""
    words, means_WF = _features_of_words(words_BN, features_BNF)
    rows = [name for name in CLASSES if any(CLASS_OF[word] == name for word in words)]
    values = []
    for name in rows:
        chosen = [index for index, word in enumerate(words) if CLASS_OF[word] == name]
        values.append(tuple(means_WF[chosen].mean(0).tolist()))
    columns = tuple(f"feature {number + 1}" for number in range(means_WF.shape[1]))
    caption = "Mean over the words of a class, each word counted once."
    return Map("Features of the abstraction layer", caption, tuple(rows), columns, tuple(values), 0.0, 1.0)


class Reading(NamedTuple):
    """Whether a feature answers a question about words.

    Attributes:
        question: one of `READINGS`.
        feature: number of the feature that answers it best, from 0.
        auc: the probability that it ranks a word of the class above another one, or below if that is more probable;
            0.5 is a guess.
        chance: share of all sets of as many words for which some feature is as good.
        holds: the AUC is `TELLS` or more, and `chance` no more than `BY_CHANCE`.
    """

    question: str
    feature: int
    auc: float
    chance: float
    holds: bool


def readings(words_BN: torch.Tensor, features_BNF: torch.Tensor) -> tuple[Reading, ...]:
    """Return for each of the write-up's questions how well the best feature answers it.

    Which feature it is does not count: nothing in the network tells them apart. Each word counts once. Thirteen words
    can be divided in many ways, and several features tell some of them by chance; so the same is asked of every other
    set of as many words.
    """
    words, means_WF = _features_of_words(words_BN, features_BNF)
    found = []
    for question, members in READINGS.items():
        chosen = [index for index, word in enumerate(words) if word in members]
        if not chosen or len(chosen) == len(words):
            continue
        aucs_F = _aucs(means_WF, torch.tensor([chosen]))[0]
        best = int(aucs_F.argmax())
        sets = torch.tensor(list(itertools.combinations(range(len(words)), len(chosen))))
        chance = float((_aucs(means_WF, sets).amax(1) >= aucs_F[best] - 1e-9).double().mean())
        auc = float(aucs_F[best])
        found.append(Reading(question, best, auc, chance, auc >= TELLS and chance <= BY_CHANCE))
    return tuple(found)


def features_table(words_BN: torch.Tensor, features_BNF: torch.Tensor) -> Table:
    """Return whether features answer what the write-up says they ask; the caption holds the verdict."""
    found = readings(words_BN, features_BNF)
    rows = tuple(
        (f"is it {one.question}?", one.feature + 1, round(one.auc, 3), round(one.chance, 3), one.holds) for one in found
    )
    good = [one.question for one in found if one.holds]
    verdict = f"The write-up's reading holds for {len(good)} of {len(found)} questions"
    listed = f" ({', '.join(good)})" if good else ""
    caption = (
        f"{verdict}{listed}. It holds where a feature ranks the words of the class apart from the others with an AUC "
        f"of {TELLS:g} or more, and at most {BY_CHANCE:.0%} of all sets of as many words are told as well (chance)."
    )
    return Table("What features say", caption, ("question", "best feature", "AUC", "chance", "holds"), rows)


def _features_of_words(words_BN: torch.Tensor, features_BNF: torch.Tensor) -> tuple[list[str], torch.Tensor]:
    """Return the words that occur, and the mean of each feature for each of them, (W, F)."""
    per_feature = [word_means(words_BN, one_BN) for one_BN in features_BNF.unbind(-1)]
    if not per_feature or not per_feature[0]:
        raise UserError(f"there are no words or no features to show; got features {tuple(features_BNF.shape)}")
    words = list(per_feature[0])
    return words, torch.tensor([[one[word] for one in per_feature] for word in words], dtype=torch.float64)


def _aucs(means_WF: torch.Tensor, sets_SM: torch.Tensor) -> torch.Tensor:
    """Return (S, F): how well each feature tells each set of words from the others, above or below; ties count half."""
    above_WWF = (means_WF[:, None] > means_WF).double() + 0.5 * (means_WF[:, None] == means_WF).double()
    inside_SW = torch.zeros(len(sets_SM), len(means_WF), dtype=torch.float64).scatter_(1, sets_SM, 1.0)
    wins_SF = torch.einsum("sw,wvf,sv->sf", inside_SW, above_WWF, 1.0 - inside_SW)
    auc_SF = wins_SF / (sets_SM.shape[1] * (len(means_WF) - sets_SM.shape[1]))
    return torch.maximum(auc_SF, 1.0 - auc_SF)


# --- how right the outputs are --------------------------------------------------------------------


def rates_table(title: str, caption: str, of: str, found: Mapping[str, Rates], closing: bool = False) -> Table:
    """Return the rates of groups of examples, such as `scores.by_length` gives them; `of` names what the groups are."""
    columns = (of, "examples", "right", "exact match", "token accuracy", "length accuracy")
    rows = tuple(
        (name, one.n, one.exact, round(one.exact_match, 4), round(one.token_accuracy, 4), round(one.length_accuracy, 4))
        for name, one in found.items()
    )
    return Table(title, caption, columns, rows, closing)


def mistakes_table(
    commands: Sequence[Sequence[str]],
    predicted: Sequence[Actions],
    targets: Sequence[Actions],
    names: Sequence[str],
    examples: int = 2,
) -> Table:
    """Return how often each kind of mistake was made, with the first few of each.

    Args:
        commands: the words of each.
        predicted, targets: action indices.
        names: of the actions; the sign of what is shown, such as "I_WALK".
        examples: so many of each kind are shown.
    """
    if not len(commands) == len(predicted) == len(targets):
        raise UserError(f"{len(commands)} commands, {len(predicted)} predictions, {len(targets)} targets; give as many")
    members: dict[str, list[int]] = defaultdict(list)
    found = [mistake(one, target) for one, target in zip(predicted, targets, strict=True)]
    for index, one in enumerate(found):
        if one is not None:
            members[one.kind].append(index)
    wrong = sum(map(len, members.values()))
    rows: list[tuple[str | float, ...]] = []
    for kind in KINDS:
        for shown, index in enumerate(members[kind][:examples]):
            one = found[index]
            assert one is not None
            count = len(members[kind])
            head = (kind, count, f"{count / wrong:.0%}") if shown == 0 else ("", "", "")
            said, wanted = (_short([names[action] for action in side[index]]) for side in (predicted, targets))
            rows.append((*head, " ".join(commands[index]), one.amount, one.place + 1, said, wanted))
    caption = (
        f"{wrong} of {len(targets)} wrong. 'By' is how many actions are missing, too many or wrong; 'from' is the "
        "first place that differs."
    )
    columns = ("mistake", "how often", "share", "command", "by", "from", "said", "wanted")
    return Table("Mistakes", caption, columns, tuple(rows))


def _short(actions: Sequence[str], most: int = 12) -> str:
    """Write actions without their I_, a phrase that is said again and again as a product, the end cut off if long."""
    names = [name.removeprefix("I_") for name in actions]
    parts: list[str] = []
    place = 0
    while place < len(names):
        length, count = max(((p, _times(names, place, p)) for p in range(1, 9)), key=lambda one: _covered(*one))
        if count == 1:
            length = 1
        phrase = " ".join(names[place : place + length])
        parts.append(phrase if count == 1 else f"{count}x{phrase if length == 1 else f'({phrase})'}")
        place += length * count
    return " ".join(parts) if len(parts) <= most else " ".join((*parts[:most], f"... ({len(actions)} in all)"))


def _times(names: Sequence[str], place: int, length: int) -> int:
    """Return how often the phrase of so many actions at a place is said there in a row."""
    phrase, count = names[place : place + length], 1
    while len(phrase) == length and names[place + count * length : place + (count + 1) * length] == phrase:
        count += 1
    return count


def _covered(length: int, count: int) -> tuple[int, int]:
    """Return how much a repeated phrase covers, shorter phrases first; one that is said once covers a single action."""
    return (length * count if count > 1 else 1, -length)


# --- attention and slots --------------------------------------------------------------------------


def attention_map(title: str, command: Sequence[str], weights_KN: torch.Tensor, closing_note: str = "") -> Map:
    """Return which slot looks at which word of one command; padding is cut off."""
    if weights_KN.ndim != 2 or weights_KN.shape[1] < len(command):
        raise UserError(
            f"weights {tuple(weights_KN.shape)}; expected (slots, words) with at least {len(command)} words"
        )
    shown_KN = weights_KN.detach()[:, : len(command)]
    columns = tuple(f"{place}. {word}" for place, word in enumerate(command, start=1))
    caption = f"{' '.join(command)}. Rows are slots, columns words.{' ' if closing_note else ''}{closing_note}"
    rows = tuple(f"slot {number + 1}" for number in range(len(shown_KN)))
    return Map(title, caption, rows, columns, tuple(map(tuple, shown_KN.tolist())), 0.0, 1.0)


def slots_scatter(slots_BKD: torch.Tensor, labels: Sequence[str] = (), title: str = "Slots") -> Scatter:
    """Return the slots of some commands in the plane: t-SNE where scikit-learn is installed, else two main axes.

    Args:
        slots_BKD: slots of each command; those of the first commands are shown, `MOST_POINTS` points at most.
        labels: of the commands.
        title: of the panel.
    """
    shown = max(1, MOST_POINTS // slots_BKD.shape[1])
    slots_BKD = slots_BKD.detach().cpu()[:shown]
    B, K, _ = slots_BKD.shape
    points_MD = slots_BKD.flatten(0, 1).double()
    plane_M2, how = _plane(points_MD)
    names = [labels[row] if row < len(labels) else "" for row in range(B)]
    points = tuple(
        (float(x), float(y), names[index // K], f"slot {index % K + 1}")
        for index, (x, y) in enumerate(plane_M2.tolist())
    )
    return Scatter(title, f"{how} of the {K} slots of {B} commands; the axes have no meaning of their own.", points)


def _plane(points_MD: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Return points in the plane, and how they came there."""
    centred_MD = points_MD - points_MD.mean(0)
    _, sizes, axes_DD = torch.linalg.svd(centred_MD, full_matrices=False)
    main_M2 = torch.zeros(len(points_MD), 2, dtype=points_MD.dtype)
    main_M2[:, : axes_DD.shape[0]] = (centred_MD @ axes_DD.T)[:, :2]
    if len(points_MD) < 10 or not float(sizes[0]) > 0.0:
        return main_M2, "Two main axes (too few or equal points for t-SNE)"
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return main_M2, "Two main axes (no t-SNE: scikit-learn is not installed)"
    perplexity = min(30.0, (len(points_MD) - 1) / 4)
    start = (main_M2 / main_M2[:, 0].std() * 1e-4).numpy()
    maker = TSNE(2, perplexity=perplexity, init=start, random_state=0, n_jobs=1, max_iter=500)
    placed = maker.fit_transform(points_MD.numpy())
    return torch.from_numpy(placed), f"t-SNE (perplexity {perplexity:g})"
