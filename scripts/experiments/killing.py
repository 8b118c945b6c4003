"""Trainings in processes of their own, which are forked, killed and compared."""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import tyro

from scripts.train import Args, main
from textgym.sb3.logs import CLOCKS
from textgym.training.state import checksums

OPTIONS = """--env-kwargs {"max_new_tokens":8} --n-envs 16 --num-generations 4 --learning-rate 1e-3 --device cpu
    --threads 1 --samples-every 0"""
OWN = {
    "ppo": "--reference-kl-target 0.5 --batch-size 8 --n-epochs 2",
    "distribution-matching": "--initial-episodes 160",
}


def start(agent: str, out: Path, total: int, *more: str) -> int:
    """Fork a training; its process id."""
    if pid := os.fork():
        return pid
    with (out.parent / f"{out.name}.txt").open("a") as sys.stdout:
        own = f"{OWN.get(agent, '')} --total-timesteps {total} --checkpoint-every {total // 8} --out {out}"
        try:
            main(tyro.cli(Args, args=[agent, *OPTIONS.split(), *own.split(), *more]))
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    os._exit(0)


def status_of(pid: int) -> int:
    """Wait for a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int, out: Path, moment: float, aimed: bool) -> bool:
    """Kill a process after `moment` seconds, aimed in the first writing from then on; False if it ended before."""
    begun = time.monotonic()
    while time.monotonic() - begun < moment or (aimed and not any(out.glob("checkpoints/.*.tmp"))):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    return status_of(pid) == -signal.SIGKILL


def result(out: Path) -> Any:
    """Checksums of the last checkpoint, and the log without what depends on the clock."""
    with (out / "progress.csv").open(newline="") as file:
        rows = [row | dict.fromkeys(CLOCKS, "") for row in csv.DictReader(file)]
    return checksums(out / "checkpoint"), rows
