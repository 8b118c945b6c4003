"""The remote scorer against real servers: slow, failing, talking nonsense, dying. No reward may be made up."""

import json
import pickle
import threading
import time
from email.utils import formatdate

import gymnasium as gym
import pytest
import requests
import torch

from tests.conftest import CHARACTERS, small_llama
from tests.helpers.agents import agent
from tests.helpers.endpoints import Die, lengths, serve
from textgym.scorers import Remote, ScorerError, make_scorer
from textgym.scorers.endpoint import Endpoint, Question
from textgym.testing import check_scorer, make_generations

TEXTS = ["", "one", "three", "two", "one", "fifteen letters"]
BATCH = make_generations([{"prompt": f"{i}=", "answer": i} for i in range(6)], TEXTS)
LENGTHS = [float(len(text)) for text in TEXTS]
QUICK = {"backoff": 0.001, "batch_size": 2}


def rewards(served, batch=BATCH, **kwargs):
    return Remote(served.url, **(QUICK | kwargs)).evaluate(batch).rewards.tolist()


def test_what_is_sent_and_what_comes_back():
    with serve(lengths) as served:
        assert rewards(served, batch_size=4, concurrency=1) == LENGTHS
        assert rewards(served, columns=[], batch_size=6) == LENGTHS
    assert served.requests[0] == {"prompts": ["0=", "1=", "2=", "3="], "completions": TEXTS[:4], "answer": [0, 1, 2, 3]}
    assert served.requests[1] == {"prompts": ["4=", "5="], "completions": TEXTS[4:], "answer": [4, 5]}
    assert served.requests[2] == {"prompts": [f"{i}=" for i in range(6)], "completions": TEXTS}


def test_order_does_not_depend_on_which_answer_comes_first():
    def answer(body, number):
        time.sleep(0.05 if "" in body["completions"] else 0)
        return lengths(body)

    with serve(answer) as served:
        assert rewards(served) == LENGTHS


def test_64_rows_of_50_ms_each_take_less_than_300_ms():
    """Two rounds of 32 requests wait 100 ms; the best of three, because other processes share the machine."""

    def answer(body, number):
        time.sleep(0.05 * len(body["completions"]))
        return lengths(body)

    batch = make_generations(["a"] * 64, ["b" * i for i in range(64)])
    with serve(answer) as served:
        scorer, seconds = Remote(served.url, batch_size=1, concurrency=32), []
        for _ in range(3):
            start = time.perf_counter()
            assert scorer.evaluate(batch).rewards.tolist() == list(range(64))
            seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3, seconds


def every_third(answer):
    return lambda body, number: answer(body, number) if number % 3 == 1 else lengths(body)


def die(part):
    def answer(body, number):
        raise Die(*part)

    return answer


FAILURES = {
    "status 503": lambda body, number: (503, {}, b"overloaded"),
    "status 429": lambda body, number: (429, {"Retry-After": "0"}, b"slow down"),
    "no JSON": lambda body, number: b"<html>oops",
    "no rewards": lambda body, number: {"reward": [1.0]},
    "0 rewards for": lambda body, number: {"rewards": []},
    "1000 rewards for": lambda body, number: {"rewards": [1.0] * 1000},
    "reward nan": lambda body, number: b'{"rewards": [NaN, 1.0]}',
    "reward inf": lambda body, number: b'{"rewards": [1.0, 1e999]}',
    "reward '1.0'": lambda body, number: {"rewards": ["1.0", "2.0"]},
    "reward None": lambda body, number: {"rewards": [None, 1.0]},
    "ConnectionError": die(()),
    "(ConnectionError|ChunkedEncodingError)": die((b'{"rewards": [1.0, 2',)),
}


@pytest.mark.parametrize("problem", FAILURES)
def test_what_fails_once_in_three_is_asked_again(problem):
    with serve(every_third(FAILURES[problem])) as served:
        assert rewards(served, retries=9) == LENGTHS
    assert len(served.requests) >= 4


