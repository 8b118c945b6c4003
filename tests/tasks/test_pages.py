"""The pages in docs/envs: current and true of their id."""

import ast
import dataclasses
import inspect
import json
import re

import gymnasium as gym
import numpy as np
import pytest

from scripts.env_pages import CLASSES, NOTE, class_page, id_page, pretty, table_of_arguments
from scripts.make_docs import ENVS
from tests.conftest import ENV_IDS, SMOLLM2
from tests.helpers.docs import blocks
from textgym.envs import TextGenerationEnv, TextGenToyEnv
from textgym.envs.task import make_task
from textgym.scorers import Scorer, make_scorer
from textgym.tasks import TASKS
from textgym.tokenizers import make_tokenizer

PAGES = {env_id: (ENVS / f"{env_id}.md").read_text(encoding="utf-8") for env_id in TASKS}
ARGUMENT = re.compile(r"^\| `(\w+)` \| (.*?) \| .* \|$", re.M)


@pytest.fixture(scope="module")
def made():
    """The env of an id; SmolLM2's tokenizer is read once, as it takes seconds."""
    shared = []

    def make(env_id):
        if env_id in ENV_IDS:
            return gym.make(env_id)
        if not SMOLLM2:
            pytest.skip("the extra smollm2-q4 is not installed")
        shared.append(shared[0] if shared else make_tokenizer("smollm2-q4"))
        return gym.make(env_id, tokenizer=shared[0])

    return make


def section(env_id, title):
    return re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", PAGES[env_id], re.M | re.S)[1]


def defaults(env_id):
    """The defaults that the page states as values."""
    found = {}
    for name, default in ARGUMENT.findall(section(env_id, "Arguments")):
        if default.startswith("`") and "..." not in default:
            found[name] = ast.literal_eval(default.strip("`").replace("\\|", "|"))
    return found


@pytest.mark.parametrize("env_id", TASKS)
def test_a_page_is_current(env_id, made):
    assert PAGES[env_id] == id_page(TASKS[env_id], made(env_id)), "run: make docs"


def test_the_page_of_the_classes_is_current_and_names_every_id():
    page = (ENVS / "README.md").read_text(encoding="utf-8")
    assert page == class_page(), "run: make docs"
    assert re.findall(r"^\| \[`([\w-]+)`\]\(\1\.md\) \|", page, re.M) == list(TASKS)


def test_there_is_no_other_page():
    assert {file.stem for file in ENVS.iterdir()} == {"README", *TASKS}
    assert all(NOTE in page for page in PAGES.values())


@pytest.mark.parametrize("env_id", TASKS)
def test_spaces_and_limits_are_those_of_the_env(env_id, made):
    env = made(env_id)
    mdp = env.unwrapped.mdp
    assert f"`{env.action_space}`" in section(env_id, "Spaces")
    assert f"`{env.observation_space}`" in section(env_id, "Spaces")
    assert f"or {mdp.max_new_tokens} tokens were written" in " ".join(section(env_id, "Episode end").split())
    first, _ = env.reset(seed=0)
    filled = np.flatnonzero(first != mdp.pad_id)
    if "There is one" in section(env_id, "Starting state"):
        assert filled.tolist() == [0] and f"token {first[0]} alone" in section(env_id, "Starting state")
    else:
        assert filled[-1] == mdp.max_prompt_tokens - 1  # right-aligned
        assert str(env.unwrapped.task.prompts.num_prompts) in section(env_id, "Starting state")


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_the_arguments_of_a_page_make_the_same_env(env_id):
    stated = defaults(env_id)
    if "words" in stated:
        del stated["num_tokens"]  # their number, and refused beside them unless it is
    env, same = gym.make(env_id), gym.make(env_id, **stated)
    assert same.unwrapped.mdp == env.unwrapped.mdp
    assert type(same.unwrapped.scorer) is type(env.unwrapped.scorer)
    assert same.unwrapped.scorer.component_names == env.unwrapped.scorer.component_names
    for seed in range(3):
        assert np.array_equal(env.reset(seed=seed)[0], same.reset(seed=seed)[0])
    if TASKS[env_id].model == "table":
        assert np.array_equal(env.unwrapped.reference_logits, same.unwrapped.reference_logits)
        assert defaults(env_id)["num_tokens"] == env.unwrapped.num_tokens


@pytest.mark.parametrize("env_id", TASKS)
def test_a_page_states_the_scorer_and_the_target_as_json(env_id):
    (scorer,) = blocks(section(env_id, "Reward"), "json")
    names = make_scorer(json.loads(scorer)).component_names
    assert re.findall(r"`(\w+)` \(float\)", section(env_id, "Information")) == list(names)
    if TASKS[env_id].target is not None:
        (target,) = blocks(section(env_id, "Features and target"), "json")
        assert json.loads(target) == TASKS[env_id].target


