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
from typing import Annotated, Any, ClassVar

import tyro

from scripts.agent_arguments import EnvArgs
from scripts.command_line import console, env_arguments
from scripts.config_files import changed
from scripts.experiments import runs
from scripts.experiments.comparison import UNTRAINED
from scripts.experiments.entries import label
from scripts.experiments.runs import run_one
from scripts.gallery import read_measured, write_measured
from textgym.arguments import Count

ENTRY = "grpo:kl_coef=0,learning_rate=2e-4"


@dataclass
class Args(runs.Args):
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
    evaluation_split: ClassVar[str | None] = "test"

    def command(self, entry: str) -> str:
        """What makes a run of an entry again, wherever it is done."""
        default = Args()
        elsewhere = {name: getattr(default, name) for name in ("agents", "out", "device", "threads", "workers")}
        words = [*([entry] if entry != ENTRY else []), *changed(replace(self, **elsewhere), default)]
        return shlex.join(["python", "scripts/best_known.py", *words])


def in_words(record: dict[str, Any]) -> str:
    """What is told of a run."""
    reward, distance = record["evaluation"]["reward"], record["evaluation"]["kl_to_reference"]["value"]
    told = f"{reward['value']:.3f} ± {reward['standard_error']:.3f} held out, KL {distance:z.2f}"
    return f"{told}, {record['training_cpu_seconds']:.0f} CPU s"


def main(args: Args) -> dict[str, Any]:
    """Run what is not there yet, and keep the best run if it is better than what is known; what is known then."""
    env_id, known = args.env.env_id, read_measured()["best"]
    kwargs = json.dumps(env_arguments(args.env.env_kwargs) | {"split": "train"})
    records = run_one(replace(args, env=replace(args.env, env_kwargs=kwargs), out=args.out / env_id), in_words)
    best = max(
        (record for record in records if record["agent"] != UNTRAINED),
        key=lambda record: record["evaluation"]["reward"]["value"],
    )
    found = {name: round(best["evaluation"]["reward"][name], 4) for name in ("value", "standard_error")}
    found["kl_to_reference"] = round(best["evaluation"]["kl_to_reference"]["value"], 2)
    if env_id in known and known[env_id]["value"] >= found["value"]:
        console.print(f"{known[env_id]['value']} is known already: {known[env_id]['command']}", soft_wrap=True)
    else:
        known[env_id] = found | {"command": args.command({label(e): e for e in args.agents}[best["agent"]])}
        write_measured(best=known)
    return known[env_id]
