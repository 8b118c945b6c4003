"""Low-rank adapters: without them the model is the reference, they alone are trained, checkpoints bring them back."""

import json
from functools import partial

import gymnasium as gym
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from agents import PPO, REINFORCE
from tests.conftest import count_tokens, small_gpt2, small_llama
from tests.helpers.policies import SMALL_ENV, plain_batch, policy, random_episodes, vector_env
from textgym.language_models import load_model


def agent(model=None, algorithm=REINFORCE, lora=None, env=None, **kwargs):
    env = env or SMALL_ENV()
    model = small_llama() if model is None else model
    return algorithm(
        "TokenPolicy",
        env,
        model,
        lora={"r": 4} if lora is None else lora or None,
        learning_rate=1e-2,
        seed=0,
        device="cpu",
        **kwargs,
    )


TINY_ENV = partial(
    gym.make_vec,
    "TextGen-v0",
    num_envs=4,
    num_generations=4,
    autoreset_mode="Disabled",
    scorer=count_tokens,
    max_prompt_tokens=8,
    max_new_tokens=4,
)


def split(made):
    """Copies of the parameters of the model: its adapters, and the rest."""
    named = {name: p.detach().clone() for name, p in made.policy.model.named_parameters()}
    adapters = {name: p for name, p in named.items() if ".lora_" in name}
    return adapters, {name: p for name, p in named.items() if name not in adapters}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def save_and_name(peft_model, path):
    """The folder of adapters that peft writes, beside that of their base."""
    base = small_llama()
    base.save_pretrained(path / "base")
    SMALL_ENV().unwrapped.tokenizer.to_pretrained().save_pretrained(path / "base")
    peft_model.peft_config["default"].base_model_name_or_path = str(path / "base")
    peft_model.save_pretrained(path / "adapters")
    return str(path / "adapters")


@pytest.mark.parametrize(
    ("make", "algorithm", "dtype"),
    [(small_llama, REINFORCE, None), (small_llama, PPO, "bfloat16"), (small_gpt2, PPO, None)],
)
def test_adapters_and_the_value_head_alone_are_trained(make, algorithm, dtype):
    made = agent(make(), algorithm, dtype=dtype, kl_coef=0.1)
    trained = {name for name, p in made.policy.named_parameters() if p.requires_grad}
    assert {n for n in trained if ".value_net." not in n} == {f"token_model.model.{name}" for name in split(made)[0]}
    (adapters, base), value = split(made), made.policy.token_model.value_net.weight.detach().clone()
    made.learn(100)
    later, base_later = split(made)
    assert same(base, base_later) and made._n_updates >= 2
    assert all((adapters[name] != later[name]).any() for name in adapters)
    assert (algorithm is PPO) == bool((made.policy.token_model.value_net.weight != value).any())


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
def test_without_its_adapters_the_model_is_the_untrained_one_and_the_only_reference(make):
    untrained = make()
    made = agent(make(), kl_coef=0.1)
    assert made.reference.model is None
    with torch.no_grad():
        for name, p in made.policy.model.named_parameters():
            if ".lora_" in name:
                p.normal_()
    episodes = made.sample_episodes(16)
    expected = made.policy.token_model.terms_under(untrained, episodes.rows, episodes.actions)[0]
    with made.policy.token_model.adapters_off():
        got = made.policy.token_model.terms_under(made.policy.model, episodes.rows, episodes.actions)[0]
    assert torch.equal(got, expected)
    with torch.no_grad():
        plain = plain_batch(made.policy, untrained, episodes.rows)[1]
    torch.testing.assert_close(episodes.reference_log_probs, plain, atol=1e-5, rtol=0)
    assert (episodes.log_probs - plain).abs().max() > 0.1  # and with them it is another one
    again = made.policy.evaluate_actions(episodes.rows, episodes.actions)[1]
    torch.testing.assert_close(again.detach(), episodes.log_probs, atol=1e-4, rtol=0)
    assert again.requires_grad and all(p.requires_grad for n, p in made.policy.model.named_parameters() if "lora_" in n)


