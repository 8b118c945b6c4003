"""Whole episodes from a Gymnasium vector env, without any RL library."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from textgym.envs.deferred import DeferredScores, settle
from textgym.mdp import IntArray
from textgym.training.actors import Actor
from textgym.training.episodes import Episodes


@torch.no_grad()
def collect_episodes(
    env: Any, actor: Actor, rounds: int = 1, seed: int | None = None, prompt_ids: IntArray | None = None
) -> Episodes:
    """Complete episodes, the same number from every row of a vector env.

    Args:
        env: what `gym.make_vec` returned for a TextGym id, in autoreset mode `"Disabled"`, so that rows go in lockstep.
        actor: chooses the tokens.
        rounds: episodes per row.
        seed: of the env; None goes on with its random numbers.
        prompt_ids: (rounds, N) the prompts of the rows; None draws them.

    Returns:
        the episodes, round by round, as sampling alone gives them (`Episodes.sampled`).

    Raises:
        ValueError: the env restarts rows by itself.
    """
    mode = env.metadata["autoreset_mode"].name
    if mode != "DISABLED":
        raise ValueError(f"the env's autoreset mode is {mode}; make it with autoreset_mode='Disabled'")
    table, parts = env.unwrapped.task.prompts, []
    for number in range(rounds):
        pins = None if prompt_ids is None else {"prompts": [table.pin(i) for i in prompt_ids[number].tolist()]}
        parts.append(_one_round(env, actor, seed if number == 0 else None, pins))
    return Episodes.concatenate(parts)


def _one_round(env: Any, actor: Actor, seed: int | None, options: dict[str, Any] | None) -> Episodes:
    """One episode per row."""
    mdp, names = env.unwrapped.mdp, env.unwrapped.task.scorer.component_names
    observations, infos = env.reset(seed=seed, options=options)
    prompt_ids = np.array(infos["prompt_id"], np.int64)
    terms = np.zeros((3, env.num_envs, mdp.max_new_tokens), np.float32)  # rewards, log-probabilities, values
    components = np.zeros((env.num_envs, len(names)), np.float32)
    mask, live = np.zeros(terms.shape[1:], bool), np.ones(env.num_envs, bool)
    with deferring(env) as deferred:
        while live.any():
            places = np.flatnonzero(live), mdp.completion_lengths(observations[live])  # of the actions
            mask[places] = True
            actions, values, log_probs = actor(torch.from_numpy(observations))
            observations, rewards, terminations, truncations, infos = env.step(actions.cpu().numpy())
            step = np.stack([rewards, log_probs.cpu().numpy(), values.flatten().cpu().numpy()])  # (3, N)
            terms[:, *places] = step[:, live]
            ended = live & (terminations | truncations)
            if ended.any():
                components[ended] = np.stack([infos[name] for name in names], -1)[ended]
            live &= ~ended
        if deferred is not None:
            scored = deferred.join()
            rows = np.concatenate([rows for rows, _ in scored])
            settle(scored, np.stack([0 * rows, rows]), mask[None], terms[0][None], components[None], names)
    fields = {"rows": observations, "mask": mask, "prompt_ids": prompt_ids, "components": components}
    fields |= dict(zip(("rewards", "sampled_log_probs", "values"), terms, strict=True))
    tensors = {name: torch.as_tensor(array, device=actor.device) for name, array in fields.items()}
    return Episodes.sampled(mdp.pad_id, **tensors)


def deferring(env: Any) -> AbstractContextManager[DeferredScores | None]:
    """A block in which a slow scorer is asked behind a vector env; None in it where wrappers would miss the rewards."""
    return env.deferred_scores() if env is env.unwrapped else nullcontext()
