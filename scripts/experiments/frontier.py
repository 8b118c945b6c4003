"""The frontier of a comparison: the most reward at each KL to the untrained model, sampled once and kept."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch

from scripts.experiments import runs
from scripts.experiments.runs import Run
from textgym.arguments import Count, Range
from textgym.evaluation import Frontier, ModelPolicy, sample_frontier
from textgym.sb3 import EpisodicAlgorithm

SEED = 2_000_000
"""Of the prompts and texts, which no training or evaluation begins with."""


@dataclass
class Args(runs.Args):
    """What to compare, and the frontier beside it."""

    frontier: Annotated[int, Range(0)] = 64
    """Texts of the untrained model for each prompt, which show the most reward at each KL; 0 leaves this out."""
    frontier_prompts: Count = 64
    """Prompts that these texts are of; all of the env's, where it has fewer."""


def frontier_of(args: Args) -> Frontier | None:
    """The frontier over the untrained model, from `out`/frontier where it is there; None where none is wanted.

    Raises:
        FileExistsError: what is there is of other arguments.
    """
    if not args.frontier:
        return None
    asked: dict[str, Any] = {"env": asdict(args.env), "model": args.model, "device": args.device}
    asked |= {"frontier": args.frontier, "frontier_prompts": args.frontier_prompts}
    run = Run("the reference", SEED, args.out / "frontier", None, json.loads(json.dumps(asked)))
    known = run.result() or run.write(evaluation=sampled(args))
    evaluation = known["evaluation"]
    return Frontier(torch.tensor(evaluation["rewards"], dtype=torch.float64), num_prompts=evaluation["num_prompts"])


def sampled(args: Args) -> dict[str, Any]:
    """Rewards of the reference's texts, a row per prompt, and how many prompts there are, as JSON."""
    env = args.env.make()
    agent = EpisodicAlgorithm("TokenPolicy", env, args.model, seed=SEED, device=args.device)
    policy = ModelPolicy(env, agent.token_model)
    frontier = sample_frontier(policy, args.frontier_prompts, args.frontier, SEED)
    return {"rewards": frontier.rewards.tolist(), "num_prompts": frontier.num_prompts}
