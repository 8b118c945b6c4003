"""`load` applies or refuses every argument; policies alone are saved and loaded; copies behave as the original."""

import copy
import pickle
from importlib.metadata import version

import numpy as np
import pytest
import torch

from agents import GRPO, PPO, REINFORCE
from tests.helpers.checkpoints import agent, parameters, vector_env
from textgym.sb3 import TokenPolicy


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of PPO after an update."""
    made = agent(PPO, learning_rate=1e-2, policy_kwargs={"optimizer_kwargs": {"weight_decay": 0.1}})
    made.learn(50)
    path = tmp_path_factory.mktemp("saved") / "m"
    made.save(path)
    return path


def load(saved, **kwargs):
    return PPO.load(saved, vector_env(), device="cpu", **kwargs)


def test_new_arguments_of_the_optimizer_take_effect_and_are_kept(saved, tmp_path):
    assert load(saved).policy.optimizer.param_groups[0]["weight_decay"] == 0.1
    new = {"weight_decay": 0.5, "betas": (0.5, 0.9)}
    loaded = load(saved, policy_kwargs={"optimizer_kwargs": new})
    moments = load(saved).policy.optimizer.state_dict()["state"]
    for group in loaded.policy.optimizer.param_groups:
        assert {name: group[name] for name in new} == new
    for index, state in loaded.policy.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, moments[index][name]) for name, value in state.items())  # what it learned stays
    loaded.save(tmp_path / "again")
    assert load(tmp_path / "again").policy.optimizer.param_groups[0]["weight_decay"] == 0.5


def test_weights_decay_as_asked(saved):
    """With a loss that is always 0, Adam moves the weights by the decay alone."""
    loaded = load(saved, policy_kwargs={"optimizer_kwargs": {"weight_decay": 0.0}})
    before = parameters(loaded)
    loaded.policy.optimizer.state.clear()
    loaded.policy.optimizer.zero_grad(set_to_none=False)
    for parameter in loaded.policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loaded.policy.optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in parameters(loaded).items())


def test_the_learning_rate_counts_for_the_next_step(saved):
    loaded = load(saved, learning_rate=0.25)
    loaded.learn(1, reset_num_timesteps=False)
    assert {group["lr"] for group in loaded.policy.optimizer.param_groups} == {0.25}


def test_the_arguments_of_sb3(saved, capsys):
    assert load(saved, custom_objects={"gamma": 0.5}, force_reset=True).gamma == 0.5
    assert "SYSTEM INFO" not in capsys.readouterr().out
    load(saved, print_system_info=True)
    out = capsys.readouterr().out
    assert "CURRENT SYSTEM INFO" in out and f"torch: {version('torch')} (here {version('torch')})" in out


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"gama": 0.5}, TypeError, "takes no argument 'gama'; did you mean 'gamma'"),
        ({"custom_objects": {"lr_schedule": 1}}, TypeError, "takes no argument 'lr_schedule'"),
        ({"custom_objects": {"gamma": 0.5}, "gamma": 0.5}, ValueError, "gamma is given twice"),
        ({"model": "tiny"}, ValueError, "load.. takes no model"),
        ({"lora": {"r": 2}}, ValueError, "load.. takes no lora"),
        ({"n_envs": 4}, ValueError, "n_envs is for an env id"),
        ({"num_generations": 4}, ValueError, "num_generations is for an env id"),
        ({"force_reset": False}, ValueError, "every rollout begins with a reset"),
        ({"policy": "TokenPolicy"}, TypeError, "takes no argument 'policy'"),
        ({"policy_kwargs": {"temprature": 2.0}}, TypeError, "no 'temprature'; did you mean 'temperature'"),
        ({"policy_kwargs": {"optimizer_kwargs": {"decay": 2.0}}}, ValueError, "decay"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.SGD}}, ValueError, "the checkpoint's optimizer is Adam"),
    ],
)
def test_what_cannot_be_applied_is_refused(saved, kwargs, error, words):
    with pytest.raises(error, match=words):
        load(saved, **kwargs)


@pytest.mark.parametrize(
    ("name", "value"), [("n_epochs", 3), ("vf_coef", 0.1), ("seed", 7), ("verbose", 1), ("stats_window_size", 5)]
)
def test_constructor_arguments_are_applied(saved, name, value):
    loaded = load(saved, **{name: value})
    assert getattr(loaded, "_stats_window_size" if name == "stats_window_size" else name) == value
    for (key, a), b in zip(parameters(loaded).items(), parameters(load(saved)).values(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("kwargs", [{}, {"lora": {"r": 2}}], ids=["weights", "adapters"])
def test_a_policy_is_saved_and_loaded_alone(tmp_path, kwargs):
    policy_kwargs = {"temperature": 2.0, "top_k": 3, "value_function": "separate"}
    made = agent(PPO, learning_rate=1e-2, policy_kwargs=policy_kwargs, **kwargs)
    made.learn(100)
    made.policy.save(tmp_path / "policy.pt")
    loaded = TokenPolicy.load(tmp_path / "policy.pt", device="cpu")
    assert {p.suffix for p in (tmp_path / "policy.pt").rglob("*") if p.is_file()} == {".json", ".safetensors"}
    obs = torch.from_numpy(vector_env().reset(seed=0)[0])
    for name, tensor in made.policy.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert torch.equal(made.policy.predict_values(obs), loaded.predict_values(obs))
    a, b = (p.get_distribution(obs).distribution.probs for p in (made.policy, loaded))
    assert torch.equal(a, b) and ((a > 0).sum(-1) == 3).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
@pytest.mark.parametrize("cls", [REINFORCE, PPO, GRPO])
def test_a_copy_samples_and_trains_as_the_original(cls, copied):
    made = agent(cls, learning_rate=1e-2)
    made.learn(50)
    twin = copied(made)

    def go_on(one):
        torch.manual_seed(0)
        obs = vector_env().reset(seed=0)[0]
        first = one.predict(obs)[0]
        one.learn(50, reset_num_timesteps=False)
        rows = one.rollout_buffer.episodes.rows
        return [torch.from_numpy(first), rows, *parameters(one).values()], one.num_timesteps

    before = parameters(made)
    theirs, timesteps = go_on(twin)
    for name, value in parameters(made).items():
        assert torch.equal(value, before[name]), name  # the original is left alone
    ours, original_timesteps = go_on(made)
    assert timesteps == original_timesteps and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_copy_forgets_what_it_decoded_with_other_weights_after_a_fused_step():
    made = copy.deepcopy(agent(policy_kwargs={"optimizer_kwargs": {"fused": True}}))
    obs = torch.from_numpy(vector_env().reset(seed=0)[0])
    before = made.policy.get_distribution(obs).distribution.logits
    for parameter in made.policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    made.policy.optimizer.param_groups[0]["lr"] = 0.1
    made.policy.optimizer.step()
    after = made.policy.get_distribution(obs).distribution.logits
    assert not torch.allclose(before, after)
    fresh = TokenPolicy(
        made.observation_space, made.action_space, lambda _: 0.0, mdp=made.mdp, model=copy.deepcopy(made.policy.model)
    )
    assert np.allclose(after.numpy(), fresh.get_distribution(obs).distribution.logits.numpy(), atol=1e-5)
