"""The gallery shows every detector, in small pictures that stand alone."""

import pytest

from benchmarks import gallery, watching
from trimtab.detectors import DETECTORS

CODES = [detector.code for detector in DETECTORS]


def test_each_detector_is_in_the_gallery_with_a_picture_or_a_reason():
    assert set(gallery.PICTURED) | set(gallery.NOT_PICTURED) == set(CODES)
    text = gallery.PAGE.read_text(encoding="utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == CODES
    assert {p.stem for p in gallery.PICTURES.glob("*.svg")} == set(gallery.PICTURED)


@pytest.mark.parametrize("code", gallery.PICTURED)
def test_a_picture_is_small_and_needs_nothing_from_outside(code):
    text = (gallery.PICTURES / f"{code}.svg").read_text(encoding="utf-8")
    assert len(text.encode()) < 25_000
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert gallery.PICTURED[code].silent in watching.KINDS
