"""Matching a target distribution: targets, divergences from them, estimates from samples, and rejection sampling.

All of it is functions and values over numbers of completions; nothing here knows an environment or an agent.
"""

from textgym.matching.divergences import Divergence, DivergenceName, make_divergence
from textgym.matching.estimates import (
    Estimate,
    WeightedSample,
    effective_sample_size,
    estimate,
    jackknife,
)
from textgym.matching.fitting import check_zeros, fit_to_reference
from textgym.matching.partition import LogPartition
from textgym.matching.products import Product, make_target
from textgym.matching.rejection import Acceptance, find_log_beta, log_acceptance, measure
from textgym.matching.targets import RLHF, Distributional, Features, Pointwise, Target, least_kl

__all__ = [
    "RLHF",
    "Acceptance",
    "Distributional",
    "Divergence",
    "DivergenceName",
    "Estimate",
    "Features",
    "LogPartition",
    "Pointwise",
    "Product",
    "Target",
    "WeightedSample",
    "check_zeros",
    "effective_sample_size",
    "estimate",
    "find_log_beta",
    "fit_to_reference",
    "jackknife",
    "least_kl",
    "log_acceptance",
    "make_divergence",
    "make_target",
    "measure",
]
