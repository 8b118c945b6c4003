"""respond against transformers' generate, its determinism, and a policy that learns to prompt a frozen model."""

import itertools
import json
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import REINFORCE
from tests.conftest import share_of_a, small_gpt2, small_llama
from textgym.language_models import load_model_and_tokenizer
from textgym.scorers import FunctionScorer, Respond, ScorerError, make_scorer
from textgym.scorers.trainer import Trainer, take_metrics
from textgym.testing import check_scorer, make_generations
from textgym.tokenizers import character_tokenizer, make_tokenizer

TINY, TOKENIZER = load_model_and_tokenizer("tiny")
PROMPTS = [{"prompt": text, "question": f"Q{i}?"} for i, text in enumerate(["The film", "", "a", "Why so"])]
COMPLETIONS = ["I loved it.", "It is", "", " sad? No, it was a good film."]
BATCH = make_generations(PROMPTS, COMPLETIONS)
SEEN = []


def lengths(prompts, completions, question):
    """An inner scorer that keeps what it saw."""
    SEEN[:] = zip(prompts, completions, question, strict=True)
    return [float(len(text)) for text in completions]


@torch.no_grad()
def generated(text, **options):
    """The response by transformers: text and token ids."""
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"] or [TOKENIZER.bos_token_id]
    out = TINY.generate(torch.tensor([ids]), do_sample=False, pad_token_id=TOKENIZER.eos_token_id, **options)
    return TOKENIZER.decode(out[0, len(ids) :], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_inner_scorer_sees_what_the_model_generates(batch_size):
    scorer = Respond(lengths, max_new_tokens=12, batch_size=batch_size)
    scores = scorer.evaluate(BATCH)
    expected = [generated(text, max_new_tokens=12) for text in COMPLETIONS]
    assert len(set(expected)) > 2
    assert list(zip(*SEEN, strict=True)) == [
        tuple(row["prompt"] for row in PROMPTS),
        tuple(expected),
        tuple(row["question"] for row in PROMPTS),
    ]
    assert list(scores.components) == ["respond", "lengths"]
    for values in (scores.rewards, *scores.components.values()):
        assert values.tolist() == [len(text) for text in expected]


def test_the_responses_and_what_the_inner_scorer_reports_reach_the_training():
    def reporting(completions, log_metric):
        log_metric("letters", sum(map(len, completions)))
        return [0.0] * len(completions)

    batch = replace(BATCH, trainer=Trainer())
    Respond(reporting, max_new_tokens=8).evaluate(batch)
    expected = [generated(text, max_new_tokens=8) for text in COMPLETIONS]
    assert list(batch.trainer.extras["respond/response"]) == expected
    assert take_metrics([batch.trainer]) == {"letters": sum(map(len, expected))}


def test_a_template_makes_the_input():
    scorer = Respond(lengths, template="{question} {{{completion}}} {prompt}:", max_new_tokens=8)
    scorer.evaluate(BATCH)
    inputs = [f"{p['question']} {{{c}}} {p['prompt']}:" for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert [text for _, text, _ in SEEN] == [generated(text, max_new_tokens=8) for text in inputs]


def test_a_chat_is_the_message_of_a_user():
    _, tokenizer = load_model_and_tokenizer("tiny")
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %} It is"
    scorer = Respond(lengths, chat=True, tokenizer=tokenizer, max_new_tokens=8)
    scorer.evaluate(BATCH)
    expected = [generated(f"[user] {text} It is", max_new_tokens=8) for text in COMPLETIONS]
    assert [text for _, text, _ in SEEN] == expected


def test_samples_have_the_distribution_of_the_model():
    """Chi-square of the five tokens, one drawn for each of 4,000 inputs that the model cannot tell apart."""
    model = small_llama(initializer_range=0.1)
    with torch.no_grad():
        model.get_input_embeddings().weight[:4] = model.get_input_embeddings().weight[0].clone()
        p = (model(torch.tensor([[0] * 6])).logits[0, -1] / 0.7).softmax(-1).numpy()
    tokenizer = character_tokenizer("abcd")
    texts = ["".join(text) for text in itertools.islice(itertools.product("abcd", repeat=6), 4000)]
    scorer = Respond(share_of_a, model, tokenizer=tokenizer, temperature=0.7, max_new_tokens=1, batch_size=1000)
    batch = make_generations([""] * 4000, texts, tokenizer=tokenizer)
    drawn = np.bincount([ids[0] for ids in scorer.answered(batch).completion_ids], minlength=5)
    statistic = ((drawn - 4000 * p) ** 2 / (4000 * p)).sum()
    assert min(4000 * p) > 20 and statistic < 18.5  # of a chi-square with 4 degrees of freedom, 0.999


def test_the_same_text_gets_the_same_response():
    texts = ["good", "bad film", "good", "so", "good"]
    batch = make_generations(["a", "b", "c", "d", "e"], texts)
    values = {}
    for size in (1, 2, 32):
        scorer = Respond(
            lambda completions: [hash(c) % 997 for c in completions], temperature=1.0, max_new_tokens=6, batch_size=size
        )
        values[size] = scorer.evaluate(batch).rewards
        order = np.array([3, 1, 4, 0, 2])
        np.testing.assert_array_equal(scorer.evaluate(batch.select(order)).rewards, values[size][order])
    assert values[1].tolist() == values[2].tolist() == values[32].tolist()
    assert values[1][0] == values[1][2] == values[1][4] and len(set(values[1])) == 3
    again = Respond(lambda completions: [hash(c) % 997 for c in completions], temperature=1.0, max_new_tokens=6, seed=1)
    assert again.evaluate(batch).rewards.tolist() != values[1].tolist()


def test_what_the_policy_wrote_pays_nothing_by_itself():
    model = small_gpt2(vocab_size=257)
    batch = make_generations(["", ""], ["good good good", "bad"])
    values = Respond("sentiment", model, tokenizer="bytes", max_new_tokens=4).evaluate(batch).components["sentiment"]
    assert values.tolist() == [0, 0]


def test_chat_prompts_with_a_model_that_knows_no_chats():
    tokenizer = make_tokenizer("bytes").to_pretrained()
    tokenizer.chat_template = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
    batch = make_generations([[{"role": "user", "content": "Why"}]], ["so"], tokenizer=tokenizer)
    answered = Respond("sentiment", max_new_tokens=4).answered(batch)
    assert answered.prompts == ["<Why>"] and answered.completions == [generated("so", max_new_tokens=4)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_contract(temperature):
    spec = {"name": "respond", "scorer": {"name": "length", "target": 3}, "max_new_tokens": 6}
    spec = json.loads(json.dumps({**spec, "temperature": temperature, "template": "{prompt}{completion}"}))
    few = {"completions": ["", " good", "यह अच्छी"], "rows": 40, "longest": 60}
    check_scorer(spec, pickles=True, **few)


def test_pickling_after_use():
    scorer = Respond("sentiment", max_new_tokens=4)
    values = scorer.evaluate(BATCH).rewards
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scorer)).evaluate(BATCH).rewards, values)


