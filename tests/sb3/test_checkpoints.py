"""Checkpoints: whole, without pickle, resumable bit for bit; SB3's callbacks write them too."""

import inspect
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from transformers import PreTrainedTokenizerFast

from agents import GRPO, PPO, REINFORCE
from tests.conftest import count_tokens, save_chars_model, small_llama
from tests.helpers.checkpoints import ENV, agent, parameters, updates, vector_env
from textgym.training import state


def test_resuming_continues_bit_for_bit(tmp_path):
    straight = agent(kl_coef=0.1)
    rewards = []

    def run(model, n):
        for _ in range(n):
            model.learn(1, reset_num_timesteps=False)
            rewards.append(model.rollout_buffer.episodes.rewards.sum().item())

    run(straight, 3)
    straight.save(tmp_path / "three")
    resumed = REINFORCE.load(tmp_path / "three", vector_env(), device="cpu")
    torch.rand(5), np.random.rand(5)  # whatever happens before training goes on
    straight = REINFORCE.load(tmp_path / "three", vector_env(), device="cpu")
    torch.manual_seed(1)
    run(resumed, 3)
    torch.manual_seed(2)
    run(straight, 3)
    assert rewards[3:6] == rewards[6:9]
    for (name, a), b in zip(parameters(resumed).items(), parameters(straight).values(), strict=True):
        assert torch.equal(a, b), name
    assert resumed.num_timesteps == straight.num_timesteps and resumed._n_updates == straight._n_updates == 6


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (REINFORCE, {"kl_coef": 0.1}),
        (PPO, {"kl_coef": 0.1, "reference_kl_target": 0.01, "n_epochs": 2, "batch_size": 3, "learning_rate": 1e-3}),
    ],
)
def test_a_run_that_was_saved_and_resumed_equals_one_that_was_not(tmp_path, cls, kwargs):
    class Save(CheckpointCallback):
        """Saves at the end of the second rollout, where a resumed run begins its third."""

        rollouts = 0

        def _on_step(self):
            return True

        def _on_rollout_start(self):
            if self.rollouts == 2:
                self.model.save(tmp_path / "two")
            self.rollouts += 1

    whole = agent(cls, **kwargs)
    whole.learn(10**9, callback=[Save(1, str(tmp_path)), updates(4)])
    resumed = cls.load(tmp_path / "two", vector_env(), device="cpu")
    resumed.learn(10**9, callback=updates(2), reset_num_timesteps=False)
    assert whole._n_updates == resumed._n_updates == 4 * (6 if cls is PPO else 1)  # two epochs of three minibatches
    for (name, a), b in zip(parameters(whole).items(), parameters(resumed).values(), strict=True):
        assert torch.equal(a, b), name
    ours, theirs = (model.policy.optimizer.state_dict()["state"] for model in (whole, resumed))
    assert ours and all(torch.equal(a, theirs[i][name]) for i in ours for name, a in ours[i].items())
    assert whole.kl_coef == resumed.kl_coef
    if cls is PPO:
        assert whole.kl_coef != 0.1 and whole.policy.token_model.value_net.weight.any()


