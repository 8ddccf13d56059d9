"""The gallery of the documentation: each detector on a real run in which it fired, and on one that only looks ill.

    python -m benchmarks.gallery                    # draws every picture and writes docs/catalogue/gallery.md
    python -m benchmarks.gallery --only loss-spike  # draws one; the page stays as it is

The runs are the recorded ones (`benchmarks.recorded`). Left is the first run of a fault that the detector caught,
right a healthy one; both show the quantity that was judged. The same records give the same bytes.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.cases.case import FaultCase
from benchmarks.recorded import FOLDER, Record, judge, records
from benchmarks.watching import KINDS
from trimtab import Finding, Signal
from trimtab.detectors import DETECTORS, Detector
from trimtab.report import ink, plots
from trimtab.report.series import Line, medians, thin

CATALOGUE = Path(__file__).parents[1] / "docs" / "catalogue"
PAGE, PICTURES = CATALOGUE / "gallery.md", CATALOGUE / "pictures"
MOST_POINTS = 120
"""A line in a picture has at most so many points."""
ENTRIES = 4
"""A vector with more entries is drawn by its smallest, median and largest."""
TAIL = 40
"""A picture ends so many steps after the detector fired, where the run is longer."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is drawn of one detector.

    `signals` are the quantities that it judged; of them the picture shows those that were measured. `fires` is the
    beginning of the name of the run to show, "" for the first one caught; `silent` is a healthy kind. `log` asks for
    a logarithmic axis.
    """

    signals: tuple[str, ...]
    silent: str
    fires: str = ""
    log: bool = False


PICTURED: dict[str, Picture] = {
    "loss-not-finite": Picture(signals=("loss",), silent="loss-near-zero", fires="infinite-input/mlp", log=True),
    "gradient-not-finite": Picture(
        signals=("gradient_norm",), silent="loss-scale-search", fires="nan-in-backward/rnn", log=True
    ),
    "gradient-exploding": Picture(
        signals=("gradient_norm",), silent="warm-up-bump", fires="learning-rate-x300/cnn", log=True
    ),
    "gradients-accumulate": Picture(signals=("gradients_carried",), silent="accumulation"),
    "parameters-outside-optimizer": Picture(
        signals=("parameter_held",), silent="frozen-backbone", fires="head-replaced/mlp"
    ),
    "parameters-never-changed": Picture(signals=("update_norms",), silent="large-vocabulary"),
    "learning-rate-zero": Picture(
        signals=("learning_rate",), silent="cosine-restarts", fires="schedule-ends-early/cnn"
    ),
    "double-softmax": Picture(signals=("loss", "squashed_before_loss"), silent="log-softmax-twice"),
    "loss-far-from-chance": Picture(
        signals=("loss", "chance_level"), silent="constant-in-the-loss", fires="weights-x12/mlp", log=True
    ),
    "same-batch-repeated": Picture(signals=("target_fingerprint",), silent="full-batch", fires="loader-stuck"),
    "milestone-missed": Picture(
        signals=("validation/accuracy", "validation/loss"), silent="mlp", fires="labels-permuted/mlp"
    ),
    "metric-stuck-below-target": Picture(signals=("validation/accuracy", "validation/error"), silent="rnn"),
    "loss-spike": Picture(signals=("loss",), silent="restart-announced", log=True),
    "loss-diverging": Picture(signals=("loss",), silent="learning-rate-finder"),
    "loss-not-moving": Picture(signals=("loss",), silent="late-insight"),
    "never-better-than-start": Picture(signals=("loss",), silent="gan"),
    "metric-dropped": Picture(signals=("validation/accuracy",), silent="restart-announced"),
    "past-its-peak": Picture(signals=("validation/accuracy", "validation/loss"), silent="strong-dropout"),
    "oscillating": Picture(signals=("loss",), silent="batch-of-two"),
    "loss-at-chance": Picture(signals=("loss", "chance_level"), silent="late-insight"),
    "better-than-possible": Picture(signals=("loss", "validation/accuracy"), silent="loss-near-zero", log=True),
    "loss-scale-changed": Picture(signals=("loss", "gradient_norm"), silent="cosine-restarts", log=True),
    "logged-loss-not-finite": Picture(signals=("loss", "gradient_norm"), silent="loss-scale-search", log=True),
    "gradient-vanishing": Picture(
        signals=("gradient_norms",), silent="head-from-zero", fires="fourteen-sigmoid-layers/regression", log=True
    ),
    "update-too-large": Picture(signals=("update_ratio",), silent="warm-up-bump", log=True),
    "update-too-small": Picture(signals=("update_ratio",), silent="fine-tuning", log=True),
    "clipping-always-active": Picture(signals=("clip_factor",), silent="always-clipped", log=True),
    "clipping-starves": Picture(signals=("clip_factor", "update_ratio"), silent="always-clipped", log=True),
    "moments-poisoned": Picture(signals=("moment_scale",), silent="mostly-unused-embeddings", log=True),
    "weight-decay-dominates": Picture(signals=("decay_share",), silent="long-decay", log=True),
    "graph-detached": Picture(signals=("parameter_reached",), silent="idle-experts"),
    "precision-underflow": Picture(signals=("gradient_zero_share",), silent="mostly-unused-embeddings"),
    "scaler-skips-too-often": Picture(signals=("gradient_norm",), silent="loss-scale-search", log=True),
    "norm-growing": Picture(signals=("weight_norms",), silent="low-rank-adapters", fires="adapter-runs-away", log=True),
    "labels-sorted": Picture(signals=("label_mean",), silent="rare-class"),
    "labels-unrelated": Picture(signals=("loss",), silent="curriculum-announced", fires="labels-shuffled-midway/mlp"),
    "inputs-unscaled": Picture(signals=("input_std",), silent="cnn", log=True),
    "loss-does-not-fit-targets": Picture(signals=("loss",), silent="smoothed-labels"),
    "modules-in-wrong-mode": Picture(
        signals=("modules_training",), silent="strong-dropout", fires="trained-in-evaluation-mode/mlp"
    ),
    "weights-lost-after-load": Picture(signals=("loss",), silent="frozen-backbone"),
    "step-slowing": Picture(signals=("step_seconds",), silent="bounded-cache"),
    "memory-growing": Picture(signals=("memory_bytes",), silent="bounded-cache"),
    "attention-uniform": Picture(signals=("attention_entropy",), silent="gpt"),
    "attention-saturated": Picture(signals=("attention_entropy",), silent="copying-head"),
    "attention-logits-growing": Picture(signals=("attention_logit",), silent="copying-head", log=True),
    "representation-collapsed": Picture(signals=("representation/rank", "representation_rank"), silent="stop-gradient"),
    "latent-unused": Picture(signals=("code/active_units", "kl"), silent="divergence-annealed"),
    "dead-units": Picture(signals=("dead_share",), silent="idle-experts"),
    "saturated-units": Picture(signals=("saturated_share",), silent="rnn"),
}
"""Code -> its picture."""

NOT_PICTURED: dict[str, str] = {
    "patience-spent": "It fires when the patience that you declared is spent, and never without one.",
    "trimtab-failed": "No training shows it: it reports that a part of Trimtab itself failed.",
    "random-and-frozen": "A look at weights and no course: frozen tensors hold the values of a new layer at step 16.",
    "optimizer-state-reset": "A count and no course: the optimizer's own number of updates falls back three times.",
    "response-budget-spent": "No training shows it unless responses were asked for: it reports that one was used up.",
}
"""Code -> why there is no picture."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The two runs of a detector's picture."""

    detector: Detector
    fired: Record
    finding: Finding
    silent: Record


