"""Trackers get the numbers of the log, offline; a missing package is told."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from textgym.sb3.logs import run_logger
from textgym.sb3.trackers import TrackerLog
from textgym.training.run import open_run


class Recorder(SimpleNamespace):
    """A tracker's module and its run, which notes what it is told."""

    def init(self, **kwargs):
        self.kwargs, self.rows = kwargs, []
        return self

    def log(self, row, step):
        self.rows.append((step, row))

    def finish(self):
        self.rows.append("end")


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_numbers_are_logged_at_their_step(tracker, tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, tracker, recorder)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with open_run(tmp_path / "mine", resume=False) as run:
        logger = run_logger(run, "RLOO", [tracker], {"gamma": 1.0})
        logger.record("a", np.float32(2))
        logger.record("text", "words", exclude=("csv", "tensorboard"))
        logger.record("hidden", 1.0, exclude=tracker)
        logger.dump(64)
        logger.close()
    assert recorder.rows == [(64, {"a": 2.0}), "end"] and recorder.kwargs["name"] == "mine"
    assert recorder.kwargs["config"] == {"gamma": 1.0}
    assert recorder.kwargs.get("mode", "offline") == "offline" and not recorder.kwargs.get("space_id")


def test_a_missing_tracker_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImportError, match="the tracker 'trackio' needs its package: pip install trackio"):
        TrackerLog("trackio", tmp_path, "mine")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_wandb_writes_a_run_that_can_be_sent_later(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log = TrackerLog("wandb", tmp_path, "mine")
    log.write({"a": 1.0, "b": "text"}, {"a": (), "b": ()}, 3)
    log.close()
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-mine.wandb"))) == 1


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="needs trackio")
def test_trackio_keeps_the_rows_in_its_data_base(tmp_path):
    import subprocess

    program = """
import sys
from pathlib import Path
from textgym.sb3.trackers import TrackerLog
log = TrackerLog("trackio", Path(sys.argv[1]), "mine")
log.write({"a": 1.5}, {"a": ()}, 3)
log.close()
from trackio.sqlite_storage import SQLiteStorage
rows = SQLiteStorage.get_logs("textgym", "mine")
assert [(row["a"], row["step"]) for row in rows] == [(1.5, 3)], rows
"""
    environment = {"TRACKIO_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
