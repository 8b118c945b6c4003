# /// script
# dependencies = ["textgym[agents]", "gymnasium>=1.4.0"]
# ///
"""PPO in one file, in the manner of CleanRL, with a causal language model as the agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import nn
from torch.distributions import Categorical
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import textgym  # noqa: F401 (registers the ids)
from textgym.language_models import load_model
from textgym.mdp import model_inputs


@dataclass
class Args:
    """What is trained, and how; the names are CleanRL's."""

    env_id: str = "TextGenChars-v0"
    """A TextGym id."""
    model: str | None = None
    """A language model that shares the env's tokenizer; without one a small random Llama."""
    total_timesteps: int = 15_000
    """Tokens to write."""
    num_envs: int = 64
    """Episodes side by side."""
    num_steps: int = 16
    """Steps of every env between two updates."""
    learning_rate: float = 3e-3
    """Adam's step size."""
    gae_lambda: float = 0.95
    """The lambda of generalised advantage estimation; gamma is 1."""
    num_minibatches: int = 4
    """Minibatches of an epoch."""
    update_epochs: int = 2
    """Passes over what was collected."""
    clip_coef: float = 0.2
    """The largest change of a token's ratio that is rewarded."""
    ent_coef: float = 0.0
    """Weight of the entropy."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Longest gradient of a step."""
    seed: int = 0
    """Seed of the env and of torch."""


class Agent(nn.Module):
    """A causal language model, and a value head on its last hidden state."""

    def __init__(self, lm: PreTrainedModel, pad_id: int):
        super().__init__()
        self.lm, self.pad_id = lm, pad_id
        self.critic = nn.Linear(lm.config.hidden_size, 1)

    def forward(self, obs: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        """The next token's distribution, (N, V), and the value of each text so far, (N,), of token ids (N, P + T)."""
        out = self.lm(**model_inputs(obs, self.pad_id), output_hidden_states=True)
        return Categorical(logits=out.logits[:, -1]), self.critic(out.hidden_states[-1][:, -1])[:, 0]


def make_envs(args: Args, **kwargs: Any) -> gym.vector.VectorEnv:
    """The native vector env: SameStep, so every step of every row is a token of an episode."""
    return RecordEpisodeStatistics(gym.make_vec(args.env_id, num_envs=args.num_envs, **kwargs))


def make_agent(args: Args, envs: gym.vector.VectorEnv) -> Agent:
    """The model that `args` name."""
    mdp = envs.unwrapped.get_attr("mdp")[0]  # type: ignore[attr-defined]
    if args.model is not None:
        return Agent(load_model(args.model), mdp.pad_id)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return Agent(LlamaForCausalLM(LlamaConfig(vocab_size=mdp.vocab_size, **size)), mdp.pad_id)


@torch.no_grad()
def rollout(
    envs: gym.vector.VectorEnv, agent: Agent, obs: np.ndarray, num_steps: int
) -> tuple[dict[str, torch.Tensor], np.ndarray, list[tuple[float, int]]]:
    """`num_steps` steps of every row.

    Returns:
        What was seen and done, (num_steps, N, ...) by name; the rows after it; and (return, length) of all episodes
        that ended.
    """
    steps, episodes = [], list[tuple[float, int]]()
    for _ in range(num_steps):
        distribution, values = agent(torch.as_tensor(obs))
        actions = distribution.sample()
        next_obs, rewards, dones, _, infos = envs.step(actions.numpy())
        step = {"obs": obs, "actions": actions, "log_probs": distribution.log_prob(actions), "values": values}
        steps.append(step | {"rewards": rewards.astype(np.float32), "dones": dones})
        if "episode" in infos:  # beside `final_info`, not in it; the rows of `_episode` have ended
            ended = infos["_episode"]
            episodes += zip(infos["episode"]["r"][ended].tolist(), infos["episode"]["l"][ended].tolist(), strict=True)
        obs = next_obs  # of a row that ended, the next episode's prompt
    return {k: torch.stack([torch.as_tensor(s[k]) for s in steps]) for k in steps[0]}, obs, episodes


def advantages_of(batch: dict[str, torch.Tensor], last_values: torch.Tensor, gae_lambda: float) -> torch.Tensor:
    """Generalised advantages (num_steps, N) at gamma = 1: no value is carried over an episode's end."""
    advantages, advantage, next_values = torch.zeros_like(batch["values"]), torch.zeros_like(last_values), last_values
    for t in reversed(range(len(advantages))):
        going_on = 1.0 - batch["dones"][t].float()
        delta = batch["rewards"][t] + going_on * next_values - batch["values"][t]
        advantages[t] = advantage = delta + going_on * gae_lambda * advantage
        next_values = batch["values"][t]
    return advantages


def update(args: Args, agent: Agent, optimizer: torch.optim.Optimizer, flat: dict[str, torch.Tensor]) -> None:
    """The epochs of PPO over what was collected, (num_steps * N, ...) by name."""
    for _ in range(args.update_epochs):
        for rows in torch.randperm(len(flat["actions"])).chunk(args.num_minibatches):
            batch = {k: v[rows] for k, v in flat.items()}
            distribution, values = agent(batch["obs"])
            ratio = (distribution.log_prob(batch["actions"]) - batch["log_probs"]).exp()
            a = (batch["advantages"] - batch["advantages"].mean()) / (batch["advantages"].std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(ratio * a, clipped * a).mean()
            value_loss = 0.5 * (values - batch["returns"]).square().mean()
            entropy = distribution.entropy().mean()
            optimizer.zero_grad()
            (policy_loss + args.vf_coef * value_loss - args.ent_coef * entropy).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()


def train(args: Args) -> list[float]:
    """Train; returns the mean episode return of every iteration."""
    torch.manual_seed(args.seed)
    envs = make_envs(args)
    agent = make_agent(args, envs)
    optimizer = torch.optim.Adam(agent.parameters(), args.learning_rate)
    obs, _ = envs.reset(seed=args.seed)
    means = []
    for iteration in range(args.total_timesteps // (args.num_envs * args.num_steps)):
        batch, obs, episodes = rollout(envs, agent, obs, args.num_steps)
        with torch.no_grad():
            last_values = agent(torch.as_tensor(obs))[1]
        batch["advantages"] = advantages_of(batch, last_values, args.gae_lambda)
        batch["returns"] = batch["advantages"] + batch["values"]
        update(args, agent, optimizer, {k: v.flatten(0, 1) for k, v in batch.items()})
        means.append(float(np.mean([r for r, _ in episodes])))
        print(f"iteration {iteration}: {len(episodes)} episodes, mean return {means[-1]:.3f}")
    return means


if __name__ == "__main__":
    train(tyro.cli(Args))
