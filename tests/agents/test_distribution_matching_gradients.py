"""f-DPG's stochastic gradients against the exact ones, and the faults that this comparison finds.

All divergences share their optimum, so where training ends says little; the mean gradient on the way there says it.
"""

import dataclasses

import pytest
import torch

from agents.proposals import Proposal
from tests.helpers.toy_matching import (
    FINITE_ON_ZEROS,
    NAMES,
    assert_unbiased,
    matching,
    perturb,
    rollout,
    stochastic_gradients,
)
from textgym.language_models.pieces import PASS_COST
from textgym.matching import make_divergence

EPISODES = 200 * 64
EOS = 3
JENSEN_SHANNON = ("jensen_shannon", None)


@pytest.fixture(autouse=True)
def one_pass_per_batch(monkeypatch):
    """Most of the time here goes into the number of passes."""
    monkeypatch.setitem(PASS_COST, "cpu", 10**6)


def prepared(fault=None, scale=0.5, **kwargs):
    """An agent without cap whose policy is not its target's, with a fault put in; and what is exact."""
    if kwargs.get("baseline") == "value":  # a trunk of its own, so that the value loss leaves the policy alone
        kwargs["policy_kwargs"] = {"value_function": "separate"}
    agent = matching(EPISODES, **{"cap": None, **kwargs})
    exact = perturb(agent, scale)
    if fault is not None:
        fault(agent)
    return agent, exact


def check(agent, exact, divergence=JENSEN_SHANNON, group=None):
    """The mean of 200 stochastic gradients is the exact gradient."""
    agent.f_divergence = make_divergence(*divergence)
    gradients = stochastic_gradients(agent, *rollout(agent), group=group)
    assert_unbiased(gradients, exact.gradient(*divergence))


@pytest.mark.parametrize("proposal", ["on_policy", "mixture"])
def test_every_divergence_has_its_gradient_and_no_other_has(proposal):
    agent, exact = prepared(proposal=proposal)
    collected = rollout(agent)
    for divergence in NAMES:
        agent.f_divergence = make_divergence(*divergence)
        gradients = stochastic_gradients(agent, *collected)
        assert_unbiased(gradients, exact.gradient(*divergence))
        for other in set(NAMES) - {divergence}:
            with pytest.raises(AssertionError):
                assert_unbiased(gradients, exact.gradient(*other))


@pytest.mark.parametrize(
    ("proposal", "baseline", "target", "divergence"),
    [
        ("on_policy", "none", "dense", FINITE_ON_ZEROS[0]),
        ("on_policy", "value", "distributional", NAMES[1]),
        ("mixture", "none", "sparse", FINITE_ON_ZEROS[4]),
        ("mixture", "value", "rlhf", NAMES[5]),
        ("mixture", "value", "dense", FINITE_ON_ZEROS[1]),
        ("adaptive", "none", "rlhf", NAMES[3]),
        ("adaptive", "leave_one_out", "dense", FINITE_ON_ZEROS[3]),
        ("adaptive", "value", "distributional", NAMES[7]),
    ],
)
def test_no_choice_brings_a_bias(proposal, baseline, target, divergence):
    check(*prepared(proposal=proposal, baseline=baseline, target=target), divergence)


def test_small_groups_of_the_mixture_bring_no_bias():
    check(*prepared(scale=2.0), group=4)


def test_the_step_is_the_gradient():
    kwargs = {
        "learning_rate": 1.0,
        "max_grad_norm": float("inf"),
        "policy_kwargs": {"optimizer_class": torch.optim.SGD},
    }
    agent, exact = prepared(**kwargs)
    (gradient,) = stochastic_gradients(agent, *rollout(agent), batches=1)
    before = agent.policy.model.table.detach().clone()
    agent.train()
    step = agent.policy.model.table.detach() - before
    torch.testing.assert_close(step.double(), -gradient, atol=1e-6, rtol=0)
    torch.testing.assert_close(step.double(), -exact.gradient("jensen_shannon"), atol=0.02, rtol=0)