def test_adapters_start_as_the_identity_and_are_exact_whatever_is_around_them():
    made = policy(small_llama(), lora={"r": 4})
    rows, actions = random_episodes()
    with torch.no_grad():
        expected = plain_batch(made, small_llama(), rows)
        torch.testing.assert_close(torch.stack(made.evaluate_actions(rows, actions)), expected, atol=1e-5, rtol=0)


def test_a_named_reference_is_a_second_model():
    made = agent(reference=small_llama(seed=1), kl_coef=0.1)
    episodes = made.sample_episodes(16)
    with torch.no_grad():
        expected = plain_batch(made.policy, small_llama(seed=1), episodes.rows)[1]
    torch.testing.assert_close(episodes.reference_log_probs, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("source", "dtype"), [("llama", None), ("gpt2", "bfloat16"), ("tiny", None)])
def test_save_load_predict_and_go_on(source, dtype, tmp_path):
    env = TINY_ENV if source == "tiny" else SMALL_ENV
    model = {"llama": small_llama, "gpt2": small_gpt2, "tiny": lambda: "tiny"}[source]()
    made = agent(model, env=env(), kl_coef=0.1, dtype=dtype)
    obs, _ = env().reset(seed=0)
    states = torch.from_numpy(obs)
    made.learn(60)
    made.save(tmp_path / "m")
    saved, predicted = made.policy(states, deterministic=True), made.predict(obs, deterministic=True)[0]
    made.learn(60, reset_num_timesteps=False)
    assert (tmp_path / "m" / "base").is_dir()

    loaded = REINFORCE.load(tmp_path / "m", env(), device="cpu")
    assert loaded.reference.model is None
    for a, b in zip(saved, loaded.policy(states, deterministic=True), strict=True):
        assert torch.equal(a, b)
    assert (loaded.predict(obs, deterministic=True)[0] == predicted).all()
    base = split(loaded)[1]
    loaded.learn(60, reset_num_timesteps=False)
    assert same(split(made)[0], split(loaded)[0]) and same(split(loaded)[1], base)

    loaded.save(tmp_path / "again")  # a checkpoint of a loaded agent stands on its own
    again = REINFORCE.load(tmp_path / "again", env(), device="cpu")
    assert torch.equal(again.policy(states, deterministic=True)[2], loaded.policy(states, deterministic=True)[2])


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
def test_a_checkpoint_is_a_model_with_its_adapters(make, tmp_path):
    made = agent(make())
    made.learn(60)
    made.save(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "adapter_config.json").read_text())["r"] == 4
    ids = torch.tensor([[0, 3, 4, 1, 2]])
    with torch.no_grad():
        expected = made.policy.model(ids).logits
        assert torch.equal(load_model(tmp_path / "m")(ids).logits, expected)
        assert torch.equal(load_model(str(tmp_path / "m" / "base"))(ids).logits, make()(ids).logits)
        assert not torch.equal(make()(ids).logits, expected)


