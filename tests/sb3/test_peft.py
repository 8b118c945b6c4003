"""Every kind of adapters: without them the model is the reference, they alone change, checkpoints bring them back."""

import copy
import json
from functools import partial

import gymnasium as gym
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from stable_baselines3 import PPO as StockPPO
from transformers import AutoModelForCausalLM

from agents import PPO, REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_gpt2, small_llama
from tests.helpers.policies import SMALL_ENV, plain_batch, policy, random_episodes, vector_env
from textgym.language_models import load_model
from textgym.sb3 import TextVecEnv, TokenPolicy


def agent(model=None, algorithm=REINFORCE, lora=None, env=None, **kwargs):
    env = env or SMALL_ENV()
    model = small_llama() if model is None else model
    return algorithm(
        "TokenPolicy",
        env,
        model,
        lora={"r": 4} if lora is None else lora or None,
        **{"learning_rate": 1e-2, "seed": 0, "device": "cpu", **kwargs},
    )


KINDS = {
    "LORA": {"peft_type": "LORA", "r": 4},
    "DoRA": {"peft_type": "LORA", "r": 4, "use_dora": True},
    "ADALORA": {"peft_type": "ADALORA", "total_step": 5, "init_r": 4, "target_r": 2},
    "IA3": {"peft_type": "IA3"},
    "PROMPT_TUNING": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4},
    "PREFIX_TUNING": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def of_kind(kind, model=None, algorithm=REINFORCE, **kwargs):
    return agent(model, algorithm, lora=False, peft=KINDS[kind], kl_coef=0.1, **kwargs)


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
    """Copies of the parameters of the model: the trained ones, and the rest."""
    named = {name: (p.detach().clone(), p.requires_grad) for name, p in made.policy.model.named_parameters()}
    return [{name: p for name, (p, trained) in named.items() if trained is which} for which in (True, False)]


