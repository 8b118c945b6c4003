"""The reference's log-probability as a reward, and the optimum that it makes together with an entropy bonus."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.conftest import CHARACTERS, count_tokens, small_llama
from tests.helpers.wrappers import assert_vector_is_many_singles, reward_table
from textgym.exact import evaluate_policy, soft_optimal
from textgym.language_models.shared_prompts import episode_logits
from textgym.wrappers import ReferenceReward, VectorReferenceReward


def reference():
    return gym.make("TextGenToy-v0", max_new_tokens=3).unwrapped.reference_model()


def toy_tables(beta):
    """The tree, the table of a's logits, rewards without and with the wrapper."""
    tree, plain = reward_table(lambda env: env, max_new_tokens=3)
    _, rewards = reward_table(lambda env: VectorReferenceReward(env, reference(), beta), max_new_tokens=3)
    return tree, reference().table.detach().double(), plain, rewards


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_with_entropies_it_is_the_kl_penalty(beta):
    """By enumeration: the identity for any policy, and its optimum, p proportional to a exp(r / beta)."""
    tree, logits, plain, rewards = toy_tables(beta)
    torch.testing.assert_close(rewards - plain, beta * logits.log_softmax(-1), atol=1e-5, rtol=0)
    policy = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_pi = tree.log_policy(policy)
    entropies = -(log_pi.exp() * log_pi).sum(-1, keepdim=True)  # (S, 1), paid for every action of the context
    left = evaluate_policy(tree, policy, rewards + beta * entropies).values[0]
    right = evaluate_policy(tree, policy, plain).values[0] - beta * tree.kl(policy, logits)
    assert left == pytest.approx(float(right), abs=1e-5)

    values, q_values = tree.backup(rewards, lambda q, _: beta * (q / beta).logsumexp(-1))  # maximum-entropy RL
    found = tree.log_probs((q_values - values[:, None]) / beta)
    wanted = tree.log_probs(logits) + tree.accumulate(plain) / beta
    torch.testing.assert_close(found, wanted.log_softmax(0), atol=1e-4, rtol=0)
    optimum = soft_optimal(tree, logits, plain, beta)
    torch.testing.assert_close(found, tree.log_probs(optimum.policy), atol=1e-4, rtol=0)


def test_an_entropy_bonus_in_the_loss_alone_has_another_optimum():
    """As in A2C's loss, whose values do not count the entropies of later states."""
    tree, logits, plain, rewards = toy_tables(1.0)
    _, q_values = tree.backup(rewards, lambda q, _: (q.softmax(-1) * q).sum(-1))
    distance = (
        tree.log_probs(q_values).exp() - tree.log_probs(soft_optimal(tree, logits, plain, 1.0).policy).exp()
    ).abs()
    assert distance.sum() / 2 > 0.05


def test_log_probabilities_are_those_of_a_plain_forward_pass(rng):
    model = small_llama()
    env = ReferenceReward(gym.make("TextGen-v0", **CHARACTERS, scorer=count_tokens), model, beta=0.5)
    for seed in range(4):
        env.reset(seed=seed)
        rewards, actions, ended = [], [], False
        while not ended:
            actions.append(int(rng.integers(5)))
            row, reward, ended, *_, info = env.step(actions[-1])
            rewards.append(reward)
        rewards[-1] -= len(actions)  # the scorer's
        logits = episode_logits(model, env.unwrapped.mdp, torch.from_numpy(row)[None])[0, : len(actions)]
        expected = 0.5 * logits.log_softmax(-1)[range(len(actions)), actions]
        np.testing.assert_allclose(rewards, expected.detach(), atol=1e-5)
        assert info["unshaped_return"] == len(actions)


def test_masks_are_the_env_s():
    env = gym.make("TextGen-v0", **CHARACTERS, scorer=count_tokens, banned_tokens=[2], min_new_tokens=1)
    env = ReferenceReward(env, small_llama(), beta=1.0)
    total = 0.0
    for token in (0, 1, 3):
        env.reset(options={"prompt": "a"})
        total += np.exp(env.step(token)[1])
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_a_vector_env_is_many_single_ones(mode, rng):
    kwargs = {**CHARACTERS, "scorer": count_tokens}
    vector = VectorReferenceReward(
        gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode=mode, **kwargs), small_llama(), 0.5
    )
    single = ReferenceReward(gym.make("TextGen-v0", **kwargs), small_llama(), 0.5)
    assert_vector_is_many_singles(vector, single, 40, rng, lambda rng, n: rng.integers(5, size=n))


def test_spec_as_json():
    env = ReferenceReward(gym.make("TextGen-v0", max_new_tokens=2), "tiny", beta=0.1)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    env.reset(seed=0), again.reset(seed=0)
    assert isinstance(again, ReferenceReward) and again.step(5)[1] == env.step(5)[1] < 0


@pytest.mark.parametrize("beta", [-0.1, float("nan"), "1"])
def test_bad_betas(beta):
    with pytest.raises(ValueError, match="beta is"):
        ReferenceReward(gym.make("TextGenToy-v0", max_new_tokens=3), reference(), beta)


def test_references_that_do_not_fit():
    with pytest.raises(ValueError, match="embeds 5 tokens"):
        ReferenceReward(gym.make("TextGen-v0"), small_llama(), 1.0)
    with pytest.raises(ValueError, match="unknown model 'tin'"):
        VectorReferenceReward(gym.make_vec("TextGen-v0"), "tin", 1.0)


def test_a_token_without_probability_is_an_error():
    logits = np.zeros((21, 5))
    logits[0, 2] = -np.inf
    model = gym.make("TextGenToy-v0", max_new_tokens=3, reference_logits=np.zeros((21, 5))).unwrapped.reference_model()
    with torch.no_grad():
        model.table.copy_(torch.from_numpy(logits))
    env = VectorReferenceReward(gym.make_vec("TextGenToy-v0", num_envs=2, max_new_tokens=3), model, 1.0)
    env.reset()
    with pytest.raises(ValueError, match="gives token 2 of row 1 no probability"):
        env.step(np.array([0, 2]))
