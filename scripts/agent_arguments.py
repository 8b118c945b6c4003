"""The arguments of `scripts/train.py`: how long to train and on what, and for each agent its own.

An agent's arguments are those of its constructor and of its policy. Names, types, defaults and descriptions are read
off them, so that a new agent in `agents` is a new subcommand.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import gymnasium as gym
import torch
import tyro
from rich.console import Console
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule

import agents
import textgym  # noqa: F401 (registers the env ids)
from agents.policy_gradient import PolicyGradient
from scripts.command_line import env_arguments, parse_json, text_or_json
from scripts.evaluation_arguments import side_by_side
from textgym.arguments import Argument, Condition, Count, Positive, Range, Written, arguments_of
from textgym.evaluation import Success
from textgym.language_models.token_model import TokenModel
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.evaluation import EvaluationCallback
from textgym.sb3.policy import POLICY_ARGUMENTS
from textgym.sb3.trackers import TrackerName
from textgym.training.run import RunFolder
from textgym.wrappers.vector import PotentialShaping

COMMON = arguments_of(EpisodicAlgorithm)
OF_THE_SCRIPT = {"policy", "env", "n_envs", "num_generations", "policy_kwargs"} | {
    *("stats_window_size", "tensorboard_log", "verbose", "_init_setup_model")
}
"""Arguments of agents that the command line has in another form, or not at all."""

POTENTIAL = "potential"
"""The option that pays each token by itself (`PotentialShaping`)."""
PAID_BY_TOKEN = PolicyGradient, agents.SoftQLearning
"""Agents to which it matters which token earned what."""

OptimizerName = Literal["adam", "sgd"]
OPTIMIZERS: dict[OptimizerName, dict[str, Any]] = {
    "adam": {},
    "sgd": {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}},
}
"""The policy's arguments for each optimizer; SB3's default is Adam."""


def help_of(argument: Argument) -> Any:
    """What `--help` says of an argument."""
    text = argument.help[:1].upper() + argument.help[1:]
    if is_schedule(argument):
        text = f"{text.rstrip('.')}. 0.4:0.04 goes linearly from one to the other"
    return tyro.conf.arg(help=text)


@dataclass
class RunArgs:
    """How long to train, and what to write."""

    out: Path
    """Folder of logs and checkpoints."""
    total_timesteps: Count = 200_000
    """Tokens to generate and train on in all, those before a resumed checkpoint included."""
    threads: Count | None = None
    """CPU threads of torch."""
    checkpoint_minutes: Positive = 10.0
    """Minutes between checkpoints, which are written between two rollouts."""
    checkpoint_every: Count | None = None
    """Tokens between checkpoints, if that is sooner."""
    keep_checkpoints: Count = 2
    """How many are kept in `out`/checkpoints; `out`/checkpoint is the newest."""
    samples_every: Annotated[int, Range(0)] = 10
    """Updates between printed samples; 0: none."""
    report_to: tuple[TrackerName, ...] = ()
    """Trackers that get the log as well, on this machine: `wandb`, which is offline unless WANDB_MODE says otherwise,
    or `trackio`."""
    resume: bool = False
    """Go on with the run in `out`, from its newest checkpoint."""


@dataclass
class EnvArgs:
    """What to train on."""

    env_id: str = "TextGen-v0"
    """`python -m textgym` lists the ids."""
    scorer: str | None = None
    """A scorer's name, `module:function` or JSON; the id's own by default."""
    prompts: str | None = None
    """A .txt or .jsonl file, or `module:attribute`; the id's own by default."""
    env_kwargs: str = "{}"
    """Further arguments of the env, as JSON."""
    n_envs: Annotated[Count, help_of(COMMON["n_envs"])] = COMMON["n_envs"].default
    num_generations: Annotated[Count, help_of(COMMON["num_generations"])] = COMMON["num_generations"].default

    def make(self, split: str | None = None) -> gym.vector.VectorEnv[Any, Any, Any]:
        """The vector env, with another `split` than its own arguments' where one is given."""
        kwargs = env_arguments(self.env_kwargs, scorer=self.scorer, prompts=self.prompts)
        kwargs |= {} if split is None else {"split": split}
        return gym.make_vec(
            self.env_id,
            num_envs=self.n_envs,
            num_generations=self.num_generations,
            autoreset_mode="Disabled",
            **kwargs,
        )


