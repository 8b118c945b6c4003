"""The tasks that have a right answer: their prompts at every level, the two parts, references and rewards."""

import re
from itertools import product

import gymnasium as gym
import numpy as np
import pytest

from textgym.expressions import value_of
from textgym.generated_prompts import SIZES
from textgym.prompt_sources import named_rows
from textgym.prompts import load_prompts
from textgym.tasks import TASKS
from textgym.tasks.base import TINY_TASKS_ALPHABET, tiny_task_ids
from textgym.tasks.numerals import TENS, UNDER_TWENTY, in_hundreds, in_words
from textgym.tasks.summary import verdict

IDS = {name: f"TextGen{name.title()}-v0" for name in ("arithmetic", "countdown", "numerals", "summary")}
LEVELS = (1, 2, 3)


def rows(family, **arguments):
    return named_rows({"name": family, **arguments})


def answers(row):
    return [row["reference"]] if isinstance(row["reference"], str) else row["reference"]


def asks(family, row):
    """What a prompt asks, whatever the order or the words."""
    if family == "arithmetic":
        return tuple(sorted(row["prompt"].rstrip("=").split("+")))
    return row["reference"] if family == "numerals" else row["prompt"]


@pytest.mark.parametrize("family", IDS)
def test_the_parts_share_no_question_at_any_level_or_seed(family):
    train = {asks(family, r) for level in LEVELS for seed in (0, 1) for r in rows(family, level=level, seed=seed)}
    test = {
        asks(family, r)
        for level in LEVELS
        for seed in (0, 7)
        for r in rows(family, level=level, split="test", seed=seed)
    }
    assert train and test and not train & test


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("family", IDS)
def test_sizes_and_seeds(family, level):
    few = rows(family, level=level, size=40, seed=3)
    assert few == rows(family, level=level, size=40, seed=3)
    assert few == rows(family, level=level, size=60, seed=3)[:40]
    assert few != rows(family, level=level, size=40, seed=4)
    assert len({row["prompt"] for row in few}) == 40
    assert 100 < len(rows(family, level=level, split="test")) <= SIZES["test"]
    assert 600 < len(rows(family, level=level)) <= SIZES["train"]


def test_more_prompts_than_there_are():
    with pytest.raises(ValueError, match=r"size is 900, but level 1 has only \d+ prompts for split='train'"):
        rows("numerals", level=1, size=900)
    assert len(rows("numerals", level=1)) + len(rows("numerals", level=1, split="test")) == 1000  # all that there are


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("family", IDS)
def test_prompts_and_answers_fit_the_env(family, level):
    kwargs = TASKS[IDS[family]].kwargs
    allowed = kwargs.get("allowed_tokens", range(len(TINY_TASKS_ALPHABET)))
    for split in ("train", "test"):
        for row in rows(family, level=level, split=split):
            assert 0 < len(row["prompt"]) <= kwargs["max_prompt_tokens"]
            assert set(row["prompt"]) <= set(TINY_TASKS_ALPHABET)
            for answer in answers(row):
                assert 0 < len(answer) <= kwargs["max_new_tokens"]
                assert all(TINY_TASKS_ALPHABET.index(character) in allowed for character in answer)


def test_the_default_level_is_the_second():
    for family in IDS:
        assert rows(family, size=20) == rows(family, size=20, level=2)
        assert rows(family, size=20) != rows(family, size=20, level=1)


def test_sums():
    digits = {1: {(1, 1), (1, 2), (2, 1)}, 2: {(2, 2)}, 3: {(3, 3)}}
    for level in LEVELS:
        found = rows("arithmetic", level=level)
        for row in found:
            a, b = re.fullmatch(r"(\d+)\+(\d+)=", row["prompt"]).groups()
            assert int(a) + int(b) == int(row["reference"]) and str(int(row["reference"])) == row["reference"]
        lengths = {tuple(map(len, row["prompt"].rstrip("=").split("+"))) for row in found}
        assert lengths == digits[level]


