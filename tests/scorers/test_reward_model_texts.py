"""What a reward model reads: a text up to its last token, whatever pads it, and no more than it has positions for."""

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tests.helpers.reward_models import BATCH, TEMPLATE, encoder, make_tokenizer
from textgym.scorers import RewardModel, ScorerError
from textgym.testing import check_scorer, make_generations

EOS = 3
CHATS = [[{"role": "user", "content": text}] for text in ("hi", "why", "a film", "the", "x")]
ENDS_IN_EOS = "{% for m in messages %}{{ m['content'] }}<eos>{% endfor %}"


def gpt2(**config):
    torch.manual_seed(0)
    size = {"vocab_size": 36, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.5}
    ends = {"bos_token_id": EOS, "eos_token_id": EOS}
    return GPT2ForSequenceClassification(GPT2Config(num_labels=1, **{**size, **ends, **config})).eval()


def llama(**config):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"vocab_size": 36, "max_position_embeddings": 64, "initializer_range": 0.5}
    ends = {"bos_token_id": EOS, "eos_token_id": EOS}
    return LlamaForSequenceClassification(LlamaConfig(num_labels=1, **{**size, **ends, **config})).eval()


def chats(completions):
    tokenizer = make_tokenizer(eos_token="<eos>")
    tokenizer.chat_template = TEMPLATE
    return make_generations(CHATS, completions, tokenizer=tokenizer)


@torch.no_grad()
def alone(model, tokenizer, batch):
    """What the model says of each chat's text by itself."""
    values = []
    for chat, completion in zip(batch.chats, batch.completions, strict=True):
        text = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": completion}], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids[-1] == EOS
        values.append(model(torch.tensor([ids])).logits.item())
    return values


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("pad_token", [None, "<eos>", "[PAD]"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_text_that_ends_in_the_end_token_is_read_to_its_end(make, pad_token, batch_size):
    model, tokenizer = make(), make_tokenizer(eos_token="<eos>", **({"pad_token": pad_token} if pad_token else {}))
    tokenizer.chat_template = ENDS_IN_EOS
    batch = chats(["", "yes", "no", "a long answer.", "so"])
    expected = alone(model, tokenizer, batch)
    assert np.ptp(expected) > 0.01
    scorer = RewardModel(model, tokenizer=tokenizer, batch_size=batch_size)
    np.testing.assert_allclose(scorer.evaluate(batch).rewards, expected, atol=1e-5)
    assert model.config.pad_token_id is None  # the user's model is as it was


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_model_that_names_the_end_token_as_padding_keeps_its_convention(make):
    model, tokenizer = make(pad_token_id=EOS), make_tokenizer(eos_token="<eos>")
    tokenizer.chat_template = ENDS_IN_EOS
    batch = chats(["", "yes", "no", "a long answer.", "so"])
    expected = alone(model, tokenizer, batch)
    np.testing.assert_allclose(RewardModel(model, tokenizer=tokenizer).evaluate(batch).rewards, expected, atol=1e-5)


@pytest.mark.parametrize("pad_token_id", [-1, 36, 32000])
def test_a_padding_id_outside_the_vocabulary_is_not_used(pad_token_id):
    model, tokenizer = llama(), make_tokenizer(eos_token="<eos>", pad_token="[PAD]")
    expected = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits.item() for text in BATCH.texts]
    model.config.pad_token_id = pad_token_id
    np.testing.assert_allclose(RewardModel(model, tokenizer=tokenizer).evaluate(BATCH).rewards, expected, atol=1e-5)
    assert model.config.pad_token_id == pad_token_id


def test_rows_that_end_in_every_token_of_a_small_vocabulary():
    """However large the batch, there is a token left to pad with."""
    texts = list("abcdefghijklmnopqrstuvwxyz .,!?|")
    batch = make_generations(texts + ["it is so"], [""] * 33)
    model, tokenizer = gpt2(), make_tokenizer(eos_token="|")
    expected = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits.item() for text in batch.texts]
    scorer = RewardModel(model, tokenizer=tokenizer, batch_size=500)
    np.testing.assert_allclose(scorer.evaluate(batch).rewards, expected, atol=1e-5)


