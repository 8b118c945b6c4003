"""f-DPG's checkpoints, and what it refuses."""

import math

import gymnasium as gym
import pytest
import torch

from agents import DistributionMatching
from tests.conftest import count_tokens, small_gpt2
from tests.helpers.checkpoints import parameters
from tests.helpers.toy_matching import SHORT, conditional, has1, has11, matching, run, some_a, toy
from textgym.matching import Pointwise


def never(completions):
    return [0.0 for _ in completions]


def test_a_run_that_was_saved_and_resumed_equals_one_that_was_not(tmp_path):
    kwargs = {"proposal": "adaptive", "learning_rate": 0.05, "initial_episodes": 512}
    straight = matching(32, "distributional", **kwargs)
    run(straight, 3)
    straight.save(tmp_path / "three")
    run(straight, 2)
    resumed = DistributionMatching.load(tmp_path / "three", toy(32), device="cpu")
    assert resumed.target.spec == straight.target.spec and resumed.target.coefficients is not None
    assert resumed.partition.counts.tolist() == [512 + 3 * 32]
    torch.rand(5)
    run(resumed, 2)
    for (name, a), b in zip(parameters(straight).items(), parameters(resumed).values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(straight._proposal.model.table, resumed._proposal.model.table)
    assert not torch.equal(straight._proposal.model.table, straight.policy.model.table)
    for name, tensor in straight.partition.tensors().items():
        assert torch.equal(tensor, resumed.partition.tensors()[name]), name


def test_a_proposal_with_tied_weights_is_saved(tmp_path):
    kwargs = {"proposal": "adaptive", "target": {"name": "rlhf", "beta": 1.0}}
    agent = conditional(model=small_gpt2(), scorer=count_tokens, **kwargs)
    run(agent, 1)
    agent.save(tmp_path / "one")
    env = gym.make_vec(
        "TextGen-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", scorer=count_tokens, **SHORT
    )
    loaded = DistributionMatching.load(tmp_path / "one", env, device="cpu")
    for name, tensor in agent._proposal.model.state_dict().items():
        assert torch.equal(tensor, loaded._proposal.model.state_dict()[name]), name


def test_a_checkpoint_that_is_loaded_without_an_env_takes_one_later(tmp_path):
    agent = conditional()
    run(agent, 1)
    agent.save(tmp_path / "one")
    loaded = DistributionMatching.load(tmp_path / "one", device="cpu")
    loaded.set_env(agent.get_env())
    assert loaded.partition.counts.tolist() == agent.partition.counts.tolist()
    run(loaded, 1)
    assert loaded.partition.counts.sum() > agent.partition.counts.sum()
    with pytest.raises(ValueError, match="4 prompts, the env has 2"):
        two = {**SHORT, "prompts": ["a", "b"], "scorer": some_a}
        loaded.set_env(gym.make_vec("TextGen-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", **two))
    assert len(loaded.partition.counts) == 4 and loaded.partition.counts.all()  # nothing is lost
    assert loaded.get_env() is agent.get_env()


ALONE = {"proposal": "on_policy", "baseline": "none"}


def test_z_belongs_to_its_prompts(tmp_path):
    agent = conditional()
    run(agent, 1)
    agent.save(tmp_path / "one")
    with pytest.raises(ValueError, match="4 prompts, the env has 2"):
        other = {**SHORT, "prompts": ["a", "b"], "scorer": some_a}
        DistributionMatching.load(tmp_path / "one", gym.make("TextGen-v0", **other), **ALONE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": {"name": "pointwise"}, "divergence": ("reverse_kl", None)}, "infinite where the target is 0"),
        (
            {"target": {"name": "pointwise"}, "divergence": ("chi2_reverse", None)},
            "or give the pointwise target a floor",
        ),
        ({"target": {"name": "pointwise"}, "divergence": ("alpha", 1.0)}, "'alpha' is infinite where the target is 0"),
        ({"divergence": ("alpha", 1.5)}, r"alpha is 1.5; it must be in \[0, 1\], or None"),
        ({"divergence": ("alpha", None)}, r"alpha in \[0, 1\], not None"),
        ({"divergence": ("forward_kl", 0.5)}, "belongs to the divergence 'alpha'"),
        ({"divergence": ("kl", None)}, "accepted are .*forward_kl"),
        ({"target": {"name": "rlhf", "beta": 0.0}}, "beta is 0.0; it must be positive"),
        ({"target": {"name": "pointwise", "feature": "has9"}}, "'has9'; the env reports .*'reward'.*'has1'"),
        ({"n": 5}, "n_envs=5 is odd"),
        ({"cap": 0.0}, "cap is 0.0; it must be positive"),
        ({"initial_episodes": 0}, "initial_episodes is 0"),
        ({"baseline": "mean"}, "baseline is 'mean'; accepted are .*leave_one_out"),
        ({"policy_kwargs": {"top_k": 2}}, "top_k is 2; a truncated policy cannot write all texts of the reference"),
        ({"policy_kwargs": {"top_p": 0.9}, "proposal": "on_policy"}, "top_p is 0.9; a truncated policy cannot"),
        ({"n": 2}, "even num_generations of at least 4"),
        ({"n": 1, "proposal": "on_policy"}, "num_generations=2 or more"),
        ({"proposal": "off_policy"}, "proposal is 'off_policy'; accepted are .*mixture"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        matching(**{"n": 4, **arguments})


def test_a_floor_makes_reverse_kl_finite():
    agent = matching(64, Pointwise("has1", floor=0.01), ("reverse_kl", None))
    run(agent, 1)
    assert math.isfinite(agent.logger.all["target/kl_pi_p"][0]) and agent._n_updates == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"name": "distributional", "means": {"has1": 1.0}}, "mean 1 of 'has1' does not lie strictly within 0..1"),
        ({"name": "distributional", "means": {"never": 0.5}}, "'never' is 0 in all 256 samples"),
        ({"name": "distributional", "means": {"has1": 0.1, "has11": 0.3}}, "no distribution .* together"),
        ({"name": "distributional", "means": {"has11": 0.999}}, "effective samples of 256"),
        ({"name": "pointwise", "feature": "never"}, "none of 256 samples of the reference satisfies"),
    ],
)
def test_targets_that_the_samples_refute(target, message):
    agent = matching(64, target, env=toy(64, features=(has1, has11, never)), initial_episodes=256)
    with pytest.raises(ValueError, match=message):
        run(agent, 1)


