"""Other tools and rules on the same trainings, side by side: default settings, and one tuned setting each.

    pip install -e .[peers] -c constraints.txt      # their versions are pinned; what is not there is said and left out
    python -m benchmarks.peers                      # every fault in its first family and every healthy kind, seeds 0, 1

A catch is generous to a peer: any alarm of any kind, at a step from the onset to the end of the delay budget. It need
not name the fault. An alarm before the onset neither counts against it here nor ends the training, although some of
these tools would have ended it. Any alarm in a healthy run is a false alarm, as for Trimtab. Tools that read scalars
are given the same losses, gradient norms and learning rates; tools that look into the model are attached to the same
training; a tool that cannot look at a training (its own error) has raised nothing there, and the error is counted.
The tuned setting was chosen once, by reading what the defaults need that trainings of 360 steps do not have.
"""

from benchmarks.peers import tools
from benchmarks.peers.peer import Alarm, Course, Peer, replayed
from benchmarks.peers.rules import kill_loss_spike, skip_step

__all__ = ["PEERS", "Alarm", "Course", "Peer"]

PEERS: tuple[Peer, ...] = (
    Peer(
        name="torch-audit", setting="default", package="torch-audit", wanted="0.3.0",
        how="autopatch, an audit every 1000 steps", begin=tools.torch_audit(every=1000),
    ),
    Peer(
        name="torch-audit", setting="tuned", package="torch-audit", wanted="0.3.0",
        how="autopatch, an audit every 10 steps", begin=tools.torch_audit(every=10),
    ),
    Peer(
        name="torchtest2", setting="default", package="torchtest2", wanted="0.1.0",
        how="check_model on the first batch, failures", begin=tools.torchtest2(strict=False),
    ),
    Peer(
        name="torchtest2", setting="tuned", package="torchtest2", wanted="0.1.0",
        how="check_model on the first batch, failures and warnings", begin=tools.torchtest2(strict=True),
    ),
    Peer(
        name="stabilityguard", setting="default", package="stabilityguard", wanted="0.3.0",
        how="the detector of GuardedOptimizer", begin=tools.stabilityguard(),
    ),
    Peer(
        name="stabilityguard", setting="tuned", package="stabilityguard", wanted="0.3.0",
        how="a faster baseline and a longer warm-up",
        begin=tools.stabilityguard(ema_alpha=0.1, warmup_steps=20),
    ),
    Peer(
        name="trainpulse", setting="default", package="trainpulse", wanted="0.4.0",
        how="loss, gradient norm, learning rate", begin=replayed(tools.trainpulse()),
    ),
    Peer(
        name="trainpulse", setting="tuned", package="trainpulse", wanted="0.4.0",
        how="shorter windows and patience, and a second monitor for the validation loss",
        begin=replayed(
            tools.trainpulse(evaluations=True, loss_spike_threshold=3.0, loss_spike_window=20, plateau_patience=60)
        ),
    ),
    Peer(
        name="lightning-spike-detection", setting="default", package="lightning", wanted="2.6.6",
        how="SpikeDetection()", begin=replayed(tools.spike_detection()),
    ),
    Peer(
        name="lightning-spike-detection", setting="tuned", package="lightning", wanted="2.6.6",
        how="a longer warm-up and window, twice as sensitive",
        begin=replayed(tools.spike_detection(warmup=30, window=20, rtol=1.0)),
    ),
    Peer(
        name="llm-foundry-kill-loss-spike", setting="default",
        how="the rule, re-stated: twice the mean of 100 for more than 4 updates", begin=replayed(kill_loss_spike),
    ),
    Peer(
        name="llm-foundry-kill-loss-spike", setting="tuned",
        how="the rule, re-stated: 1.5 times the mean of 30 for more than 2 updates",
        begin=replayed(lambda course: kill_loss_spike(course, window=30, multiple=1.5, patience=2)),
    ),
    Peer(
        name="olmo-core-skip-step", setting="default",
        how="the rule, re-stated: 6 deviations over 128 updates", begin=replayed(skip_step),
    ),
    Peer(
        name="olmo-core-skip-step", setting="tuned",
        how="the rule, re-stated: 4 deviations over 32 updates",
        begin=replayed(lambda course: skip_step(course, window=32, sigmas=4.0)),
    ),
)  # fmt: skip
"""Every tool in its default and in one tuned setting."""
