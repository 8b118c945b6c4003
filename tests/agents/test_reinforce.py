"""REINFORCE, RLOO and GRPO: their weights by hand, the KL penalty, and what they refuse."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import GRPO, PPO, REINFORCE, RLOO
from tests.conftest import CHARACTERS, count_tokens, episodes_of, small_llama
from tests.helpers.agents import agent
from textgym.scorers import Scorer


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
    # at the third step the first episode, which has ended, counts with the 5 of its last token
    to_go = advantages(RLOO, reward_to_go=True)
    assert to_go.tolist() == [[5.5, 6.0, 0.0], [-5.5, -6.0, -4.5]]
    assert torch.equal(advantages(baseline="mean", reward_to_go=True), to_go / 2)
    batch_mean = advantages(baseline="batch")  # of 4.5 and -1
    assert batch_mean.tolist() == mean.tolist()
    token_mean = advantages(baseline="batch", reward_to_go=True)  # of 4.5, 5, -1, -1 and 0.5: 1.6
    torch.testing.assert_close(token_mean, torch.tensor([[2.9, 3.4, 0.0], [-2.6, -2.6, -1.1]]))
    # the mean is 1.75, and the standard deviation is 2.75
    assert advantages(GRPO, scale_rewards="none").tolist() == mean.tolist()
    scaled = 2.75 / (2.75 + 1e-4)
    for scale_rewards in ("group", "batch"):
        got = advantages(GRPO, scale_rewards=scale_rewards)
        torch.testing.assert_close(got, torch.tensor([[scaled, scaled, 0.0], [-scaled] * 3]))


def test_scaling_by_the_group_and_by_the_rollout():
    """Groups of 0, 2 and of 0, 6: deviations 1 and 3; of all four, about their mean 2, sqrt(6)."""
    batch = episodes_of([[0.0], [2.0], [0.0], [6.0]], [[0.0]] * 4, [1, 1, 2, 2])

    def advantages(cls, **kwargs):
        made = agent(cls, kl_coef=0.0, **kwargs)
        return made.with_advantages(batch, made.rewards(batch)).advantages[:, 0]

    torch.testing.assert_close(advantages(GRPO), torch.tensor([-1.0, 1, -1, 1]), atol=2e-4, rtol=0)
    by_rollout = torch.tensor([-1.0, 1, -3, 3]) / (6**0.5 + 1e-4)
    torch.testing.assert_close(advantages(GRPO, scale_rewards="batch"), by_rollout)
    whitened = torch.tensor([-2.0, 0, -2, 4]) / (6**0.5 + 1e-4)  # REINFORCE++
    torch.testing.assert_close(advantages(REINFORCE, baseline="batch", scale_rewards="batch"), whitened)
    torch.testing.assert_close(
        advantages(RLOO, scale_rewards="group"), torch.tensor([-2.0, 2, -2, 2]), atol=1e-3, rtol=0
    )


def test_a_group_whose_returns_are_equal_moves_nothing():
    batch = episodes_of([[2.0, None, None], [0.0, 2.0, None]], [[0.0] * 3] * 2, prompt_ids=[5, 5])
    for cls in (REINFORCE, RLOO, GRPO):
        made = agent(cls, kl_coef=0.0)
        assert (made.with_advantages(batch, made.rewards(batch)).advantages == 0).all()


def test_the_share_of_groups_without_deviation_is_logged():
    made = agent(RLOO, n=8, k=4, scorer=lambda completions: [1.0] * len(completions))
    made.learn(1)
    assert made.logger.all["train/frac_reward_zero_std"] == [1]


def test_dynamic_sampling_refills_with_groups_whose_rewards_differ():
    """The scorer pays 1 for every text of the prompts "a" and "b", and the length for those of the others."""

    def score(prompts, completions):
        return [1.0 if p in "ab" else float(len(c)) for p, c in zip(prompts, completions, strict=True)]

    env = CHARACTERS | {"prompts": ["a", "b", "c", "d"]}
    made = agent(RLOO, n=32, k=4, env=env, scorer=score, max_num_gen_batches=8)
    made.learn(1)
    episodes, log = made.rollout_buffer.episodes, made.logger.all
    assert len(episodes) == 32 and set(episodes.prompt_ids.tolist()) <= {2, 3}
    for group in episodes.prompt_ids.unique():
        assert (episodes.prompt_ids == group).sum() % 4 == 0
    (batches,), (share,) = log["train/num_gen_batches"], log["train/frac_reward_zero_std"]
    assert 1 < batches <= 8 and 0 < share < 1
    assert made.num_timesteps > int(episodes.mask.sum()) and made.num_timesteps <= 32 * 6 * batches
    few = agent(RLOO, n=32, k=4, env=env, scorer=score, max_num_gen_batches=2)
    few.learn(1)
    assert few.logger.all["train/num_gen_batches"] == [2] and 0 < len(few.rollout_buffer.episodes) <= 32
    none = agent(RLOO, scorer=lambda completions: [1.0] * len(completions), max_num_gen_batches=3)
    none.learn(1)
    assert none.logger.all["train/num_gen_batches"] == [3] and len(none.rollout_buffer.episodes) == 8
    with pytest.raises(ValueError, match="max_num_gen_batches=2 leaves groups out whose rewards are all the same, and"):
        agent(REINFORCE, k=1, baseline="none", max_num_gen_batches=2)


def test_raft_by_hand():
    rewards = [[0.0, 4.0, None], [0.0, 0.0, 1.0], [2.0, None, None], [7.0, None, None], [6.0, None, None]]
    batch = episodes_of(rewards, [[1.0, -2.0, 0.0]] + [[0.0] * 3] * 4, prompt_ids=[5, 5, 5, 6, 6])
    made = agent(keep_best=1, kl_coef=0.5, mask_truncated_completions=False)
    penalised = made.rewards(batch)
    assert made.with_advantages(batch, penalised).advantages.tolist() == batch.mask.float().tolist()
    assert made.trained_on(batch, penalised).tolist() == [True, False, False, True, False]
    truncated = agent(keep_best=1, kl_coef=0.0, mask_truncated_completions=True)
    truncated.ended_by_eos = lambda _: torch.tensor([False, True, True, False, False])
    assert truncated.trained_on(batch, batch.rewards).tolist() == [False, False, True, False, False]
    for kwargs, message in [
        ({"keep_best": 4}, "keep_best=4 leaves none of the num_generations=4 texts of a prompt out"),
        ({"keep_best": 1, "scale_rewards": "batch"}, "keep_best=1 raises likelihoods, in which scale_rewards='batch'"),
        ({"keep_best": 1, "reward_to_go": True}, "in which reward_to_go=True has no part"),
    ]:
        with pytest.raises(ValueError, match=message):
            agent(**kwargs)


def test_unlikeliness_by_hand():
    """Two texts of one prompt: of the likelier one half of the group is less likely, of the other none is."""
    batch = episodes_of([[0.0, 4.0, None], [0.0, 0.0, 1.0]], [[-1.0, -2.0, 0.0], [-3.0, -3.0, -1.0]], [5, 5])
    made = agent(kl_coef=0.0, unlikeliness_coef=0.5)
    assert made.rewards(batch).tolist() == [[0, 3, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="unlikeliness_coef is for rewards that are not negative, and one is -4"):
        made.rewards(batch.replace(rewards=-batch.rewards))
    with pytest.raises(ValueError, match="unlikeliness_coef=0.5 lowers rewards that are not negative, and those of"):
        agent(scorer=SUM, per_component="normalize", unlikeliness_coef=0.5)


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
    for kwargs, message in {
        ("clip_range_high", 0.3): "clip_range_high is 0.3, but there is no ratio that it is about; set clip_range",
        ("delta", 3.0): "delta is 3.0, but there is no ratio",
        ("importance_sampling_level", "sequence"): "importance_sampling_level is 'sequence', but there is no ratio",
        ("scale_rewards", True): "scale_rewards is True; accepted are .'group', 'batch', 'none'.",
    }.items():
        with pytest.raises(ValueError, match=message):
            agent(RLOO, **dict([kwargs]))
    with pytest.raises(
        ValueError, match="importance_sampling_clip_max=5.0 takes the place of clip_range, which is 0.2"
    ):
        agent(GRPO, importance_sampling_clip_max=5.0)
    with pytest.raises(ValueError, match="clip_range_high is 0.3, but"):
        agent(RLOO, importance_sampling_clip_max=5.0, clip_range_high=0.3)
    with pytest.raises(ValueError, match="delta is 1.25; it must be above 1 . clip_range_high, 1.28"):
        agent(GRPO, clip_range_high=0.28, delta=1.25)
    with pytest.raises(TypeError, match="PPO has no argument 'importance_sampling_clip_max'"):
        agent(PPO, importance_sampling_clip_max=5.0)
    with pytest.raises(ValueError, match="n_epochs is 0; it must be an integer of at least 1"):
        agent(GRPO, n_epochs=0)
    for kl_coef in (0.0, lambda progress: 0.1):
        with pytest.raises(ValueError, match="reference_kl_target=4.0 adapts kl_coef, which must be a number above 0"):
            agent(reference_kl_target=4.0, kl_coef=kl_coef)
    with pytest.raises(ValueError, match="episodes_per_update=12 is not a multiple of the number of envs, 8"):
        agent(episodes_per_update=12)
    model = small_llama()
    with pytest.raises(ValueError, match="the very model that is trained"):
        agent(model=model, reference=model)


def test_two_rounds_make_an_update():
    algorithm = agent(n=8, episodes_per_update=24)
    algorithm.learn(1)
    assert len(algorithm.rollout_buffer.episodes) == 24 and algorithm._n_updates == 1
    assert algorithm.num_timesteps == int(algorithm.rollout_buffer.episodes.mask.sum())
    assert np.isclose(algorithm.rollout_buffer.episodes.rewards.sum(), algorithm.num_timesteps)  # pays the length


MANY = CHARACTERS | {"prompts": [a + b for a in "abcd" for b in "abcd"]}
COMPARING = [(RLOO, {}), (GRPO, {}), (REINFORCE, {}), (REINFORCE, {"baseline": "mean"})]
COMPARING.append((REINFORCE, {"baseline": "batch", "scale_rewards": "group"}))


@pytest.mark.parametrize(("cls", "kwargs"), COMPARING)
def test_one_episode_of_a_prompt_is_refused_before_training(cls, kwargs):
    message = f"{cls.__name__} compares the episodes of a prompt, and the env has num_generations=1; .*baseline='none'"
    with pytest.raises(ValueError, match=message):
        agent(cls, k=1, env=MANY, **kwargs)
    made = agent(cls, k=2, env=MANY, **kwargs)
    other = gym.make_vec(
        "TextGen-v0", num_envs=8, num_generations=1, autoreset_mode="Disabled", scorer=count_tokens, **MANY
    )
    before = made.env
    with pytest.raises(ValueError, match=message):
        made.set_env(other)
    assert made.env is before
    agent(REINFORCE, k=1, env=MANY, baseline="none").learn(1)
    agent(REINFORCE, k=1, env=MANY, baseline="batch", scale_rewards="batch").learn(1)
    agent(cls, k=1, env=MANY | {"prompts": ["a"]}, **kwargs).learn(1)  # all rows are one group


@pytest.mark.parametrize(("cls", "kwargs"), COMPARING)
def test_a_group_of_one_that_chance_makes_is_refused_by_the_update(cls, kwargs):
    made = agent(cls, k=1, env=CHARACTERS | {"prompts": ["a", "b", "c", "d"]}, kl_coef=0.0, **kwargs)
    with pytest.raises(ValueError, match="needs at least two episodes of every prompt, and . of . prompts have one"):
        made.learn(10_000)  # 8 rows, 4 prompts: soon one comes once


def three(completions):
    return [300.0 * text.count("a") for text in completions]


def thirds(completions):
    return [text.count("b") / 3 for text in completions]


SUM = {"name": "weighted_sum", "scorers": [three, thirds], "weights": [2.0, 1.0]}


def batch_of_two_components():
    """Components 300, 0 | 1 in turn in one group: deviations 150 and 0.5, so each normalised value is 1 or -1."""
    batch = episodes_of([[0.0, 600.0, None], [0.0, 0.0, 1.0]], [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]], prompt_ids=[5, 5])
    return batch.replace(components=torch.tensor([[300.0, 0.0], [0.0, 1.0]]))


def test_normalised_components_by_hand():
    batch = batch_of_two_components()
    a, b = 150 / (150 + 1e-4), 0.5 / (0.5 + 1e-4)  # normalised: a, -b in the first episode, -a, b in the second
    value = 2 * a - b

    def advantages(cls, **kwargs):
        kwargs = {"kl_coef": 0.0, "scale_rewards": "batch" if cls is GRPO else "none", **kwargs}
        made = agent(cls, scorer=SUM, per_component="normalize", **kwargs)
        return made.with_advantages(batch, made.rewards(batch)).advantages

    torch.testing.assert_close(advantages(RLOO), 2 * torch.tensor([[value, value, 0.0], [-value] * 3]))
    none = advantages(REINFORCE, baseline="none", reward_to_go=True)
    torch.testing.assert_close(none, torch.tensor([[value, value, 0.0], [-value] * 3]))
    penalty = advantages(REINFORCE, baseline="none", kl_coef=0.5, reward_to_go=True)  # 0.5 (0.5, -0.5) off the first
    torch.testing.assert_close(penalty, torch.tensor([[value, value + 0.25, 0.0], [-value] * 3]))
    plain = advantages(GRPO, scale_rewards="none")
    torch.testing.assert_close(plain, torch.tensor([[value, value, 0.0], [-value] * 3]))
    scaled = value / (value + 1e-4)  # the deviation of the rollout
    torch.testing.assert_close(advantages(GRPO), torch.tensor([[scaled, scaled, 0.0], [-scaled] * 3]))


def test_the_deviation_that_scales_normalised_components_is_that_of_the_rollout():
    """Two groups: in one both components agree, in the other they cancel out; GRPO's own deviation would hide it."""
    batch = episodes_of(
        [[901.0, None, None], [0.0, None, None], [600.0, None, None], [1.5, None, None]], [[0.0] * 3] * 4, [1, 1, 2, 2]
    )
    batch = batch.replace(components=torch.tensor([[450.0, 1.0], [0.0, 0.0], [300.0, 0.0], [0.0, 1.5]]))
    made = agent(GRPO, scorer=SUM, per_component="normalize", scale_rewards="batch", kl_coef=0.0)
    got = made.with_advantages(batch, made.rewards(batch)).advantages[:, 0]
    sums = torch.tensor([3.0, -3.0, 1.0, -1.0])  # 2 + 1 and 2 - 1, but for the 1e-4
    torch.testing.assert_close(got, sums / 5**0.5, atol=2e-3, rtol=0)


