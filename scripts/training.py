"""A training of `scripts/train.py` in the folder of its run, in one process or several."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from stable_baselines3.common.logger import configure

from scripts.agent_arguments import RunArgs, TrainArgs, command_name
from scripts.command_line import console
from scripts.config_files import AGENT, values_of, write
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.callbacks import StopOnSignal
from textgym.sb3.logs import run_logger
from textgym.sb3.run import RunCheckpoints, train_run
from textgym.training.distributed import from_first, rank, world_size
from textgym.training.run import RunFolder, open_run
from textgym.training.state import CheckpointError


@contextmanager
def open_in_first(run: RunArgs) -> Iterator[RunFolder]:
    """The run's folder, which only the first of several processes holds and writes to."""
    if rank():
        if not from_first(None):
            sys.exit(1)  # the first one tells why
        yield RunFolder(run.out, run.keep_checkpoints)
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(open_run(run.out, run.resume, run.keep_checkpoints))
        except Exception:
            from_first(False)
            raise
        from_first(True)
        yield folder


def train_in(folder: RunFolder, args: TrainArgs) -> EpisodicAlgorithm:
    """Make the agent, new or from the folder's checkpoint, and train it there."""
    run = dataclasses.replace(args.run, resume=folder.checkpoint is not None)
    saving = RunCheckpoints(folder, run.checkpoint_every, run.checkpoint_minutes)
    agent = dataclasses.replace(args, run=run).agent()
    if rank():  # it neither saves nor logs
        agent.set_logger(configure(None, []))
        rest = run.total_timesteps - agent.resume_from.num_timesteps
        return agent.learn(rest, callback=StopOnSignal(), reset_num_timesteps=False)
    name, settings = type(agent).__name__, {AGENT: command_name(type(agent)), **values_of(args)}
    write(folder.path / "run.yaml", settings)
    agent.set_logger(run_logger(folder, name, run.report_to, settings))
    model = agent.policy.model.name_or_path or type(agent.policy.model).__name__
    tell(f"{name} on {args.env.env_id}, model {model}, device {agent.device}{processes_in_words()}")
    evaluation = args.evaluation.callback(folder, args.env, console)
    callbacks = [] if evaluation is None else [evaluation]
    stopped = train_run(
        agent, run.total_timesteps, saving, *callbacks, samples_every=run.samples_every, console=console
    )
    if evaluation is not None and stopped is None:
        evaluation.evaluate_last()
        if evaluation.stopped_by is not None:
            tell(f"the training ended early: {evaluation.stopped_by}")
    agent.logger.close()
    tell(f"{agent._n_updates} gradient steps; {where(folder)}")
    if stopped is not None:
        tell(f"stopped by {stopped.name}; go on with --resume")
        sys.exit(128 + stopped)
    return agent


def tell(text: str) -> None:
    """Print a line, in the first of several processes."""
    if rank() == 0:
        console.print(text, soft_wrap=True)


def processes_in_words() -> str:
    """How many processes there are, if there are several."""
    return f", {world_size()} processes" if world_size() > 1 else ""


def where(folder: RunFolder) -> str:
    """What the newest checkpoint is, in words."""
    if folder.checkpoint is None:
        return f"there is no checkpoint in {folder.path} yet"
    return f"the checkpoint in {folder.pointer} has {folder.num_timesteps} tokens"


def advice(folder: RunFolder, error: Exception) -> str:
    """What to do after an error."""
    if isinstance(error, CheckpointError) and (earlier := folder.earlier):
        return f"there is an earlier checkpoint, {earlier[-1]}: docs/resume.md"
    return where(folder) + ("; go on with --resume" if folder.checkpoint is not None else "")