def find(detector: Detector, folder: Path) -> Shown:
    """Return the runs to show.

    Raises:
        LookupError: no recorded fault run was caught by the detector, or the healthy kind is not recorded.
    """
    picture = PICTURED[detector.code]
    fired = next(_fired(detector, folder, picture.fires), None)
    if fired is None:
        raise LookupError(f"{detector.code} fired in no recorded run {picture.fires!r}")
    for one in records(folder, f"{picture.silent}/healthy/"):
        if one.job.name == picture.silent and not any(e.code == detector.code for e in judge(one, (detector,)).raised):
            return Shown(detector=detector, fired=fired[0], finding=fired[1], silent=one)
    raise LookupError(f"{detector.code} has no recorded healthy run of kind {picture.silent!r} in which it is silent")


def _fired(detector: Detector, folder: Path, beginning: str) -> Iterator[tuple[Record, Finding]]:
    """Yield runs in which the detector fired: those that it caught, then those where it is true, then any fault."""
    code = detector.code
    faulty = [one for one in records(folder, beginning) if one.job.case and one.job.key.startswith(beginning)]
    meant = [one for one in faulty if code in _case(one).right_codes]
    true = [one for one in faulty if code in _case(one).also_true]
    others = [one for one in faulty if code not in (*_case(one).right_codes, *_case(one).also_true)]
    for one in (*meant, *true, *others):
        events, _ = one.judged_by((detector,))
        for event in events:
            if isinstance(event, Finding) and event.event == "opened" and event.step >= _case(one).onset:
                yield one, event
                break


