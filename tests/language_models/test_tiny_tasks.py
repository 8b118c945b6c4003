"""The embedded model "tiny-tasks": its tokenizer, and what its card says of it, measured again."""

import re

import gymnasium as gym
import pytest

pytest.importorskip("torch")
from scripts.tiny.task_rows import CELLS, DEFAULT_LEVEL, Cell, chance_of_right, pass_at  # noqa: E402
from textgym.embedded import EMBEDDED  # noqa: E402
from textgym.evaluation import ModelPolicy, evaluate  # noqa: E402
from textgym.language_models import load_model_and_tokenizer  # noqa: E402
from textgym.language_models.token_model import TokenModel  # noqa: E402
from textgym.sb3.env_model import default_model  # noqa: E402
from textgym.tasks.base import TINY_TASKS_ALPHABET  # noqa: E402
from textgym.tokenizers import make_tokenizer  # noqa: E402

CARD = (EMBEDDED["tiny-tasks"] / "MODEL_CARD.md").read_text(encoding="utf-8")
FIGURES = {
    Cell(family, int(level)): (int(prompts), [float(value) for value in values.split(" | ")])
    for family, level, prompts, values in re.findall(r"^\| (\w+) \| (\d) \| (\d+) \| (.*) \|$", CARD, re.M)
}


@pytest.fixture(scope="module")
def tiny_tasks():
    return load_model_and_tokenizer("tiny-tasks")


def test_the_tokenizer_is_the_alphabet(tiny_tasks):
    model, tokenizer = tiny_tasks
    plain = make_tokenizer("tiny-tasks")
    ids = list(range(len(TINY_TASKS_ALPHABET)))
    assert tokenizer(TINY_TASKS_ALPHABET).input_ids == plain.encode(TINY_TASKS_ALPHABET) == ids
    assert tokenizer.decode(ids) == plain.decode(ids) == TINY_TASKS_ALPHABET
    assert tokenizer.is_fast and len(tokenizer) == plain.vocab_size == model.config.vocab_size == len(ids) + 1
    end = len(ids)
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id == end
    assert plain.eos_token_ids == (end,) and plain.bos_token_id == end
    assert model.config.eos_token_id == model.generation_config.eos_token_id == end
    with pytest.raises(ValueError, match="cannot encode 'Two'"):
        plain.encode("Two")


def test_the_model_is_small(tiny_tasks):
    model, _ = tiny_tasks
    assert sum(p.numel() for p in model.parameters()) <= 1.5e6 and model.config.model_type == "llama"
    assert default_model(gym.make("TextGenArithmetic-v0")) == "tiny-tasks"


def test_there_is_room_to_learn():
    """What the card says: a fifth to a half at the level that an id starts from, and far more in 64 tries."""
    assert list(FIGURES) == CELLS
    for cell, (_, (once, *_, often)) in FIGURES.items():
        if cell.level == DEFAULT_LEVEL:
            assert 0.2 <= once <= 0.5 and often >= once + 0.25


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.family}-{cell.level}")
def test_the_card_is_right(tiny_tasks, cell):
    """On the first prompts of each part; the card has them all."""
    prompts = cell.prompts("test", 0)
    count, figures = FIGURES[cell]
    assert len(prompts) == count
    chances = chance_of_right(tiny_tasks[0], cell, prompts[:64])
    for k, figure in zip((1, 4, 16, 64), figures, strict=True):
        spread = (1 - (1 - chances) ** k).std().item()
        assert abs(pass_at(chances, k) - figure) <= 4 * spread / 64**0.5 + 1e-3


@pytest.mark.parametrize("family", ["arithmetic", "countdown", "numerals", "summary"])
def test_the_chance_of_being_right_is_that_of_the_env(tiny_tasks, family):
    """Against 2,000 sampled completions, within 4 standard errors."""
    env = gym.make_vec(f"TextGen{family.title()}-v0", num_envs=500, autoreset_mode="Disabled", split="test")
    found = evaluate(ModelPolicy(env, TokenModel(env.unwrapped.mdp, "tiny-tasks"), seed=0), 2000)
    right = found.components.get("exact_match", found.reward)
    exact = pass_at(chance_of_right(tiny_tasks[0], Cell(family, DEFAULT_LEVEL), Cell(family, 2).prompts("test", 0)), 1)
    assert abs(right.value - exact) < 4 * right.standard_error
