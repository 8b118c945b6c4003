"""Playing whole episodes with a policy, and scoring them under a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from textgym.sb3.buffer import Episodes
from textgym.sb3.policy import TokenPolicy

# Called after every env step with the rows that were live, the dones and the infos; False stops the collection.
OnStep = Callable[[np.ndarray, np.ndarray, list[dict[str, Any]]], bool]


@torch.no_grad()
def play_round(
    env: VecEnv, policy: TokenPolicy, component_names: tuple[str, ...], on_step: OnStep | None = None
) -> dict[str, np.ndarray] | None:
    """One episode per env, all started together; rows that have ended wait, or are ignored, until the last one.

    Args:
        env: an SB3 `VecEnv` of TextGym envs.
        policy: chooses the tokens.
        component_names: the scorer's components, which `infos` hold at the end.
        on_step: see `OnStep`.

    Returns:
        the fields that `EpisodeRolloutBuffer.add` takes, or None if `on_step` returned False.
    """
    mdp, n, obs = policy.mdp, env.num_envs, env.reset()
    assert isinstance(obs, np.ndarray)
    live, rows = np.ones(n, bool), np.full_like(obs, mdp.pad_id)
    prompt_ids, components = np.zeros(n, np.int64), np.zeros((n, len(component_names)), np.float32)
    terms = {name: np.zeros((n, mdp.max_new_tokens), np.float32) for name in ("rewards", "log_probs", "values")}
    for t in range(mdp.max_new_tokens):
        actions, values, log_probs = policy(obs_as_tensor(obs, policy.device))
        obs, rewards, dones, infos = env.step(actions.cpu().numpy())
        assert isinstance(obs, np.ndarray)
        step = {"rewards": rewards, "log_probs": log_probs.cpu().numpy(), "values": values.flatten().cpu().numpy()}
        for name, array in step.items():
            terms[name][:, t] = np.where(live, array, 0.0)
        for i in np.flatnonzero(dones & live):
            rows[i], prompt_ids[i] = infos[i]["terminal_observation"], infos[i]["prompt_id"]
            components[i] = [infos[i][name] for name in component_names]
        if on_step is not None and not on_step(live, dones, infos):
            return None
        live &= ~dones
        if not live.any():
            break
    return {"rows": rows, "prompt_ids": prompt_ids, "components": components, **terms}


@torch.no_grad()
def log_probs_under(policy: TokenPolicy, model: Any, episodes: Episodes, micro_batch_size: int | None) -> torch.Tensor:
    """Log-probabilities of the episodes' tokens under a causal LM, with the policy's masks; (E, T), 0 at padding."""
    result = torch.zeros_like(episodes.log_probs)
    for index in torch.arange(len(episodes), device=result.device).split(micro_batch_size or len(episodes)):
        piece = episodes.select(index)
        result[index] = policy.evaluate_episodes(piece.rows, piece.actions, model)[1]
    return result
