"""Pictures and pages of runs show what the runs logged, and take a folder that is none for what it is."""

import re
from html.parser import HTMLParser
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from agents import REINFORCE
from scripts import plot, report
from scripts.reports.page import chart
from scripts.reports.runs import TOKENS, read_run
from textgym.sb3.evaluation import EvaluationCallback
from textgym.sb3.logs import run_logger
from textgym.sb3.run import RunCheckpoints, train_run
from textgym.training.run import open_run


class Page(HTMLParser):
    """The text of a page, and what it would load."""

    def __init__(self, html):
        super().__init__()
        self.words, self.loaded, self.tags = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of 8 texts an update, with two or more evaluations."""
    out = tmp_path_factory.mktemp("runs") / "<b>mine"
    env = lambda: gym.make_vec("TextGenWords-v0", num_envs=8, autoreset_mode="Disabled")  # noqa: E731
    with open_run(out, resume=False) as run:
        agent = REINFORCE("TokenPolicy", "TextGenWords-v0", n_envs=8, seed=0, device="cpu")
        agent.set_logger(run_logger(run, "REINFORCE"))
        callback = EvaluationCallback(run, env(), 40, 16)
        train_run(agent, 200, RunCheckpoints(run), callback)
        agent.logger.close()
    return out


def test_a_run_is_read_as_it_was_logged(run_folder):
    run = read_run(run_folder)
    tokens, reward = run.rollouts("rollout/reward")
    assert np.array_equal(tokens, run.log[TOKENS]) and np.array_equal(reward, run.log["rollout/reward"])
    few = run.rollouts("rollout/reward", 3)
    assert len(few[0]) == 3 and min(reward) <= few[1].min() <= few[1].max() <= max(reward)
    steps, kl = run.evaluated("kl_to_reference")
    assert steps[0] == 0 and abs(kl[0]) < 1e-5 and len(steps) == len(run.evaluations) > 2
    assert run.state["algorithm"] == "REINFORCE"


def test_a_page_needs_no_network_and_escapes_what_it_shows(run_folder):
    html = report.main(report.Args(run_folder, texts=3)).read_text()
    page = Page(html)
    assert not page.loaded and "script" not in page.tags and "<b>mine" in "".join(page.words)
    assert not re.search(r"url\(|@import|https?:", html)
    for row in read_run(run_folder).evaluations:
        assert f"{row['num_timesteps']:,} tokens: reward {row['reward']['value']:+.3f}" in html
    spans = re.findall(r'title="log &pi; (\S+), log a (\S+), difference (\S+)"', html)
    assert spans and all(abs(float(p) - float(a) - float(d)) < 0.02 for p, a, d in spans)


def test_a_page_of_a_log_alone(run_folder, tmp_path):
    (tmp_path / "progress.csv").write_bytes((run_folder / "progress.csv").read_bytes())
    words = "".join(Page(report.main(report.Args(tmp_path)).read_text()).words)
    assert tmp_path.name in words and "Texts over time" not in words


def test_points_lie_where_the_ticks_say():
    made = chart("x", (np.array([0.0, 10.0]), np.array([1.0, 3.0])), (np.array([5.0]), np.array([2.0])), "{}")
    x_at, y_at = ({float(label): at for at, label in made[ticks]} for ticks in ("x_ticks", "y_ticks"))
    assert made["line"] == f"{x_at[0]},{y_at[1]} {x_at[10]},{y_at[3]}"
    assert made["dots"][0][:2] == ((x_at[0] + x_at[10]) / 2, (y_at[1] + y_at[3]) / 2)


def test_runs_are_drawn(run_folder, tmp_path):
    plot.main(plot.Args((run_folder, run_folder), tmp_path / "plots" / "plot.svg"))
    assert (tmp_path / "plots" / "plot.svg").read_text().count("<path") > 20


@pytest.mark.parametrize(("text", "error"), [(None, FileNotFoundError), ("", ValueError), ("a,b\n1,2\n", ValueError)])
def test_a_folder_that_is_no_run_is_named(tmp_path, text, error):
    if text is not None:
        (tmp_path / "progress.csv").write_text(text)
    with pytest.raises(error, match=re.escape(str(tmp_path))):
        read_run(tmp_path)


def test_what_compare_writes_beside_its_runs_is_left_out_and_named(run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("rloo-0", "untrained-0", "frontier")
    for name in names:
        Path(name).mkdir()
    Path("rloo-0/progress.csv").write_bytes((run_folder / "progress.csv").read_bytes())
    for name in ("compare.json", "compare.md", "untrained-0/run.json", "plot.svg"):
        Path(name).write_text("{}")
    plot.main(plot.Args(tuple(sorted(Path().iterdir())), Path("plot.svg")))
    left = "compare.json, compare.md, frontier, plot.svg, untrained-0"
    assert capsys.readouterr().out.splitlines() == [
        f"left out, as there is no training in it: {left}",
        "written: plot.svg",
    ]
    assert Path("plot.svg").read_text().count("<path") > 20
    with pytest.raises(ValueError, match="at least one folder"):
        plot.main(plot.Args((Path("compare.json"),)))
    for wrong in ("rloo-1", "rloo-0/progress.csv"):
        with pytest.raises(FileNotFoundError, match=f"'{wrong}' is no folder of a run"):
            plot.main(plot.Args((Path("rloo-0"), Path(wrong))))


def test_a_path_that_is_no_run_says_which_one_may_be_meant(run_folder, tmp_path):
    for path, said in (
        (run_folder / "checkpoint", f"it is inside of one; did you mean {str(run_folder)!r}?"),
        (run_folder.parent, f"such as {str(run_folder)!r}?"),
        (tmp_path / "mien", "there is no such folder"),
        (Path(__file__), "it is a file"),
    ):
        with pytest.raises(FileNotFoundError, match=re.escape(f"{str(path)!r} is no folder of a run: ")) as caught:
            read_run(path)
        assert str(caught.value).endswith(said)


def test_no_run_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one folder"):
        plot.main(plot.Args(()))
