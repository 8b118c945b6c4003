"""No agent, policy or callback accepts a number outside its range, whichever class of the family declares it."""

import inspect
import itertools
import math
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
import torch

import agents
from agents import DualAscent, QLearning
from tests.helpers.agents import agent
from textgym.arguments import Range, arguments_of
from textgym.language_models.distribution import TokenDistribution
from textgym.language_models.token_model import TokenModel
from textgym.sb3 import EpisodicAlgorithm

CLASSES = [*(getattr(agents, name) for name in agents.__all__), TokenModel, TokenDistribution]
FREE = {"policy", "env", "model", "reference", "lora"}  # any object may be one; the loaders say what they take


def alternatives(annotation):
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def wrong_values(annotation):
    """Values just outside every range, of another kind, or not finite."""
    values = [math.nan, -math.inf, "a", object()]
    for part in alternatives(annotation):
        if get_origin(part) is Annotated:
            for condition in get_args(part)[1:]:
                if isinstance(condition, Range):
                    values += [condition.least - 1e-9, condition.least - 1]
                    values += [condition.least] if condition.above else []
                    values += [math.inf] if condition.finite else []
                    values += [condition.most + 1e-6] if math.isfinite(condition.most) else []
            if get_args(part)[0] in (int, float):
                values.append(True)
            if get_args(part)[0] is int:
                values.append(2.5)
    return values


def numbers_and_choices(cls):
    for name, argument in arguments_of(cls).items():
        kinds = [get_args(p)[0] if get_origin(p) is Annotated else p for p in alternatives(argument.annotation)]
        if any(kind in (int, float, bool) or get_origin(kind) is Literal for kind in kinds):
            yield name, argument


@pytest.mark.parametrize("cls", CLASSES)
def test_a_value_outside_its_range_is_refused_by_name(cls):
    checked = 0
    for name, argument in numbers_and_choices(cls):
        for value in wrong_values(argument.annotation):
            with pytest.raises(ValueError, match=f"^{name} is "):
                cls.check_call(**{name: value})
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("cls", CLASSES)
def test_every_argument_has_a_type_and_a_sentence_and_its_default_is_accepted(cls):
    for name, argument in arguments_of(cls).items():
        assert len(argument.help) >= 10 and argument.help.endswith((".", ")")), (cls, name, argument.help)
        if name not in FREE and argument.default is not inspect.Parameter.empty:
            cls.check_call(**{name: argument.default})


def test_numbers_have_ranges():
    """A bare int or float in a constructor would be checked for being a number only."""
    for cls in CLASSES:
        bare = [n for n, a in arguments_of(cls).items() if {int, float} & set(alternatives(a.annotation))]
        assert not bare, (cls, bare)


def test_what_a_negative_norm_would_do():
    """The reason for all this: clipping to a negative norm reverses the gradient."""
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    torch.nn.utils.clip_grad_norm_([parameter], -1.0)
    assert (parameter.grad < 0).all()
    with pytest.raises(ValueError, match="max_grad_norm is -1.0; it must be positive"):
        agent(max_grad_norm=-1.0)


def test_policy_arguments_are_refused_by_name():
    for name, value in (("temperature", 0.0), ("top_k", 0), ("top_k", 2.5), ("top_p", 0), ("top_p", 1.5)):
        with pytest.raises(ValueError, match=f"^{name} is {value}; it must be"):
            agent(policy_kwargs={name: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    for made in (
        lambda **kwargs: agent(**kwargs),
        lambda **kwargs: QLearning("TabularPolicy", "FrozenLake-v1", **kwargs),
    ):
        for device in ("cuda", "cuda:7", torch.device("cuda"), "meta", "cpu:7", "gpu", 3):
            with pytest.raises(ValueError, match="^device is .*; it must be 'auto', 'cpu', or another device"):
                made(device=device)


@pytest.mark.parametrize("total", [0, -5, 2.5, "9", True])
def test_the_length_of_a_training_is_at_least_one_step(total):
    for made in (agent(), QLearning("TabularPolicy", "FrozenLake-v1", n_envs=2, device="cpu")):
        with pytest.raises(ValueError, match="^total_timesteps is .*; it must be an integer of at least 1"):
            made.learn(total)
        assert made.num_timesteps == 0


def test_a_schedule_that_becomes_negative_is_refused_when_it_does():
    made = agent(learning_rate=lambda progress: progress - 0.9)
    with pytest.raises(ValueError, match=r"^learning_rate is -.*; it must be at least 0"):
        made.learn(200)
    for cls, name in itertools.product((agents.PPO, agents.GRPO), ("clip_range", "kl_coef")):
        made = agent(cls, batch_size=None, **{name: lambda progress: progress - 0.9})
        with pytest.raises(ValueError, match=rf"^{name} is -.*; it must be at least 0"):
            made.learn(200)


def test_a_last_rollout_longer_than_asked_for_does_not_reverse_a_falling_learning_rate():
    made, rates = agent(learning_rate=lambda progress: progress * 1e-2), []
    made.policy.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    made.learn(1)  # one rollout, of more than one token
    assert made.num_timesteps > 1 and rates == [0.0]


def test_an_unknown_argument_is_named_with_the_class_that_was_called():
    with pytest.raises(TypeError, match="^PPO has no argument 'kl_coeff'; did you mean 'kl_coef'"):
        agents.PPO("TokenPolicy", None, kl_coeff=0.1)
    with pytest.raises(TypeError, match="^RLOO has no argument 'baseline'"):
        agents.RLOO("TokenPolicy", None, baseline="mean")


def test_dual_ascent_is_checked_as_agents_are():
    with pytest.raises(ValueError, match="step is nan; it must be positive"):
        DualAscent(agent().sample_episodes(8), step=math.nan)


def test_checkpoints_keep_every_hyperparameter():
    for cls in CLASSES:
        if issubclass(cls, EpisodicAlgorithm):
            kept = set(cls.hyperparameters())
            assert kept | cls.apart == set(arguments_of(cls)) and not kept & cls.apart
