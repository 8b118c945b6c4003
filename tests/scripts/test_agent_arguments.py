"""The command line of an agent is its constructor's: each argument is there, explained, and arrives as it was typed."""

import contextlib
import dataclasses
import io
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import tyro

import agents
from agents import REINFORCE
from scripts.agent_arguments import COMMANDS, EnvArgs, RunArgs, command_for, command_name
from scripts.command_line import run_script
from scripts.train import Args
from scripts.typed_arguments import typed
from textgym.arguments import AsJSON, CheckedCalls, Count, Named, NonNegative, Probability, arguments_of
from textgym.sb3 import EpisodicAlgorithm
from textgym.wrappers.vector import PotentialShaping

JSON = {"peft": '{"peft_type": "IA3"}', "lora": '{"r": 2}', "target": '{"name": "rlhf", "beta": 0.5}'}


def fields_of(command):
    of_scripts = "run", "env", "evaluation", "optimizer", "potential"
    return [f for f in dataclasses.fields(command) if f.name not in of_scripts]


def test_every_agent_has_a_command():
    assert set(COMMANDS) == {
        *("reinforce", "rloo", "grpo", "ppo", "distribution-matching", "soft-q-learning"),
        *("dpo", "online-dpo", "sft", "contrastive-lm"),
    }
    for name, command in COMMANDS.items():
        assert command.algorithm.__name__ in agents.__all__ and command_name(command.algorithm) == name
        parsed = tyro.cli(Args, args=[name])
        assert type(parsed) is command and parsed.run.out == Path("runs", name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ppo", {"clip_range": 0.2, "n_epochs": 4, "batch_size": 32, "kl_coef": 0.05, "value_function": "shared"}),
        ("grpo", {"clip_range": 0.2, "n_epochs": 1, "batch_size": None, "kl_coef": 0.04, "scale_rewards": "group"}),
        ("rloo", {"clip_range": None, "reward_to_go": False, "kl_penalty": "reward", "learning_rate": 1e-4}),
        ("reinforce", {"baseline": "leave_one_out", "max_grad_norm": 1.0, "seed": 0, "model": None}),
        ("distribution-matching", {"target": '{"name": "rlhf", "beta": 0.1}', "cap": 10.0, "alpha": None}),
        ("soft-q-learning", {"beta": 0.1, "consistency": "trajectory", "temperature": 1.0, "top_k": None}),
    ],
)
def test_defaults_are_those_of_the_agent(name, expected):
    command = COMMANDS[name](RunArgs(Path("runs")))
    assert {option: getattr(command, option) for option in expected} == expected
    declared = arguments_of(command.algorithm)
    assert set(command.algorithm.hyperparameters()) | {"model", "reference", "peft", "lora", "dtype", "device"} <= {
        f.name for f in fields_of(command)
    }
    assert (EnvArgs().n_envs, EnvArgs().num_generations) == (64, 8)
    assert declared["n_envs"].default == 64 and declared["num_generations"].default == 8


def test_agents_have_their_own_arguments_and_no_others():
    options = {name: {f.name for f in fields_of(command)} for name, command in COMMANDS.items()}
    assert (
        options["reinforce"] - options["rloo"] == {"baseline", "keep_best"} and options["rloo"] < options["reinforce"]
    )
    assert options["grpo"] == options["rloo"] and options["rloo"] - options["ppo"] > {"importance_sampling_clip_max"}
    assert {name for name in options if "value_function" in options[name]} == {"ppo", "distribution-matching"}
    assert {name for name in options if "kl_coef" in options[name]} == {"reinforce", "rloo", "grpo", "ppo"}


def bare(kind):
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def another(name, kind, default):
    """A value as it is typed, other than the default, and what it stands for."""
    if name in JSON:
        return JSON[name], json.loads(JSON[name])
    kind = bare(kind)
    kinds = [kind] if get_origin(kind) is Literal else [k for k in get_args(kind) or (kind,) if k is not type(None)]
    kind = bare(kinds[0])
    if get_origin(kind) is Literal:
        choice = next(choice for choice in get_args(kind) if choice != default)
        return choice, choice
    value = {int: 2, float: 0.625, bool: not default, str: "words"}[kind]
    return str(value), value


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_arrives_at_the_agent_as_it_was_typed(name, monkeypatch):
    command, line, expected = COMMANDS[name], [], {}
    hints = get_type_hints(command)
    for f in fields_of(command):
        text, expected[f.name] = another(f.name, hints[f.name], f.default)
        line += [f"--{f.name}", text]
    parsed = tyro.cli(command, args=[*line, "--out", "x"], config=(tyro.conf.FlagConversionOff,))
    received = {}

    def record(self, policy, env, **kwargs):
        received.update(kwargs)

    recorder: Any = type(command.algorithm)("Recorder", (command.algorithm,), {"__init__": record})
    monkeypatch.setattr(CheckedCalls, "check_call", lambda *args, **kwargs: None)
    recorder.__abstractmethods__ = frozenset()
    monkeypatch.setattr(command, "algorithm", recorder)
    monkeypatch.setattr(EnvArgs, "make", lambda self: None)
    parsed.agent()
    received |= received.pop("policy_kwargs")
    assert received == expected


