"""The script of tabular Q-learning: what it prints and writes; and the page that documents it."""

import ast
import csv
import re
import shlex

import gymnasium as gym
import pytest
import tyro
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from agents import QLearning
from scripts.q_learning import Args, main, texts
from tests.helpers.docs import blocks, logged_names, page
from textgym.arguments import arguments_of
from textgym.exact import TokenTree, hard_optimal

PAGE = page("agents/q_learning")


def run(out, *arguments):
    base = ["--env-kwargs", '{"max_new_tokens": 2}', "--device", "cpu", "--out", str(out)]
    return main(tyro.cli(Args, args=[*base, *arguments]))


def test_two_words_are_learned_to_the_optimum_and_everything_is_shown_and_written(tmp_path, capsys):
    run(tmp_path, "--total-timesteps", "40000", "--context", "very", "--learning-rate", "1")
    out = capsys.readouterr().out
    env = gym.make("TextGenWords-v0", max_new_tokens=2)
    tree = TokenTree.of(env)
    best = hard_optimal(tree, tree.scores(env)["reward"]).values[0]
    before, after = re.findall(r"the greedy text, then texts with epsilon .*\n([+-]\d\.\d+) ", out)
    assert before == "+0.000" and after == f"{best:+.3f}"
    means = [float(x) for x in re.findall(r"mean reward of 256 of them: (.*)", out)]
    assert means[0] < 0.2 and means[1] > 0.7
    assert len(re.findall(r"^[+-]\d\.\d{3} \[\]", out, re.M)) == 14 and "Q('very', .)" in out and "<eos>" in out
    assert QLearning.load(tmp_path / "checkpoint", device="cpu").num_timesteps >= 40_000
    with (tmp_path / "progress.csv").open() as file:
        logged = set(csv.DictReader(file).fieldnames)
    assert logged_names(PAGE) <= logged


def test_a_run_is_not_begun_over_another(tmp_path):
    run(tmp_path, "--total-timesteps", "256")
    before = (tmp_path / "progress.csv").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run; choose another --out"):
        run(tmp_path, "--total-timesteps", "256")
    assert (tmp_path / "progress.csv").read_bytes() == before


def test_shown_rewards_are_those_of_the_shown_texts():
    env = gym.make_vec("TextGenWords-v0", num_envs=32, autoreset_mode="Disabled")
    agent = QLearning("TabularPolicy", "TextGenWords-v0", n_envs=1, seed=0, device="cpu")
    samples = texts(agent, env, deterministic=False)
    vader = SentimentIntensityAnalyzer()
    assert len({sample.completion for sample in samples}) > 16
    for sample in samples:
        assert sample.reward == pytest.approx(vader.polarity_scores(sample.completion)["compound"])


def test_a_context_that_is_none_fails_before_the_training(tmp_path):
    with pytest.raises(ValueError, match="cannot encode 'the movie'"):
        run(tmp_path, "--context", "the movie")
    assert not (tmp_path / "checkpoint").exists()


def test_the_snippet_and_the_command_of_the_page(capsys):
    (code,), (line,), _ = (blocks(PAGE, language) for language in ("python", "bash", "text"))
    scope = {}
    exec(compile(code, "q_learning.md", "exec"), scope)
    assert scope["agent"].q_values("1 1").round(3).tolist()[1] == 4.0
    python, script, *arguments = shlex.split(line)
    assert (python, script) == ("python", "scripts/q_learning.py") and tyro.cli(Args, args=arguments).context == "great"


def test_defaults_of_the_page_are_those_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.M)
    assert len(rows) == 12
    for argument, default in rows:
        assert arguments_of(QLearning)[argument].default == ast.literal_eval(default), argument
