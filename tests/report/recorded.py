"""Run folders for tests of the report and the command line: written rows, judged by the real rules, without torch."""

import math
from dataclasses import replace

from trimtab.detectors import DETECTORS, MilestoneMissed
from trimtab.judge import History, Ignore, Judge
from trimtab.milestone import Milestone
from trimtab.records import Finding, Note, Outcome, Signal
from trimtab.run import Run, RunWriter

TENSORS = ("embed.weight", "blocks.0.attention.qkv.weight", "blocks.0.attention.qkv.bias", "head.weight", "head.bias")
NAN = math.nan


def training(steps, *, loss=lambda step: 2.3 * math.exp(-step / 60) + 0.1, tensors=TENSORS, stream="main", rate=1e-3):
    """Rows as the sensors write them: the loss and the norms of every step, the update ratio of every fourth."""
    labels = {"gradient_norms": tensors, "learning_rate": ("0",), "update_ratio": ("0",)}
    for step in range(steps):
        value = loss(step)
        norm = 0.3 * value if math.isfinite(value) else NAN
        values = {
            "loss": value,
            "backward_calls": 1.0,
            "learning_rate": (rate,),
            "gradient_norm": norm,
            "gradient_norms": tuple(norm * (place + 1) / len(tensors) for place in range(len(tensors))),
            "gradients_carried": 0.0,
        }
        if step % 4 == 0:
            values["update_ratio"] = (rate * 3,)
        yield Signal(step=step, update=step, stream=stream, time=step * 0.01, values=values, labels=labels)


def metric(step, **values):
    """A row that the user recorded."""
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return Signal(step=step, update=step, time=step * 0.01, values=named)


def diverging(step):
    """A loss that falls, then grows without bound, then is no number."""
    return 2.3 * math.exp(-step / 60) + 0.1 if step < 120 else 0.4 * 1.4 ** (step - 120) if step < 180 else NAN


def record(root, rows=(), *, notes=(), outcomes=(), ended="finished", how=None, ignore=(), milestones=(), **facts):
    """Write a run as a Guard would and return it; `ended=None` leaves it as a killed process leaves it."""
    declared = tuple(Milestone.parse(text) for text in milestones)
    rules = [replace(d, milestones=declared) if isinstance(d, MilestoneMissed) else d for d in DETECTORS]
    ignores = [Ignore.parse(text) for text in ignore]
    config = {
        "config": {"width": 64, "optimizer": {"lr": 1e-3}},
        "trimtab": {
            "detectors": {"milestone-missed": {"milestones": [vars_of(one) for one in declared]}},
            "ignore": list(ignore),
        },
    }
    writer = RunWriter.create(root, config=config, **{"name": "net", **facts})
    writer.settings({"argv": ["train.py", "--lr", "0.001"], "optimizers": {"main": {"class": "Adam", "lr": 1e-3}}})
    judge = Judge(rules, ignores)
    history = History(judge)
    happened = sorted([*notes, *outcomes], key=lambda one: one.after_rows)
    count = 0

    def happen():
        while happened and happened[0].after_rows <= count:
            one = happened.pop(0)
            history.tell(one)
            (writer.note if isinstance(one, Note) else writer.outcome)(one)

    updates = 0
    for row in rows:
        updates = max(updates, row.update + 1)
        happen()
        writer.row(row)
        count += 1
        for event in history.add(row):
            writer.event(event)
            if isinstance(event, Finding):
                writer.say(f"{event.event} {event.severity} {event.code}: {event.summary}")
    happen()
    coverage = judge.coverage()
    if ended is not None:
        writer.update(judged=coverage.judged, not_judged=coverage.unknown, ignored=judge.ignored, updates=updates)
        writer.close(ended, how)
    writer.wait()
    return Run(writer.path)


def vars_of(milestone):
    return {name: getattr(milestone, name) for name in ("metric", "comparison", "value", "by_step")}


def broken(root, **facts):
    """A run with all that a page can show: findings, metrics, a milestone, notes, a response, an ignored rule."""
    rows = []
    for row in training(200, loss=diverging):
        rows.append(row)
        if row.step % 40 == 39:
            rows.append(metric(row.step, validation__accuracy=min(0.2 + row.step / 200, 0.7), train__accuracy=0.8))
    return record(
        root,
        rows,
        notes=[
            Note(kind="metric", step=0, text="validation/accuracy", facts={"better": "higher"}),
            Note(
                kind="data-change", step=50, after_rows=51, until=80, text="<b>harder</b> pages", facts={"level": 2.0}
            ),
        ],
        outcomes=[
            Outcome(
                action="notify",
                code="gradient-exploding",
                step=130,
                after_rows=134,
                result="done",
                changes="nothing",
                because="logged",
            )
        ],
        ignore=["learning-rate-zero"],
        milestones=["validation/accuracy >= 0.9 by 150"],
        how={
            "reason": "RuntimeError: boom <script>alert(1)</script>",
            "traceback": "Traceback ...\nRuntimeError: boom",
        },
        ended="failed",
        **{"name": "diverging <net>", "project": "tests", "tags": ["one", "two"], "seed": 7, **facts},
    )