def from_words(text):
    """A numeral's value, word by word."""
    total = current = 0
    for word in text.rstrip(":").split():
        if word == "thousand":
            total, current = total + current * 1000, 0
        elif word == "hundred":
            current *= 100
        elif word in UNDER_TWENTY:
            current += UNDER_TWENTY.index(word)
        elif word != "and":
            current += 10 * (2 + TENS.index(word))
    return total + current


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (42, "forty two"),
        (100, "one hundred"),
        (305, "three hundred five"),
        (1000, "one thousand"),
        (1010, "one thousand ten"),
        (7342, "seven thousand three hundred forty two"),
        (9999, "nine thousand nine hundred ninety nine"),
    ],
)
def test_numerals_by_hand(number, words):
    assert in_words(number) == words


def test_numerals_said_in_other_ways():
    assert in_words(7342, " and ") == "seven thousand three hundred and forty two"
    assert in_words(7002, " and ") == "seven thousand and two" and in_words(42, " and ") == "forty two"
    assert in_hundreds(4207, " ") == "forty two hundred seven"
    assert in_hundreds(4207, " and ") == "forty two hundred and seven"
    assert in_hundreds(4200, " and ") == "forty two hundred" and in_hundreds(4000, " ") == "four thousand"


def test_every_numeral_reads_as_its_number():
    for number in range(10_000):
        for joint in (" ", " and "):
            assert from_words(in_words(number, joint)) == number
            assert number < 1000 or from_words(in_hundreds(number, joint)) == number
    assert len({in_words(number) for number in range(10_000)}) == 10_000


def test_numerals_of_each_level():
    for level in LEVELS:
        found = rows("numerals", level=level)
        assert all(from_words(row["prompt"]) == int(row["reference"]) for row in found)
        assert {len(row["reference"]) for row in found} == ({1, 2, 3} if level == 1 else {4})
        assert any(" and " in row["prompt"] for row in found) == (level == 3)
        assert any(len(re.findall("ty hundred|ty .* hundred", row["prompt"])) for row in found) == (level == 3)


@pytest.mark.parametrize(
    ("report", "line"),
    [
        ("bed good, food good, view good", "all good"),
        ("bed bad, food bad, view bad", "all bad"),
        ("bed bad, food good, view good", "good but bed"),
        ("bed bad, food good, view bad", "bad but food"),
        ("bed bad, food good, view good, pool good, staff bad", "good but bed and staff"),
        ("bed bad, food good, pool bad, view bad, room good, bath bad, price good", "bad but food, room and price"),
    ],
)
def test_verdicts_by_hand(report, line):
    assert verdict(dict(part.split() for part in report.split(", "))) == line


def test_verdicts_of_every_level():
    for level, count in zip(LEVELS, (3, 5, 7), strict=True):
        for row in rows("summary", level=level):
            ratings = dict(part.split() for part in row["prompt"].rstrip(":").split(", "))
            assert len(ratings) == count
            most, _, others = row["reference"].partition(" but ")
            most, others = (most[4:], []) if most.startswith("all ") else (most, re.split(", | and ", others))
            assert [subject for subject, rating in ratings.items() if rating != most] == others
            assert len(others) < count / 2


def test_the_references_of_countdown_are_all_that_is_right():
    """Against every text of at most five characters, for a few prompts of each level."""
    for level in LEVELS:
        for row in rows("countdown", level=level, size=4):
            digits = sorted(set(map(str, row["numbers"])))
            texts = ("".join(parts) for n in range(1, 6) for parts in product([*digits, *"+-*/"], repeat=n))
            right = sorted(text for text in texts if value_of(text, row["numbers"]) == row["target"])
            assert right == row["reference"]
            used = min(len(re.findall(r"\d", text)) for text in right)
            assert used == {1: 2, 2: 3, 3: 3}[level]


def test_the_prompts_of_countdown():
    for level, count in zip(LEVELS, (3, 3, 4), strict=True):
        for row in rows("countdown", level=level):
            numbers = row["numbers"]
            assert row["prompt"] == f"{' '.join(map(str, numbers))} make {row['target']}:"
            assert numbers == sorted(numbers) and len(numbers) == count and 1 <= row["target"] <= 99


