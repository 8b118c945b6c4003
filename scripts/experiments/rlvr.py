"""Reinforcement learning with verifiable rewards, measured exactly on held-out prompts: see `scripts/rlvr.py`.

Every answer to a held-out prompt is enumerated with its probability and its reward, so pass@k, KL and entropy are
numbers without sampling error, and so is the most that any policy earns at the same KL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.table import Table

from scripts.agent_arguments import EnvArgs
from scripts.command_line import env_arguments
from scripts.experiments import tables
from scripts.experiments.runs import TrainingArgs
from scripts.experiments.sharpening import Chances, crossing_table, draw
from textgym.arguments import Count
from textgym.evaluation.statistics import Interval
from textgym.exact import AnswerTree, best_of_log_probs, entropy, expectation, kl, optimum_within, pass_at
from textgym.sb3 import EpisodicAlgorithm

MATCHING = 'distribution-matching:target={"name":"rlhf","beta":0.2},divergence=alpha,alpha='
GRPO = "grpo:kl_coef=0,learning_rate=2e-4,n_epochs=2,batch_size=256"
ENTRIES = (
    GRPO,
    f"{GRPO},importance_sampling_level=sequence",
    f"{GRPO},unlikeliness_coef=0.25",
    *(f"{MATCHING}{alpha},learning_rate=2e-4" for alpha in ("0", "0.5", "1")),
)
BEST_OF = (4, 16)
KS = (1, 4, 16, 64)
COLUMNS = {**{f"pass@{k}": "{:.3f}" for k in KS}, "best at its KL": "{:.3f}", "KL": "{:.2f}", "entropy": "{:.2f}"}
"""The columns of the table, and their formats."""
HEAD = ("agent", *COLUMNS, "CPU s")


def exact_measures(log_pi: torch.Tensor, log_a: torch.Tensor, rewards: torch.Tensor, success: float) -> dict[str, Any]:
    """`COLUMNS` and the reward of a policy, means over prompts, and each prompt's chance of a right answer.

    Args:
        log_pi: (C, X) of the policy.
        log_a: (C, X) of the reference.
        rewards: (C, X).
        success: the least reward of a right answer.
    """
    right, distance = rewards >= success, kl(log_pi, log_a).mean().item()
    return {
        **{f"pass@{k}": pass_at(k, log_pi, right).mean().item() for k in KS},
        "best at its KL": optimum_within(distance, log_a, right.double()).reward,
        "KL": distance,
        "entropy": entropy(log_pi).mean().item(),
        "reward": expectation(log_pi, rewards).mean().item(),
        "chances": expectation(log_pi, right).clamp(max=1.0).tolist(),
    }


@dataclass
class Args(TrainingArgs):
    """What to train, and on which prompts it is examined."""

    agents: tyro.conf.Positional[tuple[str, ...]] = ENTRIES
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EnvArgs("TextGenArithmetic-v0", n_envs=512, num_generations=8)
    )
    total_timesteps: Count = 80_000
    out: Path = Path("runs/rlvr")
    held_out: Count = 128
    """Held-out prompts on which policies are examined."""
    success: float = 1.0
    """The least reward of a right answer."""

    def evaluation_arguments(self) -> dict[str, Any]:
        """The prompts, and what counts as right."""
        return {"held_out": self.held_out, "success": self.success}

    @cached_property
    def answers(self) -> AnswerTree:
        """Every answer to the held-out prompts.

        Raises:
            ValueError: there are not so many prompts, or the answers cannot be enumerated.
        """
        kwargs = env_arguments(self.env.env_kwargs, scorer=self.env.scorer, prompts=self.env.prompts)
        env = gym.make(self.env.env_id, **kwargs | {"split": "test"})
        there = env.unwrapped.task.prompts.num_prompts  # type: ignore[attr-defined]
        if self.held_out > there:
            raise ValueError(f"--held-out is {self.held_out}, but there are {there} held-out prompts")
        return AnswerTree(env, np.arange(self.held_out))

    @cached_property
    def rewards(self) -> torch.Tensor:
        """What every answer is paid, (C, X)."""
        return self.answers.scores()["reward"]

    def evaluate(self, agent: EpisodicAlgorithm, seed: int) -> dict[str, Any]:
        """`exact_measures`, in which nothing is random."""
        log_pi, log_a = self.answers.log_probs(agent), self.answers.reference_log_probs(agent)
        return exact_measures(log_pi, log_a, self.rewards, self.success)

    def best_of(self, agent: EpisodicAlgorithm) -> dict[str, dict[str, Any]]:
        """The same of the best of n answers of the untrained model, which needs the verifier wherever it is used."""
        log_a = self.answers.reference_log_probs(agent)
        made = {n: best_of_log_probs(n, log_a, self.rewards) for n in BEST_OF}
        return {f"best of {n}": exact_measures(p, log_a, self.rewards, self.success) for n, p in made.items()}


class Report:
    """The table of all runs.

    Args:
        records: what the runs' run.json hold.
        best_of: rows that need no training, by their names.
        args: of the experiment.
    """

    def __init__(self, records: list[dict[str, Any]], best_of: dict[str, dict[str, Any]], args: Args):
        self.records, self.best_of, self.args = records, best_of, args

    @property
    def caption(self) -> str:
        """What the numbers are."""
        args = self.args
        seeds = f"mean and 95% interval over {args.seeds} seeds" if args.seeds > 1 else "one seed"
        where = f"{args.env.env_id}, {args.total_timesteps:,} tokens, exact on {args.held_out} held-out prompts"
        return f"{where}; {seeds}; KL and entropy in nats per text"

    def rows(self) -> Iterable[list[str]]:
        """The table's rows as text; the last column is the CPU time of a training in seconds."""
        for entry in dict.fromkeys(record["agent"] for record in self.records):
            found = [record for record in self.records if record["agent"] == entry]
            intervals = [Interval.of([record["evaluation"][c] for record in found]) for c in COLUMNS]
            seconds = np.mean([record["training_cpu_seconds"] for record in found])
            yield [entry, *(i.text(f) for i, f in zip(intervals, COLUMNS.values(), strict=True)), f"{seconds:.0f}"]
        for name, measures in self.best_of.items():
            yield [name, *(form.format(measures[column]) for column, form in COLUMNS.items()), "-"]

    @property
    def chances(self) -> dict[str, Chances]:
        """The chance of a right answer of every entry, per seed and prompt."""
        entries = dict.fromkeys(record["agent"] for record in self.records)
        return {e: [r["evaluation"]["chances"] for r in self.records if r["agent"] == e] for e in entries}

    def table(self) -> Table:
        """The table for the terminal."""
        return tables.terminal(self.caption, HEAD, self.rows())

    def write(self) -> str:
        """Write rlvr.json, rlvr.md and rlvr.png; returns a line that names them."""
        header, *rows = crossing_table(self.chances)
        crossed = [header, ["--:", "---", *["--:"] * (len(header) - 2)], *rows]
        text = f"{self.caption}.\n\n{tables.markdown(HEAD, self.rows())}\n"
        text += "The k at which each entry is overtaken in pass@k:\n\n"
        text += "".join(f"| {' | '.join(line)} |\n" for line in crossed)
        (self.args.out / "rlvr.md").write_text(text, encoding="utf-8")
        report = {"caption": self.caption, "best_of": self.best_of, "runs": self.records}
        (self.args.out / "rlvr.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        draw(self.chances, f"{self.args.env.env_id}, held-out prompts", self.args.out / "rlvr.png")
        return f"written: {self.args.out / 'rlvr'}.json, .md and .png"