@pytest.mark.parametrize("env_id", TASKS)
def test_a_page_speaks_of_no_other_id(env_id):
    assert set(re.findall(r"TextGen\w+-v\d", PAGES[env_id])) <= {env_id}
    if env_id not in ("TextGen-v0", "TextGenRatings-v0"):  # both begin movie reviews
        assert "212 prompts" not in PAGES[env_id] and "opening of a movie review" not in PAGES[env_id]


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_the_code_of_a_page_runs(env_id):
    (code,) = blocks(PAGES[env_id])
    names = {}
    exec(compile(code, f"{env_id}.md", "exec"), names)
    assert names["env"].spec.id == names["vector_env"].spec.id == env_id and names["vector_env"].num_envs == 8


def test_the_table_of_constraints_is_that_of_the_tasks():
    page = (ENVS.parent / "constraints.md").read_text(encoding="utf-8")
    for task in TASKS.values():
        if task.target is None:
            continue
        ((cells),) = re.findall(rf"^\| `{task.id}` \| (.*) \|$", page, re.M)
        named, rates, target = cells.split(" | ")
        assert all(f"`{name}`" in named for name in task.features)
        stated = [float(rate) for rate in re.findall(r"(?:^|, )(\.\d+)", rates)]
        assert stated == [feature.base_rate for feature in task.features.values()]
        if target.startswith("`"):
            assert json.loads(target.strip("`")) == task.target
            assert f"± {list(task.features.values())[0].standard_error:.3f}".replace("0.", ".") in rates


@pytest.mark.parametrize("env_class", [TextGenerationEnv, TextGenToyEnv])
def test_the_table_of_a_class_has_a_row_for_every_argument(env_class):
    arguments = {name: default for name, default, _ in table_of_arguments(env_class)}
    if env_class is TextGenerationEnv:
        parameters = inspect.signature(make_task).parameters
        stated = {name: ast.literal_eval(default.strip("`")) for name, default in arguments.items()}
        assert stated == {name: p.default for name, p in parameters.items()} | {"render_mode": None}
    else:
        parameters = set(inspect.signature(TextGenToyEnv.__mro__[1]).parameters) - {"env_arguments"}
        assert set(arguments) == parameters | {"render_mode"}


def test_the_classes_are_all_documented():
    page = class_page()
    for env_class in CLASSES:
        assert f"\n## {env_class.__name__}\n" in page
    assert "Args:" not in page and "- `num_generations`: k, which divides N.\n" in page


@pytest.mark.parametrize(
    ("kwargs", "sentences"),
    [
        ({"prompts": ["Autumn", "The pond"]}, ["One of 2 prompts", "- `Autumn`\n- `The pond`\n"]),
        ({"prompts": ["Autumn"]}, ["There is one: the prompt `Autumn`."]),
        ({"prompts": "tests.tasks.test_pages:draw"}, ["A prompt that the prompt source samples"]),
        (
            {"scorer": "tests.tasks.test_pages:PerToken"},
            ["It is paid token by token; the return of an episode lies in"],
        ),
        ({"min_new_tokens": 2}, ["At every step `action_mask`"]),
        ({"eos_token_ids": [2, 7]}, ["token 2 or 7 is end-of-text"]),
        ({"scorer": {"name": "keyword", "words": ["a|b"]}}, ['`{"name": "keyword", "words": ["a\\|b"]}`']),
        (
            {"scorer": {"name": "keyword", "words": ["word"] * 40}},
            ["| `scorer` | [above](#reward) |"],
        ),
    ],
)
def test_the_page_of_any_task_says_what_is_true_of_it(kwargs, sentences):
    task = dataclasses.replace(TASKS["TextGen-v0"], kwargs=kwargs)
    page = id_page(task, gym.make(task.id, **kwargs))
    assert all(sentence in page for sentence in sentences)


def test_an_argument_without_a_row_is_an_error():
    with pytest.raises(ValueError, match=r"no row for \['colour'\]"):
        id_page(dataclasses.replace(TASKS["TextGen-v0"], kwargs={"colour": 1}), gym.make("TextGen-v0"))


class PerToken(Scorer):
    name, per_token = "per_token", True

    def score(self, generations):
        return [1.0] * len(generations)


def draw(rng):
    return f"Prompt {rng.integers(9)}"


def test_pretty_json_is_json_of_short_lines():
    words = [f"word{i}" for i in range(60)]
    for value in ("sentiment", {"a": 1}, [], {"name": "x", "parts": [{"words": words}, {"words": words[:3]}]}, words):
        text = pretty(value)
        assert json.loads(text) == value
        assert max(map(len, text.splitlines())) <= 120
