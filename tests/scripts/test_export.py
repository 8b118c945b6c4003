"""`scripts/export.py`: a plain model that any reader loads, with the logits of the checkpoint."""

import os
import shlex
from importlib.metadata import version

import gymnasium as gym
import peft
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from agents import REINFORCE, RLOO
from scripts import evaluate, train
from scripts.command_line import parse
from scripts.export import Args, main
from tests.conftest import small_llama
from tests.helpers.docs import blocks
from tests.helpers.policies import SMALL_ENV
from tests.helpers.scripts import error_of
from textgym.language_models import load_model
from textgym.language_models.adapters.files import read_config
from textgym.sb3.checkpoints import read_agent_state
from textgym.wrappers.vector import PotentialShaping

IDS = torch.tensor([[0, 3, 4, 1, 2]])


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


def checkpoint(path, lora, **kwargs):
    """A checkpoint of an agent that was trained a little, and its logits."""
    made = REINFORCE(
        "TokenPolicy", SMALL_ENV(), small_llama(**kwargs), lora=lora, learning_rate=0.1, seed=0, device="cpu"
    )
    made.learn(60)
    made.save(path)
    return logits(made.policy.model)


@pytest.mark.parametrize("lora", [None, {"r": 4}, {"use_dora": True}, {"trainable_token_indices": [0, 1]}], ids=str)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_plain_model_is_the_checkpoints(lora, tied, tmp_path, capsys):
    expected = checkpoint(tmp_path / "m", lora, tie_word_embeddings=tied)
    assert (expected - logits(small_llama(tie_word_embeddings=tied))).abs().max() > 0.01
    main(Args(str(tmp_path / "m"), tmp_path / "deep" / "out"))
    out = tmp_path / "deep" / "out"
    assert f"parameters in {out}" in capsys.readouterr().out
    assert os.listdir(out.parent) == ["out"]
    names = set(os.listdir(out))
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not [
        name for name in names if "adapter" in name or "training" in name or "algorithm" in name or name == "base"
    ]
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), expected, atol=1e-5, rtol=0)
    assert AutoTokenizer.from_pretrained(out).get_vocab() == SMALL_ENV().unwrapped.tokenizer.to_pretrained().get_vocab()


def test_a_checkpoint_and_its_export_are_pipelines(tmp_path):
    """Greedy texts of both are the same, offline and from another folder."""
    checkpoint(tmp_path / "m", {"r": 4})
    main(Args(str(tmp_path / "m"), tmp_path / "out"))
    texts = [
        pipeline("text-generation", str(path), device="cpu")("ab", max_new_tokens=5, do_sample=False)
        for path in (tmp_path / "m", tmp_path / "out")
    ]
    assert texts[0] == texts[1] and len(texts[0][0]["generated_text"]) > 2


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa", modules_to_save=["lm_head"]),
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        peft.LoHaConfig(r=2, target_modules=["q_proj"]),
        peft.LNTuningConfig(target_modules=["input_layernorm"]),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_adapters_that_cannot_be_trained_further_can_be_merged(config, tmp_path):
    base = small_llama()
    base.save_pretrained(tmp_path / "base")
    SMALL_ENV().unwrapped.tokenizer.to_pretrained().save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    made = peft.get_peft_model(base, config)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn_like(p) * p.requires_grad)
    made.save_pretrained(tmp_path / "adapters")
    main(Args(str(tmp_path / "adapters"), tmp_path / "out"))
    expected = logits(load_model(tmp_path / "adapters"))
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), expected, atol=1e-4, rtol=0
    )


def test_adapters_that_change_shared_weights_differently_are_refused(tmp_path):
    checkpoint(tmp_path / "m", {"target_modules": ["lm_head", "q_proj"]}, tie_word_embeddings=True)
    with pytest.raises(ValueError, match="m' cannot be merged: the logits change by .*share their weights"):
        main(Args(str(tmp_path / "m"), tmp_path / "out"))
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny", "."], "'.' is there already; name a folder that is not"),
        (["no-such-org/nothing", "out"], "unknown model 'no-such-org/nothing'"),
        (["./missing", "out"], "no directory './missing'"),
    ],
)
def test_errors_are_a_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = error_of(main, Args, *words)
    assert message in said and "\n" not in said
    assert os.listdir(tmp_path) == []


def exported(tmp_path, *words, **arguments):
    """The card of an agent that was trained a little from "tiny", read as the hub reads it."""
    arguments = {"policy": "TokenPolicy", "env": "TextGen-v0", "n_envs": 4, "num_generations": 2} | arguments
    made = RLOO(**arguments)
    made.learn(60)
    made.save(tmp_path / "run" / "checkpoint")
    main(parse(Args, None, [str(tmp_path / "run" / "checkpoint"), str(tmp_path / "out"), *words]))
    return ModelCard.load(tmp_path / "out" / "README.md")


