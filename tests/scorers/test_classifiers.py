"""Which models can be a reward model: those with a trained head, whole or as adapters of peft, and no others."""

import copy
import json
import logging
import pickle

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from tests.helpers.reward_models import BATCH, decoder, encoder, logits
from textgym.embedded import EMBEDDED
from textgym.language_models import load_model, load_tokenizer
from textgym.scorers import RewardModel, make_scorer
from textgym.testing import make_generations


def saved(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("label", [None, 0])
def test_the_folder_of_a_causal_model_is_refused(label, tmp_path, caplog):
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"])
    folder = saved(tmp_path, model, load_tokenizer("tiny"))
    with caplog.at_level(logging.WARNING, logger="transformers"):
        for name in (folder, "tiny"):
            message = rf"scorer 'judge': '{name}' is no sequence classifier: it holds no \['score.weight'\].* causal"
            with pytest.raises(ValueError, match=message):
                make_scorer({"name": "reward_model", "model": name, "label": label, "component_name": "judge"})
    assert not caplog.records  # the error says it all


def test_the_folder_of_an_encoder_without_a_head_is_refused(tmp_path):
    folder = saved(tmp_path, encoder()[0].bert, encoder()[1])
    with pytest.raises(
        ValueError, match=r"is no sequence classifier: it holds no \['classifier.bias', 'classifier.weight'\]"
    ):
        RewardModel(folder)


@pytest.mark.parametrize(
    ("cls", "shape"),
    [
        (AutoModelForCausalLM, r"\(1, 1, 36\)"),
        (AutoModelForTokenClassification, r"\(1, 1, 2\)"),
        (AutoModel, "None"),
    ],
)
def test_a_loaded_model_of_another_kind_is_refused(cls, shape):
    model, tokenizer = decoder()
    other = cls.from_config(copy.deepcopy(model.config).__class__(**{**model.config.to_dict(), "num_labels": 2})).eval()
    message = (
        rf"scorer 'reward_model': the {type(other).__name__} is no sequence classifier. .* shape {shape}, not \(1, 2\)"
    )
    with pytest.raises(ValueError, match=message):
        RewardModel(other, tokenizer=tokenizer)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "auto", 3.5])
def test_a_device_that_is_not_there_is_refused(device):
    model, tokenizer = decoder()
    message = f"device is {device!r}; it must be 'cpu', or another device that this machine has"
    with pytest.raises(ValueError, match=f"scorer 'reward_model': {message}"):
        RewardModel(model, tokenizer=tokenizer, device=device)
    with pytest.raises(ValueError, match=f"scorer 'log_prob': {message}"):
        make_scorer({"name": "log_prob", "device": device})
    with pytest.raises(ValueError, match=message):
        load_model("tiny", device=device)


def test_what_is_no_model_is_refused():
    _, tokenizer = decoder()
    with pytest.raises(ValueError, match="scorer 'reward_model': the Linear is no model of transformers"):
        RewardModel(torch.nn.Linear(1, 1), tokenizer=tokenizer)
    with pytest.raises(ValueError, match="scorer 'reward_model': model is 3; accepted"):
        RewardModel(3, tokenizer=tokenizer)


def test_a_head_that_does_not_fit_its_config_is_refused(tmp_path):
    folder = saved(tmp_path, *encoder(num_labels=3))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"does not fit its own config.json: classifier.bias has the shape \(3,\), not \(2"
    ):
        RewardModel(folder)


def test_loading_shows_no_progress_bars(tmp_path, capfd):
    folder = saved(tmp_path, *encoder())
    capfd.readouterr()
    RewardModel(folder)
    assert capfd.readouterr().err == ""


def roberta():
    """The reward model beneath, as a masked language model; its head has two layers."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return RobertaForMaskedLM(RobertaConfig(vocab_size=36, initializer_range=0.5, pad_token_id=0, **size))


def adapted(base, num_labels, **lora):
    """A LoRA reward model with weights that are all its own, as if it had been trained."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels, dtype="float32")
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", **lora))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def raw(model, tokenizer, batch):
    return np.array([logits(model, tokenizer, text).tolist() for text in batch.texts])


