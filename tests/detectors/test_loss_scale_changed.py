"""The scale of the loss is judged by the gradient beside it, where there is one."""

from __future__ import annotations

import pytest

from tests.detectors.kit import opened, row
from trimtab.detectors import LossScaleChanged
from trimtab.judge import replay


def run(norm):
    """The loss is four times what it was from step 100 on, and the gradient norm is `norm`."""
    rows = []
    for step in range(180):
        late = step >= 100
        values = {"loss": (4.0 if late else 1.0) + 0.01 * (step % 5), "gradient_norm": norm if late else 1.0}
        rows.append(row(step, {**values, "update_ratio": [0.002]}))
    return rows


@pytest.mark.parametrize(("norm", "found"), [(4.0, 1), (0.0, 0)])
def test_a_gradient_that_has_gone_is_no_change_of_scale_and_no_failure(norm, found):
    assert len(opened(LossScaleChanged(), run(norm))) == found
    assert not replay([LossScaleChanged()], run(norm))[1].failures
