"""Runs in other processes: all are done, one that is killed is begun again, one that raises stops no other."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from scripts import compare
from scripts.agent_arguments import EnvArgs
from scripts.experiments.workers import Job, WorkerArgs, outcomes
from scripts.experiments.zoo import Args
from textgym.scorers import Scorer


class Killing(Scorer):
    """Pays for length; the first process that has scored three times is killed."""

    name = "killing"

    def __init__(self, file):
        self.file, self.times = Path(file), 0

    def score(self, generations):
        self.times += 1
        if self.times == 3 and not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [float(len(ids)) for ids in generations.completion_ids]


def work(folder, text="", killed=0, marks=None):
    """Kills its own process the first times, and raises where it is told to."""
    marks = Path(marks) / folder.name
    with marks.open("a") as file:
        file.write("x")
    print("at work on", folder.name)
    if len(marks.read_text()) <= killed:
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "wrong":
        raise ValueError("this is wrong")
    (folder / "run.json").write_text(f'"{text}"')


@pytest.fixture(scope="module", params=["processes", pytest.param("ray", marks=pytest.mark.slow)])
def options(request):
    """The arguments that ask for two workers."""
    if request.param == "processes":
        yield partial(WorkerArgs, processes=2)
        return
    ray = pytest.importorskip("ray")
    yield partial(WorkerArgs, ray=True)
    ray.shutdown()


@pytest.mark.subprocess
def test_all_is_done_whatever_happens_to_some(options, tmp_path):
    works = {"a": {"text": "1"}, "b": {"text": "wrong"}, "c": {"text": "2", "killed": 1}, "d": {"killed": 9}, "e": {}}
    marks = tmp_path / "marks"
    marks.mkdir()
    jobs = [Job(tmp_path / name, partial(work, **given, marks=marks)) for name, given in works.items()]
    ended = {job.folder.name: error for job, error in outcomes(jobs, options(retries=1))}
    assert set(ended) == set(works) and [name for name in works if ended[name] is None] == ["a", "c", "e"]
    assert ended["b"] == "this is wrong" and ended["d"]
    assert {name: len((marks / name).read_text()) for name in works} == {"a": 1, "b": 1, "c": 2, "d": 2, "e": 1}
    assert [json.loads((tmp_path / name / "run.json").read_text()) for name in "ace"] == ["1", "2", ""]
    assert "at work on a" in (tmp_path / "a" / "output.log").read_text()
    assert "Traceback" in (tmp_path / "b" / "output.log").read_text()


@pytest.mark.subprocess
def test_a_comparison_of_which_one_worker_is_killed(options, tmp_path, capsys):
    """In the middle of a training. The table is complete, and only what failed is done again."""
    killed, failing = tmp_path / "killed", "rloo:n_envs=15,num_generations=4"
    scorer = json.dumps({"name": f"{__name__}:Killing", "file": str(killed)})
    env = EnvArgs(scorer=scorer, n_envs=16)
    args = Args(("reinforce:learning_rate=1e-2", failing), env, seeds=2, total_timesteps=100, out=tmp_path / "out")
    args.device, args.frontier, args.evaluation_episodes = "cpu", 0, 32
    args.env_ids, args.workers = ("TextGenToy-v0",), options()

    def compared():
        with pytest.raises(SystemExit, match="2 runs failed"):
            compare.main(args)
        assert capsys.readouterr().out.count(f"failed: {failing}, seed") == 2
        out = args.out / "TextGenToy-v0"
        report = json.loads((out / "compare.json").read_text())
        assert report["table"][failing] == {}
        assert all(i["half_width"] for i in report["table"]["reinforce:learning_rate=1e-2"].values())
        return {run["folder"]: (out / run["folder"] / "run.json").stat().st_mtime_ns for run in report["runs"]}

    first = compared()
    assert killed.exists()
    again = compared()
    assert len(first) == 6 and {name for name in first if again[name] != first[name]} == {
        "rloo-n_envs=15,num_generations=4-0",
        "rloo-n_envs=15,num_generations=4-1",
    }
