"""Train a baseline agent: `python scripts/train.py ppo --env-id TextGen-v0 --scorer my_rewards:brevity`.

Writes to `--out`: `checkpoint/` (also a transformers model directory), `progress.csv` and TensorBoard logs. Ctrl-C or
SIGTERM end the training after the current step and still write the checkpoint. To go on from it, repeat the command
with `--resume`: its arguments replace the saved ones, but model, adapters, random state and an adapted `kl_coef` are
the checkpoint's. A loss that is not finite ends the training without one, so that the last good one stays.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import gymnasium as gym
import torch
import tyro
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EveryNTimesteps
from stable_baselines3.common.logger import Logger, make_output_format

import agents
import textgym  # noqa: F401 (registers the env ids)
from agents.policy_gradient import KLPenalty, PolicyGradient
from agents.returns import Baseline
from scripts.callbacks import ShowProgress, StopOnSignal, console
from scripts.command_line import env_arguments
from textgym.sb3.checkpoints import POLICY_ARGUMENTS
from textgym.sb3.policy import ValueFunction
from textgym.sb3.updates import Normalization


@dataclass
class RunArgs:
    """How long to train, and what to write."""

    out: Path
    total_timesteps: int = 200_000
    """Tokens to generate and train on."""
    threads: int | None = None
    """CPU threads of torch."""
    checkpoint_every: int = 0
    """Tokens between checkpoints, which are kept in `out`/checkpoints; 0: only the last."""
    samples_every: int = 10
    """Updates between printed samples; 0: none."""
    resume: bool = False
    """Go on from `out`/checkpoint."""


@dataclass
class EnvArgs:
    """What to train on."""

    env_id: str = "TextGen-v0"
    scorer: str | None = None
    """A scorer's name, `module:function` or JSON; the id's own by default."""
    prompts: str | None = None
    """A .txt or .jsonl file, or `module:attribute`; the id's own by default."""
    env_kwargs: str = "{}"
    """Further arguments of the env, as JSON."""
    n_envs: int = 64
    num_generations: int = 8
    """Episodes that share a prompt."""

    def make(self) -> gym.vector.VectorEnv[Any, Any, Any]:
        """The vector env."""
        kwargs = env_arguments(self.env_kwargs, scorer=self.scorer, prompts=self.prompts)
        return gym.make_vec(
            self.env_id,
            num_envs=self.n_envs,
            num_generations=self.num_generations,
            autoreset_mode="Disabled",
            **kwargs,
        )


@dataclass
class TrainArgs:
    """What every agent takes. All but `run` and `env` are arguments of the agent or of its policy."""

    algorithm: ClassVar[type[PolicyGradient]]
    run: Annotated[RunArgs, tyro.conf.arg(name="")]
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(default_factory=EnvArgs)
    model: str = "tiny"
    """`tiny`, `smollm2-q4`, a directory or a hub id."""
    reference: str | None = None
    """What KL is measured to; the untrained model by default."""
    lora: str | None = None
    """Train adapters: arguments of peft.LoraConfig as JSON, such as '{"r": 16}'."""
    episodes_per_update: int | None = None
    """`n_envs` by default."""
    batch_size: int | None = None
    """Episodes in a minibatch; all by default."""
    n_epochs: int = 1
    """Passes over the episodes of an update."""
    clip_range: float | None = None
    """Of the probability ratio; None: the plain policy gradient."""
    target_kl: float | None = None
    """Nats per token between old and new policy; an update stops beyond 1.5 times this."""
    learning_rate: float = 1e-4
    gamma: float = 1.0
    kl_coef: float = 0.05
    """Weight of the KL to the reference, in reward per nat."""
    kl_penalty: KLPenalty = "reward"
    """Where it goes: subtracted from the reward (k1), or an estimator in the loss."""
    kl_target: float | None = None
    """Nats per episode; `kl_coef` is then only where the adaptation starts."""
    missing_eos_penalty: float = 0.0
    """Subtracted from the reward of an episode that ended by length."""
    loss_normalization: Normalization = "token"
    ent_coef: float = 0.0
    max_grad_norm: float = 1.0
    micro_batch_size: int | None = None
    """Episodes per forward-backward pass at most; it does not change the gradient."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast; weights stay float32."""
    temperature: float = 1.0
    """Of the policy's distribution, in sampling and in training, as are `top_k` and `top_p`."""
    top_k: int | None = None
    top_p: float | None = None
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    device: str = "auto"
    seed: int = 0

    def agent(self) -> PolicyGradient:
        """The agent, new or resumed.

        Raises:
            ValueError: `lora` is no JSON, or what the agent or its checkpoint raises.
        """
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("run", "env")}
        options["policy_kwargs"] = {name: options.pop(name) for name in POLICY_ARGUMENTS if name in options}
        if self.reference is None:
            del options["reference"]  # a checkpoint has its own
        if self.lora is not None:
            try:
                options["lora"] = json.loads(self.lora)
            except json.JSONDecodeError as error:
                raise ValueError(f"--lora is not JSON: {error}: {self.lora!r}") from error
        if not self.run.resume:
            return self.algorithm("TokenPolicy", self.env.make(), **options)
        for name in ("model", "lora", "seed", *(["kl_coef"] if self.kl_target else [])):
            options.pop(name)
        return self.algorithm.load(self.run.out / "checkpoint", self.env.make(), **options)  # type: ignore[return-value]