@pytest.mark.parametrize("problem", FAILURES)
def test_what_always_fails_is_an_error_that_names_endpoint_attempts_problem_and_rows(problem):
    problem_in_words = {"no JSON": "status 200, but Expecting value", "no rewards": 'no list "rewards"'}
    with serve(FAILURES[problem]) as served:
        message = (
            rf"scorer 'remote': {served.url} gave no reward for rows 0, 1 in 3 attempts; .*"
            rf"{problem_in_words.get(problem, problem)}"
        )
        with pytest.raises(ScorerError, match=message):
            rewards(served, retries=2, concurrency=1)
    assert len(served.requests) >= 3


@pytest.mark.parametrize("status", [400, 401, 404, 422, 302])
def test_what_the_client_did_wrong_is_not_asked_again(status):
    with serve(lambda body, number: (status, {"Location": "/elsewhere"}, b"no, because")) as served:
        with pytest.raises(ScorerError, match=f"in 1 attempt; the last one: status {status}: 'no, because'"):
            rewards(served, batch_size=6)
    assert len(served.requests) == 1


def test_a_service_that_does_not_answer_in_time_or_at_all():
    with serve(lambda body, number: time.sleep(0.5)) as served:
        with pytest.raises(ScorerError, match="in 2 attempts; the last one: ReadTimeout"):
            rewards(served, retries=1, timeout=0.05)
    with pytest.raises(ScorerError, match="in 2 attempts; the last one: ConnectionError"):  # and now it is gone
        rewards(served, retries=1)


@pytest.mark.parametrize("when", ["0.3", lambda: formatdate(time.time() + 2, usegmt=True), "soon"])
def test_retry_after_is_heeded(when):
    value = when() if callable(when) else when
    with serve(lambda body, number: (429, {"Retry-After": value}, b"") if not number else lengths(body)) as served:
        start = time.monotonic()
        assert rewards(served, batch_size=6) == LENGTHS
    seconds = time.monotonic() - start
    assert 0.9 < seconds < 4 if callable(when) else seconds < 0.9  # HTTP knows whole seconds, and dates


def test_waiting_doubles(monkeypatch):
    waits = []
    monkeypatch.setattr("threading.Event.wait", lambda event, seconds=None: waits.append(seconds) and False)
    monkeypatch.setattr("requests.Session.post", lambda *args, **kwargs: answered())

    def answered():
        response = requests.Response()
        response.status_code, response._content = 503, b""
        return response

    kwargs = {"timeout": 1.0, "retries": 9, "backoff": 0.5, "concurrency": 1, "headers": None, "api_key_variable": None}
    question, stopped = Question(lambda unread: {}, list, "row 0"), threading.Event()
    endpoint = Endpoint("remote", "http://localhost/score", **kwargs)
    with pytest.raises(ScorerError, match="in 10 attempts"):
        endpoint._values(endpoint._session, question, stopped)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_cache_asks_once_for_each_text_and_forgets_the_oldest():
    with serve(lengths) as served:
        scorer = Remote(served.url, columns=[], cache_size=3, batch_size=1, concurrency=1)
        same = make_generations(["a"] * 4, ["x", "yy", "x", "zzz"])
        assert scorer.evaluate(same).rewards.tolist() == [1, 2, 1, 3]
        assert [body["completions"] for body in served.requests] == [["x"], ["yy"], ["zzz"]]
        scorer.evaluate(same.select([1, 0]))  # known, and x is the newest now
        assert len(served.requests) == 3
        assert scorer.evaluate(make_generations(["a", "b"], ["four", "x"])).rewards.tolist() == [4, 1]
        assert len(served.requests) == 5 and len(scorer._cache) == 3  # another prompt is another text
        scorer.evaluate(same.select([0]))
        assert len(served.requests) == 5
        scorer.evaluate(same.select([1]))
        assert len(served.requests) == 6


