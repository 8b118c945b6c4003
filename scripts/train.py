"""Train a baseline agent: `python scripts/train.py ppo --env-id TextGen-v0 --scorer my_rewards:brevity`.

Writes to `--out`: checkpoints (`checkpoint` is the newest, also a transformers model directory), `progress.csv` and
TensorBoard logs. Whatever ends the training (Ctrl-C, SIGTERM, a scorer that fails, a crash), repeat the command with
`--resume` to go on, on a CPU with the same numbers as if nothing had happened: docs/resume.md. The arguments that are
repeated replace the saved ones, but model, adapters, random state and an adapted `kl_coef` are the checkpoint's.

`torchrun --nproc-per-node 2 scripts/train.py ...` trains in two processes, each with its own `--n-envs` rows
(docs/distributed.md).
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from pathlib import Path

import torch
import tyro

from scripts.agent_arguments import COMMANDS, RunArgs, TrainArgs
from scripts.training import advice, open_in_first, tell, train_in, where
from textgym.arguments import Count, check_argument
from textgym.sb3 import EpisodicAlgorithm
from textgym.training.distributed import processes


def main(args: TrainArgs) -> EpisodicAlgorithm | None:
    """Train, or go on with a run; None where it has its tokens already."""
    run = args.run
    check_argument("total_timesteps", run.total_timesteps, Count)
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    with processes(), open_in_first(run) as folder:
        if folder.checkpoint is not None and folder.num_timesteps >= run.total_timesteps:
            tell(f"{where(folder)}; a larger --total-timesteps goes on")
            return None
        if run.resume and folder.checkpoint is None:
            tell(f"{where(folder)}: the run begins anew")
        try:
            return train_in(folder, args)
        except Exception as error:
            error.add_note(advice(folder, error))
            raise


DEFAULTS = {name: command(RunArgs(Path("runs", name))) for name, command in COMMANDS.items()}
ABOUT = {name: str(command.__doc__) for name, command in COMMANDS.items()}
Args = tyro.extras.subcommand_type_from_defaults(DEFAULTS, ABOUT)
"""One subcommand per agent; logs go to runs/<agent> by default."""