def _case(one: Record) -> FaultCase:
    case = one.job.case
    assert case is not None
    return case


def lines_of(rows: Sequence[Signal], names: Sequence[str], stream: str) -> list[Line]:
    """Return the lines of some signals in one stream, thinned."""
    lines = []
    for name in names:
        points = [(row.step, row.values[name], row) for row in rows if row.stream == stream and name in row.values]
        if not points:
            continue
        steps = np.array([float(step) for step, _, _ in points])
        vectors = [value if isinstance(value, tuple) else (value,) for _, value, _ in points]
        labels = points[0][2].labels.get(name, ()) if len(vectors[0]) > 1 else ("",)
        for label, values in _entries(vectors, labels):
            whole = steps, np.array(values)
            trend = medians(*whole) if name in ("loss", "gradient_norm") else None
            smooth = trend if trend is not None and np.isfinite(whole[1]).all() else None
            kept = thin(*whole, MOST_POINTS)
            lines.append(Line(name=name, label=label, stream="", steps=kept[0], values=kept[1], smooth=smooth))
    return lines


def _entries(vectors: Sequence[tuple[float, ...]], labels: Sequence[str]) -> list[tuple[str, list[float]]]:
    if all(len(vector) == len(labels) <= ENTRIES for vector in vectors):
        return [(label, [vector[place] for vector in vectors]) for place, label in enumerate(labels)]
    ordered = [sorted(v for v in vector if not math.isnan(v)) or [math.nan] for vector in vectors]
    picks = (("largest", -1.0), ("median", 0.5), ("smallest", 0.0))
    return [(label, [o[-1] if p < 0 else o[int(p * (len(o) - 1))] for o in ordered]) for label, p in picks]


def picture(shown: Shown) -> str:
    """Return the picture of one detector as a file: the run in which it fired on the left, the silent one right."""
    code, finding, case = shown.detector.code, shown.finding, shown.fired.job.case
    assert case is not None
    asked = PICTURED[code]
    scale = "log" if asked.log else "auto"
    last = min(shown.fired.steps - 1, finding.step + TAIL)
    rows = [row for row in shown.fired.rows() if row.step <= last]
    marks = [plots.Mark(step=finding.step, severity=str(finding.severity), label="fired")]
    if case.onset:
        marks.append(plots.Mark(step=case.onset, severity="info", label="onset"))
    names = asked.signals
    lines = lines_of(rows, names, finding.stream)
    last = min(last, max(_end(lines), finding.step + 3))
    drawn = ", ".join(dict.fromkeys(line.name for line in lines))
    left = plots.draw("left", f"{code} fires", lines, marks=marks, scale=scale, last=last)
    rows = shown.silent.rows()
    stream = "main" if any(row.stream == "main" and set(names) & set(row.values) for row in rows) else rows[0].stream
    lines = lines_of(rows, names, stream)
    last = min(shown.silent.steps - 1, _end(lines))
    right = plots.draw("right", f"{code} is silent", lines, scale=scale, last=last)
    headings = f"fires: {case.name}, {shown.fired.job.family}", f"silent: {shown.silent.job.name}"
    return _joined([(left, headings[0], drawn), (right, headings[1], drawn)])


def _end(lines: Sequence[Line]) -> int:
    """Return the step of the latest point, and somewhat more for what is only measured at the beginning."""
    return int(1.1 * max((line.steps[-1] for line in lines), default=1))