@dataclass
class Rloo(TrainArgs):
    """RLOO: REINFORCE with the leave-one-out baseline."""

    algorithm: ClassVar[type[PolicyGradient]] = agents.RLOO
    reward_to_go: bool = False
    """Weigh a token by the rewards from it on."""


@dataclass
class Reinforce(Rloo):
    """REINFORCE with a group baseline and a KL penalty."""

    algorithm = agents.REINFORCE
    baseline: Baseline = "leave_one_out"


@dataclass
class Grpo(Rloo):
    """GRPO: advantages normalised in the prompt's group, and the clipped loss."""

    algorithm = agents.GRPO
    clip_range: float | None = 0.2
    kl_coef: float = 0.04
    kl_penalty: KLPenalty = "k3"
    scale_advantages: bool = True
    """Divide by the standard deviation of the group."""


@dataclass
class Ppo(TrainArgs):
    """PPO with a value head, generalised advantages and the clipped loss."""

    algorithm = agents.PPO
    batch_size: int | None = 32
    n_epochs: int = 4
    clip_range: float = 0.2
    """Of the probability ratio."""
    clip_range_vf: float | None = None
    """Of the value, in units of the return; None: no clipping."""
    gae_lambda: float = 0.95
    normalize_advantage: bool = True
    """Whiten the advantages of a minibatch."""
    vf_coef: float = 0.5
    value_function: ValueFunction = "shared"
    """A head on the language model, or on a copy of it."""


COMMANDS: dict[str, type[TrainArgs]] = {"reinforce": Reinforce, "rloo": Rloo, "grpo": Grpo, "ppo": Ppo}


def last_checkpoint(out: Path) -> str:
    """Where the newest checkpoint is, in words."""
    written = [file.parent for file in out.glob("checkpoint*/**/algorithm.json")]
    return f"the last checkpoint is {max(written, key=lambda p: p.stat().st_mtime)}" if written else "no checkpoint yet"


def train(args: TrainArgs) -> PolicyGradient:
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
    stop = StopOnSignal()
    callbacks = CallbackList([stop, ShowProgress(run.samples_every)])
    if run.checkpoint_every:
        save = CheckpointCallback(1, str(run.out / "checkpoints"), name_prefix=type(agent).__name__.lower())
        callbacks.callbacks.append(EveryNTimesteps(run.checkpoint_every, save))
    console.print(f"{type(agent).__name__} on {args.env.env_id}, model {args.model}, device {agent.device}")
    try:
        agent.learn(run.total_timesteps, callback=callbacks, reset_num_timesteps=not run.resume)
    except FloatingPointError as error:
        sys.exit(f"training stopped: {error}; {last_checkpoint(run.out)}")
    finally:
        callbacks.on_training_end()
    agent.save(run.out / "checkpoint")
    console.print(f"{agent.num_timesteps} tokens, {agent._n_updates} updates; checkpoint in {run.out / 'checkpoint'}")
    if stop.received is not None:
        console.print(f"stopped by {signal.Signals(stop.received).name}; go on with --resume")
        sys.exit(128 + stop.received)
    return agent


def command_line() -> Any:
    """One subcommand per agent; logs go to runs/<agent> by default."""
    defaults = {name: command(RunArgs(Path("runs", name))) for name, command in COMMANDS.items()}
    about = {name: str(command.__doc__) for name, command in COMMANDS.items()}
    return tyro.extras.subcommand_type_from_defaults(defaults, about)


if __name__ == "__main__":
    train(tyro.cli(command_line(), description=__doc__))