@pytest.mark.parametrize("cls", [REINFORCE, PPO, GRPO])
def test_save_load_predict(tmp_path, cls):
    made = agent(cls, learning_rate=1e-2)
    made.learn(200)
    made.save(tmp_path / "m.zip")
    assert (tmp_path / "m").is_dir()
    loaded = cls.load(tmp_path / "m.zip", device="cpu")  # no env
    obs, _ = vector_env().reset(seed=0)
    assert np.array_equal(made.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    a, b = (m.policy.get_distribution(torch.from_numpy(obs)).distribution.logits for m in (made, loaded))
    assert torch.equal(a, b)
    values = [m.policy.predict_values(torch.from_numpy(obs)) for m in (made, loaded)]
    assert torch.equal(*values) and values[0].any() == (cls is PPO)
    assert loaded.learning_rate == 1e-2 and loaded.num_timesteps == made.num_timesteps
    for a, b in zip(made.reference.model.parameters(), loaded.reference.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_is_a_transformers_model(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = agent()
    made.save(tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer("abd", add_special_tokens=False).input_ids == [0, 1, 3] and tokenizer.eos_token_id == 4
    for a, b in zip(made.policy.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_nothing_is_pickled(tmp_path, monkeypatch):
    agent().save(tmp_path / "m")
    files = [p for p in (tmp_path / "m").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}

    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    REINFORCE.load(tmp_path / "m", device="cpu")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    made = agent()
    made.save(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir() if p.is_file()}
    made.learn(50)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(state, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        made.save(tmp_path / "m")
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir() if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space"), SafetensorError("No space"), Exception("No space left on device (os error 28)")]
)
@pytest.mark.parametrize("where", ["weights", "tokenizer", "tensors"])
def test_a_full_disk_is_an_os_error_whichever_library_meets_it(tmp_path, monkeypatch, error, where):
    def fail(*args, **kwargs):
        raise error

    made = agent()
    targets = {
        "weights": (type(made.policy.model), "save_pretrained"),
        "tokenizer": (PreTrainedTokenizerFast, "save_pretrained"),
        "tensors": (state, "save_file"),
    }
    monkeypatch.setattr(*targets[where], fail)
    with pytest.raises(OSError, match="No space"):
        made.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_sb3_callbacks_write_loadable_checkpoints(tmp_path):
    made = agent()
    single = gym.make("TextGen-v0", **ENV)
    evaluate = EvalCallback(
        single, best_model_save_path=str(tmp_path / "best"), eval_freq=5, n_eval_episodes=2, verbose=0, warn=False
    )
    made.learn(300, callback=[CheckpointCallback(10, str(tmp_path / "c")), evaluate])
    saved = sorted((tmp_path / "c").iterdir(), key=lambda p: int(p.name.split("_")[-2]))
    assert saved and all(p.is_dir() and p.name.endswith("steps") for p in saved)
    assert REINFORCE.load(saved[0], device="cpu").num_timesteps < REINFORCE.load(saved[-1], device="cpu").num_timesteps
    REINFORCE.load(tmp_path / "best" / "best_model", device="cpu")


def test_bad_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no TextGym checkpoint"):
        REINFORCE.load(tmp_path)
    made = agent(learning_rate=lambda progress: 1e-3 * progress)
    made.save(tmp_path / "m")
    with pytest.raises(ValueError, match="pass learning_rate="):
        REINFORCE.load(tmp_path / "m")
    REINFORCE.load(tmp_path / "m", learning_rate=1e-3)
    with pytest.raises(ValueError, match="holds a REINFORCE, not a PPO"):
        PPO.load(tmp_path / "m")


GROUPS = {"per_component": "normalize", "unlikeliness_coef": 0.0, "max_num_gen_batches": 3}
SHARED = {
    "episodes_per_update": 16,
    "learning_rate": 2e-3,
    "gamma": 0.9,
    "ent_coef": 0.02,
    "max_grad_norm": 0.7,
    "micro_batch_size": 5,
    "seed": 3,
    "batch_size": 7,
    "n_epochs": 2,
    "clip_range": 0.3,
    "clip_range_high": 0.4,
    "delta": 3.0,
    "importance_sampling_level": "sequence",
    "target_kl": 0.5,
    "kl_coef": 0.01,
    "kl_penalty": "k2",
    "reference_kl_target": 2.0,
    "missing_eos_penalty": 0.5,
    "target_entropy": 0.7,
    "ent_coef_delta": 0.01,
    "mask_truncated_completions": True,
    "curriculum": "thompson",
    "curriculum_decay": 0.8,
    "success_at_least": 0.5,
    "loss_normalization": "sequence",
}


@pytest.mark.parametrize(
    ("cls", "own"),
    [
        (PPO, {"gae_lambda": 0.8, "clip_range_vf": 0.4, "normalize_advantage": False, "vf_coef": 0.7}),
        (
            GRPO,
            {"reward_to_go": True, "scale_rewards": "batch", **GROUPS},
        ),
        (GRPO, {"clip_range": None, "clip_range_high": None, "delta": None, "importance_sampling_clip_max": 5.0}),
    ],
)
def test_every_hyperparameter_survives(tmp_path, cls, own):
    given = SHARED | own
    arguments = {n for c in cls.__mro__ if c.__module__.startswith(("agents.", "textgym.")) for n in arguments_of(c)}
    elsewhere = {
        "reference",
        "lora",
        "peft",
        "dtype",
        "policy_kwargs",
        "n_envs",
        "num_generations",
        "baseline",
        "keep_best",
    }
    runtime = {"device", "verbose", "stats_window_size", "tensorboard_log", "_init_setup_model"}
    if "clip_range" not in own:  # with which importance_sampling_clip_max does not go together
        elsewhere |= {"importance_sampling_clip_max"}
        assert arguments - elsewhere - runtime == set(given)  # none is forgotten here
    agent(cls, **given).save(tmp_path / "m")
    loaded = cls.load(tmp_path / "m", vector_env(), device="cpu")
    for name, value in given.items():
        kept = getattr(loaded, name)
        assert (kept(0.5) if callable(kept) else kept) == value, name
    assert cls.load(tmp_path / "m", vector_env(), device="cpu", gamma=0.5).gamma == 0.5


def arguments_of(cls):
    """The keyword-only arguments of a class's own constructor."""
    parameters = inspect.signature(cls.__dict__.get("__init__", lambda: None)).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


@pytest.mark.parametrize(("cls", "name"), [(PPO, "clip_range"), (GRPO, "clip_range"), (PPO, "clip_range_vf")])
def test_a_function_is_not_saved_and_asked_for_by_name(tmp_path, cls, name):
    agent(cls, **{name: lambda progress: 0.2 * progress}).save(tmp_path / "m")
    with pytest.raises(ValueError, match=f"the checkpoint's {name} was a function, which is not saved; pass {name}="):
        cls.load(tmp_path / "m", device="cpu")
    cls.load(tmp_path / "m", vector_env(), device="cpu", **{name: 0.1}).learn(1)


def test_the_distribution_and_the_value_function_survive(tmp_path):
    kwargs = {"temperature": 2.0, "top_k": 2, "value_function": "separate"}
    made = agent(PPO, policy_kwargs=kwargs | {"optimizer_class": torch.optim.SGD}, learning_rate=1e-2)
    made.learn(50)
    made.save(tmp_path / "m")
    with pytest.raises(ValueError, match="the checkpoint's optimizer is SGD; pass policy_kwargs="):
        PPO.load(tmp_path / "m", device="cpu")
    loaded = PPO.load(tmp_path / "m", device="cpu", policy_kwargs={"optimizer_class": torch.optim.SGD})
    obs = torch.from_numpy(vector_env().reset(seed=0)[0])
    a, b = (m.policy.get_distribution(obs).distribution.probs for m in (made, loaded))
    assert ((a > 0).sum(-1) == 2).all() and torch.equal(a, b)
    assert torch.equal(made.policy.predict_values(obs), loaded.policy.predict_values(obs))


def test_a_reference_is_asked_for_where_the_saved_training_needed_none(tmp_path):
    agent(PPO, kl_coef=0.0).save(tmp_path / "m")
    assert PPO.load(tmp_path / "m", device="cpu").reference is None
    with pytest.raises(ValueError, match="the checkpoint holds no reference.*pass reference="):
        PPO.load(tmp_path / "m", device="cpu", kl_coef=0.1)
    reference = small_llama(seed=1)
    assert PPO.load(tmp_path / "m", device="cpu", kl_coef=0.1, reference=reference).reference.model is reference


def test_a_model_that_had_a_name_is_its_own_reference_also_after_a_second_save(tmp_path):
    def env():
        kwargs = {"scorer": count_tokens}  # never 0, so that there is something to learn from two texts
        return gym.make_vec("TextGen-v0", num_envs=2, num_generations=2, autoreset_mode="Disabled", **kwargs)

    made = PPO("TokenPolicy", env(), "tiny", kl_coef=0.0, seed=0, device="cpu")
    pretrained = made.policy.model.get_output_embeddings().weight.detach().clone()
    made.learn(1)
    for path in (tmp_path / "first", tmp_path / "second"):
        made.save(path)
        loaded = PPO.load(path, device="cpu", kl_coef=0.1)
        assert torch.equal(loaded.reference.model.get_output_embeddings().weight, pretrained)
        assert not torch.equal(loaded.policy.model.get_output_embeddings().weight, pretrained)
        made = PPO.load(path, env(), device="cpu")


def test_a_reference_that_was_moved_is_named_anew(tmp_path):
    folder = save_chars_model(tmp_path / "model", seed=1)
    PPO("TokenPolicy", vector_env(), folder, kl_coef=0.1, seed=0, device="cpu").save(tmp_path / "m")
    moved = (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="its reference is gone: no directory .*; name another with reference= "):
        PPO.load(tmp_path / "m", device="cpu")
    assert PPO.load(tmp_path / "m", device="cpu", reference=str(moved)).reference is not None


@pytest.mark.parametrize("second", ["first", "second"], ids=["same-place", "another-place"])
def test_a_resumed_agent_saves_its_reference_again(tmp_path, second):
    made = agent(PPO)
    made.save(tmp_path / "first")
    PPO.load(tmp_path / "first", vector_env(), device="cpu").save(tmp_path / second)
    (tmp_path / second).rename(tmp_path / "moved")
    if second != "first":
        (tmp_path / "first").rename(tmp_path / "gone")
    loaded = PPO.load(tmp_path / "moved", device="cpu")
    for a, b in zip(made.reference.model.parameters(), loaded.reference.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_env_made_from_an_id_keeps_its_groups(tmp_path):
    kwargs = {"n_envs": 4, "num_generations": 4, "device": "cpu"}
    PPO("TokenPolicy", "TextGenChars-v0", small_llama(), **kwargs).save(tmp_path / "m")
    spec = PPO.load(tmp_path / "m", "TextGenChars-v0", device="cpu").get_env().get_attr("spec")[0]
    assert spec.kwargs["num_envs"] == 4 and spec.kwargs["num_generations"] == 4


def test_another_value_function_is_refused(tmp_path):
    PPO("TokenPolicy", vector_env(), small_llama(), device="cpu").save(tmp_path / "m")
    with pytest.raises(ValueError, match="value_function is 'shared', which 'separate' cannot replace"):
        PPO.load(tmp_path / "m", vector_env(), device="cpu", policy_kwargs={"value_function": "separate"})
