"""The write-up's tuning guide (its appendix) as causes that a diagnosis can weigh, with what is wrong in its advice.

Each of its five headings is a symptom, and what stands below are remedies without a cause. So a cause here says in
which part of the system the symptom lies, and its remedies are the guide's, with a remark where following one to the
letter does nothing or harms. The guide's rates are for fine-tuning; a training from scratch needs about 25 times as
much.

Priors are low and weights modest: the causes of the catalogue, which have been measured on many trainings, go first
where they explain the same findings. These weights are judgement, not measured.

How the weights are made up. A missed checkpoint that belongs to the symptom alone: +16. A finding that several symptoms
share: +6 to +8. What says that the fault lies elsewhere: -12.
"""

from __future__ import annotations

from trimtab.hypotheses import Condition, Gate, Hypothesis, Weight
from trimtab.records import Remedy, Severity

_GRAVE = (Condition("severity", ">=", Severity.WARNING),)


def _missed(metric: str) -> tuple[Condition, ...]:
    return (Condition("subject", "==", metric),)


def _setting(text: str, **change: str) -> Remedy:
    return Remedy(kind="config", text=text, change=change)


DOES_NOT_CONVERGE = Hypothesis(
    cause="write-up-does-not-converge",
    summary="The rates of the write-up do not fit: its network hardly learns in the first hundred updates.",
    gate=Gate.SETTINGS,
    prior=-14.0,
    evidence=(
        Weight(
            "milestone-missed", 16.0, when=_missed("task_loss_over_first"), family="slow",
            why="after 100 updates the task loss was no lower than at the first",
        ),
        Weight("task-loss-at-rest", 26.0, when=_GRAVE, family="slow", why="the task loss stays where it was"),
        Weight("loss-not-moving", 8.0, when=_GRAVE, family="slow", why="the loss stays where it was"),
        Weight("loss-at-chance", 8.0, when=_GRAVE, family="slow", why="the loss rests at that of a guess"),
        Weight(
            "gradient-norm-alarming", 6.0, why="the guide's own check: gradient norms are to stay below 10"
        ),
        Weight("parameters-outside-optimizer", -12.0, when=_GRAVE, family="elsewhere", why="some never learn"),
        Weight("learning-rate-zero", -12.0, when=_GRAVE, family="elsewhere", why="nothing can learn at that rate"),
        Weight("rate-leaps", -12.0, when=_GRAVE, family="elsewhere", why="the rate leaps, and undoes what was learned"),
    ),
    probe="write-up-converges-at-a-higher-rate",
    remedies=(
        _setting(
            "from scratch, first raise the rates: the write-up's are for fine-tuning and do not converge",
            base_lr="x 3", sci_lr="x 3",
        ),
        _setting("a longer warm-up", warmup_ratio="0.15"),
        _setting("a lower rate of the new parts, where a pretrained base is used", sci_lr="3e-5"),
        _setting("let the contrast begin more slowly", scl_warmup_epochs="3"),
        Remedy(kind="text", text="look at gradient_norm/<part>: healthy ones are below 10"),
    ),
    settings=("*base_lr", "*sci_lr", "*warmup_ratio", "*scl_warmup_epochs", "*_rate"),
)  # fmt: skip

OVERFITS = Hypothesis(
    cause="write-up-overfits",
    summary="The network learns the training commands by heart.",
    gate=Gate.BUDGET,
    prior=-14.0,
    evidence=(
        Weight(
            "past-its-peak", 8.0, when=_GRAVE, family="peak",
            why="a validation metric falls while the training loss goes on falling",
        ),
        Weight("patience-spent", 6.0, family="peak", why="the validation stands still"),
    ),
    probe="write-up-validation-keeps-up-with-training",
    remedies=(
        _setting("more dropout", dropout="0.2"),
        _setting(
            "fewer epochs (here fewer updates usually hurt longer outputs; early stopping does the same better)",
            epochs="15",
        ),
        _setting("stronger weight decay", weight_decay="0.02"),
        Remedy(
            kind="text",
            text="the guide also says gradient checkpointing: that saves memory and changes no number, so it cures "
            "nothing here",
        ),
    ),
    settings=("*dropout", "*epochs", "*weight_decay", "*examples"),
)  # fmt: skip

