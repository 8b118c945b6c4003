"""What training earns on prompts that it never sees: `python scripts/best_known.py --env-id TextGenArithmetic-v0`.

Each entry, an agent of `scripts/train.py` with its own arguments after a colon, is trained on the prompts of
`split="train"`; it and the untrained model are evaluated on those of `split="test"`. A run that earns more than what is
known of the id is kept with its command in `docs/starting_points.json`, from which `scripts/make_docs.py` writes the
gallery. Finished runs are not repeated.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from scripts.agent_arguments import EnvArgs
from scripts.command_line import console, env_arguments
from scripts.experiments.runs import TrainingArgs, run_one
from scripts.gallery import read_measured, write_measured
from textgym.arguments import Count
from textgym.evaluation import ModelPolicy, evaluate
from textgym.sb3 import EpisodicAlgorithm

ENTRY = "grpo:kl_coef=0,learning_rate=2e-4"


def in_split(env: EnvArgs, split: str, **changed: Any) -> EnvArgs:
    """The same env on one part of its prompts."""
    kwargs = env_arguments(env.env_kwargs) | {"split": split}
    return replace(env, env_kwargs=json.dumps(kwargs), **changed)


@dataclass
class Args(TrainingArgs):
    """What to train on `split="train"`."""

    agents: tyro.conf.Positional[tuple[str, ...]] = (ENTRY,)
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EnvArgs("TextGenArithmetic-v0", n_envs=256, num_generations=8)
    )
    seeds: Count = 1
    total_timesteps: Count = 80_000
    out: Path = Path("runs/best_known")
    evaluation_episodes: Count = 1024
    """Episodes on held-out prompts, a multiple of `n_envs`."""

    def evaluation_arguments(self) -> dict[str, Any]:
        """The number of episodes."""
        return {"evaluation_episodes": self.evaluation_episodes}

    def evaluate(self, agent: EpisodicAlgorithm, seed: int) -> dict[str, Any]:
        """A `textgym.evaluation.Evaluation` on held-out prompts, every one drawn by itself."""
        held_out = in_split(self.env, "test", num_generations=1).make()
        policy = ModelPolicy(held_out, agent.token_model, seed=seed + 1_000_000)  # numbers that no training begins with
        policy.reference = agent.reference
        return evaluate(policy, self.evaluation_episodes).to_json()

    def command(self, entry: str) -> str:
        """What makes a run of an entry again."""
        words = ["python", "scripts/best_known.py", *([entry] if entry != ENTRY else []), "--env-id", self.env.env_id]
        for name, value, default in (
            ("--n-envs", self.env.n_envs, 256),
            ("--num-generations", self.env.num_generations, 8),
            ("--total-timesteps", self.total_timesteps, 80_000),
            ("--seeds", self.seeds, 1),
            ("--evaluation-episodes", self.evaluation_episodes, 1024),
        ):
            words += [name, str(value)] if value != default else []
        return shlex.join(words)


def in_words(record: dict[str, Any]) -> str:
    """What is told of a run."""
    reward, distance = record["evaluation"]["reward"], record["evaluation"]["kl_to_reference"]["value"]
    told = f"{reward['value']:.3f} ± {reward['standard_error']:.3f} held out, KL {distance:z.2f}"
    return f"{told}, {record['training_cpu_seconds']:.0f} CPU s"


def main(args: Args) -> dict[str, Any]:
    """Run what is not there yet, and keep the best run if it is better than what is known; what is known then."""
    env_id, known = args.env.env_id, read_measured()["best"]
    records = run_one(replace(args, env=in_split(args.env, "train"), out=args.out / env_id), in_words)
    best = max((r for r in records if r["agent"] in args.agents), key=lambda r: r["evaluation"]["reward"]["value"])
    found = {name: round(best["evaluation"]["reward"][name], 4) for name in ("value", "standard_error")}
    found["kl_to_reference"] = round(best["evaluation"]["kl_to_reference"]["value"], 2)
    if env_id in known and known[env_id]["value"] >= found["value"]:
        console.print(f"{known[env_id]['value']} is known already: {known[env_id]['command']}", soft_wrap=True)
    else:
        known[env_id] = found | {"command": args.command(best["agent"])}
        write_measured(best=known)
    return known[env_id]