def test_token_ids():
    assert tiny_task_ids("012") == [0, 1, 2, len(TINY_TASKS_ALPHABET)]
    assert len(set(TINY_TASKS_ALPHABET)) == len(TINY_TASKS_ALPHABET)
    sizes = {family: len(TASKS[IDS[family]].kwargs.get("allowed_tokens", ())) for family in IDS}
    assert sizes == {"arithmetic": 11, "countdown": 14, "numerals": 11, "summary": 0}


def written(env, text):
    """What an episode pays for a completion that ends with end-of-text where there is room."""
    mdp = env.unwrapped.mdp
    for token in [*env.unwrapped.encode(text), *mdp.eos_token_ids][: mdp.max_new_tokens]:
        _, reward, ended, _, info = env.step(token)
    assert ended
    return reward, info


@pytest.mark.parametrize(
    ("family", "pinned", "text", "reward", "components"),
    [
        ("arithmetic", {"prompt": "37+58=", "reference": "95"}, "95", 1.0, {"exact_match": 1.0}),
        ("arithmetic", {"prompt": "37+58=", "reference": "95"}, "095", 0.0, {"exact_match": 0.0}),
        ("arithmetic", {"prompt": "37+58=", "reference": "95"}, "", 0.0, {"exact_match": 0.0}),
        ("arithmetic", {"prompt": "999+999=", "reference": "1998"}, "1998", 1.0, {"exact_match": 1.0}),
        ("numerals", {"prompt": "forty two:", "reference": "42"}, "42", 1.0, {"exact_match": 1.0, "chrf": 1.0}),
        ("numerals", {"prompt": "forty two:", "reference": "42"}, "13", 0.0, {"exact_match": 0.0, "chrf": 0.0}),
        ("summary", {"prompt": "bed bad:", "reference": "all bad"}, "all bad", 1.0, {"exact_match": 1.0, "rouge": 1.0}),
        ("summary", {"prompt": "bed bad:", "reference": "all bad"}, "all good", 0.25, {"exact_match": 0, "rouge": 0.5}),
        (
            "countdown",
            {"prompt": "4 7 9 make 37:", "numbers": [4, 7, 9], "target": 37},
            "9+4*7",
            1.0,
            {"countdown": 1.0},
        ),
        (
            "countdown",
            {"prompt": "4 7 9 make 37:", "numbers": [4, 7, 9], "target": 37},
            "4*9+1",
            0.0,
            {"countdown": 0.0},
        ),
    ],
)
def test_rewards_by_hand(family, pinned, text, reward, components):
    env = gym.make(IDS[family])
    env.reset(options={"prompt": pinned})
    earned, info = written(env, text)
    assert earned == pytest.approx(reward) and {name: info[name] for name in components} == pytest.approx(components)


@pytest.mark.parametrize("family", IDS)
def test_the_references_are_paid_in_full(family):
    env = gym.make(IDS[family], level=3, split="test", render_mode="ansi")
    for seed in range(5):
        _, info = env.reset(seed=seed)
        (answer, *others) = answers(
            {"reference": env.unwrapped.task.prompts.columns([info["prompt_id"]])["reference"][0]}
        )
        assert written(env, answer)[0] == pytest.approx(1.0)
        for other in others:
            env.reset(seed=seed)
            assert written(env, other)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("family", IDS)
def test_level_and_split_of_the_ids(family):
    made = [
        (gym.make(IDS[family]), {}),
        (gym.make(IDS[family], level=3, split="train"), {"level": 3}),
        (gym.make_vec(IDS[family], num_envs=2, level=1, split="test"), {"level": 1, "split": "test"}),
    ]
    for env, arguments in made:
        table = env.unwrapped.task.prompts
        expected = [p.content for p in load_prompts({"name": family, **arguments})]
        assert table.contents(np.arange(table.num_prompts)) == expected
    with pytest.raises(ValueError, match=rf"prompt source '{family}': level is 4; accepted are \[1, 2, 3\]"):
        gym.make(IDS[family], level=4)
    with pytest.raises(
        ValueError, match=rf"prompt source '{family}': split is 'dev'; accepted are \['train', 'test'\]"
    ):
        gym.make_vec(IDS[family], split="dev")
