"""Targets on `TextGenToy-v0`, whose texts can be enumerated, and how near an agent comes to them, exactly."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

import textgym  # noqa: F401 (registers the env ids)
from agents import DistributionMatching
from textgym.exact import TokenTree
from textgym.matching import make_target
from textgym.sb3.callbacks import Decay

ONES = {"name": "token_counts", "weights": {"1": 1.0}, "component_name": "ones"}
SCORER = {
    "name": "weighted_sum",
    "scorers": [
        {"name": "token_counts", "weights": {"1": 1.0, "3": -0.5}},
        {"name": "keyword", "words": "1", "component_name": "some_1"},
        {"name": "keyword", "words": "3", "component_name": "some_3"},
        {"name": "threshold", "scorer": ONES, "at": 3, "component_name": "three_1"},
    ],
    "weights": [1.0, 0.0, 0.0, 0.0],
}
TARGETS: dict[str, dict[str, Any]] = {
    "dense filter": {"name": "pointwise", "feature": "some_1"},
    "sparse filter": {"name": "pointwise", "feature": "three_1"},
    "distributional": {"name": "distributional", "means": {"some_1": 0.8, "some_3": 0.3}},
    "RLHF": {"name": "rlhf", "beta": 0.5},
}


def total_variation(
    target: str, updates: int, n_envs: int, learning_rate: float, initial_episodes: int, seed: int, **options: Any
) -> float:
    """The exact total variation between a target and the policy of an agent that was trained towards it.

    Args:
        target: a key of `TARGETS`.
        updates: how many.
        n_envs: episodes in an update.
        learning_rate: of the first update; it falls quadratically to 0.
        initial_episodes: of the reference.
        seed: of everything.
        **options: further arguments of `DistributionMatching`.
    """
    env = gym.make_vec("TextGenToy-v0", num_envs=n_envs, autoreset_mode="Disabled", scorer=SCORER)
    agent = DistributionMatching(
        "TokenPolicy",
        env,
        target=TARGETS[target],
        initial_episodes=initial_episodes,
        policy_kwargs={"value_function": "separate"},
        seed=seed,
        device="cpu",
        **options,
    )
    agent.learn(10**9, callback=Decay(updates, learning_rate))
    tree = TokenTree.of(env)
    features, log_a = tree.scores(env), tree.log_probs(env.unwrapped.reference_logits)  # type: ignore[attr-defined]
    exact = make_target(TARGETS[target]).fit(features, log_a)
    log_p = (log_a + exact.log_weights(features)).log_softmax(0)
    log_pi = tree.log_probs(agent.policy.model.table.detach())  # type: ignore[arg-type]
    return (log_pi.exp() - log_p.exp()).abs().sum().item() / 2
