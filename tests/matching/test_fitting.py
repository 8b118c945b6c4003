"""What a sample of the reference makes of a target, and which samples are too little for it."""

import math

import pytest
import torch

from textgym.matching import RLHF, Distributional, Pointwise, Product, fit_to_reference

PROMPTS = torch.zeros(200, dtype=torch.int64)


def rare(number):
    """A feature that so many of 200 samples have."""
    return {"rare": (torch.arange(200) < number).double(), "reward": torch.arange(200).double() / 100}


def test_an_open_target_comes_back_fitted_with_the_weights_of_the_sample():
    wanted = Distributional({"rare": 0.5})
    fitted, log_weights = fit_to_reference(wanted, rare(50), PROMPTS)
    assert fitted.coefficients["rare"] == pytest.approx(math.log(3))  # the log-odds of 1/4 are -log 3
    assert not wanted.fitted
    assert log_weights.tolist() == pytest.approx([math.log(3)] * 50 + [0.0] * 150)


def test_a_fitted_target_comes_back_itself_however_few_samples_bear_it():
    for target in (RLHF(0.01), Pointwise("rare"), Product([RLHF(0.5), Pointwise("rare")])):
        fitted, log_weights = fit_to_reference(target, rare(1), PROMPTS)
        assert fitted is target and torch.equal(log_weights, target.log_weights(rare(1)))


def test_prompts_are_told_apart():
    features, prompts = {"a": torch.tensor([0.0, 1.0] * 100)}, torch.arange(200) // 100
    features["a"][100:150] = 0.0  # the second prompt has it in a quarter
    fitted, _ = fit_to_reference(Distributional({"a": 0.6}), features, prompts)
    odds = math.exp(fitted.coefficients["a"])
    assert (odds / (odds + 1) + odds / (odds + 3)) / 2 == pytest.approx(0.6, abs=1e-9)


def test_what_the_sample_refutes():
    with pytest.raises(ValueError, match="none of 200 samples of the reference satisfies the target .*'rare'.*more"):
        fit_to_reference(Pointwise("rare"), rare(0), PROMPTS)
    with pytest.raises(ValueError, match=r"rest on 2\.\d effective samples of 200; take more samples"):
        fit_to_reference(Distributional({"rare": 0.99}), rare(2), PROMPTS)
    with pytest.raises(ValueError, match="does not lie strictly within 0..1"):
        fit_to_reference(Distributional({"rare": 1.0}), rare(2), PROMPTS)
