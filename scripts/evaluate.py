"""Evaluate a model or a checkpoint in an env: `python scripts/evaluate.py --model runs/x --env-id TextGen-v0`.

It samples fresh episodes and reports the reward and each scorer component, the KL divergence from the reference model,
entropy, length, and how varied the texts are: a table for people, and with `--json FILE` the same for machines. The
reusable part is `evaluate(agent, episodes)`, for any agent built on `EpisodicAlgorithm`. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import textgym  # noqa: F401 (registers the env ids)
from scripts.command_line import env_arguments, make_env, read_saved, run_script
from textgym.evaluation import Sample, show_sample
from textgym.language_models.precision import Precision
from textgym.matching import Estimate
from textgym.metrics import distinct_n, evenly_spaced, self_bleu
from textgym.sb3 import EpisodicAlgorithm, TokenPolicy
from textgym.sb3.checkpoints import saved_reference

PACKAGES = ("textgym", "gymnasium", "numpy", "torch", "transformers", "stable_baselines3", "sacrebleu")


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measures over E independent episodes.

    Attributes:
        episodes: E.
        reward: undiscounted return of the env.
        components: total of each scorer component.
        kl_to_reference: sum_t log pi(a_t | s_t) - log a(a_t | s_t), nats per sequence: the unbiased k1 estimator of
            KL(pi || a), a being the frozen reference.
        entropy: of the next-token distribution in nats, mean over all sampled tokens.
        length: completion tokens, EOS included.
        eos_share: share of episodes that ended with an EOS token, and not at the length limit.
        distinct_1: different tokens among all completion tokens.
        distinct_2: the same for pairs of tokens.
        self_bleu: of the completion texts, in [0, 1]; None for one episode.
        samples: a few episodes, evenly spaced.
    """

    episodes: int
    reward: Estimate
    components: dict[str, Estimate]
    kl_to_reference: Estimate
    entropy: float
    length: Estimate
    eos_share: float
    distinct_1: float
    distinct_2: float
    self_bleu: float | None
    samples: tuple[Sample, ...]

    def to_json(self) -> dict[str, Any]:
        """Nested dicts and lists that `json.dumps` takes; a standard error that is not known becomes None."""

        def plain(value: Any) -> Any:
            if isinstance(value, Estimate):
                value = value._asdict()
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            if isinstance(value, list | tuple):
                return [plain(item) for item in value]
            return None if isinstance(value, float) and math.isnan(value) else value

        return plain(dataclasses.asdict(self))


def evaluate(agent: EpisodicAlgorithm, episodes: int, samples: int = 4) -> Evaluation:
    """Sample fresh episodes of an agent in its env and measure them; the agent and its counters do not change.

    Standard errors take episodes as independent, so the env should have `num_generations=1`: mates share a prompt.

    Args:
        agent: any algorithm with an env.
        episodes: how many; a multiple of the number of envs.
        samples: how many texts to keep.
    """
    batch = agent.sample_episodes(episodes)
    assert agent.env is not None
    task = agent.env.get_attr("task")[0]
    entropy = 0.0
    with torch.no_grad():
        for index in batch.micro_batches(agent.micro_batch_size):
            terms = agent.token_model.evaluate_episodes(batch.rows[index], batch.actions[index])
            entropy += terms.entropies.double().sum().item()
    rows, lengths = batch.rows.cpu().numpy(), batch.lengths.tolist()
    completions = [ids[:n] for ids, n in zip(batch.actions.tolist(), lengths, strict=True)]
    texts, rewards = task.tokenizer.decode_batch(completions), batch.rewards.sum(-1)
    return Evaluation(
        episodes=len(batch),
        reward=Estimate.mean_of(rewards),
        components={
            name: Estimate.mean_of(values)
            for name, values in zip(agent.component_names, batch.components.T, strict=True)
        },
        kl_to_reference=Estimate.mean_of((batch.log_probs - batch.reference_log_probs).double().sum(-1)),
        entropy=entropy / sum(lengths),
        length=Estimate.mean_of(batch.lengths),
        eos_share=float(np.mean([ids[-1] in agent.mdp.eos_token_ids for ids in completions])),
        distinct_1=distinct_n(completions, 1),
        distinct_2=distinct_n(completions, 2),
        self_bleu=self_bleu(texts) if len(texts) > 1 else None,
        samples=tuple(
            Sample(task.decode_parts(rows[i])[0], texts[i], rewards[i].item())
            for i in evenly_spaced(range(len(texts)), samples)
        ),
    )