def test_the_optimizer_and_a_potential_are_those_that_are_named():
    rows = ["--n-envs", "8", "--device", "cpu"]
    potential = {"name": "length", "target": 3}
    options = ["--optimizer", "sgd", "--learning-rate", "0.4", "--potential", json.dumps(potential)]
    with pytest.raises(ValueError, match="^--potential says .* only --reward-to-go reads; add it$"):
        tyro.cli(Args, args=["rloo", *rows, *options]).agent()
    agent = tyro.cli(Args, args=["rloo", *rows, *options, "--reward-to-go"]).agent()
    assert isinstance(agent.policy.optimizer, torch.optim.SGD)
    assert agent.policy.optimizer.defaults["momentum"] == 0.9 and agent.policy.optimizer.defaults["lr"] == 0.4
    assert isinstance(agent.env.venv, PotentialShaping)
    plain = tyro.cli(Args, args=["distribution-matching", *rows])
    assert isinstance(plain.agent().policy.optimizer, torch.optim.Adam) and not hasattr(plain, "potential")


def test_two_numbers_are_a_schedule(capsys):
    line = ["ppo", "--n-envs", "8", "--device", "cpu", "--learning-rate", "0.5:0.1", "--clip-range", "0.3"]
    agent = tyro.cli(Args, args=[*line, "--kl-coef", "0.4:0.04"]).agent()
    assert [agent.kl_coef(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([0.4, 0.22, 0.04])
    assert [agent.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([0.5, 0.3, 0.1])
    assert agent.scheduled("clip_range") == 0.3
    for wrong in ("fast", "0.4:", "0.4:0.2:0.1", "0.4:-1", "0.4:nan"):  # before anything is made
        with pytest.raises(SystemExit):
            tyro.cli(Args, args=[*line, "--kl-coef", wrong])
        assert f"'{wrong}' is neither a number nor two" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_sentence_for_every_argument(name):
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        tyro.cli(Args, args=[name, "--help"])
    text = re.sub(r"\x1b\[[\d;]*m|[│╭╮╰╯─]", " ", out.getvalue())
    options = re.findall(r"^ +(--[\w-]+)((?:(?!^ +--).*\n?)*)", text, re.M)
    assert len(options) >= len(fields_of(COMMANDS[name])) + 10
    for option, rest in options:
        words = rest.partition("(default:")[0].split()
        assert len(words) >= 4, (option, rest)


class Curious(REINFORCE):
    """REINFORCE that asks.

    Args:
        curiosity: how often it asks.
        questions: what it asks, with answers.
        teacher: whom it asks.
        when: a function, which no command line can give.
    """

    def __init__(
        self,
        *args: Any,
        curiosity: Probability | None = None,
        questions: AsJSON = None,
        teacher: Named = "tiny",
        when: type = int,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)


def test_a_new_agent_is_a_new_command_without_a_line_of_the_scripts():
    command = command_for(Curious)
    assert [f.name for f in fields_of(command)][:4] == ["curiosity", "questions", "teacher", "model"]
    parsed = tyro.cli(command, args=["--out", "x", "--curiosity", "0.5", "--questions", "[1]", "--kl-coef", "0"])
    assert (parsed.curiosity, parsed.questions, parsed.teacher, parsed.kl_coef) == (0.5, "[1]", "tiny", 0.0)
    assert command.__doc__ == "REINFORCE that asks." and command_name(Curious) == "curious"


def test_what_can_be_typed():
    common = arguments_of(EpisodicAlgorithm)
    assert typed(Count | None) == Count | None and typed(Probability) == Probability
    assert typed(common["learning_rate"].annotation) == NonNegative | str
    assert get_args(typed(common["device"].annotation))[0] is str
    for name in ("model", "peft", "lora"):
        assert typed(common[name].annotation) is str
    assert typed(type[int]) is None and typed(dict[str, Any]) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--max-grad-norm", "-1"], "--max-grad-norm is -1.0; it must be positive"),
        (["--batch-size", "0"], "--batch-size is 0; it must be an integer of at least 1, or None"),
        (["--top-p", "1.5"], "--top-p is 1.5; it must be in (0, 1], or None"),
        (["--total-timesteps", "0"], "--total-timesteps is 0; it must be an integer of at least 1"),
        (["--checkpoint-minutes", "-1"], "--checkpoint-minutes is -1.0; it must be positive"),
        (["--samples-every", "-1"], "--samples-every is -1; it must be an integer of at least 0"),
        (["--n-envs", "0"], "--n-envs is 0; it must be an integer of at least 1"),
        (["--device", "gpu"], "--device is 'gpu'; it must be 'auto', 'cpu', or another device that this machine has"),
        (["--gamma", "nan"], "--gamma is nan; it must be in [0, 1]"),
    ],
)
def test_an_option_outside_its_range_ends_the_program_before_anything_is_made(line, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit, match="^" + re.escape(f"train.py: {message}")):
        run_script(lambda args: pytest.fail("it began"), Args, given=["ppo", *line])


def test_what_training_changes_is_the_checkpoints():
    assert agents.PPO.adapted_arguments({"reference_kl_target": None}) == ()
    assert agents.PPO.adapted_arguments({"reference_kl_target": 2.0}) == ("kl_coef",)
    assert agents.DistributionMatching.adapted_arguments({}) == ("target",)
    assert agents.SoftQLearning.adapted_arguments({}) == ()
