# /// script
# dependencies = ["openenv==0.10.0"]
# ///
"""Environments of OpenEnv as prompts and scorer; run by test_in_environments.py, where OpenEnv is installed."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym
import openenv.cli
import pytest
import reasoning_gym
import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

from tests.helpers.docs import blocks, page, section
from tests.helpers.episodes import write_episode
from textgym.bridges.openenv import make_app
from textgym.bridges.openenv_tasks import OneTurn, prompts
from textgym.scorers.base import ScorerError

SCORER = "textgym.bridges.openenv_tasks:OneTurn"
LEGS = {"dataset_name": "leg_counting", "size": 1}


class Answer(Action):
    answer: str


class Question(Observation):
    question: str | None = None


class ReasoningEnvironment(Environment[Answer, Question, State]):
    """One turn, with the arguments and fields of OpenEnv's own reasoning_gym_env."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    turns, resets = 1, 0

    def reset(self, seed=None, episode_id=None, dataset_name="leg_counting", size=1):
        self.dataset = reasoning_gym.create_dataset(dataset_name, size=size, seed=seed)
        self.entry, self.left = self.dataset[0], self.turns
        return Question(question=self.entry["question"])

    def step(self, action, timeout_s=None, **kwargs):
        self.left -= 1
        return Question(done=self.left == 0, reward=self.dataset.score_answer(action.answer, self.entry))

    @property
    def state(self):
        return State()


class TwoTurns(ReasoningEnvironment):
    turns = 2


class Unpaid(ReasoningEnvironment):
    def step(self, action, timeout_s=None, **kwargs):
        return Question(done=True)


class Forgetful(ReasoningEnvironment):
    """It does not go by the seed."""

    def reset(self, seed=None, **options):
        Forgetful.resets += 1
        return super().reset(seed=Forgetful.resets, **options)


@contextmanager
def serving(environment, action=Answer, observation=Question):
    """The address of an environment that is served in a thread."""
    with running(create_fastapi_app(environment, action, observation, max_concurrent_envs=4)) as url:
        yield url


@contextmanager
def running(app):
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def sums():
    """The address of a served id of ours."""
    with running(make_app("TextGenArithmetic-v0", one_turn=True, level=1)) as url:
        yield url


def env_of(url, scorer, **source):
    prompts = {"name": "openenv", "base_url": url, "prompt": "question", "size": 20, **source}
    limits = {"max_prompt_tokens": 700, "max_new_tokens": 24}
    return gym.make("TextGen-v0", tokenizer="bytes", prompts=prompts, scorer={"name": SCORER, **scorer}, **limits)


@pytest.mark.parametrize("sessions", [1, 4])
def test_rewards_are_those_of_the_environment(sessions):
    """Of right, chatty and random answers, beside the data set's own score and the scorer `reasoning_gym`."""
    with serving(ReasoningEnvironment) as url:
        env = env_of(url, {"action": "answer", "sessions": sessions}, reset=LEGS)
        entries = [reasoning_gym.create_dataset("leg_counting", size=1, seed=seed)[0] for seed in range(20)]
        dataset = reasoning_gym.create_dataset("leg_counting", size=1, seed=0)
        table, paid = env.unwrapped.task.prompts, []
        assert table.texts(list(range(20))) == [entry["question"] for entry in entries]
        vector = gym.make_vec("TextGen-v0", num_envs=20, autoreset_mode="Disabled", **env.spec.kwargs)
        for write in (lambda entry: entry["answer"], lambda entry: f"It has {entry['answer']}", lambda entry: "5"):
            texts = [write(entry) for entry in entries]
            vector.reset(options={"prompts": [table.pin(i) for i in range(20)]})
            paid.append(rewards_of(vector, texts))
            assert paid[-1] == [dataset.score_answer(*pair) for pair in zip(texts, entries, strict=True)]
    assert paid[0] == [1.0] * 20 and 0.0 < paid[1][0] < 1.0 and sum(paid[2]) < 10


def rewards_of(vector, texts):
    total = [0.0] * len(texts)
    rows = [[*vector.unwrapped.tokenizer.encode(text), 256] for text in texts]
    for step in range(max(map(len, rows))):
        _, rewards, *_ = vector.step([row[min(step, len(row) - 1)] for row in rows])
        total = [a + float(b) for a, b in zip(total, rewards, strict=True)]
    return total


def test_an_id_that_is_served_pays_what_it_pays_here(sums, rng):
    source = {"name": "openenv", "base_url": sums, "size": 300, "seed": 7}
    kwargs = {"tokenizer": "tiny-tasks", "max_prompt_tokens": 6, "max_new_tokens": 4, "prompts": source}
    far = gym.make("TextGen-v0", scorer={"name": SCORER, "action": "completion"}, **kwargs).unwrapped
    near, paid = gym.make("TextGenArithmetic-v0", level=1).unwrapped, []
    for i in range(60):
        row = far.task.prompts.pin(i % far.task.prompts.num_prompts)
        right = str(sum(map(int, row["prompt"][:-1].split("+"))))
        begun = [*far.encode(right if rng.random() < 0.5 else str(rng.integers(100))), 44]
        pins = {far: row, near: answered(near, row["prompt"])}
        paid.append([write_episode(env, rng, begun=begun, options={"prompt": pin}).total for env, pin in pins.items()])
    assert all(one == other for one, other in paid) and {one for one, _ in paid} == {0.0, 1.0}


