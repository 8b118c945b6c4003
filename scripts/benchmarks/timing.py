"""How the benchmarks time: medians over repeated runs, by process CPU time and by wall time."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Medians over repeated runs, in seconds per call."""

    cpu_seconds: float
    wall_seconds: float

    def seconds(self, device: torch.device) -> float:
        """The wall time of a GPU, for which the process may wait idly; of a CPU its time."""
        return self.wall_seconds if device.type == "cuda" else self.cpu_seconds


def measure(run: Callable[[], object], calls: int, repeats: int) -> Timing:
    """Time `run`, which makes `calls` calls of what is measured, `repeats` times after one run that is not counted."""

    def counted() -> int:
        run()
        return calls

    return side_by_side({"run": counted}, repeats)["run"]


def side_by_side(runs: Mapping[str, Callable[[], int]], repeats: int, warm_up: int = 1) -> dict[str, Timing]:
    """Time several runs in turn, so that a machine that becomes slower meanwhile does so for all of them.

    Args:
        runs: each returns how many calls (or tokens) it made; the seconds are per call.
        repeats: counted runs of each.
        warm_up: runs before them.
    """
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-warm_up, repeats):
        for name, run in runs.items():
            if repeat < 0:
                run()
                continue
            starts = time.process_time(), time.perf_counter()
            calls = run()
            cpu[name].append((time.process_time() - starts[0]) / calls)
            wall[name].append((time.perf_counter() - starts[1]) / calls)
    return {name: Timing(statistics.median(cpu[name]), statistics.median(wall[name])) for name in runs}


def rates(timings: Mapping[str, Timing], device: torch.device) -> dict[str, Any]:
    """Tokens per second of everything that was timed, and ours, `"textgym"`, over each of the others."""
    per_token, cuda = {name: timing.seconds(device) for name, timing in timings.items()}, device.type == "cuda"
    return {
        "clock": "wall" if cuda else "cpu",
        "tokens_per_second": {name: round(1 / seconds, 1) for name, seconds in per_token.items()},
        "tokens_per_second_wall": {name: round(1 / t.wall_seconds, 1) for name, t in timings.items()},
        "ratio_to": {n: round(s / per_token["textgym"], 3) for n, s in per_token.items() if n != "textgym"},
        "peak_memory_mib": torch.cuda.max_memory_allocated() // 2**20 if cuda else peak_rss_mib(),
    }


def synchronized(device: torch.device, tokens: int) -> int:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return tokens


def peak_rss_mib() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