def test_a_separate_value_function_has_adapters_of_its_own(tmp_path):
    made = agent(algorithm=PPO, policy_kwargs={"value_function": "separate"})
    before = {n: p.detach().clone() for n, p in made.policy.token_model.value_trunk.named_parameters()}
    made.learn(100)
    changed = {n for n, p in made.policy.token_model.value_trunk.named_parameters() if (before[n] != p).any()}
    assert changed and all(".lora_" in name for name in changed)
    made.save(tmp_path / "m")
    loaded = PPO.load(tmp_path / "m", device="cpu")
    obs = torch.from_numpy(vector_env(4).reset(seed=0)[0])
    assert torch.equal(made.policy.predict_values(obs), loaded.policy.predict_values(obs))


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"trainable_token_indices": [0, 1]}], ids=str)
def test_what_load_model_makes_of_a_checkpoint_is_the_trained_policy(lora, tmp_path):
    made = agent(small_llama(tie_word_embeddings=True), lora={"r": 4, **lora}, kl_coef=0.1)
    made.learn(60)
    made.save(tmp_path / "m")
    ids = torch.tensor([[0, 3, 4, 1, 2]])
    with torch.no_grad():
        expected = made.policy.model(ids).logits
    made.learn(60, reset_num_timesteps=False)
    with torch.no_grad():
        assert (expected - small_llama(tie_word_embeddings=True)(ids).logits).abs().max() > 0.01
        for read in (load_model, AutoModelForCausalLM.from_pretrained):
            torch.testing.assert_close(read(tmp_path / "m")(ids).logits, expected, atol=1e-6, rtol=0)
    loaded = REINFORCE.load(tmp_path / "m", SMALL_ENV(), device="cpu")
    loaded.learn(60, reset_num_timesteps=False)
    assert same(made.policy.model.state_dict(), loaded.policy.model.state_dict())


@pytest.mark.parametrize("wrap", [lambda model, _: model, save_and_name], ids=["a PeftModel", "a folder of peft's"])
def test_adapters_that_were_trained_before_are_trained_further(wrap, tmp_path):
    """The reference is then the model as it was given; a checkpoint holds all of it."""
    peft_model = get_peft_model(small_llama(), LoraConfig(r=2, lora_dropout=0.1, use_dora=True))
    with torch.no_grad():
        for p in peft_model.parameters():
            p.add_(0.1 * torch.randn_like(p) * p.requires_grad)
    ids = torch.tensor([[0, 3, 4, 1, 2]])
    with torch.no_grad():
        given = peft_model.eval()(ids).logits
    made = agent(wrap(peft_model, tmp_path), lora=False, kl_coef=0.1)
    made.learn(60)
    made.save(tmp_path / "m")
    loaded = REINFORCE.load(tmp_path / "m", SMALL_ENV(), device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(made.reference.model(ids).logits, given, atol=1e-6, rtol=0)
        torch.testing.assert_close(loaded.reference.model(ids).logits, given, atol=1e-6, rtol=0)
        expected = made.policy.model(ids).logits
        assert (expected - given).abs().max() > 0.01
        for model in (load_model(tmp_path / "m"), loaded.policy.model):
            torch.testing.assert_close(model(ids).logits, expected, atol=1e-6, rtol=0)


def test_a_peft_model_may_be_the_reference():
    reference = get_peft_model(small_llama(seed=1), LoraConfig(r=2))
    made = agent(reference=reference, kl_coef=0.1)
    episodes = made.sample_episodes(16)
    with torch.no_grad():
        expected = plain_batch(made.policy, small_llama(seed=1), episodes.rows)[1]
    torch.testing.assert_close(episodes.reference_log_probs, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lora", [{"r": 2}, LoraConfig(r=2)], ids=["dict", "LoraConfig"])
def test_new_adapters_on_loaded_ones_are_refused(lora):
    with pytest.raises(ValueError, match="already has adapters: leave lora out.*export.py"):
        agent(get_peft_model(small_llama(), LoraConfig(r=2)), lora=lora)


def test_a_built_in_model_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    """Its name may be that of something else there; and saving is to work offline, at once."""
    import socket

    asked = []
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args[0]) or look_up(*args, **kwargs)
    )
    agent("tiny", env=TINY_ENV()).save(tmp_path / "m")
    assert asked == []
    REINFORCE.load(tmp_path / "m", TINY_ENV(), device="cpu")
    load_model(tmp_path / "m")
    assert asked == []


def test_a_saved_adapter_is_a_model_to_start_from(tmp_path):
    made = agent("tiny", env=TINY_ENV())
    made.learn(1)
    made.save(tmp_path / "m")
    policy = REINFORCE("TokenPolicy", TINY_ENV(), str(tmp_path / "m"), device="cpu").policy
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
