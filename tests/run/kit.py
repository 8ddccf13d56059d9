"""What the tests of the run folder share: random records, and a comparison for which NaN is itself."""

from hypothesis import strategies as st

from trimtab.records import Finding, Note, Outcome, Severity, Signal, Unknown

FLOATS = st.floats(width=64) | st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 5e-324, 1.7e308])
TEXTS = st.text(max_size=12) | st.sampled_from(["NaN", "-Infinity", "\\NaN", "\\\\Infinity", "ÄÖ→λ", "a\nb", "\\", "1"])
STEPS = st.integers(0, 2**40)
LABELS = st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3).map(tuple), max_size=3)
FACTS = st.dictionaries(
    TEXTS, FLOATS | TEXTS | st.lists(FLOATS, max_size=3).map(tuple) | st.lists(TEXTS, max_size=3).map(tuple), max_size=4
)
PLAIN_FACTS = st.dictionaries(TEXTS, FLOATS | TEXTS, max_size=4)

SIGNALS = st.builds(
    Signal,
    attempt=st.integers(0, 3),
    step=STEPS,
    update=STEPS,
    stream=st.sampled_from(["main", "discriminator", "ström"]),
    time=FLOATS,
    values=st.dictionaries(TEXTS, FLOATS | st.lists(FLOATS, max_size=4).map(tuple), max_size=5),
    labels=LABELS,
)
FINDINGS = st.builds(
    Finding,
    code=TEXTS,
    subject=TEXTS,
    stream=TEXTS,
    attempt=st.integers(0, 3),
    severity=st.sampled_from(Severity),
    step=STEPS,
    since_step=st.integers(-1, 9),
    summary=TEXTS,
    measured=FLOATS,
    threshold=FLOATS,
    evidence=FACTS,
    event=st.sampled_from(["judged", "opened", "worsened", "resolved"]),
    id=TEXTS,
    version=st.integers(1, 9),
    excused_by=TEXTS,
)
UNKNOWNS = st.builds(Unknown, code=TEXTS, reason=TEXTS, stream=TEXTS, attempt=st.integers(0, 3), step=STEPS)
NOTES = st.builds(
    Note, kind=TEXTS, step=STEPS, after_rows=STEPS, until=st.none() | STEPS, text=TEXTS, facts=PLAIN_FACTS
)
OUTCOMES = st.builds(
    Outcome,
    action=TEXTS,
    code=TEXTS,
    subject=TEXTS,
    stream=TEXTS,
    attempt=st.integers(0, 3),
    step=STEPS,
    after_rows=STEPS,
    result=st.sampled_from(["done", "declined", "failed"]),
    changes=st.sampled_from(["nothing", "schedule", "weights"]),
    because=TEXTS,
    to_step=st.none() | STEPS,
    stops=st.booleans(),
)


def row(step, attempt=0, stream="main", labels=None, time=None, **values):
    """A measurement row with a loss, unless other values are given."""
    return Signal(
        attempt=attempt,
        step=step,
        update=step,
        stream=stream,
        time=step / 8 if time is None else time,
        values=values or {"loss": 1 / (1 + step)},
        labels=labels or {},
    )


def exactly(records):
    """Records as text that tells every float from every other, and NaN from nothing."""
    return [repr(record) for record in records]
