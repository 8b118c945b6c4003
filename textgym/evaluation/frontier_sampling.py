"""The samples of a reference from which its frontier is estimated."""

from __future__ import annotations

import numpy as np

from textgym.evaluation.frontier import Frontier
from textgym.evaluation.policies import ModelPolicy
from textgym.training.rollouts import collect_episodes


def sample_frontier(policy: ModelPolicy, prompts: int = 64, samples: int = 128, seed: int | None = None) -> Frontier:
    """The frontier over a policy's reference, estimated from fresh samples of it.

    Args:
        policy: with a reference; its env gives the prompts and the reward.
        prompts: C at most; all of the env's, where it has fewer.
        samples: n texts of each.
        seed: of the choice of prompts and of the env; the texts are drawn with torch's random numbers.

    Raises:
        ValueError: the policy has no reference, its env has a partner, or what `Frontier` refuses.
        ScorerError: the scorer failed.
    """
    policy.task.mdp.refuse_turns("a frontier")
    if policy.reference is None:
        raise ValueError("a frontier is relative to a reference, and this policy has none; name one (reference=...)")
    table, rng, number = policy.task.prompts, np.random.default_rng(seed), policy.task.prompts.num_prompts
    chosen = table.draw(rng, prompts) if number is None else rng.permutation(number)[:prompts]
    wanted = chosen.repeat(samples)  # mates side by side
    rounds = np.resize(wanted, (-(-len(wanted) // policy.n_envs), policy.n_envs))
    episodes = collect_episodes(policy.env, policy.reference.actor(), len(rounds), seed, rounds)
    return Frontier(episodes.rewards.sum(-1)[: len(wanted)].view(-1, samples), num_prompts=number)
