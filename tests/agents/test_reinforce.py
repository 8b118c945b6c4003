"""REINFORCE, RLOO and GRPO: their weights by hand, the KL penalty, and what they refuse."""

import numpy as np
import pytest
import torch

from agents import GRPO, REINFORCE, RLOO
from tests.agents.conftest import agent
from tests.conftest import CHARACTERS, episodes_of, small_llama


def test_weights_by_hand():
    batch = episodes_of(
        [[0.0, 4.0, None], [0.0, 0.0, 1.0]], [[1.0, -2.0, 0.0], [0.0, 3.0, 1.0]], prompt_ids=[5, 5]
    )  # returns with kl_coef 0.5: 4 - 0.5 (1 - 2) = 4.5 and 1 - 0.5 (3 + 1) = -1

    def advantages(cls=REINFORCE, **kwargs):
        made = agent(cls, **{"kl_coef": 0.5, **kwargs})
        return made.with_advantages(batch, made.rewards(batch)).advantages

    for cls in (REINFORCE, RLOO):
        assert advantages(cls).tolist() == [[5.5, 5.5, 0.0], [-5.5, -5.5, -5.5]]
    to_go = advantages(reward_to_go=True, baseline="none")
    assert to_go.tolist() == [[4.5, 5.0, 0.0], [-1.0, -1.0, 0.5]]
    mean = advantages(baseline="mean")
    assert mean.tolist() == [[2.75, 2.75, 0.0], [-2.75, -2.75, -2.75]]
    # GRPO's KL is in the loss: returns 4 and 1, mean 2.5, standard deviation 1.5
    assert advantages(GRPO, scale_advantages=False).tolist() == [[1.5, 1.5, 0.0], [-1.5, -1.5, -1.5]]
    scaled = 1.5 / (1.5 + 1e-4)
    torch.testing.assert_close(advantages(GRPO), torch.tensor([[scaled, scaled, 0.0], [-scaled] * 3]))


def test_a_group_whose_returns_are_equal_moves_nothing():
    batch = episodes_of([[2.0, None, None], [0.0, 2.0, None]], [[0.0] * 3] * 2, prompt_ids=[5, 5])
    for cls in (REINFORCE, RLOO, GRPO):
        made = agent(cls, kl_coef=0.0)
        assert (made.with_advantages(batch, made.rewards(batch)).advantages == 0).all()


def test_the_kl_penalty_holds_the_policy_back():
    def distance(kl_coef):
        env = CHARACTERS | {"prompts": ["a"]}
        algorithm = agent(n=32, k=32, env=env, kl_coef=kl_coef, learning_rate=3e-3, reference=small_llama())
        algorithm.learn(6_000)
        episodes = algorithm.sample_episodes(256)
        return (episodes.log_probs - episodes.reference_log_probs).sum(-1).mean()

    # four seeds gave 0.09 to 0.18, the noise of Adam at this step size, and 2.9 to 6.9
    assert distance(10.0) < 0.3 < 1.5 < distance(0.0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="accepted are"):
        agent(baseline="critic")
    with pytest.raises(ValueError, match="kl_penalty is 'k1'; accepted are .'reward', 'k2', 'k3'."):
        agent(GRPO, kl_penalty="k1")
    with pytest.raises(ValueError, match="loss_normalization is 'batch'"):
        agent(loss_normalization="batch")
    with pytest.raises(ValueError, match="n_epochs is 0; it must be at least 1"):
        agent(GRPO, n_epochs=0)
    with pytest.raises(ValueError, match="kl_target=4.0 adapts kl_coef=0.0; both must be positive"):
        agent(kl_target=4.0, kl_coef=0.0)
    with pytest.raises(ValueError, match="episodes_per_update=12 is not a multiple of the number of envs, 8"):
        agent(episodes_per_update=12)
    model = small_llama()
    with pytest.raises(ValueError, match="the very model that is trained"):
        agent(model=model, reference=model)
    with pytest.raises(ValueError, match="at least two episodes of every prompt"):
        agent(k=1, env=CHARACTERS | {"prompts": [a + b for a in "abcd" for b in "abcd"]}).learn(1)


def test_two_rounds_make_an_update():
    algorithm = agent(n=8, episodes_per_update=24)
    algorithm.learn(1)
    assert len(algorithm.rollout_buffer.episodes) == 24 and algorithm._n_updates == 1
    assert algorithm.num_timesteps == int(algorithm.rollout_buffer.episodes.mask.sum())
    assert np.isclose(algorithm.rollout_buffer.episodes.rewards.sum(), algorithm.num_timesteps)  # pays the length
