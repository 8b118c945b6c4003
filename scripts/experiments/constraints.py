"""What `scripts/constraints.py` trains, and the rows that it prints: reference, f-DPG, and agents that are rewarded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback

from agents import PPO, REINFORCE, RLOO, DistributionMatching, DualAscent
from agents.policy_gradient import PolicyGradient
from scripts.agent_arguments import OPTIMIZERS, OptimizerName
from scripts.command_line import console
from textgym.arguments import Count, NonNegative, Positive, PositiveShare, Probability
from textgym.evaluation import Evaluation, evaluate
from textgym.matching import Distributional, DivergenceName, least_kl
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.callbacks import learn
from textgym.tasks import TASKS, Task

ConstraintName = Literal["keyword", "topic", "balance", "hybrid"]
Rewarded = Literal["reinforce", "rloo", "ppo"]

REWARDED: dict[Rewarded, tuple[type[PolicyGradient], dict[str, Any]]] = {
    "reinforce": (REINFORCE, {"baseline": "none"}),
    "rloo": (RLOO, {}),
    "ppo": (PPO, {"n_epochs": 1, "batch_size": None, "normalize_advantage": False, "gae_lambda": 1.0, "vf_coef": 0.01}),
}
"""REINFORCE is Williams', without a baseline: with one that leaves a text out it would be RLOO.