def test_headers_and_a_key_that_stands_nowhere(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-1")
    with serve(lengths) as served:
        spec = {"name": "remote", "url": served.url, "headers": {"X-Team": "a"}, "api_key_variable": "MY_KEY"}
        scorer = make_scorer(spec)
        scorer.evaluate(BATCH)
        monkeypatch.setenv("MY_KEY", "secret-2")
        copy = pickle.loads(pickle.dumps(scorer))
        copy.evaluate(BATCH)
        assert b"secret" not in pickle.dumps(copy)
        env = gym.make("TextGen-v0", scorer=spec)
        assert "secret" not in env.spec.to_json() and json.loads(env.spec.to_json())
    sent = {(headers["X-Team"], headers["Authorization"]) for headers in served.headers}
    assert sent == {("a", "Bearer secret-1"), ("a", "Bearer secret-2")}


def test_contract():
    with serve(lengths) as served:
        check_scorer(Remote(served.url), pickles=True)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/x", "score", "", "http://", "http://host:port/", 3, None]
)
def test_an_endpoint_that_is_no_url(url):
    with pytest.raises(ValueError, match=r"scorer 'remote': url is .*; it must be a URL with a host, as in 'http://"):
        Remote(url)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"url": "http://me:word@host/"}, "the url holds a name or a password; use api_key_variable"),
        ({"timeout": 0}, "timeout is 0; it must be positive"),
        ({"retries": -1}, "retries is -1; it must be an integer of at least 0"),
        ({"retries": "3"}, "retries is '3'; it must be an integer"),
        ({"backoff": -1}, "backoff is -1; it must be at least 0"),
        ({"concurrency": 0}, "concurrency is 0; it must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be an integer of at least 1"),
        ({"cache_size": -1}, "cache_size is -1; it must be an integer of at least 0"),
        ({"columns": "answer"}, "columns is 'answer'; it must be a list of columns' names"),
        ({"headers": {"X-A": 3}}, "headers are .*: Header .*"),
        ({"headers": {"X-A": "a\nb"}}, "headers are .*"),
        ({"api_key_variable": "NOT_SET_ANYWHERE"}, "the environment variable 'NOT_SET_ANYWHERE' is not set"),
    ],
)
def test_arguments_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=f"scorer 'remote': .*{message}"):
        Remote(**{"url": "http://localhost/", **kwargs})


def test_columns_that_cannot_be_sent():
    batch = make_generations([{"prompt": "a", "made": {1, 2}}], ["b"])
    scorer = Remote("http://localhost/")
    with pytest.raises(ScorerError, match=r"column 'made' is no JSON .*; leave it out with columns=\[...\]"):
        scorer.evaluate(batch)
    with pytest.raises(ScorerError, match=r"no column 'mode' \(columns: \['made'\]\); did you mean 'made'"):
        Remote("http://localhost/", columns=["mode"]).evaluate(batch)


def trained(url, steps=150, **kwargs):
    scorer = Remote(url, backoff=0.001, **kwargs)
    return agent(env=CHARACTERS, scorer=scorer, model=small_llama(), learning_rate=1e-2).learn(steps)


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.policy.parameters()])


def test_a_training_whose_service_fails_every_third_time_is_one_whose_service_does_not():
    with serve(lengths) as served:
        whole = trained(served.url)
    with serve(every_third(FAILURES["status 503"])) as served:
        failing = trained(served.url, retries=9)
    assert torch.equal(weights(whole), weights(failing)) and whole.num_timesteps == failing.num_timesteps


def test_a_training_whose_service_dies_goes_on_when_it_is_back():
    """The rollout that it died in is sampled again, so the end is that of a training without a fault."""
    with serve(lengths) as served:
        whole = trained(served.url)
    up = []

    def answer(body, number):
        if number >= 8 and not up:
            raise Die
        return lengths(body)

    with serve(answer) as served:
        cut = agent(
            env=CHARACTERS, scorer=Remote(served.url, backoff=0.001, retries=1), model=small_llama(), learning_rate=1e-2
        )
        with pytest.raises(ScorerError, match="gave no reward for row"):
            cut.learn(150)
        assert 0 < cut._n_updates < whole._n_updates
        up.append(True)
        cut.learn(150 - cut.resume_from.num_timesteps, reset_num_timesteps=False)
    assert torch.equal(weights(whole), weights(cut)) and whole.num_timesteps == cut.num_timesteps