@pytest.mark.parametrize("cls", [REINFORCE, RLOO, GRPO])
def test_a_training_with_normalised_components(cls):
    made = agent(cls, scorer=SUM, per_component="normalize", scale_rewards="batch")
    made.learn(100)
    assert made._n_updates > 1


def test_what_cannot_be_normalised():
    with pytest.raises(ValueError, match="per_component is 'both'; accepted are .'sum', 'normalize'."):
        agent(per_component="both")
    with pytest.raises(ValueError, match="compares the episodes of a prompt, and the env has num_generations=1"):
        agent(env=MANY, k=1, baseline="none", per_component="normalize")
    with pytest.raises(ValueError, match="scale_rewards='group' would weigh a prompt by how much they agree; choose"):
        agent(GRPO, scorer=SUM, per_component="normalize")
    batch = batch_of_two_components()
    made = agent(scorer=SUM, per_component="normalize")
    with pytest.raises(ValueError, match="but a wrapper changes the rewards that the scorer gives"):
        made.rewards(batch.replace(rewards=2 * batch.rewards))

    class Steps(Scorer):
        name = "steps"
        per_token = True

        def score(self, generations):
            return [1.0] * len(generations)

    with pytest.raises(ValueError, match="the reward of the scorer 'steps' pays per token"):
        agent(scorer=Steps(), per_component="normalize")

    class Hidden(Scorer):
        name = "hidden"
        component_names = ("shown",)

        def score(self, generations):
            return [1.0] * len(generations)

    with pytest.raises(ValueError, match="the reward of the scorer 'hidden' is no sum of its components"):
        agent(scorer=Hidden(), per_component="normalize")
