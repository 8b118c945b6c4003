"""Print texts from a model or a checkpoint, with their rewards: `python scripts/sample.py --prompt "The plot" --n 4`.

It plays the env through the standard vector API, with the policy choosing the tokens; the loop in `sample` is all that
an agent of your own would need.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from stable_baselines3.common.utils import get_device, set_random_seed

import textgym  # noqa: F401 (registers the env ids)
from scripts.command_line import Sample, env_of, read_saved, show_sample
from textgym.sb3 import TokenPolicy


@dataclass
class Args:
    """What to print."""

    model: str = "tiny"
    """A checkpoint directory, or any model: a name, a directory or a hub id."""
    env_id: str | None = None
    """By default the one that the checkpoint was trained in, or `TextGen-v0`."""
    env_kwargs: str = "{}"
    """Arguments of the env as JSON: `'{"tokenizer": "gpt2", "max_new_tokens": 48}'`."""
    scorer: str | None = None
    """Shortcut for the env's `scorer`: a name, an import string or a JSON dict."""
    prompt: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    """Start from this text; may be repeated. By default prompts are drawn from the env's source."""
    n: int = 8
    """Texts in all, or for each `--prompt`."""
    deterministic: bool = False
    """Always the likeliest token."""
    seed: int = 0
    device: str = "auto"
    jsonl: bool = False
    """One JSON object per text (`prompt`, `completion`, `reward`) in place of colours."""


@torch.no_grad()
def sample(env: Any, policy: TokenPolicy, prompts: list[str] | None, seed: int, deterministic: bool) -> list[Sample]:
    """One episode per row of a vector env in autoreset mode `"Disabled"`.

    Args:
        env: what `gym.make_vec` returned for a TextGym id.
        policy: fits the env.
        prompts: one per row; None draws them.
        seed: of the env.
        deterministic: always the likeliest token.
    """
    observations, _ = env.reset(seed=seed, options=None if prompts is None else {"prompts": prompts})
    returns, live = np.zeros(env.num_envs), np.ones(env.num_envs, bool)
    while live.any():
        actions = policy(torch.as_tensor(observations, device=policy.device), deterministic)[0]
        observations, rewards, terminations, truncations, _ = env.step(actions.cpu().numpy())
        returns += rewards
        live &= ~(terminations | truncations)
    parts = [env.unwrapped.task.decode_parts(row) for row in observations]
    return [Sample(prompt, text, float(value)) for (prompt, text), value in zip(parts, returns, strict=True)]


def samples(args: Args) -> Iterator[Sample]:
    """Build env and policy, and sample: all rows of one prompt stand together."""
    if args.n < 1:
        raise ValueError(f"--n is {args.n}; it must be at least 1")
    model, saved = read_saved(args.model)
    env_id, kwargs = env_of(saved, args.env_id, args.env_kwargs, scorer=args.scorer)
    num_envs = args.n * max(1, len(args.prompt))
    env = gym.make_vec(env_id, num_envs=num_envs, **({"autoreset_mode": "Disabled"} | kwargs))
    policy = TokenPolicy(
        env.single_observation_space,
        env.single_action_space,
        lambda _: 0.0,  # nothing is trained
        **TokenPolicy.kwargs_for(env, model, **(saved["arguments"]["policy_kwargs"] if saved else {})),
    ).to(get_device(args.device))
    policy.set_training_mode(False)
    set_random_seed(args.seed)
    prompts = [text for text in args.prompt for _ in range(args.n)] or None
    yield from sample(env, policy, prompts, args.seed, args.deterministic)


def main(args: Args) -> None:
    """Print the texts."""
    console = Console()
    for one in samples(args):
        if args.jsonl:
            print(json.dumps(dataclasses.asdict(one), ensure_ascii=False))
        else:
            show_sample(one, console)


if __name__ == "__main__":
    main(tyro.cli(Args))
