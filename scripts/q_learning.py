"""Tabular Q-learning on a text small enough for tables: `python scripts/q_learning.py` writes a five-word movie review.

Prints the greedy text and some epsilon-greedy ones with their rewards, before and after the training, and the Q-values
of one context. Writes `progress.csv` and `checkpoint/` to `--out`, at the end, so a training cannot be resumed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from agents import QLearning
from scripts.command_line import console, env_arguments
from scripts.typed_arguments import options_of, read_values
from textgym.arguments import Count, Range, arguments_of
from textgym.contexts import context_indices
from textgym.evaluation import Sample, play, show_sample
from textgym.sb3.logs import CSVLog
from textgym.training.run import open_run


@dataclass
class RunArgs:
    """What to learn, and how."""

    env_id: str = "TextGenWords-v0"
    """A TextGym id whose contexts can be enumerated."""
    env_kwargs: str = "{}"
    """Arguments of the env as JSON: `'{"max_new_tokens": 3}'`."""
    total_timesteps: Count = 600_000
    """Tokens to generate and learn from."""
    n_envs: Count = 256
    """Episodes side by side."""
    context: str = ""
    """The text whose Q-values are printed; by default the start."""
    samples: Annotated[int, Range(0)] = 6
    """Epsilon-greedy texts to print."""
    threads: Count = 1
    """CPU threads of torch."""
    out: Path = Path("runs/q_learning")
    """Folder of the log and the checkpoint."""


NAMES = "learning_rate gamma double_q exploration_fraction exploration_final_eps seed device".split()
ARGUMENTS = {name: arguments_of(QLearning)[name] for name in NAMES}
"""The agent's, as far as the command line takes them."""
OPTIONS = options_of(ARGUMENTS, exploration_fraction=0.5, seed=0)
Args = make_dataclass("Args", OPTIONS, bases=(RunArgs,), namespace={"__module__": __name__})


def texts(agent: QLearning, env: gym.vector.VectorEnv[Any, Any, Any], deterministic: bool) -> list[Sample]:
    """One text per row of a TextGym vector env in autoreset mode `"Disabled"`."""
    mdp = env.unwrapped.mdp  # type: ignore[attr-defined]
    return play(env, lambda rows: agent.predict(context_indices(mdp, rows), deterministic=deterministic)[0])


def report(title: str, agent: QLearning, env: gym.vector.VectorEnv[Any, Any, Any], samples: int) -> None:
    """Print the greedy text, some epsilon-greedy ones, and the mean reward of all rows' epsilon-greedy ones."""
    console.print(f"\n[bold]{title}[/]: the greedy text, then texts with epsilon {agent.policy.epsilon:.2f}")
    show_sample(texts(agent, env, deterministic=True)[0], console)
    drawn = texts(agent, env, deterministic=False)
    for sample in drawn[:samples]:
        show_sample(sample, console)
    console.print(f"mean reward of {len(drawn)} of them: {np.mean([float(s.reward or 0) for s in drawn]):+.3f}")


def main(args: RunArgs) -> QLearning:
    """Play, train, play again."""
    torch.set_num_threads(args.threads)

    def make_env(mode: str) -> gym.vector.VectorEnv[Any, Any, Any]:
        return gym.make_vec(args.env_id, num_envs=args.n_envs, autoreset_mode=mode, **env_arguments(args.env_kwargs))

    agent = QLearning("TabularPolicy", make_env("SameStep"), **read_values(ARGUMENTS, args))
    agent.q_values(args.context)  # a text that is none fails now
    env = make_env("Disabled")
    _, states, actions = agent.policy.tables.shape
    console.print(f"Q-learning on {args.env_id}: {states - 1} contexts x {actions} tokens, device {agent.device}")
    report("Before", agent, env, args.samples)
    with open_run(args.out, resume=False) as run:
        agent.set_logger(Logger(str(args.out), [CSVLog(run.log)]))
        agent.learn(args.total_timesteps, progress_bar=True)
        run.save(agent.save, agent.num_timesteps)
    report("After", agent, env, args.samples)
    console.print()
    agent.show(args.context, console)
    console.print(f"{agent.num_timesteps} tokens; checkpoint in {args.out / 'checkpoint'}")
    return agent