HEAD = 46
"""Height of the lines above a drawing."""
LIGHT = {
    "card": "#ffffff", "ink": "#1b2126", "muted": "#59626b", "rule": "#e2dfd6", "info": "#3a659c",
    "warning": "#855500", "error": "#b3261e", "fatal": "#8a1a4c", "series-0": "#2a6fb0", "series-1": "#c0591a",
    "series-2": "#2d8057", "series-3": "#7b55a6", "series-4": "#96720f", "series-5": "#b0416b",
}  # fmt: skip
"""The report's light colours: a picture file cannot read a style sheet, and a page may show it on any ground."""


def _joined(drawings: Sequence[tuple[str, str, str]]) -> str:
    width, height = ink.WIDTH, ink.HEIGHT
    parts = []
    for place, (svg, heading, drawn) in enumerate(drawings):
        x = place * (width + 16)
        parts.append(f'<text x="{x + 8}" y="18" fill="{LIGHT["ink"]}" font-weight="600">{escape(heading)}</text>')
        parts.append(f'<text x="{x + 8}" y="36" fill="{LIGHT["muted"]}">{escape(drawn)}</text>')
        parts.append(svg.replace("<svg ", f'<svg x="{x}" y="{HEAD}" width="{width}" height="{height}" ', 1))
    whole = f"{2 * width + 16} {height + HEAD}"
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="{LIGHT["card"]}"/>{"".join(parts)}</svg>\n'
    )
    return re.sub(r"var\(--([\w-]+)\)", lambda match: LIGHT[match[1]], text)


def section(shown: Shown) -> str:
    """Return the part of the page about one detector."""
    code, case, kind = shown.detector.code, shown.fired.job.case, KINDS[shown.silent.job.name]
    assert case is not None
    return "\n\n".join(
        [
            f"## {code}",
            f"![{code}: a run in which it fires and one in which it is silent](pictures/{code}.svg)",
            f"Fires: {sentence(what(case))} {shown.finding.severity}: {escape(shown.finding.summary, quote=False)}.",
            f"Silent: {sentence(kind.tricky)}",
        ]
    )


def what(case: FaultCase) -> str:
    """Return what a fault is, from the docstring of its injection."""
    inject = case.inject.func if isinstance(case.inject, partial) else case.inject
    return inject.__doc__ or ""


def sentence(text: str) -> str:
    """Return the first line of a docstring without the numbers of the anchors' list."""
    return re.sub(r"^H?\d+(, [\w-]+)?\. ", "", text.strip().partition("\n")[0])


HEADING = """<!-- Written by `python -m benchmarks.gallery` from recorded runs. Do not edit. -->

# Gallery

Each [detector](detectors.md) on two real trainings: one that was broken on purpose and in which it fired, and a
healthy one that looks ill and in which it rightly stayed silent. The dashed lines say when the fault began (where it
was not there from the first step) and when the detector fired."""


def page(shown: Sequence[Shown]) -> str:
    """Return the whole page, in catalogue order."""
    sections = {one.detector.code: section(one) for one in shown}
    sections |= {code: f"## {code}\n\n{why}" for code, why in NOT_PICTURED.items()}
    return "\n\n".join([HEADING, *(sections[d.code] for d in DETECTORS if d.code in sections)]) + "\n"


def main() -> None:
    """Draw the pictures, and write the page when all of them were drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="detectors whose code contains this; the page is left alone")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    done, missing = [], []
    for detector in DETECTORS:
        code = detector.code
        if options.only not in code or code in NOT_PICTURED:
            continue
        try:
            shown = find(detector, options.folder)
        except (LookupError, KeyError) as error:
            missing.append(f"{code}: {error}")
            continue
        svg = picture(shown)
        (PICTURES / f"{code}.svg").write_text(svg, encoding="utf-8")
        print(f"{code:32} {len(svg):6} bytes  {shown.fired.job.key}  {shown.silent.job.key}")
        done.append(shown)
    if not options.only:
        PAGE.write_text(page(done), encoding="utf-8")
        for path in PICTURES.glob("*.svg"):
            if path.stem not in {one.detector.code for one in done}:
                path.unlink()
    print(*missing, sep="\n")


if __name__ == "__main__":
    main()
