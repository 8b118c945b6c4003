"""Train a baseline agent: `python scripts/train.py ppo --env-id TextGen-v0 --scorer my_rewards:brevity`.

Writes to `--out`: `checkpoint/` (also a transformers model directory), `progress.csv` and TensorBoard logs. Ctrl-C or
SIGTERM end the training after the current step and still write the checkpoint. To go on from it, repeat the command
with `--resume`: its arguments replace the saved ones, but model, adapters, random state and an adapted `kl_coef` are
the checkpoint's. A loss that is not finite ends the training without one, so that the last good one stays.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import tyro
from stable_baselines3.common.callbacks import CheckpointCallback, EveryNTimesteps
from stable_baselines3.common.logger import Logger, make_output_format

from scripts.agent_arguments import COMMANDS, RunArgs, TrainArgs
from scripts.command_line import console, run_script
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.callbacks import learn


def last_checkpoint(out: Path) -> str:
    """Where the newest checkpoint is, in words."""
    written = [file.parent for file in out.glob("checkpoint*/**/algorithm.json")]
    return f"the last checkpoint is {max(written, key=lambda p: p.stat().st_mtime)}" if written else "no checkpoint yet"


def train(args: TrainArgs) -> EpisodicAlgorithm:
    """Train, and write `out`/checkpoint whatever ends the training, except a loss that is not finite."""
    run = args.run
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    if not run.resume and (run.out / "checkpoint").exists():
        raise FileExistsError(f"{run.out} holds a checkpoint; go on from it with --resume, or choose another --out")
    agent = args.agent()
    suffix = f"-{agent.num_timesteps}" if run.resume else ""  # a resumed run keeps the earlier progress.csv
    formats = [make_output_format(name, str(run.out), suffix) for name in ("csv", "tensorboard")]
    agent.set_logger(Logger(str(run.out), formats))
    callbacks = []
    if run.checkpoint_every:
        save = CheckpointCallback(1, str(run.out / "checkpoints"), name_prefix=type(agent).__name__.lower())
        callbacks.append(EveryNTimesteps(run.checkpoint_every, save))
    model = agent.policy.model.name_or_path or type(agent.policy.model).__name__
    console.print(f"{type(agent).__name__} on {args.env.env_id}, model {model}, device {agent.device}")
    try:
        stopped = learn(
            agent,
            run.total_timesteps,
            *callbacks,
            samples_every=run.samples_every,
            console=console,
            reset_num_timesteps=not run.resume,
        )
    except FloatingPointError as error:
        sys.exit(f"training stopped: {error}; {last_checkpoint(run.out)}")
    agent.save(run.out / "checkpoint")
    console.print(f"{agent.num_timesteps} tokens, {agent._n_updates} updates; checkpoint in {run.out / 'checkpoint'}")
    if stopped is not None:
        console.print(f"stopped by {stopped.name}; go on with --resume")
        sys.exit(128 + stopped)
    return agent


def command_line() -> Any:
    """One subcommand per agent; logs go to runs/<agent> by default."""
    defaults = {name: command(RunArgs(Path("runs", name))) for name, command in COMMANDS.items()}
    about = {name: str(command.__doc__) for name, command in COMMANDS.items()}
    return tyro.extras.subcommand_type_from_defaults(defaults, about)


if __name__ == "__main__":
    run_script(train, command_line(), __doc__)
