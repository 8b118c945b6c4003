"""Scores that compare agents across ids: reward - beta KL, with the untrained model as 0 and the best policy as 1.

Of all policies p_beta(x), proportional to a(x) exp(r(x) / beta), has the most E[r] - beta KL(pi || a), which is
beta E_c log E_a exp(r / beta), c being the prompts. Where every completion can be enumerated, both ends of the scale
are computed; elsewhere they are estimated from the frontier's samples of the untrained model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scripts.experiments.comparison import Comparison, measured
from scripts.experiments.frontier import SEED, frontier_of
from scripts.experiments.runs import Run
from scripts.experiments.zoo import Args
from textgym.evaluation import OutOfRangeError, interquartile_mean, probability_of_improvement, stratified_bootstrap
from textgym.evaluation.aggregates import stratified_mean
from textgym.evaluation.statistics import Interval
from textgym.exact import AnswerTree
from textgym.sb3 import EpisodicAlgorithm


def objective(record: dict[str, Any], beta: float) -> float:
    """E[r] - beta KL(pi || a) of a finished run."""
    return measured(record, "reward") - beta * measured(record, "kl_to_reference")


@dataclass(frozen=True)
class Scale:
    """The two ends of the scores on an id.

    Attributes:
        beta: reward per nat.
        start: what the untrained model earns.
        best: the most reward - beta KL.
        is_exact: whether both are computed, not estimated.
    """

    beta: float
    start: float
    best: float
    is_exact: bool

    def score(self, record: dict[str, Any]) -> float:
        """The score of a finished run."""
        return self.of(objective(record, self.beta))

    def of(self, objective: float) -> float:
        """The score of a reward - beta KL."""
        return (objective - self.start) / (self.best - self.start)


def scale_of(args: Args) -> Scale:
    """The scale of an id, from `out`/scale where it is there.

    Raises:
        ValueError: the completions cannot be enumerated and the frontier's samples do not support this beta, or there
            are none.
        FileExistsError: what is there is of other arguments.
    """
    asked: dict[str, Any] = {"env": asdict(args.env), "model": args.model, "device": args.device, "beta": args.beta}
    asked |= {"frontier": args.frontier, "frontier_prompts": args.frontier_prompts}
    run = Run("the scale of scores", SEED, args.out / "scale", None, json.loads(json.dumps(asked)))
    known = run.result() or run.write(evaluation=asdict(_exact(args) or _sampled(args)))
    return Scale(**known["evaluation"])


def _exact(args: Args) -> Scale | None:
    """From all completions of `frontier_prompts` prompts; None where they are too many."""
    env = args.env.make()
    number = env.unwrapped.task.prompts.num_prompts  # type: ignore[attr-defined]
    if number is None:
        return None
    try:
        tree = AnswerTree(env, np.random.default_rng(SEED).permutation(number)[: args.frontier_prompts])
    except ValueError:
        return None
    agent = EpisodicAlgorithm("TokenPolicy", env, args.model, device=args.device)
    assert args.beta is not None
    log_a, rewards = tree.reference_log_probs(agent), tree.scores()["reward"]  # (C, X)
    best = args.beta * (log_a + rewards / args.beta).logsumexp(-1).mean().item()
    return Scale(args.beta, (log_a.exp() * rewards).sum(-1).mean().item(), best, True)


def _sampled(args: Args) -> Scale:
    assert args.beta is not None
    frontier = frontier_of(args)
    if frontier is None:
        raise ValueError("scores need the frontier where completions cannot be enumerated; leave out --frontier 0")
    try:
        point = frontier.at(args.beta)
    except OutOfRangeError as error:
        raise ValueError(f"--beta: {error}; take a larger one, or more texts with --frontier") from error
    return Scale(args.beta, frontier.start, point.reward - args.beta * point.kl, False)


class Scores:
    """The scores of every agent on every id, and their aggregates.

    Attributes:
        of: scores by agent and id, one for each finished run.
        complete: the agents that have scores on all ids, over which is aggregated.

    Args:
        comparisons: on each id.
        scales: of each.
    """

    def __init__(self, comparisons: list[Comparison], scales: list[Scale]):
        self.comparisons, self.scales = comparisons, scales
        self.of: dict[str, dict[str, list[float]]] = {}
        for comparison, scale in zip(comparisons, scales, strict=True):
            for record in comparison.records:
                ids = self.of.setdefault(record["agent"], {})
                ids.setdefault(comparison.env_id, []).append(scale.score(record))
        self.complete = [agent for agent, ids in self.of.items() if len(ids) == len(comparisons)]

    def rows(self, agent: str) -> list[list[float]]:
        """An agent's scores on each id that it has some on."""
        return list(self.of[agent].values())

    def to_json(self) -> dict[str, Any]:
        """What was measured on each id, the aggregates over ids, and every run."""
        ids = {}
        for comparison, scale in zip(self.comparisons, self.scales, strict=True):
            agents = {
                agent: {name: asdict(interval) for name, interval in found.items()}
                | {"score": asdict(Interval.of(self.of[agent][comparison.env_id]))}
                for agent, found in comparison.summary.items()
                if found
            }
            ids[comparison.env_id] = {
                "title": comparison.title,
                "caption": comparison.caption,
                "scale": asdict(scale),
                "agents": agents,
                "best_of_n": {name: self._with_score(found, scale) for name, found in comparison.best_of_n.items()},
                "frontier": comparison.frontier and comparison.frontier.range,
                "failed": comparison.failures,
            }
        trained = [agent for agent in self.complete if agent != "untrained"]
        return {
            "ids": ids,
            "all": {
                agent: {
                    "interquartile_mean": stratified_bootstrap(interquartile_mean, self.rows(agent))._asdict(),
                    "mean": asdict(stratified_mean(self.rows(agent))),
                }
                for agent in self.complete
            },
            "improvement": {
                agent: {
                    other: stratified_bootstrap(
                        probability_of_improvement, self.rows(agent), self.rows(other)
                    )._asdict()
                    for other in trained
                    if other != agent
                }
                for agent in trained
            },
            "runs": [
                self._run(c, scale, r)
                for c, scale in zip(self.comparisons, self.scales, strict=True)
                for r in c.records
            ],
        }

    @staticmethod
    def _with_score(found: dict[str, Interval], scale: Scale) -> dict[str, Any]:
        """The numbers of best-of-n, with the score that it has at least, as its KL is the most that it can be."""
        reward, kl = found["reward"], found["kl_to_reference"]
        half_width = None if reward.half_width is None else reward.half_width / (scale.best - scale.start)
        score = Interval(scale.of(reward.mean - scale.beta * kl.mean), half_width)
        return {name: asdict(interval) for name, interval in (found | {"score": score}).items()}

    @staticmethod
    def _run(comparison: Comparison, scale: Scale, record: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: round(measured(record, name), 4) for name in ("reward", "kl_to_reference", "distinct_2")}
        kept = {name: record[name] for name in ("agent", "seed", "tokens", "training_cpu_seconds", "command")}
        return {"env_id": comparison.env_id, **kept, **numbers, "score": round(scale.score(record), 4)}
