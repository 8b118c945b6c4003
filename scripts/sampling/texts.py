"""The texts of `scripts/sample.py`: plain ones, the best of some, and those that a target accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from scripts.policies import ModelArgs, load
from textgym.arguments import Count, Positive, PositiveShare
from textgym.evaluation import NoReward, Sample, play, quasi_rejection, write_episodes
from textgym.matching import Acceptance, Estimate, Target
from textgym.mdp import IntArray
from textgym.scorers.base import ScorerError
from textgym.training.reference import with_log_probs
from textgym.training.rollouts import collect_episodes

WARPERS = ("temperature", "top_k", "top_p")


@dataclass
class Args(ModelArgs):
    """What to print."""

    prompt: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    """Start from this text; may be repeated. By default prompts are drawn from the env's source."""
    as_chat: bool = False
    """Each `--prompt` is a user's message, which the tokenizer's chat template makes a prompt of."""
    chat: bool = False
    """Talk with the model: a line of standard input is a message. /new starts again; /quit or the end of the input
    ends."""
    n: Count = 8
    """Texts in all, or for each `--prompt`."""
    no_score: bool = False
    """Do not score: the env's scorer is neither loaded nor called, and no rewards are printed."""
    deterministic: bool = False
    """Always the likeliest token."""
    temperature: Positive | None = None
    """Logits are divided by it; by default what the checkpoint was trained with, or 1."""
    top_k: Count | None = None
    """Only the k likeliest tokens."""
    top_p: PositiveShare | None = None
    """Only the likeliest tokens that have this much probability together."""
    best_of: Count = 1
    """Print the text with the highest reward of this many."""
    target: str | None = None
    """Quasi-rejection sampling towards a target as JSON: `'{"name": "pointwise", "feature": "keyword"}'`. What is
    accepted, and the distance to the target before and after, go to standard error."""
    acceptance: PositiveShare = 0.25
    """The share of texts to accept under `--target`."""
    jsonl: bool = False
    """One JSON object per text (`prompt`, `completion`, `reward`) in place of colours."""
    log: Path | None = None
    """Write the episodes to this file instead, with token ids, log-probabilities and rewards: what
    `scripts/off_policy.py` reads."""

    @property
    def warpers(self) -> dict[str, Any]:
        """What replaces the checkpoint's arguments of the distribution."""
        return {name: value for name in WARPERS if (value := getattr(self, name)) is not None}

    @property
    def pinned(self) -> list[Any]:
        """The prompts as an env takes them."""
        if self.as_chat and not self.prompt:
            raise ValueError("--as-chat makes messages of --prompt, and there is none")
        return [[{"role": "user", "content": text}] if self.as_chat else text for text in self.prompt]


def refuse(args: Args, options: Sequence[str], why: str) -> None:
    """Refuse options that mean nothing beside another one.

    Raises:
        ValueError: some are given.
    """
    if given := [f"--{name.replace('_', '-')}" for name in options if getattr(args, name) != getattr(Args(), name)]:
        raise ValueError(f"{why}; leave out {', '.join(given)}")


def chooser(token_model: Any, deterministic: bool) -> Any:
    """The policy as a function of observations, for `play`."""

    @torch.no_grad()
    def choose(rows: IntArray) -> IntArray:
        return token_model(torch.from_numpy(rows), deterministic)[0].cpu().numpy()

    return choose


def samples(args: Args) -> list[Sample]:
    """Load the model and sample: all texts of one prompt stand together."""
    if args.no_score and args.best_of > 1:
        raise ValueError("--best-of needs rewards, and --no-score gives none")
    pinned = args.pinned
    options: dict[str, Any] = {"num_generations": args.best_of} | ({"scorer": NoReward()} if args.no_score else {})
    asked = replace(args, scorer=None) if args.no_score else args
    loaded = load(asked, args.n * args.best_of * max(1, len(pinned)), options, **args.warpers)
    prompts = [prompt for prompt in pinned for _ in range(args.n * args.best_of)] or None
    try:
        found = play(loaded.env, chooser(loaded.token_model, args.deterministic), args.seed, prompts)
    except ScorerError as error:
        columns = list(loaded.env.unwrapped.task.prompts.columns([0])) if pinned else []
        if not columns:
            raise
        raise ScorerError(
            f"{error}\na --prompt has none of the columns {columns} of the env's prompts; --no-score does not score"
        ) from error
    groups = [found[start : start + args.best_of] for start in range(0, len(found), args.best_of)]
    return [max(group, key=lambda one: one.reward or 0.0) for group in groups]


def log_episodes(args: Args) -> Path:
    """Sample `--n` episodes and write them to `--log`, the file that is returned; prompts are drawn from `--prompt`."""
    unused = ("chat", "no_score", "deterministic", "target", "jsonl", "top_k", "top_p", "best_of")
    refuse(args, unused, "--log keeps what the policy draws, with its probabilities and rewards")
    assert args.log is not None
    pinned, rows = args.pinned, min(args.n, 64)
    loaded = load(replace(args, prompts=json.dumps(pinned)) if pinned else args, rows, **args.warpers)
    loaded.token_model.distribution.refuse_truncation("texts that it makes impossible could never be weighed")
    episodes = collect_episodes(loaded.env, loaded.token_model, -(-args.n // rows), args.seed)
    episodes = with_log_probs(loaded.token_model, None, episodes.select(slice(args.n)), None)
    write_episodes(args.log, episodes, loaded.env.unwrapped.task)
    return args.log


def samples_towards(target: Target, args: Args) -> tuple[list[Sample], Acceptance]:
    """`--n` texts by quasi-rejection sampling from the model towards the target, and how near they are to it."""
    unused = (*WARPERS, "deterministic", "best_of", "no_score")
    refuse(args, unused, "--target samples from the policy as it is, and reads its rewards")
    pinned = args.pinned
    if len(pinned) > 1:
        raise ValueError(f"--target takes one --prompt at a time, as each has its own Z; not {args.prompt}")
    asked = replace(args, prompts=json.dumps(pinned)) if pinned else args
    policy = load(asked, 64).policy()
    episodes, acceptance, _ = quasi_rejection(policy, target, args.n, args.acceptance)
    rewards = episodes.rewards.sum(-1).tolist()
    parts = [policy.task.decode_parts(row) for row in episodes.rows.cpu().numpy()]
    found = [Sample(prompt, text, reward) for (prompt, text), reward in zip(parts, rewards, strict=True)]
    return found, acceptance


def report(acceptance: Acceptance, console: Console) -> None:
    """Print the rate, and the distances to the target before and after."""

    def show(estimate: Estimate) -> str:
        error = estimate.standard_error
        return f"{estimate.value:z.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")

    console.print(
        f"{show(acceptance.rate)} of {acceptance.proposals} texts accepted (log beta {acceptance.log_beta:.2f})"
    )
    names = {"tv": "total variation to the target", "kl_p_pi": "KL(target || .)", "kl_pi_p": "KL(. || target)"}
    for name, title in names.items():
        console.print(f"{title}: {show(acceptance.before[name])} -> {show(acceptance.after[name])}")
