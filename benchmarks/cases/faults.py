"""The table of faults: what is broken, from which step, and which findings and causes are then right.

Steps count from 0; the onset is the first update that the fault touches. A catch is the first opened event of a right
code, at warning or above, at a step from `onset` to `last_step`. The families of a case are those in which
`check.py` shows harm, or in which the wiring is wrong whatever the metric says. This table was committed before
any threshold was chosen.

`ANCHORS` says which case shows which of the 44 faults of the anchors' list (3.4), `WAITING` what the others wait for,
`PUBLISHED` and `PUBLISHED_WAITING` the same for the published bugs of 3.1. Not in the table: graphs kept across steps,
whose rules look at more than 500 steps of wall time and memory, five times the longest delay budget here; what the
machine does at the same time decides their figures. Their own tests show them.
"""

from benchmarks.cases.case import ALL_FAMILIES, AT_ONCE, FaultCase
from benchmarks.cases.faults_data import DATA_FAULTS
from benchmarks.cases.faults_models import MODEL_FAULTS
from benchmarks.cases.faults_steps import STEP_FAULTS
from benchmarks.cases.faults_wiring import WIRING_FAULTS

__all__ = ["ALL_FAMILIES", "ANCHORS", "AT_ONCE", "FAULTS", "PUBLISHED", "PUBLISHED_WAITING", "WAITING", "FaultCase"]

FAULTS: tuple[FaultCase, ...] = (*WIRING_FAULTS, *STEP_FAULTS, *DATA_FAULTS, *MODEL_FAULTS)
"""The faults, each in the families that it harms."""

ANCHORS: dict[int, tuple[str, ...]] = {
    1: ("learning-rate-x300",),
    2: ("single-bad-batch",),
    3: ("gradient-spike",),
    4: ("labels-shuffled-midway",),
    5: ("nan-in-backward",),
    6: ("log-of-zero",),
    7: ("logged-loss-nan",),
    8: ("loss-scale-only-grows",),
    9: ("gradients-underflow",),
    10: ("weights-x12",),
    11: ("fourteen-sigmoid-layers",),
    12: ("biases-minus-ten", "rate-burst"),
    13: ("rate-x10-batch-of-two",),
    14: ("learning-rate-millionth",),
    15: ("schedule-ends-early",),
    16: ("missing-zero-grad",),
    17: ("accumulation-summed",),
    18: ("clipped-to-nothing",),
    19: ("group-rate-zero", "optimizer-on-frozen-part", "only-frozen-parts-held"),
    20: ("head-replaced",),
    21: ("graph-detached",),
    22: ("trained-in-evaluation-mode", "evaluated-in-training-mode"),
    23: ("double-softmax",),
    24: ("squared-error-on-classes", "binary-loss-on-classes"),
    25: ("inputs-unscaled",),
    26: ("labels-permuted",),
    27: ("target-in-the-input",),
    29: ("divergence-too-heavy",),
    30: ("gradient-not-stopped",),
    31: ("queries-and-keys-x20",),
    33: ("prefixed-state-loaded",),
    36: ("loader-restarted", "loader-stuck"),
    40: ("few-noisy-samples",),
    41: ("update-dropped",),
    42: ("jump-in-difficulty",),
    43: ("weight-decay-of-one",),
    44: ("labels-sorted",),
}
"""Number in the anchors' list -> the cases that show it."""

WAITING: dict[int, str] = {
    28: "probes: whether the context changes the output is asked with a shuffled context",
    32: "probes: a leak of the future is asked by changing a later token",
    34: "checkpoints: a resume without the optimizer's state",
    35: "checkpoints: rotation must keep the last good one",
    37: "several processes: workers with one random generator",
    38: "several processes: replicas that drift apart",
    39: "several processes: transfers that arrive as zeros",
}
"""Number in the anchors' list -> what it waits for."""

PUBLISHED: dict[str, tuple[str, ...]] = {
    "pytorch-forum-84911": ("only-frozen-parts-held",),
    "stackoverflow-60335387": ("missing-zero-grad",),
    "pytorch-115607": ("updates-stop-midway",),
    "transformers-33844": ("evaluated-in-training-mode",),
    "pytorch-118115": ("update-dropped",),
}
"""Published bug that runs on a CPU -> the cases that re-create it."""

PUBLISHED_WAITING: dict[str, str] = {
    "mmpretrain-702": "actions and schedules: only a declared set of frozen modules tells that one is not frozen",
    "transformers-34204": "probes: rows that a processor lost are seen by nobody who does not know how many went in",
    "lightning-thunder-725": "probes: that autocast was meant to be on is known to the script alone",
    "pytorch-51800": "probes: a model is evaluated before its first forward in training mode",
    "transformers-17877": "no harm to the result: weights are drawn several times before training",
    "pytorch-104336": "several processes",
    "x-jxmnop-ddp-out-of-sync": "several processes",
    "deepspeed-1801": "several processes",
    "pytorch-84803": "several processes",
    "pytorch-96600": "several processes",
    "baichuan2-86": "several processes",
    "stackoverflow-67180955": "several processes",
    "deepspeed-5794": "not re-created: it hangs",
    "transformers-23723": "not re-created: it concerns generation",
}
"""Published bug -> what it waits for, or why it is not re-created."""
