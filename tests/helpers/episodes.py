"""Episodes written by hand into the single env, for comparison with what a bridge gives for the same tokens."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Written:
    """What one episode consists of: observations and masks before each token and after the last, tokens, rewards."""

    prompt_id: int
    observations: list[np.ndarray]
    masks: list[np.ndarray]
    tokens: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def total(self):
        return sum(self.rewards)


def write_episode(env, rng, eos_share=0.15, begun=(), **reset):
    """An episode of the tokens `begun` and then random ones, which end the text with a probability where they may."""
    env, mdp = env.unwrapped, env.unwrapped.mdp
    observation, info = env.reset(**reset)
    episode, ended = Written(info["prompt_id"], [observation], [env.action_masks()]), False
    while not ended:
        permitted = episode.masks[-1].nonzero()[0]
        ends = permitted[mdp.is_eos[permitted]]
        drawn = rng.choice(ends if len(ends) and rng.random() < eos_share else permitted)
        token = int((*begun, *[drawn] * mdp.max_new_tokens)[len(episode.tokens)])
        observation, reward, ended, _, episode.info = env.step(token)
        episode.tokens.append(token)
        episode.rewards.append(reward)
        episode.observations.append(observation)
        episode.masks.append(env.action_masks())
    return episode
