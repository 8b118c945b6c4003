"""Where the runs of an experiment are done: one after the other, each in a process of its own, or as tasks of Ray.

A run that raises, or whose process is killed, ends alone: its error is told and the others go on. A killed process (out
of memory, a lost machine, SIGTERM) is begun again up to `retries` times; an error of the run itself is not, because the
same seed brings it again. Its traceback, and what is printed in another process, goes to `output.log` in its folder.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

from scripts.command_line import in_a_line_or_two
from textgym.arguments import Count, NonNegative, Positive, Range
from textgym.files import whole_file
from textgym.importing import require

LOG = "output.log"
ROOT = Path(__file__).parent.parent.parent


@dataclass
class WorkerArgs:
    """Where the runs are done."""

    processes: Count = 1
    """Runs at a time, each in a process of its own; 1 does all in this process."""
    ray: bool = False
    """Every run is a task of Ray: of the cluster at `RAY_ADDRESS`, else of one on this machine (extra `ray`)."""
    ray_cpus: Positive = 1.0
    """CPUs that Ray sets aside for a run."""
    ray_gpus: NonNegative = 0.0
    """GPUs that Ray sets aside for a run; 0.25 lets four share one."""
    retries: Annotated[int, Range(0)] = 2
    """Times that a run is begun again whose process was killed; one that raises is not."""

    @property
    def threads(self) -> int | None:
        """CPU threads for each run where nothing else is asked for; None leaves them to torch."""
        if self.ray:
            return max(1, int(self.ray_cpus))
        return max(1, (os.cpu_count() or 1) // self.processes) if self.processes > 1 else None


class Job(NamedTuple):
    """`work(folder)`, which can be pickled, and leaves its files in a folder."""

    folder: Path
    work: Callable[[Path], Any]


Outcome = tuple[Job, str | None]
"""A job that has ended, and its error in a line or two; None where it has done its work."""


def outcomes(jobs: Sequence[Job], options: WorkerArgs) -> Iterator[Outcome]:
    """Do all jobs; each is told of as it ends.

    Raises:
        ImportError: Ray is wanted, and not installed.
    """
    if options.ray:
        return on_ray(jobs, options)
    return in_processes(jobs, options) if options.processes > 1 else in_this_process(jobs)


def in_this_process(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """One after the other."""
    for job in jobs:
        yield job, attempt(job)


def in_processes(jobs: Sequence[Job], options: WorkerArgs) -> Iterator[Outcome]:
    """Each in a process of its own, which is forked from one that has imported everything, some at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.experiments.runs"])
    left = deque((job, options.retries) for job in jobs)
    running: dict[Connection, tuple[Any, Job, int]] = {}
    try:
        while left or running:
            while left and len(running) < options.processes:
                job, retries = left.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_in_child, args=(job, sender))
                process.start()
                sender.close()  # so that the end of the process is the end of the pipe
                running[receiver] = process, job, retries
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                process, job, retries = running.pop(ready)
                try:
                    error = ready.recv()
                except EOFError:  # it has said nothing
                    process.join()
                    if retries:
                        left.append((job, retries - 1))
                        continue
                    error = f"its process ended with exit code {process.exitcode}, {options.retries + 1} times"
                process.join()
                yield job, error
    finally:
        for process, _, _ in running.values():
            process.terminate()


def on_ray(jobs: Sequence[Job], options: WorkerArgs) -> Iterator[Outcome]:
    """Each as a task, whose files come back through Ray, so that machines need share no folder for them."""
    ray = require("ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report home
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False, ignore_reinit_error=True)
    task = ray.remote(num_cpus=options.ray_cpus, num_gpus=options.ray_gpus, max_retries=options.retries)(_in_task)
    running = {task.remote(job): job for job in jobs}
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        job = running.pop(done)
        try:
            error, files = ray.get(done)
        except ray.exceptions.RayError as lost:  # the worker, after all retries, or its machine
            error, files = in_a_line_or_two(lost), {}
        for name in sorted(files, key="run.json".__eq__):  # the result last: it says that the rest is there
            job.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(job.folder / name) as new:
                new.write_bytes(files[name])
        yield job, error


def attempt(job: Job) -> str | None:
    """Do the work; its error in a line or two, whose traceback goes to the log."""
    try:
        job.work(job.folder)
    except Exception as error:
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / LOG).open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        return in_a_line_or_two(error)
    return None


def _with_log(job: Job) -> str | None:
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / LOG).open("a", buffering=1, encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        return attempt(job)


def _in_child(job: Job, sender: Connection) -> None:
    sender.send(_with_log(job))


def _in_task(job: Job) -> tuple[str | None, dict[str, bytes]]:
    with TemporaryDirectory() as folder:
        own = job._replace(folder=Path(folder) / job.folder.name)
        error = _with_log(own)
        files = (file for file in own.folder.rglob("*") if file.is_file())
        return error, {str(file.relative_to(own.folder)): file.read_bytes() for file in files}