def perturb(made):
    """Make the adapters something other than the identity."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in made.policy.model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))


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


@every_kind
@pytest.mark.parametrize(
    ("algorithm", "dtype", "make"), [(REINFORCE, None, small_llama), (PPO, "bfloat16", small_gpt2)]
)
def test_the_adapters_alone_change(kind, algorithm, dtype, make):
    made = of_kind(kind, make(), algorithm, dtype=dtype)
    perturb(made)
    adapters, base = split(made)
    made.learn(100)
    after, base_after = split(made)
    assert all(torch.equal(base[name], base_after[name]) for name in base)
    assert all((adapters[name] != after[name]).any() for name in adapters)


@every_kind
@pytest.mark.parametrize("make", [small_llama, pytest.param(small_gpt2, marks=pytest.mark.slow)])
def test_the_reference_is_the_model_without_them_and_sampling_is_training(kind, make):
    made, untrained = of_kind(kind, make()), make()
    assert made.reference.model is None
    perturb(made)
    episodes = made.sample_episodes(16)
    with made.policy.token_model.adapters_off():
        got = made.policy.token_model.terms_under(made.policy.model, episodes.rows, episodes.actions)[0]
    expected = made.policy.token_model.terms_under(untrained, episodes.rows, episodes.actions)[0]
    assert torch.equal(got, expected)
    with torch.no_grad():
        plain = plain_batch(made.policy, untrained, episodes.rows)[1]
        torch.testing.assert_close(episodes.reference_log_probs, plain, atol=1e-5, rtol=0)
        assert (episodes.log_probs - plain).abs().max() > 0.1
        with_them = plain_batch(made.policy, made.policy.model, episodes.rows)
        training = torch.stack(made.policy.evaluate_actions(episodes.rows, episodes.actions))
    torch.testing.assert_close(training, with_them, atol=1e-4, rtol=0)
    torch.testing.assert_close(training[1], episodes.log_probs, atol=1e-4, rtol=0)


@every_kind
@pytest.mark.parametrize("algorithm", [REINFORCE, pytest.param(PPO, marks=pytest.mark.slow)])
def test_every_kind_is_saved_loaded_and_goes_on(kind, algorithm, tmp_path):
    """In the middle of AdaLoRA's schedule, too; a loaded agent goes on bit for bit."""
    options = (
        {"policy_kwargs": {"value_function": "separate"}, "n_epochs": 1, "batch_size": 8} if algorithm is PPO else {}
    )
    made, obs = of_kind(kind, None, algorithm, **options), SMALL_ENV().reset(seed=0)[0]
    states = torch.from_numpy(obs)
    made.learn(60)
    made.save(tmp_path / "m")
    saved, predicted = made.policy(states, deterministic=True), made.predict(obs, deterministic=True)[0]
    made.learn(100, reset_num_timesteps=False)
    loaded = algorithm.load(tmp_path / "m", SMALL_ENV(), device="cpu")
    assert loaded.reference.model is None
    for a, b in zip(saved, loaded.policy(states, deterministic=True), strict=True):
        assert torch.equal(a, b)
    assert (loaded.predict(obs, deterministic=True)[0] == predicted).all()
    loaded.learn(100, reset_num_timesteps=False)
    for a, b in zip(split(made), split(loaded), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    made.policy.save(tmp_path / "policy")
    again = TokenPolicy.load(tmp_path / "policy", device="cpu")
    for a, b in zip(made.policy(states, deterministic=True), again(states, deterministic=True), strict=True):
        assert torch.equal(a, b)


def share_of_a(completions):
    return [text.count("a") / 6 for text in completions]


@pytest.mark.parametrize("kind", [pytest.param("LORA", marks=pytest.mark.slow), *list(KINDS)[1:]])
def test_it_learns(kind):
    env = vector_env(32, autoreset_mode="Disabled", num_generations=4, scorer=share_of_a)
    config = KINDS[kind] | ({"total_step": 20} if kind == "ADALORA" else {})
    made = agent(env=env, lora=False, peft=config, kl_coef=0.0, learning_rate=0.03)
    first = made.sample_episodes(256).components.mean()
    made.learn(3500)
    assert first < 0.15 and made.sample_episodes(256).components.mean() > 0.35


def test_the_ranks_follow_the_schedule():
    made = of_kind("ADALORA")
    schedule, ranks = made.policy.token_model.ranks[0], []
    for step in range(1, 8):
        made.learn(1, reset_num_timesteps=False)
        assert schedule.steps == made._n_updates == step
        ranks.append(sum(schedule.ranks().values()))
    assert ranks == [int(28 * (1 - step / 5) ** 3) + 28 for step in range(1, 6)] + [28, 28]


def test_stock_agents_follow_the_schedule_too():
    env = TextVecEnv(gym.make_vec("TextGen-v0", num_envs=4, **CHARACTERS, scorer=share_of_a))
    kwargs = TokenPolicy.kwargs_for(env, small_llama(), KINDS["ADALORA"])
    made = StockPPO(TokenPolicy, env, n_steps=8, batch_size=16, n_epochs=3, policy_kwargs=kwargs, seed=0, device="cpu")
    made.learn(32)
    assert made.policy.token_model.ranks[0].steps == 6
    assert sum(made.policy.token_model.ranks[0].ranks().values()) == 28


def test_lora_is_the_short_form():
    first, second = (policy(small_llama(), **k) for k in ({"lora": {"r": 4}}, {"peft": KINDS["LORA"]}))
    assert first.token_model.peft == second.token_model.peft
    with pytest.raises(ValueError, match="both peft and lora are given"):
        agent(lora={"r": 4}, peft=KINDS["IA3"])


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
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, lora_dropout=0.1, use_dora=True),
        PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
        PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_adapters_that_were_trained_before_are_trained_further(config, wrap, tmp_path):
    """The reference is then the model as it was given; a checkpoint holds all of it."""
    peft_model = get_peft_model(small_llama(), copy.deepcopy(config))
    with torch.no_grad():
        for p in peft_model.parameters():
            p.add_(0.1 * torch.randn_like(p) * p.requires_grad)
    ids = torch.tensor([[0, 3, 4, 1, 2]])
    with torch.no_grad():
        given = peft_model.eval()(ids).logits[:, -5:]  # of prompt tuning, peft has some of virtual tokens before
    made = agent(wrap(peft_model, tmp_path), lora=False, kl_coef=0.1)
    adapters, base = split(made)
    made.learn(60)
    made.save(tmp_path / "m")
    later, base_later = split(made)
    assert adapters and same(base, base_later) and any((adapters[name] != later[name]).any() for name in adapters)
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
    with pytest.raises(ValueError, match="already has adapters: leave peft and lora out.*export.py"):
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