@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_adapters_of_a_causal_model_with_their_head(num_labels, lora, tmp_path):
    tokenizer = load_tokenizer("tiny")
    base = saved(tmp_path / "base_model", AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"]), tokenizer)
    model = adapted(base, num_labels, **lora)
    folder = saved(tmp_path / "adapters", model, tokenizer)
    batch = make_generations(["The film", "a"], [" was good.", ""])
    expected = raw(model, tokenizer, batch)
    assert np.ptp(expected[:, 0]) > 0.01
    for label in [None] if num_labels == 1 else range(num_labels):
        scorer = make_scorer({"name": "reward_model", "model": folder, "label": label})
        paid = expected[:, 0] if label is None else torch.tensor(expected).softmax(-1)[:, label]
        np.testing.assert_allclose(scorer.evaluate(batch).rewards, paid, atol=1e-4)
        copied = pickle.loads(pickle.dumps(scorer))
        np.testing.assert_allclose(copied.evaluate(batch).rewards, paid, atol=1e-4)


def test_adapters_whose_base_is_a_name_of_ours(tmp_path):
    tokenizer = load_tokenizer("tiny")
    model = adapted(EMBEDDED["tiny"], 1)
    folder = saved(tmp_path, model, tokenizer)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "tiny"}))
    batch = make_generations(["The film", "a"], [" was good.", ""])
    np.testing.assert_allclose(
        RewardModel(folder).evaluate(batch).rewards, raw(model, tokenizer, batch)[:, 0], atol=1e-4
    )


def test_adapters_without_a_tokenizer_have_that_of_their_base(tmp_path):
    model, tokenizer = adapted(EMBEDDED["tiny"], 1), load_tokenizer("tiny")
    model.save_pretrained(tmp_path)
    assert not any(tmp_path.glob("tokenizer*"))
    batch = make_generations(["The film", "a"], [" was good.", ""])
    np.testing.assert_allclose(
        RewardModel(str(tmp_path)).evaluate(batch).rewards, raw(model, tokenizer, batch)[:, 0], atol=1e-4
    )


def test_adapters_that_a_forward_pass_would_not_have_are_refused(tmp_path):
    folder = saved(tmp_path, adapted(EMBEDDED["tiny"], 1), load_tokenizer("tiny"))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "alora_invocation_tokens": [5]}))
    with pytest.raises(ValueError, match="scorer 'reward_model': .* holds adapters of the kind LORA with alora"):
        RewardModel(folder)


def test_adapters_with_a_head_of_two_layers(tmp_path):
    roberta().save_pretrained(tmp_path / "base_model")
    _, tokenizer = encoder()
    model = adapted(tmp_path / "base_model", 1)
    assert isinstance(model.base_model.model, RobertaForSequenceClassification)
    folder = saved(tmp_path / "adapters", model, tokenizer)
    np.testing.assert_allclose(
        RewardModel(folder).evaluate(BATCH).rewards, raw(model, tokenizer, BATCH)[:, 0], atol=1e-4
    )


def test_adapters_of_a_whole_reward_model(tmp_path):
    """The head may also lie in the model beneath."""
    reward_model, tokenizer = encoder()
    base = saved(tmp_path / "base_model", reward_model, tokenizer)
    model = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(base), LoraConfig(target_modules=["query"])
    )
    torch.nn.init.normal_(next(p for name, p in model.named_parameters() if "lora_B" in name))
    folder = saved(tmp_path / "adapters", model.eval(), tokenizer)
    np.testing.assert_allclose(
        RewardModel(folder).evaluate(BATCH).rewards, raw(model, tokenizer, BATCH)[:, 0], atol=1e-4
    )


def test_a_peft_model():
    model, tokenizer = adapted(EMBEDDED["tiny"], 1), load_tokenizer("tiny")
    assert isinstance(model, PeftModel)
    batch = make_generations(["The film", "a"], [" was good.", ""])
    rewards = RewardModel(model, tokenizer=tokenizer).evaluate(batch).rewards
    np.testing.assert_allclose(rewards, raw(model, tokenizer, batch)[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("score.weight", r"is no sequence classifier: it holds no \['score.weight'\]"),
        ("lora_B", "lacks the tensor .*lora_B"),
    ],
)
def test_adapters_that_lack_a_tensor_are_refused(lost, message, tmp_path):
    folder = saved(tmp_path, adapted(EMBEDDED["tiny"], 1), load_tokenizer("tiny"))
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if lost in name)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        RewardModel(folder)


def test_adapters_of_a_causal_model_without_a_head_are_refused(tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"]), LoraConfig(task_type="CAUSAL_LM", r=2)
    )
    folder = saved(tmp_path, model, load_tokenizer("tiny"))
    with pytest.raises(ValueError, match=r"is no sequence classifier: it holds no \['score.weight'\]"):
        RewardModel(folder)