The loss of each is the mean of the episodes' sums, as f-DPG's, and each takes one step on a rollout, so that one
learning rate means steps of the same size. The gradient is scaled down to a norm of 1, of which PPO's critic would take
nearly all with a larger coefficient.
"""


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
    optimizer: OptimizerName = "sgd"
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
    rewarded: tuple[Rewarded, ...] = ()
    """Agents that train on as many tokens with the reward lambda phi(x) and kl_coef=1, whose optimum is the target."""
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

    def options(self, seed: int, **env_kwargs: Any) -> dict[str, Any]:
        """What all agents are made with."""
        rows: dict[str, Any] = {"num_envs": self.n_envs, "num_generations": self.n_envs, "autoreset_mode": "Disabled"}
        env = gym.make_vec(self.task.id, **rows, **env_kwargs)
        common: dict[str, Any] = {"dtype": self.dtype, "device": self.device, "seed": seed}
        common["policy_kwargs"] = OPTIMIZERS[self.optimizer]
        return {"policy": "TokenPolicy", "env": env, "learning_rate": self.scheduled, **common}

    def rewarding(self, coefficients: Mapping[str, float]) -> dict[str, Any]:
        """The scorer that pays <lambda, phi(x)>; with kl_coef=1 the best policy is a(x) exp(<lambda, phi(x)>) / Z."""
        scorer = self.task.kwargs["scorer"]
        parts = scorer["scorers"] if scorer["name"] == "weighted_sum" else [scorer]
        weights = [coefficients[name] for name in self.task.features]
        return {"name": "weighted_sum", "scorers": parts, "weights": weights}

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
    texts: int
    """Sampled for the training, those of the reference included."""
    minutes: float
    evaluation: Evaluation
    least_kl: float
    """Nats: what any policy pays for the same means of the features."""

    @property
    def times_least(self) -> float:
        """The KL, by the least KL; NaN for the reference, where both are 0."""
        return self.evaluation.kl_to_reference.value / self.least_kl if self.texts else math.nan

    def numbers(self) -> dict[str, float]:
        """The numbers of the line by the heads of their columns; shares in %, KL in nats."""
        e = self.evaluation
        return {
            **{f"{name} %": 100 * share.value for name, share in e.components.items()},
            "KL(pi‖a)": e.kl_to_reference.value,
            "least KL": self.least_kl,
            "KL / least": self.times_least,
            "distinct-2": e.distinct_2,
            "self-BLEU": math.nan if e.self_bleu is None else e.self_bleu,
            "length": e.length.value,
            "texts": float(self.texts),
            "minutes": self.minutes,
        }

    def cells(self) -> list[str]:
        """The cells of the line, as text; standard errors are those of the texts."""
        e = self.evaluation
        errors = {f"{name} %": 100 * share.standard_error for name, share in e.components.items()}
        errors["KL(pi‖a)"] = e.kl_to_reference.standard_error
        return [self.agent, str(self.seed), *(cell(n, x, errors.get(n)) for n, x in self.numbers().items())]


def cell(column: str, number: float, error: float | None = None) -> str:
    """A number as text, with the digits of its column."""
    wide = {"texts": ",.0f", "minutes": ".1f", "length": ".1f", "distinct-2": ".3f", "self-BLEU": ".3f"}
    form = wide.get(column, ".1f" if column.endswith("%") else ".2f")
    return "" if math.isnan(number) else f"{number:{form}}" + ("" if error is None else f" ± {error:{form}}")


def minutes_since(started: float) -> float:
    """Minutes that have passed since `time.monotonic()` returned `started`."""
    return (time.monotonic() - started) / 60


def run(args: Args, divergence: DivergenceName, seed: int) -> list[Row]:
    """Rows of the reference, of f-DPG, and of the agents that are rewarded.

    REINFORCE is trained to f-DPG's mean reward in at most twice its tokens, those of `args.rewarded` with as many.
    """
    alpha = args.alpha if divergence == "alpha" else None
    options: dict[str, Any] = {"target": args.target, "divergence": divergence, "alpha": alpha, "proposal": "on_policy"}
    agent = DistributionMatching(**args.options(seed), **options, initial_episodes=args.initial_episodes)
    untrained, started = evaluate(agent, args.episodes), time.monotonic()
    episodes = agent.reference_episodes()
    agent.start(episodes)
    assert isinstance(agent.target, Distributional) and agent.target.coefficients is not None
    reference, given = agent.features(episodes), minutes_since(started)
    scorer = args.rewarding(agent.target.coefficients)  # before dual ascent moves them

    def row(name: str, texts: int, minutes: float, evaluation: Evaluation) -> Row:
        means = {feature: estimate.value for feature, estimate in evaluation.components.items()}
        return Row(name, seed, texts, minutes, evaluation, least_kl(means, reference))

    def trained(name: str, agent: EpisodicAlgorithm, tokens: int, texts: int, *callbacks: BaseCallback) -> Row:
        started = time.monotonic()
        if (stopped := learn(agent, tokens, *callbacks, console=console)) is not None:
            raise SystemExit(128 + stopped)
        minutes = minutes_since(started) + (given if texts else 0.0)
        return row(name, texts + agent.resume_from.iterations * args.n_envs, minutes, evaluate(agent, args.episodes))

    tokens, first = args.total_timesteps, len(episodes)
    ascent = [DualAscent(episodes, args.dual_step)] if args.dual_step else []
    name = divergence if alpha is None else f"alpha {alpha:g}"
    rows = [row("reference", 0, 0.0, untrained), trained(name, agent, tokens, first, *ascent)]
    if args.reinforce:
        stop = StopAt(rows[-1].evaluation.reward.value)
        rows.append(trained("REINFORCE", REINFORCE(**args.options(seed)), 2 * tokens, 0, stop))
    for key in args.rewarded:
        kind, own = REWARDED[key]
        made = kind(**args.options(seed, scorer=scorer), **own, kl_coef=1.0, loss_normalization="sum")
        rows.append(trained(f"{key}, same target", made, tokens, first))
    return rows


def show(args: Args, rows: list[Row]) -> None:
    """Print the table; of several seeds also the means, with the deviations between them."""
    table = Table(title=f"{args.constraint}: {json.dumps(args.target)}")
    for column in ("agent", "seed", *rows[0].numbers()):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row.cells())
    for agent in dict.fromkeys(row.agent for row in rows):
        found = [row.numbers() for row in rows if row.agent == agent]
        if len(found) > 1:
            columns = {name: [numbers[name] for numbers in found] for name in found[0]}
            cells = [
                cell(name, float(np.mean(values)), float(np.std(values, ddof=1))) for name, values in columns.items()
            ]
            table.add_row(agent, "mean", *cells)
    Console(width=max(console.width, 160)).print(table)
