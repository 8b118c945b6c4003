"""The tables of `scripts/credit.py`: estimates of credit beside the exact one, and agents that learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, get_args

import torch
from rich.table import Table

from scripts.experiments.credit import LEARNERS, CreditProblem, learning_curve
from textgym.arguments import Count, NonNegative, Positive, Probability, Range, Seed
from textgym.exact import CreditComparison
from textgym.wrappers.counterfactual_credit import Rest

COLUMNS = ("what weighs a token", "correlation", "error", "gradient cosine", "gradient bias", "noise")


@dataclass
class Args:
    """What to compare."""

    samples: tuple[Count, ...] = (1, 4, 16)
    """Other tokens for each token, of counterfactual credits."""
    repeats: Count = 64
    """Draws of all that is drawn."""
    group_size: Count = 8
    """Episodes of a group."""
    lambdas: tuple[Probability, ...] = (0.0, 0.5, 0.95, 1.0)
    """Of the generalised advantages."""
    critic_errors: tuple[NonNegative, ...] = (0.0, 0.25, 0.5)
    """Standard deviations of what a critic errs by in each context, in standard deviations of the return."""
    process_episodes: tuple[Count, ...] = (32, 256, 2048)
    """Episodes that a learned process reward has seen."""
    beta: NonNegative = 0.0
    """Weight of a KL penalty in the reward, in reward per nat; counterfactual credits know of none and are left out."""
    distance: NonNegative = 1.0
    """Standard deviation of what the policy's logits add to the reference's; at 0 the policy is the reference."""
    seed: Seed = 0
    """Of everything that is drawn; the same one gives the same numbers on one machine."""
    seeds: Annotated[int, Range(0)] = 0
    """Agents that learn, for each kind of credit, with seeds 0, 1, ...; with a penalty, so give `--beta` as well."""
    updates: Count = 300
    """Gradient steps of these agents."""
    n_envs: Count = 16
    """Episodes of a step."""
    learning_rate: Positive = 0.03
    """Their step size."""


def comparisons(problem: CreditProblem, args: Args) -> Iterator[tuple[str, CreditComparison]]:
    """Each estimate with its comparison."""
    draws = range(args.seed, args.seed + args.repeats)
    yield "exact advantage", problem.compare([problem.oracle.credit(problem.objective.tree.outcomes)])
    yield "return minus its mean", problem.compare([problem.returns()])
    yield "reward-to-go minus the mean return", problem.compare([problem.returns(to_go=True)])
    for leave_one_out, name in ((False, "minus the group's mean"), (True, "minus the mean of the others")):
        found = [problem.in_groups(args.group_size, leave_one_out, draw) for draw in draws]
        yield f"return {name}, groups of {args.group_size}", problem.compare(found)
    found = [problem.in_groups(args.group_size, True, draw, to_go=True) for draw in draws]
    yield f"reward-to-go minus that of the others, groups of {args.group_size}", problem.compare(found)
    for critic_error in args.critic_errors:
        for gae_lambda in args.lambdas:
            critics = range(1) if critic_error == 0 else draws  # a critic errs the same way in all episodes
            each = [problem.compare([problem.generalized(gae_lambda, critic_error, draw)]) for draw in critics]
            yield f"GAE, lambda {gae_lambda:g}, critic's error {critic_error:g}", mean_of(each)
    for episodes in args.process_episodes:
        each = [problem.compare([problem.process_rewards(episodes, draw)]) for draw in draws]
        yield f"learned process reward, {episodes} episodes", mean_of(each)
    if not args.beta:
        for rest in get_args(Rest):
            for samples in args.samples:
                found = [problem.counterfactual(rest, samples, draw) for draw in draws]
                yield f"counterfactual, the rest {rest}, {samples} samples", problem.compare(found)


def mean_of(comparisons: list[CreditComparison]) -> CreditComparison:
    """The mean over critics, each of which errs in its own way in all episodes."""
    return CreditComparison(*(sum(values) / len(comparisons) for values in zip(*comparisons, strict=True)))


def learned(args: Args) -> Table:
    """What agents still lack after some updates, by their credit; means over seeds with standard errors."""
    shown = [n for n in (10, 30, 100, 300, 1000, 3000) if n <= args.updates]
    table = Table("credit", *(f"after {n}" for n in shown), title="regret, in parts of that of the reference")
    for name in LEARNERS:
        curves = torch.tensor(
            [
                learning_curve(name, seed, args.beta, args.updates, args.n_envs, args.learning_rate)
                for seed in range(args.seeds)
            ]
        )
        error = curves.std(0, correction=min(1, args.seeds - 1)) / args.seeds**0.5
        table.add_row(name, *(f"{curves[:, n].mean():.3f} ± {error[n]:.3f}" for n in shown))
    return table
