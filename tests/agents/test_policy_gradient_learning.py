"""Each option of the family learns a task whose optimum is enumerated; with a KL penalty, GRPO ends at its optimum."""

import gymnasium as gym
import pytest
import torch

from agents import GRPO, REINFORCE, RLOO
from tests.conftest import CHARACTERS
from tests.helpers.agents import agent
from textgym.exact import TokenTree, soft_optimal

TOY = {"num_tokens": 2, "max_new_tokens": 3}
FAMILY = {
    "clip-higher": (GRPO, {"clip_range_high": 0.4, "n_epochs": 2}),
    "two-sided": (GRPO, {"delta": 2.0, "n_epochs": 2}),
    "GSPO": (GRPO, {"importance_sampling_level": "sequence", "loss_normalization": "sequence", "n_epochs": 2}),
    "CISPO": (GRPO, {"clip_range": None, "importance_sampling_clip_max": 2.0, "n_epochs": 2}),
    "reuse": (RLOO, {"importance_sampling_level": "product", "importance_sampling_clip_max": 2.0, "n_epochs": 2}),
    "Dr. GRPO": (GRPO, {"scale_rewards": "none", "loss_normalization": "constant"}),
    "REINFORCE++": (REINFORCE, {"baseline": "batch", "scale_rewards": "batch", "reward_to_go": True}),
    "masked": (GRPO, {"mask_truncated_completions": True}),
    "RAFT": (REINFORCE, {"keep_best": 4}),
    "unlikeliness": (GRPO, {"unlikeliness_coef": 0.25}),
    "k3": (GRPO, {"kl_coef": 0.02, "kl_penalty": "k3"}),
}


def positive(completions):
    """1 for texts that begin with "0 1", and a ninth for each 0 of others."""
    return [1.0 if text.split()[:2] == ["0", "1"] else text.count("0") / 9 for text in completions]


def only_one(completions):
    """1 for "0 1 0", and as above for others."""
    return [1.0 if text.split() == ["0", "1", "0"] else text.count("0") / 9 for text in completions]


def trained(cls, timesteps, rate, **kwargs):
    """The agent after some rollouts, its tree, the rewards of the texts, and the policy's logits."""
    env = gym.make_vec(
        "TextGenToy-v0", num_envs=64, num_generations=64, autoreset_mode="Disabled", **TOY, **kwargs.pop("env", {})
    )
    made = cls("TokenPolicy", env, learning_rate=rate, device="cpu", **{"kl_coef": 0.0, "seed": 0, **kwargs})
    tree, rewards = TokenTree.of(env), TokenTree.of(env).scores(env)["reward"]
    made.learn(timesteps)
    return made, tree, rewards, torch.tensor(env.unwrapped.reference_logits)


@pytest.mark.parametrize("name", FAMILY)
def test_it_learns(name):
    cls, kwargs = FAMILY[name]
    made, tree, rewards, reference = trained(cls, 64 * 3 * 20, 0.1, env={"scorer": positive}, **kwargs)
    before, after = (
        tree.expectation(logits, rewards).item() for logits in (reference, made.policy.model.model.table.detach())
    )
    assert before < 0.2 and after > 0.8, (before, after)


def test_the_entropy_stays_up_where_it_has_a_target():
    """Nats per token of the last rollout, where one text is paid most."""
    without, held = (
        trained(RLOO, 64 * 3 * 80, 0.05, env={"scorer": only_one}, **kwargs)[0].rollout_buffer.episodes
        for kwargs in ({}, {"target_entropy": 0.4, "ent_coef_delta": 0.1})
    )
    assert -without.log_probs[without.mask].mean() < 0.1 < 0.2 < -held.log_probs[held.mask].mean()


def test_grpo_ends_at_the_optimum_under_its_penalty():
    """Total variation from p = a exp(r / beta) / Z: three seeds gave at most 0.003, and k3 in the loss 0.44."""
    made, tree, rewards, reference = trained(
        GRPO, 64 * 3 * 60, lambda left: 0.2 * left, kl_coef=0.3, env={"scorer": positive}
    )
    optimum = tree.log_probs(soft_optimal(tree, reference, rewards, 0.3).policy).exp()
    found = tree.log_probs(made.policy.model.model.table.detach()).exp()
    assert (found - optimum).abs().sum() / 2 < 0.02


EASY_AND_HARD = {"prompts": ["a", "b", "c", "d"]}


def solved(prompts, completions):
    """ "a" always, "b" and "c" never, "d" by texts that begin with "a"."""
    return [float(p == "a" or (p == "d" and c.startswith("a"))) for p, c in zip(prompts, completions, strict=True)]


@pytest.mark.parametrize("curriculum", ["difficulty", "thompson"])
def test_a_curriculum_goes_where_something_is_to_be_learned(curriculum, tmp_path):
    made = agent(RLOO, 64, k=4, env=CHARACTERS | EASY_AND_HARD, scorer=solved, kl_coef=0.0, curriculum=curriculum)
    made.learn(64 * 3 * 6)
    prompts = made.rollout_buffer.episodes.prompt_ids
    assert (prompts == 3).float().mean() > 0.5
    right, wrong = made.prompt_curriculum.counts - 1
    assert wrong[0] == 0 and (right[1:3] == 0).all() and right[3] > 0 and wrong[3] > 0
    fresh = made.sample_episodes(256).prompt_ids  # for others, all prompts are drawn alike
    assert (fresh == 3).float().mean() < 0.4
    made.save(tmp_path / "m")
    vector = made.env
    for loaded in (RLOO.load(tmp_path / "m", vector, device="cpu"), RLOO.load(tmp_path / "m", device="cpu")):
        loaded.set_env(vector)
        assert (loaded.prompt_curriculum.counts == made.prompt_curriculum.counts).all()


def test_what_has_no_curriculum():
    with pytest.raises(ValueError, match="curriculum is 'thompson', but the env's prompts come from a function"):
        agent(RLOO, env=CHARACTERS | {"prompts": lambda rng: "ab"[rng.integers(2)]}, curriculum="thompson")
    made = agent(RLOO, env=CHARACTERS | EASY_AND_HARD, curriculum="difficulty")
    other = agent(RLOO, env=CHARACTERS | {"prompts": ["a", "b"]}).env
    with pytest.raises(ValueError, match="the curriculum knows 4 prompts, and the env has 2"):
        made.set_env(other)