@dataclass
class EvaluationArgs:
    """How to evaluate while training, in an env of the same id: `textgym.sb3.evaluation.EvaluationCallback`."""

    eval_freq: Count | None = None
    """Tokens between evaluations, which `out`/evaluations.jsonl keeps; none by default."""
    eval_episodes: Count = 256
    """Texts of each evaluation."""
    eval_split: str | None = None
    """`test` evaluates on held-out prompts; then train on others, with `--env-kwargs '{"split": "train"}'`."""
    eval_scorers: tuple[str, ...] = ()
    """Scorers besides the env's, which training does not see: names, import strings or JSON dicts."""
    eval_pass_at: tuple[Count, ...] = ()
    """The k of every pass@k: the chance that one of k texts of a prompt earns 1 or more."""
    eval_metric: str = "reward"
    """`out`/best is the checkpoint with the largest: `reward`, `scorer/NAME`, `pass@8` or another number."""
    patience: Count | None = None
    """Evaluations without a new best after which the training ends."""
    kl_budget: Positive | None = None
    """The training ends where an evaluation finds more nats of KL to the reference per text."""

    def callback(self, run: RunFolder, env: EnvArgs, console: Console) -> EvaluationCallback | None:
        """What evaluates, if it is wanted.

        Raises:
            ValueError: `eval_episodes` is no multiple of the texts of a prompt, or what the env or callback raises.
        """
        if self.eval_freq is None:
            return None
        group = max(self.eval_pass_at, default=1)
        if self.eval_episodes % group:
            raise ValueError(
                f"--eval-episodes {self.eval_episodes} is not a multiple of {group}, the texts of a prompt"
            )
        rows = side_by_side(self.eval_episodes // group, group)
        return EvaluationCallback(
            run,
            dataclasses.replace(env, n_envs=rows, num_generations=group).make(split=self.eval_split),
            self.eval_freq,
            self.eval_episodes,
            metric=self.eval_metric,
            patience=self.patience,
            kl_budget=self.kl_budget,
            success=Success(self.eval_pass_at, group) if self.eval_pass_at else None,
            scorers=[text_or_json("eval-scorers", text) for text in self.eval_scorers],
            console=console,
        )


@dataclass
class TrainArgs:
    """What every agent takes; `command_for` adds the agent's own arguments."""

    algorithm: ClassVar[type[EpisodicAlgorithm]]
    run: Annotated[RunArgs, tyro.conf.arg(name="")]
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(default_factory=EnvArgs)
    evaluation: Annotated[EvaluationArgs, tyro.conf.arg(name="")] = field(default_factory=EvaluationArgs)
    optimizer: OptimizerName = "adam"
    """SGD has momentum 0.9, and wants a larger learning rate, such as 0.4; docs/frontier.md says when to take it."""

    def agent(self) -> EpisodicAlgorithm:
        """The agent, new or resumed.

        Raises:
            ValueError: an argument that should be JSON is none, or what the agent or its checkpoint raises.
        """
        options = {name: getattr(self, name) for name in written_arguments(self.algorithm)}
        for name, argument in written_arguments(self.algorithm).items():
            if is_json(argument) and options[name] is not None:
                options[name] = parse_json(name, options[name])
            elif is_schedule(argument) and isinstance(options[name], str):
                options[name] = schedule(name, options[name])
        of_checkpoint = ("model", "peft", "lora", "seed", *self.algorithm.adapted_arguments(options))
        options["policy_kwargs"] = {name: options.pop(name) for name in POLICY_ARGUMENTS if name in options}
        options["policy_kwargs"] |= OPTIMIZERS[self.optimizer]
        if options.get("reference") is None:
            options.pop("reference", None)  # a checkpoint has its own
        if not self.run.resume:
            return self.algorithm("TokenPolicy", self._training_env(), **options)
        for name in of_checkpoint:
            options.pop(name)
        return self.algorithm.load(self.run.out / "checkpoint", self._training_env(), **options)

    def _training_env(self) -> gym.vector.VectorEnv[Any, Any, Any]:
        potential = getattr(self, POTENTIAL, None)
        if potential is not None and not getattr(self, "reward_to_go", True):
            raise ValueError("--potential says which token earned what, which only --reward-to-go reads; add it")
        env = self.env.make()
        return env if potential is None else PotentialShaping(env, text_or_json(POTENTIAL, potential))


def written_arguments(algorithm: type[EpisodicAlgorithm]) -> dict[str, Argument]:
    """The arguments of an agent and of its policy that a command line can give, by name."""
    own = {name: argument for name, argument in arguments_of(algorithm).items() if name not in OF_THE_SCRIPT}
    policy = {name: arguments_of(TokenModel)[name] for name in POLICY_ARGUMENTS}
    if "vf_coef" not in own:  # it learns no values
        del policy["value_function"]
    return {name: argument for name, argument in (own | policy).items() if typed(argument.annotation) is not None}


def is_schedule(argument: Argument) -> bool:
    """Whether an argument may be a function of the remaining progress."""
    return Schedule in get_args(argument.annotation)


def schedule(name: str, text: str) -> LinearSchedule:
    """What a text such as `0.4:0.04` stands for.

    Raises:
        ValueError: it is another text.
    """
    try:
        start, end = map(float, text.split(":"))
    except ValueError as error:
        must = "it must be a number, or two such as 0.4:0.04, between which it goes linearly"
        raise ValueError(f"--{name.replace('_', '-')} is {text!r}; {must}") from error
    return LinearSchedule(start, end, end_fraction=1.0)


def is_json(argument: Argument) -> bool:
    """Whether an argument is written as JSON."""
    return Written.JSON in get_args(argument.annotation)


def typed(annotation: Any) -> Any:
    """The part of an annotation that can be typed, with its ranges; None where there is none.

    Of functions, those of the remaining progress can, as text (`schedule`).
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation == Schedule:
        return str
    if origin is Annotated:
        kind, conditions = typed(parts[0]), [part for part in parts[1:] if isinstance(part, Condition)]
        if any(isinstance(part, Written) for part in parts):
            return str
        return Annotated[kind, *conditions] if conditions else kind
    if origin in (Union, UnionType):
        kinds = [kind for part in parts if (kind := typed(part)) is not None]
        return reduce(operator.or_, kinds) if kinds else None
    return annotation if origin is Literal or annotation in (bool, int, float, str, NoneType) else None


def options_of(arguments: dict[str, Argument], **defaults: Any) -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of the options for some arguments, as `dataclasses.make_dataclass` takes them.

    Args:
        arguments: those that a command line can give, by name.
        defaults: what replaces their own defaults.
    """
    options: list[tuple[str, Any, Any]] = []
    for name, argument in arguments.items():
        kind, default = typed(argument.annotation), defaults.get(name, argument.default)
        if is_json(argument) and default is not None:
            default = json.dumps(default)
        options.append((name, Annotated[kind if default is not None else kind | None, help_of(argument)], default))
    return options


def command_for(algorithm: type[EpisodicAlgorithm]) -> type[TrainArgs]:
    """The dataclass of an agent's arguments, with the agent's own defaults."""
    fields = options_of(written_arguments(algorithm), seed=0)  # so that a command repeated gives the same numbers
    if issubclass(algorithm, PAID_BY_TOKEN):
        about = "A scorer whose change pays each token, best the env's own; rewards then count from the prompt's."
        fields.append((POTENTIAL, Annotated[str | None, tyro.conf.arg(help=about)], None))
    about = str(algorithm.__doc__).partition("\n")[0]
    namespace = {"algorithm": algorithm, "__doc__": about, "__module__": __name__}
    return dataclasses.make_dataclass(algorithm.__name__, fields, bases=(TrainArgs,), namespace=namespace)


def command_name(algorithm: type) -> str:
    """The name of an agent's command, such as "ppo" or "soft-q-learning"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", algorithm.__name__).lower()


ALGORITHMS = [cls for cls in (getattr(agents, name) for name in agents.__all__) if issubclass(cls, EpisodicAlgorithm)]
COMMANDS: dict[str, type[TrainArgs]] = {command_name(algorithm): command_for(algorithm) for algorithm in ALGORITHMS}
