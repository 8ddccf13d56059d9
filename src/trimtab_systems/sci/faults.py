"""How this system is known to break: the faults that its write-up invites. Budgets count updates of the preset.

All are faults of the write-up's network; the published one, SCI-Loop, has neither slots to collapse nor pairs to
choose. Each starts from a sound training and breaks it in one respect. The preset "write-up-small" learns enough in
some seconds to tell a broken training from a sound one, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trimtab.system import Fault
from trimtab_systems.sci.write_up.config import WriteUpConfig

SMALL = "write-up-small"


def write_up_small() -> WriteUpConfig:
    """Return the smallest whole network of the write-up: one layer of each kind, few examples, no curriculum."""
    return WriteUpConfig(
        width=32, heads=2, binding_heads=2, slots=4, edge_dim=8, encoder_layers=1, decoder_layers=2, dropout=0.0,
        structural_layers=1, abstraction_at=(1.0,), gnn_layers=1, content_layers=1, binding_iterations=1,
        injection_fractions=(0.5, 1.0), examples=512, evaluate_examples=32, epochs=4, evaluate_every_epochs=3,
        batch=32, slot_scale=1.0, length_phases=(), structure_phases=(), swap_rate=0.0, patience=0, base_lr=3e-3,
        sci_lr=3e-3,
    )  # fmt: skip


PRESETS: Mapping[str, Callable[[], WriteUpConfig]] = {SMALL: write_up_small}
"""What the faults start from, beside the presets of the write-up."""

TURN_AS_CONTENT = Fault(
    name="turn-as-content",
    summary="`turn` is exchanged for `walk` as if both were content: training commands become test commands",
    change={"turn_is_content": True},
    expect=(),
    causes=(),
    budget=0,
    preset="write-up-tiny",
    refused=True,
)

VALIDATION_ON_TEST = Fault(
    name="validation-on-test",
    summary="the moment to stop is chosen on the test commands, as upstream had it",
    change={"validation": "test"},
    expect=(),
    causes=(),
    budget=0,
    preset="write-up-tiny",
    refused=True,
)

LEARNED_POSITIONS = Fault(
    name="learned-positions",
    summary="each place has a vector of its own: a word that stands elsewhere is another word",
    change={"positions": "learned"},
    expect=(),
    causes=(),
    budget=0,
    preset=SMALL,
    probes=("representation-ignores-position",),
)

BATCH_WITHOUT_POSITIVES = Fault(
    name="batch-without-positives",
    summary="eight examples a batch and no partners: the contrast has nothing to pull together, and looks perfect",
    change={"partner_views": False, "counterfactual_weight": 0.0, "batch": 8},
    expect=("contrast-without-pairs",),
    causes=("contrast-has-no-pairs",),
    budget=40,
    preset=SMALL,
)

WRONG_PAIRS = Fault(
    name="wrong-pairs",
    summary="each command is to look like one of another template",
    change={"pairs": "wrong"},
    expect=("contrast-at-chance",),
    causes=("pairs-do-not-share-their-structure",),
    budget=60,
    preset=SMALL,
)

EOS_LOSS_OFF = Fault(
    name="eos-loss-off",
    summary="EOS has no weight in the loss: what comes next is learned, and when to stop is unlearned",
    change={"eos_weight": 0.0},
    expect=("end-not-learned",),
    causes=("end-is-not-trained",),
    budget=40,
    preset=SMALL,
)

SLOTS_COLLAPSED = Fault(
    name="slots-collapsed",
    summary="all slot queries begin as one vector, and what the slots hold stays the same",
    change={"slot_init": "equal"},
    expect=("slots-collapsed",),
    causes=("slots-begin-alike",),
    budget=60,
    preset=SMALL,
)

FINE_TUNING_RATES = Fault(
    name="fine-tuning-rates",
    summary="the write-up's learning rates, made for fine-tuning, on a network that starts from nothing",
    change={"base_lr": 2e-5, "sci_lr": 5e-5},
    expect=("task-loss-at-rest",),
    causes=("write-up-does-not-converge",),
    budget=40,
    preset=SMALL,
)

SPIKE_AT_EPOCH = Fault(
    name="spike-at-epoch",
    summary="the rate leaps to a hundred times itself with the first update of each epoch, and all is forgotten",
    change={"boundary_rate": 100.0},
    expect=("rate-leaps",),
    causes=("rate-leaps-between-epochs",),
    budget=30,
    preset=SMALL,
)

FEW_EXAMPLES = Fault(
    name="few-examples",
    summary="32 examples are learned by heart, and the others get worse: the end of a schedule would hide it",
    change={"examples": 32, "batch": 16, "epochs": 64, "evaluate_every_epochs": 4, "scheduler": "constant"},
    expect=("past-its-peak",),
    causes=("trained-past-the-peak",),
    budget=90,
    preset=SMALL,
)

FAULTS = (
    TURN_AS_CONTENT,
    VALIDATION_ON_TEST,
    LEARNED_POSITIONS,
    BATCH_WITHOUT_POSITIVES,
    WRONG_PAIRS,
    EOS_LOSS_OFF,
    SLOTS_COLLAPSED,
    FINE_TUNING_RATES,
    SPIKE_AT_EPOCH,
    FEW_EXAMPLES,
)
