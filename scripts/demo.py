"""The demo: an agent teaches the embedded model to write more positive movie reviews: `make demo` (PPO).

Tokens are paid by what they add to the score, and SGD's steps do not grow with the noise (docs/frontier.md says why).
Reward, KL and samples before and after are printed, and `--out` gets the learning curve and the checkpoint.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
from stable_baselines3.common.logger import configure

import textgym  # noqa: F401 (registers the env ids)
from agents import GRPO, PPO, REINFORCE, RLOO
from agents.policy_gradient import PolicyGradient
from scripts.agent_arguments import OPTIMIZERS
from scripts.command_line import console
from scripts.experiments.before_and_after import draw_curve, side_by_side
from textgym.arguments import Count, NonNegative, Positive, Seed
from textgym.evaluation import evaluate, show_sample
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.callbacks import ShowProgress
from textgym.wrappers.vector import PotentialShaping

AGENTS: dict[str, tuple[type[PolicyGradient], dict[str, Any]]] = {
    "reinforce": (REINFORCE, {"reward_to_go": True}),
    "rloo": (RLOO, {"reward_to_go": True}),
    "grpo": (GRPO, {"reward_to_go": True, "scale_rewards": "batch", "learning_rate": 0.1}),
    "ppo": (PPO, {"gae_lambda": 0.9, "normalize_advantage": False, "n_epochs": 1, "batch_size": None, "vf_coef": 0.1}),
}
"""Each agent, and what it takes besides. PPO's advantages are not whitened, which would change the KL's weight."""


@dataclass
class Args:
    """The demo's settings."""

    algorithm: Literal["reinforce", "rloo", "grpo", "ppo"] = "ppo"
    """The agent."""
    env_id: str = "TextGen-v0"
    """What to train on; `python -m textgym` lists the ids."""
    total_timesteps: Count = 90_000
    """Tokens to generate and train on."""
    learning_rate: Positive = 0.4
    """Of SGD; GRPO has its own."""
    kl_coef: NonNegative = 0.1
    """Weight of the KL to the untrained model."""
    n_envs: Count = 64
    """Episodes side by side."""
    num_generations: Count = 8
    """Rows that share a prompt."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`, which takes a GPU where there is one."""
    seed: Seed = 0
    """Of everything that is drawn; the same one gives the same numbers on one machine."""
    threads: Count = 2
    """CPU threads of torch."""
    out: Path = Path("runs/demo")
    """Folder of the learning curve and the checkpoint."""


def main(args: Args) -> None:
    """Evaluate, train, evaluate again."""
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    make_env = partial(gym.make_vec, args.env_id, num_envs=args.n_envs, autoreset_mode="Disabled")
    agent_class, options = AGENTS[args.algorithm]
    common: dict[str, Any] = {"learning_rate": args.learning_rate, "kl_coef": args.kl_coef}
    common["policy_kwargs"] = OPTIMIZERS["sgd"]
    env = make_env(num_generations=args.num_generations)
    env = PotentialShaping(env, env.unwrapped.task.scorer)  # type: ignore[attr-defined]
    agent = agent_class("TokenPolicy", env, gamma=0.95, **(common | options), seed=args.seed, device=args.device)
    # Shares the agent's model, keeps a copy of the untrained one as reference, and draws every prompt independently.
    judge = EpisodicAlgorithm("TokenPolicy", make_env(), agent.policy.model, seed=args.seed, device=args.device)
    before = evaluate(judge, 256, samples=6)
    agent.set_logger(configure(str(args.out), ["csv"]))
    agent.learn(args.total_timesteps, callback=ShowProgress(console=console))
    after = evaluate(judge, 256, samples=6)
    agent.save(args.out / "checkpoint")

    for title, evaluation in (("Before", before), ("After", after)):
        console.print(f"\n[bold]{title}[/] (reward, prompt, completion)")
        for sample in evaluation.samples:
            show_sample(sample, console)
    console.print("", side_by_side(before, after))
    console.print(f"learning curve: {draw_curve(args.out, f'{agent_class.__name__} on {args.env_id}')}", soft_wrap=True)
    console.print(f"checkpoint: {args.out / 'checkpoint'}", soft_wrap=True)
    console.print(f"{agent.num_timesteps} tokens in {time.perf_counter() - start:.0f} s on {agent.device}")
