"""What a scorer may return, and how each mistake is named."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from textgym.scorers import Scorer, ScorerError
from textgym.testing import make_generations

BATCH = make_generations(["a", "b", "c"], ["x", "yy", ""])


class Returns(Scorer):
    name = "mine"

    def __init__(self, value):
        self.value = value

    def score(self, generations):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, True],
        (1, 2.5, 1),
        np.array([1, 2.5, 1], np.float32),
        torch.tensor([1, 2.5, 1], dtype=torch.bfloat16, requires_grad=True),
        [torch.tensor(1.0), torch.tensor(2.5), torch.tensor(1.0)],
        [torch.tensor(1.0, requires_grad=True), torch.tensor(2.5, dtype=torch.bfloat16), 1],
        (torch.tensor(1), torch.tensor(2.5, dtype=torch.float16, requires_grad=True), torch.tensor(True)),
        [np.float16(1), np.array(2.5), np.int64(1)],
        [Fraction(1), 2.5, Fraction(2, 2)],
    ],
    ids=["list", "tuple", "numpy", "torch", "tensors", "gradient", "mixed tensors", "numpy scalars", "fractions"],
)
def test_accepted_values(value):
    scores = Returns(value).evaluate(BATCH)
    assert scores.rewards.dtype == np.float64
    np.testing.assert_array_equal(scores.rewards, [1, 2.5, 1])
    assert list(scores.components) == ["mine"]


def test_torch_doubles_keep_their_precision():
    value = torch.tensor([1 / 3, 0, 0], dtype=torch.float64)
    assert Returns(value).evaluate(BATCH).rewards[0] == 1 / 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, float("nan"), 0], r"scorer 'mine' returned nan, not a finite float, for row 1: 'b' -> 'yy'"),
        ([0, 0, float("inf")], r"'mine' returned inf, .* row 2: 'c' -> ''"),
        ([0, "1", 0], r"'mine' returned '1' \(str\), .* row 1"),  # numpy makes strings of all three
        ([np.array(1.0), torch.tensor(1.0), "1"], r"'mine' returned '1' \(str\), .* row 2"),
        (torch.ones(3, device="meta"), r"'mine' returned tensor\(.*; it must return one float per row"),
        (["good", "bad", "bad"], r"'mine' returned 'good' \(str\), .* row 0: 'a' -> 'x'"),
        ([1j, 0, 0], r"'mine' returned 1j \(complex\)"),
        (torch.tensor([0, 1j, 0]), r"'mine' returned 0j \(complex\)"),
        ([0, torch.tensor(float("nan"), requires_grad=True), 0], r"'mine' returned nan, not a finite float, for row 1"),
        ([0, 10**400, 0], r"'mine' returned inf, not a finite float, for row 1: 'b' -> 'yy'"),
        ([0, 0, -(10**5000)], r"'mine' returned -inf, not a finite float, for row 2: 'c' -> ''"),
        ([0, 1e39, 0], r"'mine' returned 1e\+39, beyond float32's 3.4e\+38, for row 1: 'b' -> 'yy'"),
        ([0, 10**39, 0], r"'mine' returned 1e\+39, beyond float32's 3.4e\+38, for row 1"),
        (torch.tensor([0, 0, -1e300], dtype=torch.float64), r"returned -1e\+300, beyond float32's 3.4e\+38, for row 2"),
        ([0, 0], r"'mine' returned shape \(2,\) for 3 rows"),
        ([[0], [0], [0]], r"'mine' returned shape \(3, 1\) for 3 rows"),
        ([0, [0], 0], r"'mine' returned \[0, \[0\], 0\]; it must return one float per row"),
        (1.0, r"'mine' returned 1.0 for 3 rows"),
        (None, r"'mine' returned None for 3 rows"),
        (KeyError("oops"), r"'mine' raised KeyError: 'oops'"),
    ],
)
def test_mistakes_are_named(value, message):
    with pytest.raises(ScorerError, match=message):
        Returns(value).evaluate(BATCH)


def test_the_largest_float32_is_a_reward():
    largest = np.finfo(np.float32).max
    assert Returns([largest, -largest, 10**30]).evaluate(BATCH).rewards.tolist() == [largest, -largest, 1e30]


def test_rows_that_have_not_ended_get_nothing():
    seen = []

    class Count(Scorer):
        name = "count"

        def score(self, generations):
            seen.append(generations.prompts)
            return [7.0] * len(generations)

    some = replace(BATCH, ended=np.array([True, False, True]))
    np.testing.assert_array_equal(Count().evaluate(some).rewards, [7, 0, 7])
    none = replace(BATCH, ended=np.zeros(3, bool))
    np.testing.assert_array_equal(Count().evaluate(none).rewards, [0, 0, 0])
    assert seen == [["a", "c"]]


def test_an_error_names_the_row_of_the_env():
    some = replace(BATCH, ended=np.array([False, True, True]))
    with pytest.raises(ScorerError, match="nan.* row 2: 'c' -> ''"):
        Returns([0.0, float("nan")]).evaluate(some)


def test_importing_scorers_imports_nothing_heavy():
    heavy = "torch", "transformers", "vaderSentiment"
    code = f"import sys, textgym.scorers; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