@dataclass
class Args:
    """What to evaluate."""

    model: str = "tiny"
    """A checkpoint directory, or any model: a name, a directory or a hub id."""
    env_id: str | None = None
    """By default the one that the checkpoint was trained in, or `TextGen-v0`."""
    env_kwargs: str = "{}"
    """Arguments of the env as JSON: `'{"tokenizer": "gpt2", "max_new_tokens": 48}'`."""
    scorer: str | None = None
    """Shortcut for the env's `scorer`: a name, an import string or a JSON dict."""
    prompts: str | None = None
    """Shortcut for the env's `prompts`: a file, a name or an import string."""
    trust: bool = False
    """Import the modules that the checkpoint's env names; otherwise they are refused unless repeated here."""
    reference: str | None = None
    """What KL is measured to; by default the checkpoint's reference, or for a plain model itself (KL is then 0)."""
    episodes: int = 256
    n_envs: int | None = None
    """Episodes side by side; divides `episodes`. By default its largest divisor up to 64."""
    micro_batch_size: int | None = None
    """Episodes per scoring pass; lower it when a large model runs out of memory."""
    seed: int = 0
    device: str = "auto"
    dtype: Precision | None = None
    """`bfloat16` for autocast."""
    samples: int = 4
    """How many texts to show."""
    json: Path | None = None
    """Write the numbers to this file."""


def load_agent(args: Args) -> tuple[EpisodicAlgorithm, str, dict[str, Any], str]:
    """An agent that samples from `args.model`, the env's id and arguments, and the name of its reference.

    A checkpoint is a transformers model too, so whatever algorithm wrote it, the base class can sample from it.
    """
    model, saved = read_saved(args.model)
    own = env_arguments(args.env_kwargs, scorer=args.scorer, prompts=args.prompts)
    n_envs = args.n_envs or max(d for d in range(1, min(args.episodes, 64) + 1) if args.episodes % d == 0)
    env, env_id, kwargs = make_env(saved, args.env_id, own, args.trust, num_envs=n_envs)
    reference = args.reference or (saved_reference(Path(model), saved) if saved else model)
    if reference is None:
        raise ValueError(f"the checkpoint {model!r} keeps no reference; name one with --reference")
    if args.reference is not None:
        TokenPolicy.kwargs_for(env, reference)  # refuses a model that means other tokens by the same ids
    agent = EpisodicAlgorithm(
        "TokenPolicy",
        env,
        model,
        reference=reference,
        micro_batch_size=args.micro_batch_size,
        dtype=args.dtype,
        policy_kwargs=saved.arguments["policy_kwargs"] if saved else None,
        seed=args.seed,
        device=args.device,
    )
    return agent, env_id, kwargs, reference


def report(evaluation: Evaluation, title: str, console: Console) -> None:
    """Print a table and the samples."""
    rows: list[tuple[str, Estimate | float | None]] = [("reward", evaluation.reward)]
    rows += [(f"  {name}", value) for name, value in evaluation.components.items()]
    rows += [
        ("KL to reference (nats per text)", evaluation.kl_to_reference),
        ("entropy (nats per token)", evaluation.entropy),
        ("length (tokens)", evaluation.length),
        ("ended by EOS", evaluation.eos_share),
        ("distinct-1", evaluation.distinct_1),
        ("distinct-2", evaluation.distinct_2),
        ("self-BLEU", evaluation.self_bleu),
    ]
    table = Table(title=escape(title), title_justify="left")
    for name in ("", "mean", "standard error"):
        table.add_column(name, justify="left" if not name else "right")
    for name, value in rows:
        if isinstance(value, Estimate):
            table.add_row(escape(name), f"{value.value:.4f}", f"{value.standard_error:.4f}")
        else:
            table.add_row(escape(name), "-" if value is None else f"{value:.4f}", "")
    console.print(table)
    for sample in evaluation.samples:
        show_sample(sample, console)


def main(args: Args) -> Evaluation:
    """Evaluate, print, and write the JSON file if one is named."""
    if args.episodes < 1 or args.episodes % (args.n_envs or 1):
        raise ValueError(f"--episodes {args.episodes} must be a positive multiple of --n-envs {args.n_envs}")
    agent, env_id, env_kwargs, reference = load_agent(args)
    evaluation = evaluate(agent, args.episodes, args.samples)
    report(evaluation, f"{args.model} in {env_id}, {args.episodes} episodes, reference {reference}", Console())
    if args.json is not None:
        run = {
            "model": args.model,
            "reference": reference,
            "env_id": env_id,
            "env_kwargs": env_kwargs,
            "seed": args.seed,
            "device": str(agent.device),
            "dtype": agent.token_model.dtype,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(run | evaluation.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return evaluation


if __name__ == "__main__":
    run_script(main, Args, __doc__)
