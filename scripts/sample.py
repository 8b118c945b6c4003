"""Print texts from a model or a checkpoint, with their rewards: `python scripts/sample.py --prompt "The plot" --n 4`.

It plays the env through the standard vector API, with the policy choosing the tokens; the loop in `sample` is all that
an agent of your own would need. `--temperature`, `--top-k` and `--top-p` change the policy's distribution, `--best-of`
keeps the best of some texts, and `--target` accepts some, so that they follow a target distribution more nearly.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
import tyro
from rich.console import Console
from stable_baselines3.common.utils import get_device, set_random_seed

import textgym  # noqa: F401 (registers the env ids)
from scripts import evaluate
from scripts.command_line import env_arguments, make_env, parse_json, read_saved, run_script
from textgym.evaluation import Sample, play, show_sample
from textgym.matching import Acceptance, Estimate, Target, make_target
from textgym.mdp import IntArray
from textgym.sb3 import TokenPolicy
from textgym.sb3.sampling import quasi_rejection

WARPERS = ("temperature", "top_k", "top_p")


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
    trust: bool = False
    """Import the modules that the checkpoint's env names; otherwise they are refused unless repeated here."""
    prompt: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    """Start from this text; may be repeated. By default prompts are drawn from the env's source."""
    n: int = 8
    """Texts in all, or for each `--prompt`."""
    deterministic: bool = False
    """Always the likeliest token."""
    temperature: float | None = None
    """Logits are divided by it; by default what the checkpoint was trained with, or 1."""
    top_k: int | None = None
    """Only the k likeliest tokens."""
    top_p: float | None = None
    """Only the likeliest tokens that have this much probability together."""
    best_of: int = 1
    """Print the text with the highest reward of this many."""
    target: str | None = None
    """Quasi-rejection sampling towards a target as JSON: `'{"name": "pointwise", "feature": "keyword"}'`. What is
    accepted, and the distance to the target before and after, go to standard error."""
    acceptance: float = 0.25
    """The share of texts to accept under `--target`."""
    seed: int = 0
    device: str = "auto"
    jsonl: bool = False
    """One JSON object per text (`prompt`, `completion`, `reward`) in place of colours."""


def samples(args: Args) -> Iterator[Sample]:
    """Build env and policy, and sample: all rows of one prompt stand together."""
    if args.n < 1 or args.best_of < 1:
        raise ValueError(f"--n is {args.n} and --best-of is {args.best_of}; both must be at least 1")
    model, saved = read_saved(args.model)
    options = {"num_envs": args.n * args.best_of * max(1, len(args.prompt)), "num_generations": args.best_of}
    own = env_arguments(args.env_kwargs, scorer=args.scorer)
    env, _, _ = make_env(saved, args.env_id, own, args.trust, **options)
    warpers = {name: value for name in WARPERS if (value := getattr(args, name)) is not None}
    policy_kwargs = (saved.arguments["policy_kwargs"] if saved else {}) | warpers
    policy = TokenPolicy(
        env.single_observation_space,
        env.single_action_space,
        lambda _: 0.0,  # nothing is trained
        **TokenPolicy.kwargs_for(env, model, **policy_kwargs),
    ).to(get_device(args.device))
    policy.set_training_mode(False)
    set_random_seed(args.seed)
    prompts = [text for text in args.prompt for _ in range(args.n * args.best_of)] or None

    @torch.no_grad()
    def choose(rows: IntArray) -> IntArray:
        return policy(torch.as_tensor(rows, device=policy.device), args.deterministic)[0].cpu().numpy()

    found = play(env, choose, args.seed, prompts)
    for start in range(0, len(found), args.best_of):
        yield max(found[start : start + args.best_of], key=lambda one: one.reward or 0.0)


def samples_towards(target: Target, args: Args) -> tuple[list[Sample], Acceptance]:
    """`--n` texts by quasi-rejection sampling from the model towards the target, and how near they are to it."""
    unused = [name for name in (*WARPERS, "deterministic") if getattr(args, name)] + ["best_of"] * (args.best_of > 1)
    if unused:
        raise ValueError(f"--target samples from the policy as it is; leave out {unused}")
    if len(args.prompt) > 1:
        raise ValueError(f"--target takes one --prompt at a time, as each has its own Z; not {args.prompt}")
    agent = evaluate.load_agent(
        evaluate.Args(
            model=args.model,
            env_id=args.env_id,
            env_kwargs=args.env_kwargs,
            scorer=args.scorer,
            prompts=json.dumps(args.prompt) if args.prompt else None,
            n_envs=64,
            seed=args.seed,
            device=args.device,
            trust=args.trust,
        )
    )[0]
    episodes, acceptance, _ = quasi_rejection(agent, target, args.n, args.acceptance)
    assert agent.env is not None
    task, rewards = agent.env.get_attr("task")[0], episodes.rewards.sum(-1).tolist()
    parts = [task.decode_parts(row) for row in episodes.rows.cpu().numpy()]
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


def main(args: Args) -> None:
    """Print the texts."""
    console, acceptance = Console(), None
    if args.target is None:
        found: Iterable[Sample] = samples(args)
    else:
        found, acceptance = samples_towards(make_target(parse_json("target", args.target)), args)
    for one in found:
        if args.jsonl:
            print(json.dumps(dataclasses.asdict(one), ensure_ascii=False))
        else:
            show_sample(one, console)
    if acceptance is not None:
        report(acceptance, Console(stderr=True, soft_wrap=True, highlight=False))


if __name__ == "__main__":
    run_script(main, Args, __doc__)
