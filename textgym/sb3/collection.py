"""Collecting whole episodes from an SB3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from textgym.envs.deferred import settle
from textgym.sb3.vec_env import TextVecEnv
from textgym.training.actors import Actor, Alternating

# Called after every env step with the rows that were live, the dones and the infos; False stops the collection. Under a
# slow scorer the infos have their rewards only when all episodes are there.
OnStep = Callable[[np.ndarray, np.ndarray, list[dict[str, Any]]], bool]


def collect(
    env: VecEnv, actor: Actor, rounds: int, component_names: tuple[str, ...], on_step: OnStep | None = None
) -> dict[str, np.ndarray] | None:
    """The same number of complete episodes of every row's prompts, so that short ones are not over-represented.

    Args:
        env: an SB3 `VecEnv` of TextGym envs. A `TextVecEnv` in Disabled mode is told when to stop, and its rows do what
            is left of each other's; the surplus of other ones, which restart by themselves, is ignored.
        actor: chooses the tokens.
        rounds: episodes per row.
        component_names: the scorer's components, which `infos` hold at the end.
        on_step: see `OnStep`.

    Returns:
        the fields of `Episodes` that sampling gives, (rounds * envs, ...), or None if `on_step` returned False.

    Raises:
        ValueError: a wrapper truncated an episode.
    """
    own = env.unwrapped if isinstance(env.unwrapped, TextVecEnv) else None
    if own is not None:
        # A decode step on a GPU is a graph's replay, a prefill is not, so that several prompts go together.
        together = env.num_envs // 8 if actor.device.type == "cuda" else 1
        own.plan(rounds, together, period=len(actor.actors) if isinstance(actor, Alternating) else 1)
    mdp, n, obs = actor.mdp, env.num_envs, env.reset()
    assert isinstance(obs, np.ndarray)
    rows = np.full((rounds, *obs.shape), mdp.pad_id)
    prompt_ids, components = np.zeros((rounds, n), np.int64), np.zeros((rounds, n, len(component_names)), np.float32)
    names = "rewards", "sampled_log_probs", "values"
    terms = np.zeros((len(names), rounds, n, mdp.max_new_tokens), np.float32)
    mask = np.zeros(terms.shape[1:], bool)  # (rounds, N, T) where actions stand
    playing = np.stack([np.zeros(n, np.int64), np.arange(n)])  # (2, N) round and row of the episode that each row plays
    played: list[tuple[Any, dict[str, float]]] = []  # (round, row), and what SB3 counts of the episode
    with env.deferring() if isinstance(env, TextVecEnv) else nullcontext() as deferred:
        while len(played) < rounds * n:
            assert isinstance(obs, np.ndarray)
            live, lengths = (playing[0] < rounds) & ~mdp.ended(obs), mdp.completion_lengths(obs)
            actions, values, log_probs = actor(torch.from_numpy(obs))
            obs, rewards, dones, infos = env.step(actions.cpu().numpy())
            step = np.stack([rewards, log_probs.cpu().numpy(), values.flatten().cpu().numpy()])  # (3, N)
            index = np.flatnonzero(live)
            terms[:, *playing[:, index], lengths[index]] = step[:, index]
            mask[*playing[:, index], lengths[index]] = True
            for i in np.flatnonzero(dones & live):
                at = tuple(playing[:, i])
                if infos[i]["TimeLimit.truncated"]:
                    raise ValueError(
                        f"a wrapper cut an episode off after {lengths[i] + 1} tokens; agents need whole ones"
                    )
                rows[at], prompt_ids[at] = infos[i]["terminal_observation"], infos[i]["prompt_id"]
                components[at] = [infos[i][name] for name in component_names]
                infos[i]["episode"] = {"r": float(terms[0][at].sum()), "l": int(mask[at].sum())}
                played.append((at, infos[i]["episode"]))
            playing = playing + np.stack([dones & live, np.zeros(n, bool)]) if own is None else own.playing.copy()
            if on_step is not None and not on_step(live, dones, infos):
                return None
        if deferred is not None:  # the rewards that the steps did not give
            settle(deferred.join(), np.array([at for at, _ in played]).T, mask, terms[0], components, component_names)
            for at, episode in played:
                episode["r"] = float(terms[0][at].sum())
    fields = {"rows": rows, "mask": mask, "prompt_ids": prompt_ids, "components": components}
    fields |= dict(zip(names, terms, strict=True))
    return {name: array.reshape(rounds * n, *array.shape[2:]) for name, array in fields.items()}
