"""Where curves of pass@k cross, against closed forms and a loop over every k."""

import numpy as np
import pytest

from scripts.experiments.sharpening import crossing, crossing_table, crossings, curve, draw

SHARP = [0.999, 0.999, 0.001]  # two prompts are solved, the third nearly never
BROAD = [0.5, 0.5, 0.5]


def test_the_curve_is_the_chance_of_a_right_answer_in_k():
    ks = np.array([1, 2, 16])
    expected = [np.mean([1 - (1 - p) ** k for p in SHARP]) for k in ks]
    assert curve(SHARP, ks) == pytest.approx(expected, abs=1e-12)
    assert curve([0.0, 1.0], ks) == pytest.approx([0.5] * 3)


def test_curves_cross_where_a_loop_finds_them():
    assert crossing(SHARP, BROAD) == 2  # 1 - .5^2 = .75 > .667
    rare = [0.999, 0.3, 1e-4]
    slow = [0.6, 0.25, 1e-3]
    every = np.arange(1, 5000)
    first = every[curve(slow, every) > curve(rare, every) + 1e-6][0]
    assert crossing(rare, slow) == first > 5
    assert crossing(BROAD, SHARP) == 1  # it leads from the start
    assert crossing([0.9, 0.0], [0.8, 1e-6]) == 8  # where k 1e-6 - .2^k passes 2e-6, twice the least lead
    assert crossing([0.5, 0.5], [0.4, 0.5]) is None


def test_seeds_are_told_by_the_least_and_the_greatest_k():
    assert crossings([SHARP, SHARP], [BROAD, BROAD]) == "2"
    never = [0.1, 0.1, 0.0]
    assert crossings([SHARP, SHARP], [BROAD, never]) == "2.." and crossings([SHARP], [never]) == "never"
    assert crossings([SHARP, [0.9999, 0.9999, 0.3]], [BROAD, BROAD]) == "2..4"


def test_the_table_is_ranked_and_the_figure_drawn(tmp_path):
    entries = {"broad": [BROAD], "sharp": [SHARP], "none": [[0.0, 0.0, 0.0]]}
    header, *rows = crossing_table(entries)
    assert header == ["", "is overtaken by", "2", "3"]
    assert [row[:2] for row in rows] == [["1", "`sharp`"], ["2", "`broad`"], ["3", "`none`"]]
    assert [row[2:] for row in rows] == [["2", "never"], ["", "never"], ["", ""]]
    draw(entries, "title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
