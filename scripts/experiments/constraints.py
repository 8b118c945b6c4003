"""What `scripts/constraints.py` trains, and the rows that it prints: reference, f-DPG, REINFORCE."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback

from agents import REINFORCE, DistributionMatching, DualAscent
from scripts.command_line import console
from textgym.arguments import Count, NonNegative, Positive, PositiveShare, Probability
from textgym.evaluation import Evaluation, evaluate
from textgym.matching import DivergenceName, Features, least_kl
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.callbacks import learn
from textgym.tasks import TASKS, Task

ConstraintName = Literal["keyword", "topic", "balance", "hybrid"]


def wanted_means(target: Mapping[str, Any], share: float) -> dict[str, float]:
    """Means of the features: those of the target where it states them, and `share` where it asks for every text."""
    if target["name"] == "product":
        return {name: mean for part in target["targets"] for name, mean in wanted_means(part, share).items()}
    return {target["feature"]: share} if target["name"] == "pointwise" else target["means"]


@dataclass
class Args:
    """What to train."""

    constraint: tyro.conf.Positional[ConstraintName]
    """What texts are to contain."""
    share: PositiveShare = 0.85
    """Of the texts that are to have the keyword or the topic: not all, so that every divergence is finite."""
    divergences: tuple[DivergenceName, ...] = ("reverse_kl",)
    """One agent for each."""
    alpha: Probability = 0.5
    """Of the divergence `alpha`."""
    seeds: Count = 1
    """Agents for each divergence, with seeds 0, 1, ..."""
    total_timesteps: Count = 400_000
    """Tokens of each agent."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD has momentum 0.9; `docs/constraints.md` says why it is not Adam."""
    learning_rate: Positive = 0.02
    """Held for two fifths of the training; then it falls linearly to 0."""
    dual_step: NonNegative = 0.1
    """Of the dual ascent that brings the policy's own means, not only the target's, to the wanted ones; 0 for none."""
    n_envs: Count = 128
    """Episodes in an update."""
    initial_episodes: Count = 4096
    """Of the reference, to begin with."""
    smollm2: bool = False
    """SmolLM2-135M in place of the embedded model."""
    reinforce: bool = True
    """Train REINFORCE to equal satisfaction as well."""
    episodes: Count = 1024
    """Of the evaluation."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic; bfloat16 is autocast."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`, which takes a GPU where there is one."""
    threads: Count | None = None
    """CPU threads of torch."""
    out: Path = Path("runs/constraints")
    """Where the numbers go, as JSON."""

    @property
    def task(self) -> Task:
        """The constraint's task on the model."""
        return TASKS[f"TextGen{self.constraint.capitalize()}{'SmolLM2' if self.smollm2 else ''}-v0"]

    @property
    def target(self) -> dict[str, Any]:
        """The distribution nearest to the reference in which the features have the wanted means."""
        assert self.task.target is not None
        return {"name": "distributional", "means": wanted_means(self.task.target, self.share)}

    def options(self, seed: int) -> dict[str, Any]:
        """What both agents are made with."""
        env = gym.make_vec(self.task.id, num_envs=self.n_envs, num_generations=self.n_envs, autoreset_mode="Disabled")
        sgd = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}}
        common: dict[str, Any] = {"dtype": self.dtype, "device": self.device, "seed": seed}
        common["policy_kwargs"] = sgd if self.optimizer == "sgd" else {}
        return {"policy": "TokenPolicy", "env": env, "learning_rate": self.scheduled, **common}

    def scheduled(self, remaining: float) -> float:
        """The learning rate, a function of the remaining progress."""
        return self.learning_rate * min(1.0, remaining / 0.6)


class StopAt(BaseCallback):
    """Ends the training when the mean reward of ten rollouts has reached a level."""

    def __init__(self, level: float):
        super().__init__()
        self.level, self.rewards = level, list[float]()

    def _on_rollout_end(self) -> None:
        self.rewards.append(self.logger.name_to_value["rollout/reward"])

    def _on_step(self) -> bool:
        return len(self.rewards) < 10 or sum(self.rewards[-10:]) < 10 * self.level


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    agent: str
    seed: int
    minutes: float
    evaluation: Evaluation
    least_kl: float
    """Nats: what any policy pays for the same means of the features."""

    def cells(self, features: tuple[str, ...]) -> list[str]:
        """The cells of the line, as text."""
        e = self.evaluation
        means = [f"{100 * e.components[n].value:.1f} ± {100 * e.components[n].standard_error:.1f}" for n in features]
        kl = f"{e.kl_to_reference.value:.2f} ± {e.kl_to_reference.standard_error:.2f}"
        tail = [f"{e.distinct_2:.3f}", f"{e.self_bleu:.3f}", f"{e.length.value:.1f}", f"{self.minutes:.1f}"]
        return [self.agent, str(self.seed), *means, kl, f"{self.least_kl:.2f}", *tail]


def row(name: str, seed: int, minutes: float, evaluation: Evaluation, reference: Features) -> Row:
    """A row of the table, with the least KL of any policy that has the same means of the features."""
    achieved = {feature: estimate.value for feature, estimate in evaluation.components.items()}
    return Row(name, seed, minutes, evaluation, least_kl(achieved, reference))


def minutes_since(started: float) -> float:
    """Minutes that have passed since `time.monotonic()` returned `started`."""
    return (time.monotonic() - started) / 60


def run(args: Args, divergence: DivergenceName, seed: int) -> list[Row]:
    """Rows of the reference, of f-DPG, and of REINFORCE, trained to f-DPG's mean reward in at most twice its tokens."""
    alpha = args.alpha if divergence == "alpha" else None
    options: dict[str, Any] = {"target": args.target, "divergence": divergence, "alpha": alpha, "proposal": "on_policy"}
    agent = DistributionMatching(**args.options(seed), **options, initial_episodes=args.initial_episodes)
    untrained, started = evaluate(agent, args.episodes), time.monotonic()
    episodes = agent.reference_episodes()
    agent.start(episodes)
    train(agent, args.total_timesteps, *([DualAscent(episodes, args.dual_step)] if args.dual_step else []))
    minutes, reference = minutes_since(started), agent.features(episodes)
    name = divergence if alpha is None else f"alpha {alpha:g}"
    rows = [
        row("reference", seed, 0.0, untrained, reference),
        row(name, seed, minutes, evaluate(agent, args.episodes), reference),
    ]
    if args.reinforce:
        started, other = time.monotonic(), REINFORCE(**args.options(seed))
        train(other, 2 * args.total_timesteps, StopAt(rows[-1].evaluation.reward.value))
        minutes = minutes_since(started)
        rows.append(row("REINFORCE", seed, minutes, evaluate(other, args.episodes), reference))
    return rows


def train(agent: EpisodicAlgorithm, total_timesteps: int, *callbacks: BaseCallback) -> None:
    """Train, with a progress bar; a signal ends the program."""
    if (stopped := learn(agent, total_timesteps, *callbacks, console=console)) is not None:
        raise SystemExit(128 + stopped)


def show(args: Args, rows: list[Row]) -> None:
    """Print the table."""
    features = tuple(rows[0].evaluation.components)
    table = Table(title=f"{args.constraint}: {json.dumps(args.target)}")
    numbers = "KL(pi‖a)", "least KL", "distinct-2", "self-BLEU", "length", "minutes"
    for column in ("agent", "seed", *(f"{n} %" for n in features), *numbers):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row.cells(features))
    Console(width=max(console.width, 132)).print(table)