def changed_by(change):
    """A fault in the episodes that a rollout hands on, with their log-probabilities."""

    def put_in(agent):
        process = agent.process_rollout
        agent.process_rollout = lambda episodes: process(change(episodes))

    return put_in


def weighted_with(change):
    """A fault in what is known of a sample."""

    def put_in(agent):
        weighted = agent.weighted
        agent.weighted = lambda episodes, log_q: change(episodes, weighted(episodes, log_q))

    return put_in


def masked(episodes, mask):
    return episodes.replace(
        mask=mask, log_probs=episodes.log_probs * mask, reference_log_probs=episodes.reference_log_probs * mask
    )


def without_eos(episodes):
    """EOS taken for padding, as where both have one id."""
    return masked(episodes, episodes.mask & (episodes.actions != EOS))


def eos_left_out_of_log_pi(episodes):
    return masked(episodes, episodes.mask & (episodes.actions != EOS)).replace(mask=episodes.mask)


def padding_counted(episodes):
    """Padding that has log-probabilities like tokens, and different ones under the two models."""
    return episodes.replace(
        log_probs=episodes.log_probs.masked_fill(~episodes.mask, -1.0),
        reference_log_probs=episodes.reference_log_probs.masked_fill(~episodes.mask, -2.0),
    )


def length_normalised(episodes, sample):
    changed = {name: getattr(sample, name) / episodes.lengths for name in ("log_pi", "log_a", "log_q")}
    return dataclasses.replace(sample, **changed)


def truncated_are_failures(episodes, sample):
    ended = (episodes.actions == EOS).any(-1)
    return dataclasses.replace(sample, log_weights=sample.log_weights.masked_fill(~ended, -torch.inf))


def without_importance_weights(episodes, sample):
    return dataclasses.replace(sample, log_q=sample.log_pi)


def z_is_one(agent):
    agent.partition.log_sums[:] = 0.0


def cap_left_on(agent):
    agent.cap = 0.3


def values_of_samplers(agent):
    """The reference's rows come with zeros for values."""
    evaluated = agent._proposal.evaluated
    agent._proposal.evaluated = lambda episodes: evaluated(episodes).replace(values=episodes.values)


def halves_share_a_baseline(agent):
    agent._proposal.baselines = Proposal.baselines.__get__(agent._proposal)


@pytest.mark.parametrize(
    ("fault", "kwargs"),
    [
        (changed_by(without_eos), {"proposal": "on_policy"}),
        (changed_by(eos_left_out_of_log_pi), {"proposal": "on_policy"}),
        (changed_by(padding_counted), {"proposal": "on_policy"}),
        (weighted_with(length_normalised), {"proposal": "on_policy"}),
        (weighted_with(truncated_are_failures), {"proposal": "on_policy"}),
        (weighted_with(truncated_are_failures), {}),
        (weighted_with(without_importance_weights), {}),
        (z_is_one, {}),
        (cap_left_on, {}),
        (values_of_samplers, {"baseline": "value"}),
    ],
)
def test_faults_are_found(fault, kwargs):
    with pytest.raises(AssertionError, match="standard errors"):
        check(*prepared(fault, **kwargs))


def test_a_baseline_that_tells_the_halves_apart_is_found():
    with pytest.raises(AssertionError, match="standard errors"):
        check(*prepared(halves_share_a_baseline, scale=2.0), group=4)


@pytest.mark.parametrize("normalization", ["token", "sequence"])
def test_losses_averaged_over_tokens_are_found(normalization, monkeypatch):
    step = type(prepared()[0]).gradient_step
    monkeypatch.setattr(
        "agents.distribution_matching.DistributionMatching.gradient_step",
        lambda self, episodes, loss, _: step(self, episodes, loss, normalization),
    )
    with pytest.raises(AssertionError):
        test_the_step_is_the_gradient()
