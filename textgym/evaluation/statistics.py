"""Statistics over seeds: a mean and its interval.

Intervals over seeds are Student's t, 95%, over their means, so they cover what seeds differ in: the training, and the
sample that is measured. A bootstrap over seeds (Agarwal et al. 2021) assumes less, but is too narrow for a few of them:
its percentile interval of 3 normal values holds the mean 73 times in 100, Student's 95 times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textgym.matching.intervals import Z, t_quantile


@dataclass(frozen=True)
class Interval:
    """A mean, and half the width of its 95% interval; None where nothing shows its spread, as of one seed."""

    mean: float
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The mean of n seeds' values with its interval, mean ± t s / sqrt(n), s being their standard deviation."""
        n = len(values)
        half_width = None if n < 2 else t_quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
        return cls(float(np.mean(values)), half_width)

    @classmethod
    def normal(cls, mean: float, standard_error: float) -> Interval:
        """An estimate from so many cases that its error is normal, mean ± z standard errors, z = 1.96."""
        return cls(float(mean), Z * float(standard_error))

    def text(self, format: str) -> str:
        """The interval as text, such as `+0.713 ± 0.031`; `format` is for each number."""
        is_zero = float(format.format(self.mean)) == 0
        mean = format.format(0.0 if is_zero else self.mean)  # never -0.00
        return mean if self.half_width is None else f"{mean} ± {format.format(self.half_width).lstrip('+')}"
