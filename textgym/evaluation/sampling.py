"""Sampling-time control: better samples from a policy as it is, without training.

`best_of_n` keeps the episode with the highest reward of every n; `quasi_rejection` accepts some of the policy's
episodes, so that they follow a target more nearly. Temperature, top-k and top-p change the policy's own distribution,
and so are arguments of `TokenPolicy`.

Left out: Markov chains over texts, and targets with several prompts, because each prompt has its own Z and its own
beta; run one prompt at a time.
"""

from __future__ import annotations

import math
from math import comb

import torch

from textgym.evaluation.groups import check_groups
from textgym.evaluation.policies import Policy
from textgym.matching import Acceptance, Estimate, Target, find_log_beta, log_acceptance, measure
from textgym.training.episodes import Episodes
from textgym.training.features import check_features, features_of


def best_of_n(episodes: Episodes, n: int) -> Episodes:
    """The episode with the highest reward of every n, in order.

    Its distribution is within log n - (n - 1) / n nats of the policy (Beirami et al. 2024, arXiv 2401.01879).

    Args:
        episodes: n k of them, n that stand together for one prompt; an env with `num_generations=n` gives them so.
        n: how many to choose from.

    Returns:
        k episodes.

    Raises:
        ValueError: n does not divide the number of episodes, or n that stand together have several prompts.
    """
    check_groups(episodes, n)
    best = episodes.rewards.sum(-1).view(-1, n).argmax(-1)
    return episodes.select(torch.arange(len(best), device=best.device) * n + best)


def best_of_n_reward(rewards: torch.Tensor, n: int) -> tuple[float, Estimate]:
    """How far best-of-n goes from the policy at most, in nats, and what it earns, without drawing it.

    Args:
        rewards: (C, m) of m texts of the policy for each of C prompts.
        n: how many to choose from.

    Returns:
        log n - (n - 1) / n, the bound of `best_of_n`; and the mean reward, its error being that of the C prompts.

    Raises:
        ValueError: not 1 <= n <= m.
    """
    return math.log(n) - (n - 1) / n, Estimate.mean_of(best_of_n_rewards(rewards, n))


def best_of_n_rewards(rewards: torch.Tensor, n: int) -> torch.Tensor:
    """(C,) what best-of-n earns on each prompt, see `best_of_n_reward`.

    Of m samples sorted by reward, the i-th is the best of n of them with chance C(i - 1, n - 1) / C(m, n), so the mean
    over all choices has no bias.
    """
    m = rewards.shape[1]
    if not 1 <= n <= m:
        raise ValueError(f"the best of {n} needs as many samples of each prompt; there are {m}")
    chance = torch.tensor([comb(i, n - 1) / comb(m, n) for i in range(m)], dtype=torch.float64)
    return rewards.double().sort(-1).values @ chance


def quasi_rejection(
    policy: Policy,
    target: Target,
    episodes: int,
    acceptance: float = 0.25,
    log_beta: float | None = None,
    pilot: int = 1024,
) -> tuple[Episodes, Acceptance, Target]:
    """Draw episodes of p_beta, proportional to min(P / beta, q), by accepting some of the policy q's.

    A pilot sample fits a target that has something left to fit, which gives a new target, and sets beta; then fresh
    proposals are drawn until enough of them are accepted. The reference is read at the policy's temperature.

    Args:
        policy: an agent or a `ModelPolicy`, with an env of one prompt, and a reference.
        target: p = P / Z.
        episodes: how many to accept.
        acceptance: the wanted rate; not used where `log_beta` is given.
        log_beta: log of beta.
        pilot: proposals of the pilot sample at least; they are not accepted, but count in the estimates.

    Returns:
        the accepted episodes; what `measure` says of all proposals, as if the fitted target were exact; and the latter.

    Raises:
        ValueError: no reference, several prompts, an unknown feature, a policy that top-k or top-p truncates, no sample
            within the target's support, or a rate that is out of reach or so low that none of the pilot's samples would
            stay.
    """
    if episodes < 1 or pilot < 1:
        raise ValueError(f"episodes={episodes} and pilot={pilot} must be at least 1")
    check_features(target, policy.task.scorer.component_names)
    policy.token_model.distribution.refuse_truncation(
        "the target has texts that a truncated policy never proposes, and P / q does not count them"
    )
    proposals = _proposals(policy, pilot)
    target = target.fit(features_of(proposals, policy.task.scorer.component_names), _log_base(proposals))
    ratios = [_log_ratios(policy, target, proposals)]
    log_beta = find_log_beta(ratios[0], acceptance) if log_beta is None else log_beta
    if (rate := measure(ratios[0], log_beta).rate.value) * len(proposals) < 1:
        raise ValueError(
            f"log_beta={log_beta:g} accepts a share of {rate:.1g}, less than one of {len(proposals)} proposals; lower "
            "it, or start from a policy nearer to the target"
        )
    accepted: list[Episodes] = []
    while (missing := episodes - sum(map(len, accepted))) > 0:
        proposals = _proposals(policy, min(math.ceil(missing / rate), pilot))
        ratios.append(_log_ratios(policy, target, proposals))
        chance = log_acceptance(ratios[-1], log_beta).exp()
        accepted.append(proposals.select(torch.rand_like(chance) < chance))
    return Episodes.concatenate(accepted).select(slice(episodes)), measure(torch.cat(ratios), log_beta), target


def _proposals(policy: Policy, at_least: int) -> Episodes:
    """Episodes of the policy, a multiple of the number of envs.

    Raises:
        ValueError: the policy has no reference, or the episodes have several prompts.
    """
    if policy.reference is None:
        raise ValueError("a target is relative to a reference, and this policy has none; name one (reference=...)")
    episodes = policy.sample_episodes(-(-at_least // policy.n_envs) * policy.n_envs)
    if (episodes.prompt_ids != episodes.prompt_ids[0]).any():
        raise ValueError("each prompt has its own Z and its own beta; make the env with a single prompt")
    return episodes


def _log_base(episodes: Episodes) -> torch.Tensor:
    """The log-probabilities log a - log q, (n,) float64, with q as it was when the episodes were drawn."""
    return (episodes.reference_log_probs.double() - episodes.sampled_log_probs.double()).sum(-1)


def _log_ratios(policy: Policy, target: Target, episodes: Episodes) -> torch.Tensor:
    """The log-ratios log P - log q, (n,) float64."""
    return target.log_weights(features_of(episodes, policy.task.scorer.component_names)) + _log_base(episodes)