SAMPLER = {**SHORT, "prompts": lambda rng: "abcd"[rng.integers(4)]}


def test_prompts_without_end_are_refused():
    with pytest.raises(ValueError, match="finite, not a sampler"):
        conditional(env=SAMPLER)


@pytest.mark.parametrize(
    ("proposal", "n", "k", "message"),
    [
        ("mixture", 8, 1, "even num_generations of at least 4"),
        ("mixture", 8, 2, "even num_generations of at least 4"),
        ("mixture", 12, 3, "even num_generations of at least 4"),
        ("mixture", 10, 5, "even num_generations of at least 4"),
        ("on_policy", 8, 1, "num_generations=2 or more"),
        ("adaptive", 8, 1, "num_generations=2 or more"),
        ("mixture", 8, 4, None),
        ("mixture", 12, 6, None),
        ("on_policy", 8, 2, None),
        ("adaptive", 9, 3, None),
    ],
)
def test_groups_that_leave_one_out_cannot_part_are_refused_before_anything_is_sampled(proposal, n, k, message):
    if message is None:
        run(conditional(n=n, k=k, proposal=proposal), 1)
        return
    with pytest.raises(ValueError, match=message):
        conditional(n=n, k=k, proposal=proposal)
    run(conditional(n=n, k=k, proposal=proposal, baseline="value" if n % 4 else "none"), 1)


@pytest.mark.slow
def test_a_single_prompt_makes_one_group_of_all_rows_and_rounds():
    with pytest.raises(ValueError, match="even num_generations of at least 4"):
        matching(2)
    run(matching(2, episodes_per_update=4), 1)
    run(matching(1, proposal="on_policy", episodes_per_update=2), 1)


def test_another_env_is_refused_before_it_is_taken():
    agent = conditional()
    run(agent, 1)
    old, table = agent.get_env(), {**SHORT, "scorer": some_a}

    def other(num_generations=4, **changed):
        kwargs = {**table, **changed, "num_generations": num_generations}
        return gym.make_vec("TextGen-v0", num_envs=8, autoreset_mode="Disabled", **kwargs)

    for env, message in (
        (other(num_generations=2), "even num_generations of at least 4"),
        (other(prompts=SAMPLER["prompts"]), "finite, not a sampler"),
        (other(prompts=["a", "b"]), "Z was estimated for 4 prompts, the env has 2"),
    ):
        with pytest.raises(ValueError, match=message):
            agent.set_env(env)
        assert agent.get_env() is old
    agent.target = Pointwise("some_a")
    with pytest.raises(ValueError, match="the target reads the feature 'some_a'; the env reports"):
        agent.set_env(other(scorer=count_tokens))
    agent.set_env(other(num_generations=8))
    run(agent, 1)


def test_a_reference_of_another_vocabulary_is_refused():
    with pytest.raises(ValueError, match="the env's tokenizer .* is not that of model 'tiny'"):
        matching(reference="tiny")