def answered(env, text):
    """The prompt of the env that has this text, with its columns."""
    table = env.task.prompts
    (found,) = [i for i in range(table.num_prompts) if table.texts([i])[0] == text]
    return table.pin(found)


def test_what_the_served_id_could_not_have_written_is_its_own_error(sums):
    env = env_of(sums, {"action": "completion"}, prompt="prompt").unwrapped
    with pytest.raises(ScorerError, match="RuntimeError.*has 7 tokens, more than max_new_tokens"):
        run(env, "1234567")


def run(env, text):
    """The reward of a text behind the first prompt."""
    env.reset(options={"prompt": env.task.prompts.pin(0)})
    for token in [*env.encode(text), env.mdp.eos_token_ids[0]]:
        _, reward, *_ = env.step(token)
    return reward


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (TwoTurns, "not over after one action"),
        (Unpaid, "the environment's reward is None"),
        (Forgetful, "a reset must ask the same again"),
    ],
)
def test_environments_that_are_no_scorer_are_refused(environment, words):
    with serving(environment) as url, pytest.raises(ScorerError, match=words):
        run(env_of(url, {"action": "answer"}).unwrapped, "4")


def test_the_environment_that_openenv_makes_for_a_start_has_no_end(tmp_path, monkeypatch):
    """`openenv init`: an echo, whose episodes go on for ever, so that it is no scorer."""
    template = Path(openenv.cli.__file__).parent / "templates" / "openenv_env"
    for file in ("models.py", "server/__ENV_NAME___environment.py"):
        text = (template / file).read_text(encoding="utf-8").replace("__ENV_CLASS_NAME__", "Echo")
        (tmp_path / Path(file.replace("__ENV_NAME__", "echo")).name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from echo_environment import EchoEnvironment
    from models import EchoAction, EchoObservation

    with serving(EchoEnvironment, EchoAction, EchoObservation) as url:
        env = env_of(url, {"action": "message"}, prompt="echoed_message").unwrapped
        assert env.task.prompts.num_prompts == 1  # it asks the same at every seed
        with pytest.raises(ScorerError, match="not over after one action"):
            run(env, "hello")


def test_a_field_that_is_no_action_is_the_environments_error():
    with serving(ReasoningEnvironment) as url, pytest.raises(ScorerError, match="RuntimeError"):
        run(env_of(url, {"action": "message"}).unwrapped, "4")


def test_a_completion_without_an_answer_is_paid_nothing():
    with serving(ReasoningEnvironment) as url:
        env = env_of(url, {"action": "answer", "extract": "####"}).unwrapped
        right = reasoning_gym.create_dataset("leg_counting", size=1, seed=0)[0]["answer"]
        assert run(env, right) == 0.0 and run(env, f"#### {right}") == 1.0


def test_prompts_are_split_and_begin_at_the_seed():
    with serving(ReasoningEnvironment) as url:
        every, train, test = (prompts(url, "question", size=30, seed=5, split=part) for part in (None, "train", "test"))
        later = prompts(url, "question", size=30, seed=6)
    assert [row["prompt"] for row in every[1:]] == [row["prompt"] for row in later[:-1]]
    assert len(train) + len(test) == len(every) and all(row in every for row in train + test)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"prompt": "prompt"}, ValueError, "its fields that are texts are .'question'"),
        ({"prompt": "question", "reset": ["a"]}, ValueError, "openenv': reset is .'a'"),
    ],
)
def test_prompts_that_cannot_be_had(arguments, error, words):
    with serving(ReasoningEnvironment) as url, pytest.raises(error, match=words):
        prompts(url, **arguments)


def test_openenv_drops_arguments_that_a_reset_does_not_have():
    """What the page warns of."""
    with serving(ReasoningEnvironment) as url:
        assert [prompts(url, "question", reset=reset, size=3)[0]["prompt"] for reset in ({"datset_name": "a"}, None)]
        with pytest.raises(RuntimeError):
            prompts(url, "question", reset={"dataset_name": "a"}, size=3)


def test_a_server_that_is_not_there():
    with pytest.raises(ConnectionError):
        prompts("http://127.0.0.1:9", "question", size=1)


@pytest.mark.parametrize("arguments", [{"action": 5}, {"action": "a", "sessions": 0}, {"action": "a", "extract": "(a"}])
def test_arguments_that_are_none(arguments):
    with pytest.raises(ValueError, match=next(name for name in reversed(arguments))):
        OneTurn(**arguments)


def test_prompts_of_another_source_are_refused():
    env = gym.make("TextGen-v0", tokenizer="bytes", prompts=["a"], scorer={"name": SCORER, "action": "a"}).unwrapped
    with pytest.raises(ScorerError, match="take them from the prompt source"):
        run(env, "b")


def test_the_section_of_the_page_is_a_program(sums):
    (code,) = blocks(section(page("bridges"), "OpenEnv environments as tasks"))
    exec(code.replace("http://127.0.0.1:8000", sums), known := {})
    assert run(known["env"].unwrapped, "99") == 0.0
