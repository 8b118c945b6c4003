"""The prompts of reasoning-gym: what a row holds, levels, parts, seeds, and what is refused."""

import json

import gymnasium as gym
import pytest

from textgym.prompts import load_prompts
from textgym.splits import in_split

reasoning_gym = pytest.importorskip("reasoning_gym")


def source(dataset, **arguments):
    return {"name": "reasoning_gym", "dataset": dataset, **arguments}


def rows(dataset, **arguments):
    return [(prompt.content, prompt.columns["reference"]) for prompt in load_prompts(source(dataset, **arguments))]


def test_the_rows_are_those_of_reasoning_gym():
    theirs = reasoning_gym.create_dataset("leg_counting", seed=42, size=5, max_animals=4)
    ours = load_prompts(source("leg_counting", seed=42, size=5, max_animals=4))
    assert [p.columns["reasoning_gym"]["entry"] for p in ours] == list(theirs)
    assert [(p.content, p.columns["reference"]) for p in ours] == [(e["question"], e["answer"]) for e in theirs]


def test_a_name_alone_gives_five_hundred_different_questions():
    prompts = load_prompts("reasoning_gym:gcd")
    assert len({prompt.content for prompt in prompts}) == len(prompts) == 500
    assert 100 < len(load_prompts("reasoning_gym:coin_flip")) < 500  # it has no more


def test_a_level_sets_what_the_curriculum_says_and_fields_count_more():
    easy, hard = (rows("leg_counting", level=level, size=20) for level in (0, 9))
    two = rows("leg_counting", level=9, min_animals=2, max_animals=2, size=20)
    kinds = [{len(question.partition("you have")[2].split(",")) for question, _ in some} for some in (easy, hard, two)]
    assert kinds[0] == {1} and max(kinds[1]) > 5 and kinds[2] == {2}


def test_no_seed_brings_a_held_out_question_into_training():
    test = {question for question, _ in rows("coin_flip", split="test")}
    train = {question for seed in range(3) for question, _ in rows("coin_flip", split="train", size=50, seed=seed)}
    assert test and train and not test & train
    assert all(in_split(question, "test") for question in test)


def test_several_datasets_at_once():
    datasets = [{"name": name, "weight": 1, "config": {}} for name in ("gcd", "lcm")]
    questions = [question for question, _ in rows("composite", datasets=datasets, size=20)]
    assert 0 < sum("Greatest" in question for question in questions) < 20


def test_an_env_of_them_is_json():
    kwargs = {"tokenizer": "bytes", "scorer": "reasoning_gym", "max_prompt_tokens": 256, "max_new_tokens": 8}
    env = gym.make("TextGen-v0", prompts="reasoning_gym:gcd", level=0, split="test", **kwargs)
    same = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    table, other = (e.unwrapped.task.prompts for e in (env, same))
    assert table.contents(range(500)) == other.contents(range(500))
    column = table.columns([3])["reasoning_gym"][0]
    answer = json.loads(json.dumps(column))["entry"]["answer"]
    env.reset(options={"prompt": table.pin(3)})
    for token in [*answer.encode(), 256]:
        _, reward, ended, _, info = env.step(token)
    assert ended and reward == info["reasoning_gym"] == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("reasoning_gym", "'reasoning_gym' needs 'dataset': write 'reasoning_gym:...'"),
        ("reasoning_gym:leg_countin", "reasoning-gym has no dataset 'leg_countin'; did you mean 'leg_counting'"),
        ("reasoning_gym:?", r"reasoning-gym has no dataset '\?'; there are \d+: \['ab', 'acre'"),
        (source("acre", level=1), "level is 1, but 'acre' has no levels"),
        (source("leg_counting", level=36), r"level is 36; for 'leg_counting' it must be an integer in \[0, 35\]"),
        (source("leg_counting", level=-1), "'reasoning_gym': level is -1; it must be an integer of at least 0"),
        (source("leg_counting", min_animal=1), "'leg_counting' has no 'min_animal'; did you mean 'min_animals'"),
        (source("leg_counting", max_animals=1), "makes no 'leg_counting' of these values: max_animals must be >="),
        (source("caesar_cipher", level=3), "makes no 'caesar_cipher' of these values at level 3: rotation must be"),
        (source("gcd", min_value={1}), "the config of 'gcd' is no JSON, as it must be"),
        (source("coin_flip", size=400), r"size is 400, but 4100 entries of 'coin_flip' have only \d+$"),
        (source("coin_flip", size=200, split="test"), r"have only \d+ of split='test'"),
        (source("composite"), "makes no 'composite' of these values: Must specify at least one"),
        (source("composite", datasets=[{"nam": "gcd"}]), "it must be a list of dicts of name, weight and config"),
        (source("gcd", seed=-1), "'reasoning_gym': seed is -1"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(given)