def test_the_card_tells_what_was_trained_on_what_and_how_well(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = RLOO("TokenPolicy", "TextGen-v0", n_envs=4, num_generations=2, kl_coef=0.2, seed=3)
    made.learn(60)
    made.save("run/checkpoint")
    evaluation = evaluate.main(
        evaluate.Args("run/checkpoint", episodes=8, samples=2, json=tmp_path / "run" / "evaluation.json")
    )
    main(Args("run/checkpoint", tmp_path / "positive"))
    said = capsys.readouterr().out
    assert "numbers of run/evaluation.json" in said and f"hf upload YOUR_NAME/positive {tmp_path / 'positive'}" in said
    card = ModelCard.load(tmp_path / "positive" / "README.md")
    data = card.data
    head = {"library_name": "transformers", "pipeline_tag": "text-generation", "license": "mit"}
    assert head.items() <= data.to_dict().items()
    assert data.base_model is None  # "tiny" is not on the hub
    assert data.tags == ["textgym", "reinforcement-learning", "TextGen-v0", "rloo"] and data.model_name == "positive"
    results = {result.metric_type: result for result in data.eval_results}
    assert results["reward"].metric_value == evaluation.reward.value and results["reward"].dataset_type == "TextGen-v0"
    assert results["scorer/sentiment"].metric_value == evaluation.components["sentiment"].value
    assert f"| reward | {evaluation.reward.value:.4f} | {evaluation.reward.standard_error:.4f} |" in card.text
    for sample in evaluation.samples:
        assert f"    [{sample.prompt}]{sample.completion}" in card.text
    assert f"torch {version('torch')}" in card.text and f"for {made.num_timesteps} tokens in" in card.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"kl_coef": 0.2, "seed": 3},
        {"lora": {"r": 4}, "mask_truncated_completions": True, "clip_range": 0.2},
        {"peft": {"peft_type": "IA3"}, "policy_kwargs": {"temperature": 0.7, "top_k": 5}, "kl_penalty": "k2"},
        {"env": gym.make_vec("TextGen-v0", num_envs=4, num_generations=2, autoreset_mode="Disabled", split="train")},
        {"policy_kwargs": {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}}},
    ],
    ids=str,
)
def test_the_command_of_the_card_makes_an_agent_of_the_same_settings(arguments, tmp_path):
    card = exported(tmp_path, **arguments)
    (line,) = blocks(card.text, "bash")
    made = parse(train.Args, None, shlex.split(line)[2:]).agent()
    made.save(tmp_path / "again")
    one, other = (read_agent_state(path) for path in (tmp_path / "run" / "checkpoint", tmp_path / "again"))
    one_policy, other_policy = (state.arguments.pop("policy_kwargs") for state in (one, other))
    assert one_policy.items() <= other_policy.items()  # a command line gives the defaults, too
    differ = {name for name, value in one.arguments.items() if other.arguments[name] != value}
    assert not differ and (one.env_id, one.env_kwargs) == (other.env_id, other.env_kwargs)
    assert one.optimizer == other.optimizer and one.param_groups == other.param_groups
    if one.adapters:
        assert read_config(tmp_path / "run" / "checkpoint") == read_config(tmp_path / "again")


def test_what_is_not_known_is_not_told(tmp_path):
    kwargs = {"learning_rate": lambda rest: 0.1 * rest, "policy_kwargs": {"optimizer_class": torch.optim.RMSprop}}
    card = exported(tmp_path, env=PotentialShaping(SMALL_ENV(), "sentiment"), model=small_llama(), **kwargs)
    assert card.data.base_model is None and card.data.license is None and card.data.eval_results is None
    assert (
        "A model was trained" in card.text and "but for `learning_rate` (a function) and the env's wrapper" in card.text
    )
    assert (
        "wrapper `VectorPotentialShaping` and the arguments" in card.text
        and "and the optimizer, RMSprop:" in card.text
        and "--optimizer" not in card.text
    )
    assert "## Evaluation" not in card.text and "## Samples" not in card.text


def test_what_is_told_on_the_command_line(tmp_path):
    told = ["--base-model=org/name", "--license=apache-2.0"]
    card = exported(tmp_path, *told, env=SMALL_ENV(), model=small_llama())
    assert (card.data.base_model, card.data.license) == ("org/name", "apache-2.0")
    assert "[org/name](https://huggingface.co/org/name) was trained" in card.text


def test_an_evaluation_of_an_earlier_checkpoint_is_not_taken(tmp_path):
    file = tmp_path / "run" / "evaluation.json"
    file.parent.mkdir()
    file.write_text("{}")
    os.utime(file, (0, 0))
    assert exported(tmp_path).data.eval_results is None


def test_an_evaluation_that_is_none_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.json").write_text('{"reward": 1}')
    said = error_of(main, Args, "tiny", "out", "--evaluation", "numbers.json")
    assert "'numbers.json' is not what `scripts/evaluate.py --json` writes: KeyError" in said
    assert os.listdir(tmp_path) == ["numbers.json"]
