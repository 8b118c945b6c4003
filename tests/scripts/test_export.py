"""`scripts/export.py`: a plain model that any reader loads, with the logits of the checkpoint."""

import os

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from agents import REINFORCE
from scripts.export import Args, main
from tests.conftest import small_llama
from tests.helpers.policies import SMALL_ENV
from tests.helpers.scripts import error_of
from textgym.language_models import load_model

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