LENGTH_FAILS = Hypothesis(
    cause="write-up-length-generalisation-fails",
    summary="Outputs longer than any in training come out wrong: the decoder repeats clauses that it knows.",
    gate=Gate.REST,
    prior=-14.0,
    evidence=(
        Weight(
            "milestone-missed", 16.0, when=_missed("validation/length_accuracy"), family="length",
            why="of validation outputs longer than those trained on, fewer than half have the right length",
        ),
        Weight(
            "metric-stuck-below-target", 8.0, when=_missed("validation/length_accuracy"), family="length",
            why="the share of right lengths has come to rest",
        ),
        Weight("milestone-missed", -12.0, when=_missed("task_loss_over_first"), why="it did not learn short ones"),
    ),
    probe="write-up-composes-unseen-clauses",
    remedies=(
        _setting("see that no learned positions are in use", positions="rotary"),
        _setting("more slots", slots="10"),
        _setting("a curriculum of lengths", length_phases="[[0, 6], [2, 12], [4, 22]]"),
        _setting("EOS weighs more", eos_weight="3.0"),
        Remedy(kind="text", text="check that every target ends with EOS (`targets` of sci.data puts it there)"),
        Remedy(
            kind="text",
            text="none of these reaches beyond 776 of 3,920: the others hold a clause that training never has. A model "
            "must compose it, as the preset 'reference' does",
        ),
    ),
    settings=("*positions", "*slots", "*length_phases", "*eos_weight"),
)  # fmt: skip

DOES_NOT_SEPARATE = Hypothesis(
    cause="write-up-abstraction-does-not-separate",
    summary="The abstraction layer scores structure words and content words alike.",
    gate=Gate.SETTINGS,
    prior=-14.0,
    evidence=(
        Weight(
            "milestone-missed", 16.0, when=_missed("score_separation_ratio"), family="scores",
            why="structure words had no 1.2 times the score of content words after an epoch",
        ),
        Weight(
            "milestone-missed", 14.0, when=_missed("score_std"), family="scores",
            why="after 100 updates all words still had the same score",
        ),
        Weight(
            "milestone-missed", 12.0, when=_missed("structure_word_avg_score"), family="scores",
            why="structure words were not above 0.7 after five epochs",
        ),
        Weight(
            "milestone-missed", 12.0, when=_missed("content_word_avg_score"), family="scores",
            why="content words were not below 0.3 after five epochs",
        ),
        Weight(
            "milestone-missed", -12.0, when=_missed("task_loss_over_first"), why="the network as a whole did not learn"
        ),
    ),
    probe="write-up-pairs-share-their-structure",
    remedies=(
        Remedy(
            kind="text",
            text="check the pairs first: with `turn` as content half of them differ in structure, and without partner "
            "views a batch of 8 has a pair in 1.5 of 100 cases",
        ),
        _setting("a higher rate of the abstraction layer (the guide's 1.5e-4 is three times sci_lr)",
                 abstraction_rate="3.0"),
        _setting(
            "a lower temperature (the guide's 0.5 is the bound already, so lower that too)",
            temperature="0.5", temperature_min="0.25",
        ),
        _setting("more epochs", epochs="x 2"),
    ),
    settings=("*abstraction_rate", "*temperature*", "*scl_*", "*pairs", "*partner_views", "*score_bias_init"),
)  # fmt: skip

UNSTABLE = Hypothesis(
    cause="write-up-unstable",
    summary="The new parts push the base too hard, so that the loss leaps.",
    gate=Gate.SETTINGS,
    prior=-14.0,
    evidence=(
        Weight("loss-spike", 8.0, when=_GRAVE, family="leaps", why="the loss leapt and came back"),
        Weight("oscillating", 6.0, when=_GRAVE, family="leaps", why="the loss swings"),
        Weight("loss-diverging", 6.0, when=_GRAVE, family="leaps", why="the loss rose and did not come back"),
        Weight(
            "gradient-norm-alarming", 8.0, family="steep",
            why="the norm of the gradient was above 100, the guide's alarm",
        ),
        Weight("gradient-exploding", 6.0, when=_GRAVE, family="steep", why="the gradient grows"),
    ),
    probe="write-up-stable-at-a-lower-rate",
    remedies=(
        _setting("a lower rate of the new parts (the guide's 2e-5 is 0.4 times its own)", sci_lr="x 0.4"),
        _setting("a longer warm-up", warmup_ratio="0.15"),
        _setting("answer spikes of the loss", spike_action="rollback"),
        _setting("inject less", injection_scale="0.3"),
    ),
    settings=("*sci_lr", "*warmup_ratio", "*injection_scale", "*spike_*", "*scl_weight", "*clip"),
)  # fmt: skip

HYPOTHESES: tuple[Hypothesis, ...] = (DOES_NOT_CONVERGE, OVERFITS, LENGTH_FAILS, DOES_NOT_SEPARATE, UNSTABLE)
"""In the order of the guide."""