def test_an_input_that_leaves_no_room_for_the_response_is_refused():
    model = small_llama(vocab_size=257, max_position_embeddings=16)
    scorer = Respond("sentiment", model, tokenizer="bytes", max_new_tokens=9)
    scorer.evaluate(make_generations(["", ""], ["a" * 8, "b"]))
    message = "scorer 'respond': row 1 has 17 tokens with the longest response, more than the 16 that the model reads"
    with pytest.raises(ScorerError, match=message):
        scorer.evaluate(make_generations(["", ""], ["b", "a" * 9]))


def test_a_column_that_is_not_there():
    message = r"template '\{completion\} \{answer\}' names 'answer', which is no column of the prompts; there are \['q"
    with pytest.raises(ScorerError, match=message):
        Respond("sentiment", template="{completion} {answer}").evaluate(BATCH)


def test_an_empty_input_without_a_begin_token():
    tokenizer = replace(character_tokenizer("abcd"), bos_token_id=None)
    scorer = Respond(share_of_a, small_llama(), tokenizer=tokenizer, max_new_tokens=4)
    scorer.evaluate(make_generations([""], ["a"]))  # the env's prompt may be empty
    with pytest.raises(ScorerError, match="scorer 'respond': the model's tokenizer has no begin token"):
        scorer.evaluate(make_generations(["a"], [""]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"template": "{prompt}"}, r"it must have \{completion\} in it, or the policy has no say"),
        ({"template": "{completion} {"}, "template is '{completion} {': "),
        ({"template": "{completion} {}"}, "in its braces stand plain names"),
        ({"template": "{completion.strip}"}, "in its braces stand plain names"),
        ({"template": "{completion!r}"}, "in its braces stand plain names"),
        ({"template": None}, "template is None; it must be a text"),
        ({"temperature": -1}, "temperature is -1; it must be at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be"),
        ({"seed": -1}, "seed is -1; it must be"),
        ({"batch_size": 0}, "batch_size is 0; it must be"),
        ({"chat": True}, "the prompts are chat messages, but the tokenizer has no chat template"),
        ({"scorer": "log_prob"}, "'log_prob' pays per token; it must judge a whole response"),
        ({"model": "no/such"}, "unknown model 'no/such'"),
        ({"component_name": "sentiment"}, "two components named 'sentiment'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_scorer({"name": "respond", "scorer": "sentiment", **arguments})


def test_a_policy_learns_to_prompt_a_frozen_model():
    """All 21 prompts of up to two letters can be tried, so that the best response is known: seven "a" or more of 8."""
    tokenizer, frozen = character_tokenizer("abcd"), small_llama(initializer_range=0.5)
    inner = FunctionScorer(share_of_a, name="share")
    scorer = Respond(inner, frozen, tokenizer=tokenizer, max_new_tokens=8, batch_size=64)
    every = ["".join(text) for n in range(3) for text in itertools.product("abcd", repeat=n)]
    values = scorer.evaluate(make_generations([""] * len(every), every, tokenizer=tokenizer)).rewards
    assert values.max() >= 7 / 8 and np.median(values) < 1 / 2
    modes = {"prompts": [""], "max_prompt_tokens": 1, "max_new_tokens": 2, "autoreset_mode": "Disabled"}
    env = gym.make_vec("TextGenChars-v0", num_envs=128, scorer=scorer, **modes)
    agent = REINFORCE("TokenPolicy", env, model=small_llama(seed=1), seed=0, learning_rate=3e-3)
    before = agent.sample_episodes(128).rewards.sum(-1).mean().item()
    agent.learn(15 * 128 * 2)
    after = agent.sample_episodes(128).rewards.sum(-1).mean().item()
    assert before < 0.2 * values.max() and after > 0.75 * values.max()
