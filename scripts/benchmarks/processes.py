"""The benchmark of several processes: tokens per second of a training with one and with several, by `torchrun`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from textgym.arguments import Count

TRAIN = Path(__file__).parents[1] / "train.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def processes(
    agent: str = "grpo",
    model: str = "tiny",
    num_envs: Count = 32,
    new_tokens: Count = 32,
    updates: Count = 8,
    num_processes: Count = 2,
    repeats: Count = 3,
) -> Iterator[dict[str, Any]]:
    """Wall-clock throughput of `scripts/train.py` in one process and in several, with one thread each, in turn.

    Every process has `num_envs` rows of its own, so several do as many times the work. The first update is not counted.

    Args:
        agent: name of an agent.
        model: the policy; its tokenizer is that of the env.
        num_envs: rows of each process.
        new_tokens: the length limit.
        updates: of each run; one more comes before them.
        num_processes: of the run with several.
        repeats: runs of each.
    """
    env = ["--env-id", "TextGen-v0", "--env-kwargs", f'{{"tokenizer": "{model}", "max_new_tokens": {new_tokens}}}']
    command = [str(TRAIN), agent, *env, "--model", model, "--n-envs", str(num_envs), "--samples-every", "0"]
    rates: dict[int, list[float]] = {1: [], num_processes: []}
    for _ in range(repeats):
        for number, measured in rates.items():
            launcher = [] if number == 1 else [*TORCHRUN, str(number)]
            tokens = (updates + 1) * num_envs * new_tokens * number
            with tempfile.TemporaryDirectory() as folder:
                run = ["--device", "cpu", "--total-timesteps", str(tokens), "--out", f"{folder}/run"]
                subprocess.run(
                    [sys.executable, *launcher, *command, *run],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
                measured.append(rate(Path(folder, "run")))
    one, several = (statistics.median(measured) for measured in rates.values())
    yield {
        "benchmark": "processes",
        **{"agent": agent, "model": model, "num_envs": num_envs, "new_tokens": new_tokens, "updates": updates},
        "tokens_per_second_wall": {"1": round(one, 1), str(num_processes): round(several, 1)},
        "ratio": round(several / one, 3),
        "repeats": repeats,
    }


def rate(run: Path) -> float:
    """Tokens per second of a run from the end of the first update to that of the last, by its TensorBoard log.

    The log has the time of each row; progress.csv has whole seconds.
    """
    (events,) = run.rglob("events.out.*")
    rows = EventAccumulator(str(events)).Reload().Scalars("rollout/reward")  # whose steps are tokens
    return (rows[-1].step - rows[0].step) / (rows[-1].wall_time - rows[0].wall_time)
