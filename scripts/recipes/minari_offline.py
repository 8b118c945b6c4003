# /// script
# dependencies = ["textgym[agents]", "minari[hdf5,create]==0.5.4"]
# ///
"""A Minari data set of episodes, and a policy trained from it without the env: behaviour cloning of the best tenth."""

from __future__ import annotations

import gymnasium as gym
import minari
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

import textgym  # noqa: F401 (registers the ids, also for `recover_environment`)
from textgym.wrappers import ConstantInfo

ENV_ID, DATASET_ID = "TextGenChars-v0", "textgym/chars/random-v0"


def record(episodes: int = 1000, seed: int = 0) -> minari.MinariDataset:
    """Write random episodes to a data set, infos included, which Minari wants to have the same keys at every step."""
    env = minari.DataCollector(ConstantInfo(gym.make(ENV_ID)), record_infos=True)
    env.action_space.seed(seed)
    for episode in range(episodes):
        env.reset(seed=seed if episode == 0 else None)
        ended = False
        while not ended:
            *_, ended, _, _ = env.step(env.action_space.sample())
    return env.create_dataset(
        dataset_id=DATASET_ID, algorithm_name="random", description="Random texts of TextGenChars."
    )


def best_tokens(dataset: minari.MinariDataset, share: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, P + T) texts so far and (n,) next tokens, of that share of the episodes that returned most."""
    episodes = sorted(dataset.iterate_episodes(), key=lambda episode: float(episode.rewards.sum()))
    best = episodes[-int(share * len(episodes)) :]
    rows = np.concatenate([episode.observations[:-1] for episode in best])  # the last is the finished text
    return torch.from_numpy(rows), torch.from_numpy(np.concatenate([episode.actions for episode in best]))


def train(dataset: minari.MinariDataset, steps: int = 300, batch_size: int = 256) -> nn.Module:
    """Maximise the likelihood of the best episodes' tokens; returns a network from texts so far to logits."""
    rows, tokens = best_tokens(dataset)
    vocab_size, width = int(dataset.action_space.n), rows.shape[1]  # type: ignore[attr-defined]
    network = nn.Sequential(
        nn.Embedding(vocab_size + 1, 16), nn.Flatten(), nn.Linear(16 * width, 64), nn.Tanh(), nn.Linear(64, vocab_size)
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        batch = torch.randint(len(rows), (batch_size,))
        loss = nn.functional.cross_entropy(network(rows[batch]), tokens[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def evaluate(dataset: minari.MinariDataset, network: nn.Module, episodes: int = 300) -> float:
    """The mean return of texts that are sampled from the network, in the env that the data set names."""
    env = dataset.recover_environment()
    returns = []
    for episode in range(episodes):
        (observation, _), ended, total = env.reset(seed=episode), False, 0.0
        while not ended:
            token = Categorical(logits=network(torch.from_numpy(observation[None]))).sample()
            observation, reward, ended, _, _ = env.step(token.item())
            total += float(reward)
        returns.append(total)
    return float(np.mean(returns))


if __name__ == "__main__":
    torch.manual_seed(0)
    data = minari.load_dataset(DATASET_ID) if DATASET_ID in minari.list_local_datasets() else record()
    returns = [float(episode.rewards.sum()) for episode in data.iterate_episodes()]
    print(f"{len(returns)} random episodes: mean return {np.mean(returns):.3f}")
    print(f"the policy: mean return {evaluate(data, train(data)):.3f}")
