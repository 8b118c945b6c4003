"""perplexity, mutual_information and contrast against forward passes of transformers, one row at a time."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import small_gpt2, small_llama
from textgym.language_models import load_model_and_tokenizer
from textgym.scorers import Contrast, MutualInformation, Perplexity, ScorerError, make_scorer
from textgym.testing import check_scorer, make_generations
from textgym.tokenizers import character_tokenizer, make_tokenizer

PROMPTS, COMPLETIONS = ["The film", "", "a", "Why so"], [" was good.", "It is", "", " sad? No, it was a good film."]
TINY, TINY_TOKENIZER = load_model_and_tokenizer("tiny")
SIZE = len(TINY_TOKENIZER)
BOS, EOS = TINY_TOKENIZER.bos_token_id, TINY_TOKENIZER.eos_token_id
FOREIGN = make_generations(PROMPTS, COMPLETIONS)
"""Written as bytes, so that `tiny` must read the texts."""


@torch.no_grad()
def token_log_probs(model, context, tokens, size):
    """log p of each token by one plain forward pass."""
    ids = torch.tensor([[*context, *tokens]])
    log_probs = model(ids).logits[0, :, :size].log_softmax(-1)
    return [log_probs[len(context) - 1 + t, token].item() for t, token in enumerate(tokens)]


def tiny_ids(prompt, completion):
    """The text encoded as a whole, its completion the tokens that end behind the prompt; and the end token."""
    encoded = TINY_TOKENIZER(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    seam = sum(end <= len(prompt) for end in ends)
    return ids[:seam] or [BOS], [*ids[seam:], EOS]


def tiny_log_probs(context=None):
    pairs = [tiny_ids(p, c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    return [token_log_probs(TINY, context or c, tokens, SIZE) for c, tokens in pairs]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_perplexity_of_texts_in_another_tokenizer(batch_size):
    means = [np.mean(values) for values in tiny_log_probs()]
    assert np.ptp(means) > 0.1
    values = Perplexity(batch_size=batch_size).evaluate(FOREIGN).rewards
    np.testing.assert_allclose(values, means, atol=1e-4)
    inverse = Perplexity(scale="inverse", batch_size=batch_size).evaluate(FOREIGN).rewards
    np.testing.assert_allclose(inverse, np.exp(means), atol=1e-5)


def test_perplexity_is_minus_the_loss_of_transformers():
    text = "The film was good."
    ids = torch.tensor([[BOS, *TINY_TOKENIZER(text, add_special_tokens=False)["input_ids"], EOS]])
    with torch.no_grad():
        loss = TINY(ids, labels=ids).loss.item()
    value = Perplexity(TINY, of="text").evaluate(make_generations(["The film"], [" was good."])).rewards[0]
    assert value == pytest.approx(-loss, abs=1e-4)


def test_a_shared_vocabulary_reads_the_tokens_that_were_chosen():
    """The policy wrote a space and a letter as two tokens, which the tokenizer would make one."""
    batch = make_generations(["The film"], [" was"], tokenizer="tiny")
    width = batch.mdp.max_prompt_tokens
    chosen = [*TINY_TOKENIZER.convert_tokens_to_ids(["Ġ", "w"]), EOS]
    batch.observations[0, width:] = [*chosen, *[batch.mdp.pad_id] * batch.mdp.max_new_tokens][
        : batch.mdp.max_new_tokens
    ]
    length = batch.lengths[0] = min(len(chosen), batch.mdp.max_new_tokens)
    assert batch.completion_ids[0] != tiny_ids("The film", " w")[1][:length]
    expected = np.mean(token_log_probs(TINY, batch.observations[0, :width].tolist(), chosen[:length], SIZE))
    assert Perplexity().evaluate(batch).rewards[0] == pytest.approx(expected, abs=1e-4)


def test_mutual_information():
    given, alone = tiny_log_probs(), tiny_log_probs([BOS])
    expected = np.array([sum(one) - sum(other) for one, other in zip(given, alone, strict=True)])
    assert expected[0] > 1 and expected[1] == 0  # an empty prompt is the begin token
    np.testing.assert_allclose(MutualInformation().evaluate(FOREIGN).rewards, expected, atol=1e-4)
    average = MutualInformation(average=True).evaluate(FOREIGN).rewards
    np.testing.assert_allclose(average, expected / FOREIGN.lengths, atol=1e-4)


def test_mutual_information_with_a_neutral_prompt():
    neutral = TINY_TOKENIZER("It is", add_special_tokens=False)["input_ids"]
    given, alone = tiny_log_probs(), tiny_log_probs(neutral)
    expected = [sum(one) - sum(other) for one, other in zip(given, alone, strict=True)]
    scorer = MutualInformation(neutral_prompt="It is", batch_size=2)
    np.testing.assert_allclose(scorer.evaluate(FOREIGN).rewards, expected, atol=1e-4)


def test_contrast_of_models_with_different_tokenizers():
    amateur = small_gpt2(vocab_size=257)
    byte_rows = [([*p.encode()] or [256], [*c.encode(), 256]) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    expected = [
        sum(one) - sum(token_log_probs(amateur, *row, 257))
        for one, row in zip(tiny_log_probs(), byte_rows, strict=True)
    ]
    scorer = Contrast("tiny", amateur, amateur_tokenizer="bytes", batch_size=3)
    np.testing.assert_allclose(scorer.evaluate(FOREIGN).rewards, expected, atol=1e-3)
    np.testing.assert_allclose(Contrast("tiny", TINY).evaluate(FOREIGN).rewards, 0, atol=1e-4)


def test_a_row_cut_off_by_its_length_has_no_end_token():
    batch = make_generations(["The film"], [" was"])
    batch.observations[0, batch.mdp.max_prompt_tokens + 4] = batch.mdp.pad_id
    batch.lengths[0] = 4
    context, tokens = tiny_ids("The film", " was")
    expected = np.mean(token_log_probs(TINY, context, tokens[:-1], SIZE))
    assert Perplexity().evaluate(batch).rewards[0] == pytest.approx(expected, abs=1e-4)


TEMPLATE = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}{% if add_generation_prompt %}:{% endif %}"


def test_chats_go_through_the_template_of_the_model():
    env_tokenizer = make_tokenizer("bytes").to_pretrained()
    env_tokenizer.chat_template = TEMPLATE
    chats = [[{"role": "user", "content": "Why"}]]
    batch = make_generations(chats, ["so"], tokenizer=env_tokenizer)
    with pytest.raises(
        ScorerError, match="scorer 'perplexity': the prompts are chat messages, but the tokenizer has no"
    ):
        Perplexity().evaluate(batch)
    _, tokenizer = load_model_and_tokenizer("tiny")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}? {% endfor %}"
    context, tokens = tiny_ids("Why? ", "so")
    value = Perplexity(TINY, tokenizer=tokenizer).evaluate(batch).rewards[0]
    assert value == pytest.approx(np.mean(token_log_probs(TINY, context, tokens, SIZE)), abs=1e-4)


@pytest.mark.parametrize(
    "scorer",
    [
        "perplexity",
        {"name": "perplexity", "of": "text", "scale": "inverse"},
        {"name": "mutual_information", "average": True},
        {"name": "contrast", "expert": "tiny", "amateur": "tiny", "component_name": "same"},
    ],
)
def test_contract(scorer):
    few = {"completions": ["", " good, good film.", "यह"], "rows": 40, "longest": 150}
    check_scorer(scorer, pickles=True, **few)
    check_scorer(scorer, tokenizer="tiny", **few)


def test_pickling_after_use():
    scorer = Perplexity()
    values = scorer.evaluate(FOREIGN).rewards
    np.testing.assert_allclose(pickle.loads(pickle.dumps(scorer)).evaluate(FOREIGN).rewards, values)


def test_a_text_that_is_too_long_is_refused():
    model = small_llama(vocab_size=257, max_position_embeddings=16)
    batch = make_generations(["a", "abcd"], ["b", "x" * 14])
    message = "scorer 'perplexity': row 1 has 18 tokens, more than the 16 that the model reads: 'abcdx"
    with pytest.raises(ScorerError, match=message):
        Perplexity(model, tokenizer="bytes").evaluate(batch)
    Perplexity(model, tokenizer="bytes").evaluate(make_generations(["abcd"], ["x" * 12]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "perplexity", "of": "prompt"}, "scorer 'perplexity': of is 'prompt'; accepted are"),
        ({"name": "perplexity", "scale": "exp"}, "scorer 'perplexity': scale is 'exp'; accepted are"),
        ({"name": "perplexity", "batch_size": 0}, "scorer 'perplexity': batch_size is 0; it must be"),
        ({"name": "perplexity", "model": "no/such"}, "scorer 'perplexity': unknown model 'no/such'"),
        ({"name": "perplexity", "tokenizer": 3}, "scorer 'perplexity': unknown tokenizer 3"),
        ({"name": "perplexity", "dtype": "int8"}, "scorer 'perplexity': unknown dtype 'int8'"),
        ({"name": "perplexity", "model": small_llama(), "tokenizer": "bytes"}, "embeds 5 tokens, .* has 257"),
        ({"name": "perplexity", "model": small_llama()}, "does not say where it came from .*: pass a tokenizer"),
        ({"name": "mutual_information", "average": 1}, "average is 1; it must be True or False"),
        ({"name": "mutual_information", "neutral_prompt": None}, "neutral_prompt is None; it must be a text"),
        ({"name": "contrast", "expert": "tiny"}, r"scorer 'contrast' needs the arguments \['amateur'\]"),
    ],
)
def test_arguments_are_checked(spec, message):
    with pytest.raises(ValueError, match=message):
        make_scorer(spec)


def test_without_a_begin_token_nothing_is_unconditional():
    tokenizer = replace(character_tokenizer("abcd"), bos_token_id=None)
    with pytest.raises(ValueError, match="scorer 'mutual_information': the model's tokenizer has no begin token"):
        MutualInformation(small_llama(), tokenizer=tokenizer)
    MutualInformation(small_llama(), tokenizer=tokenizer, neutral_prompt="a")