def reads_padding(name):
    """Models that do so in spite of the mask: the last column, all columns, and those next to a token."""
    torch.manual_seed(0)
    size = {"vocab_size": 36, "pad_token_id": 0, "num_labels": 1}
    bert = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = {
        "XLNet": lambda: transformers.XLNetConfig(d_model=16, n_layer=2, n_head=2, d_inner=32, **size),
        "FNet": lambda: transformers.FNetConfig(hidden_size=16, num_hidden_layers=2, intermediate_size=32, **size),
        "ConvBERT": lambda: transformers.ConvBertConfig(embedding_size=16, **size, **bert),
    }[name]()
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("name", ["XLNet", "FNet", "ConvBERT"])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_models_that_read_padding_are_given_none(name, batch_size):
    model, (_, tokenizer) = reads_padding(name), encoder()
    batch = make_generations(["the film", "a", "why so", "the farm", "b"], [" was good", "", "?", " was good", "c"])
    with torch.no_grad():
        expected = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits.item() for text in batch.texts]
    assert np.ptp(expected) > 0.01
    scorer = RewardModel(model, tokenizer=tokenizer, batch_size=batch_size)
    np.testing.assert_allclose(scorer.evaluate(batch).rewards, expected, atol=1e-5)
    sizes = [len(rows) for rows in scorer.classifier.batches([7, 3, 7, 3, 3])]
    assert sizes == ([2, 1, 2] if batch_size == 2 else [3, 2])


def test_models_that_mask_padding_are_given_rows_of_all_lengths():
    for model, tokenizer in (encoder(), (gpt2(), make_tokenizer(eos_token="<eos>"))):
        scorer = RewardModel(model, tokenizer=tokenizer, batch_size=4)
        assert [len(rows) for rows in scorer.classifier.batches([7, 3, 5, 4, 6])] == [4, 1]


def test_positions_that_are_quantised():
    """I-BERT's have weights, but no `num_embeddings`."""
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.IBertConfig(vocab_size=36, num_labels=1, max_position_embeddings=20, pad_token_id=1, **size)
    model, (_, tokenizer) = transformers.IBertForSequenceClassification(config).eval(), encoder()
    with pytest.raises(ScorerError, match="row 0 has 19 tokens, more than the 18 that the model reads"):
        RewardModel(model, tokenizer=tokenizer).evaluate(make_generations(["the film was good"], [""]))


def roberta():
    """It has 20 positions, but counts from behind the padding token's, 1; so it reads 18 tokens."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=36, num_labels=1, max_position_embeddings=20, pad_token_id=1, **size)
    return RobertaForSequenceClassification(config).eval(), 18


def bert():
    return encoder(max_position_embeddings=18)[0], 18


def decoder(make, **config):
    return lambda: (make(**config), 18)


@pytest.mark.parametrize(
    "make",
    [roberta, bert, decoder(gpt2, n_positions=18), decoder(llama, max_position_embeddings=18)],
    ids=["roberta", "bert", "gpt2", "llama"],
)
def test_a_text_longer_than_the_positions(make):
    model, limit = make()
    tokenizer = make_tokenizer(eos_token="<eos>", pad_token="[PAD]")
    assert tokenizer.model_max_length > 10**9  # it says nothing
    scorer = RewardModel(model, tokenizer=tokenizer)
    fits, beyond = "a" * limit, "a" * (limit + 1)
    assert np.isfinite(scorer.evaluate(make_generations([fits], [""])).rewards).all()
    message = f"'reward_model': row 1 has {limit + 1} tokens, more than the {limit} that the model reads: '{beyond}'"
    with pytest.raises(ScorerError, match=message):
        scorer.evaluate(make_generations([fits, "a"], ["", "a" * limit]))


def test_a_text_longer_than_its_tokenizer_allows():
    model, tokenizer = encoder()
    tokenizer.model_max_length = 8
    with pytest.raises(ScorerError, match="row 0 has 19 tokens, more than the 8 .*: 'the film was good'"):
        RewardModel(model, tokenizer=tokenizer).evaluate(BATCH)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_contract(make):
    check_scorer(
        RewardModel(make(), tokenizer=make_tokenizer(eos_token="<eos>"), batch_size=5), pickles=True, longest=40
    )
