"""Train PPO to earn much at little KL: `python scripts/shaped_ppo.py --seed 0`, and how far from optimal it ends.

Each token is paid by what it adds to the score (`PotentialShaping`), a critic leaves little noise in the credit, SGD
takes steps that do not grow with the noise, and KL, dear at first, becomes cheap slowly, so that none is spent in
haste. docs/frontier.md says why, and what came of it.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch

from agents import PPO
from scripts.agent_arguments import OPTIMIZERS
from scripts.command_line import console
from scripts.demo import AGENTS
from textgym.arguments import Count, Positive, Seed
from textgym.evaluation import Evaluation, ModelPolicy, evaluate, sample_frontier
from textgym.evaluation.tables import table
from textgym.wrappers.vector import PotentialShaping


@dataclass
class Args:
    """What to learn, and how."""

    env_id: str = "TextGen-v0"
    """A TextGym id."""
    potential: str = "sentiment"
    """The scorer whose changes pay the tokens, best the env's own."""
    total_timesteps: Count = 750_000
    """Tokens to generate and train on."""
    n_envs: Count = 128
    """Episodes of an update."""
    num_generations: Count = 8
    """Of them have a prompt."""
    first_kl_coef: Positive = 0.4
    """Reward per nat at first."""
    kl_coef: Positive = 0.065
    """The same in the last fifth: somewhat below the slope of the frontier at the reward that is wanted."""
    learning_rate: Positive = 0.5
    """Of SGD, falling to a tenth over the last two fifths."""
    seed: Seed = 0
    """Of the training."""
    episodes: Count = 1024
    """Fresh episodes to evaluate; a multiple of `n_envs`."""
    frontier: Count = 128
    """Texts of the untrained model for each prompt, from which the frontier is estimated."""
    frontier_prompts: Count = 64
    """Prompts of these."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`, which takes a GPU where there is one."""
    threads: Count = 1
    """CPU threads of torch."""
    out: Path = Path("runs/shaped_ppo")
    """Folder of the checkpoint."""


def make_agent(args: Args) -> PPO:
    """The agent with its env."""
    return PPO(
        "TokenPolicy",
        PotentialShaping(make_env(args, args.num_generations), args.potential),
        learning_rate=lambda remaining: args.learning_rate * min(1.0, 0.1 + 0.9 * remaining / 0.4),
        kl_coef=lambda left: args.kl_coef * (args.first_kl_coef / args.kl_coef) ** max(0.0, (left - 0.2) / 0.8),
        gamma=0.95,
        **AGENTS["ppo"][1],
        policy_kwargs=OPTIMIZERS["sgd"],
        seed=args.seed,
        device=args.device,
    )


def make_env(args: Args, num_generations: int) -> gym.vector.VectorEnv:
    """Episodes side by side."""
    size = args.n_envs
    return gym.make_vec(args.env_id, num_envs=size, num_generations=num_generations, autoreset_mode="Disabled")


def main(args: Args) -> Evaluation:
    """Train, save, evaluate."""
    torch.set_num_threads(args.threads)
    agent = make_agent(args)
    agent.learn(args.total_timesteps)
    agent.save(args.out / f"seed-{args.seed}")
    policy = ModelPolicy(make_env(args, 1), agent.token_model, seed=args.seed + 1_000_000)
    policy.reference = agent.reference
    frontier = sample_frontier(policy, args.frontier_prompts, args.frontier, seed=2_000_000)
    evaluation = evaluate(policy, args.episodes, frontier=frontier)
    console.print(table(evaluation, f"PPO, seed {args.seed}, after {agent.num_timesteps:,} tokens; {frontier.range}"))
    return evaluation
