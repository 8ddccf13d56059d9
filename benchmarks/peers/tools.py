"""The peers that are packages, each used as its own documentation says, and imported only where it is used."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cases.training import Training
from benchmarks.peers.peer import Alarm, Course, Finish

Build = Callable[[], Training]


def trainpulse(*, evaluations: bool = False, **config: Any) -> Callable[[Course], list[Alarm]]:
    """Loss, gradient norm and learning rate through one Monitor; with `evaluations` their loss through another."""

    def rule(course: Course) -> list[Alarm]:
        from trainpulse import Monitor
        from trainpulse._types import AlertSeverity, MonitorConfig

        monitor = Monitor(MonitorConfig(**config))
        for step, loss in enumerate(course.losses):
            monitor.log("loss", step, loss)
            norm = course.norms[step]
            if norm is not None:
                monitor.log("grad_norm", step, norm)
            monitor.log("lr", step, course.rates[step])
        alerts = list(monitor.alerts)
        if evaluations:
            second = Monitor(MonitorConfig(loss_spike_threshold=1.5, loss_spike_window=3, plateau_patience=8))
            for step, metrics in course.evaluations:
                if "loss" in metrics:
                    second.log("val_loss", step, metrics["loss"])
            alerts += second.alerts
        grave = [alert for alert in alerts if alert.severity != AlertSeverity.INFO]
        return sorted((alert.step, alert.detector) for alert in grave)

    return rule


def spike_detection(**settings: Any) -> Callable[[Course], list[Alarm]]:
    """Lightning's SpikeDetection on the losses; it would end the training at the first, here it may go on."""

    def rule(course: Course) -> list[Alarm]:
        from lightning.fabric.utilities.spike import SpikeDetection

        detection: Any = SpikeDetection(**settings)
        alarms = []
        for step, value in enumerate(course.losses):
            loss = torch.tensor(value)
            if step >= detection.warmup and detection._is_spike(loss):
                alarms.append((step, f"loss spike: {value:.3g}"))
            elif detection.finite_only or math.isfinite(value):
                detection._update_stats(loss)
        return alarms

    return rule


def torch_audit(*, every: int) -> Callable[[Training, Build], Finish]:
    """Its zero-touch mode: forward and step are patched, an audit at every so many steps; warnings and above count."""

    def begin(training: Training, again: Build) -> Finish:
        from torch_audit import autopatch
        from torch_audit.core import Severity

        optimizer = next(iter(training.optimizers.values()))
        stepping = optimizer.step
        auditor = autopatch(training.model, optimizer=optimizer, every_n_steps=every)

        def finish(course: Course) -> list[Alarm]:
            auditor.unpatch()
            optimizer.step = stepping  # type: ignore[method-assign]
            grave = [f for f in auditor.findings if f.severity >= Severity.WARN]
            return sorted((f.step or 0, f.rule_id) for f in grave)

        return finish

    return begin


def stabilityguard(**settings: Any) -> Callable[[Training, Build], Finish]:
    """What GuardedOptimizer finds before each step, without its action: skipped steps would change the training."""

    def begin(training: Training, again: Build) -> Finish:
        from stabilityguard.core.hooks import GradientHookManager
        from stabilityguard.core.spike_detector import SpikeDetector

        manager, detector = GradientHookManager(), SpikeDetector(**settings)
        manager.attach(training.model)
        alarms: list[Alarm] = []

        def before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
            norms, not_finite = manager.collect()
            for name, parameter in training.model.named_parameters():
                if parameter.grad is None:
                    continue
                norm = parameter.grad.float().norm().item()
                if not math.isfinite(norm):
                    not_finite.add(name)
                    norms[name] = norm
                elif name not in norms:
                    norms[name] = norm
            found, info, _ = detector.check(norms, not_finite)
            if found:
                alarms.append((training.step, f"gradient spike in {info.layer if info else '?'}"))

        handle = next(iter(training.optimizers.values())).register_step_pre_hook(before_step)

        def finish(course: Course) -> list[Alarm]:
            handle.remove()
            manager.detach()
            return alarms

        return finish

    return begin


def torchtest2(*, strict: bool) -> Callable[[Training, Build], Finish]:
    """One call of check_model on the first batch, before the training; with `strict` its warnings count too."""

    def begin(training: Training, again: Build) -> Finish:
        from torchtest2 import check_model

        own = again()
        own.model.train()
        inputs, targets = own.next_batch()
        state = torch.random.get_rng_state()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            report = check_model(
                own.model,
                inputs,
                targets,
                loss_fn=lambda outputs, y: own.loss(lambda x: outputs, (inputs, y)),  # type: ignore[arg-type]
                optimizer=next(iter(own.optimizers.values())),
            )
        torch.random.set_rng_state(state)
        found = [*report.failures, *(report.warnings if strict else ())]
        return lambda course: [(0, f"{result.status}: {result.name}") for result in found]

    return begin


for name in ("stabilityguard", "torch_audit", "lightning"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
