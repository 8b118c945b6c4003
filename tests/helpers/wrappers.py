"""Wrapped envs as tables of rewards, and vector envs replayed with single ones."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from textgym.exact import TokenTree


def reward_table(wrap, env_id="TextGenToy-v0", **kwargs):
    """(S, K + 1) what a wrapped env pays for every action, found by writing every outcome."""
    tree = TokenTree.of(gym.make(env_id, **kwargs))
    env = wrap(gym.make_vec(env_id, num_envs=tree.num_outcomes, autoreset_mode="Disabled", **kwargs))
    env.reset(seed=0)
    table = torch.full((tree.num_contexts, tree.num_tokens + 1), torch.nan, dtype=torch.float64)
    so_far = torch.full_like(tree.outcomes, tree.pad_id)
    for step, actions in enumerate(tree.outcomes.T):
        rows = actions != tree.pad_id
        rewards = torch.from_numpy(env.step(actions.numpy())[1])
        table[tree.index(so_far[rows]), actions[rows]] = rewards[rows]
        assert not rewards[~rows].any()  # rows that have ended are paid nothing
        so_far[:, step] = actions
    assert not table.isnan().any()
    return tree, table


def ends_of(info, row):
    """What a vector env reports at the end of a row's episode, masked entries left out."""
    info = info.get("final_info", info)
    return {name: info[name][row] for name in info if not name.startswith("_") and info[f"_{name}"][row]}


def assert_vector_is_many_singles(vector, single, steps, rng, act):
    """Play a vector env, and each of its episodes again with the single env: same rewards, same info at the end.

    Args:
        vector: a wrapped vector env, in any autoreset mode.
        single: the same, single.
        steps: of the vector env.
        rng: draws the actions.
        act: (rng, N) -> (N, ...) actions.
    """
    mode, mdp = vector.metadata["autoreset_mode"], vector.unwrapped.mdp
    observations, _ = vector.reset(seed=5)
    played = [[] for _ in range(vector.num_envs)]  # (action, reward) of each row's episode
    firsts, episodes = observations.copy(), 0
    dead = np.zeros(vector.num_envs, bool)
    for _ in range(steps):
        if mode is AutoresetMode.DISABLED and dead.any() and rng.random() < 0.5:
            observations, _ = vector.reset(options={"reset_mask": dead})
            firsts[dead], dead = observations[dead], np.zeros(vector.num_envs, bool)
        if dead.all():
            continue
        actions = act(rng, vector.num_envs)
        observations, rewards, terminations, _, info = vector.step(actions)
        assert not rewards[dead].any() and not terminations[dead].any()
        for row in np.flatnonzero(~dead):
            played[row].append((actions[row], rewards[row]))
        for row in np.flatnonzero(terminations):
            episodes += 1
            single.reset(options={"prompt_ids": firsts[row][: mdp.max_prompt_tokens]})
            for action, reward in played[row]:
                _, again, terminated, _, end = single.step(action)
                np.testing.assert_allclose(again, reward, atol=1e-5)
            assert terminated
            seen = ends_of(info, row)
            assert seen.keys() == end.keys()
            for name in end.keys() - {"prompt_id"}:
                np.testing.assert_allclose(seen[name], end[name], atol=1e-4)
            played[row] = []
        if mode is AutoresetMode.SAME_STEP:
            firsts[terminations] = observations[terminations]
        elif mode is AutoresetMode.NEXT_STEP:
            firsts[dead], dead = observations[dead], terminations
        else:
            dead = dead | terminations
    assert episodes > vector.num_envs
