"""Logs that go on where a checkpoint is."""

import csv
import subprocess
import sys

import pytest
from stable_baselines3.common.logger import FormatUnsupportedError, Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from textgym.sb3.logs import STEP, CSVLog, run_logger
from textgym.training.run import RunFolder


def dump(log, step, **values):
    values = {name.replace("_", "/"): value for name, value in values.items()}
    log.write(values | {STEP: step}, dict.fromkeys([*values, STEP], None), step)


def test_rows_after_the_checkpoint_are_taken_back_and_others_stay_as_they_are(tmp_path):
    path, log = tmp_path / "progress.csv", CSVLog(tmp_path / "progress.csv")
    dump(log, 10, rollout_reward=0.1)
    dump(log, 20, rollout_reward=0.2, train_loss=1e-17)
    before = path.read_bytes()
    dump(log, 30, rollout_reward=1 / 3, train_loss=None, text='a "b", c')
    whole = path.read_bytes()
    log.close()
    path.write_bytes(whole + b"0.4,1")  # a row that was cut by a kill
    log = CSVLog(path, 20)
    assert path.read_text().count("\n") == before.count(b"\n") == 3
    dump(log, 30, rollout_reward=1 / 3, train_loss=None, text='a "b", c')
    log.close()
    assert path.read_bytes() == whole
    rows = list(csv.DictReader(path.open()))
    assert [row[STEP] for row in rows] == ["10", "20", "30"] and float(rows[2]["rollout/reward"]) == 1 / 3
    assert rows[0]["train/loss"] == "" and rows[2]["text"] == 'a "b", c'
    CSVLog(path, 0).close()
    assert list(csv.DictReader(path.open())) == []


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        (f"{STEP},a\nmany,1\n".encode(), "could not convert string to float: 'many'"),
        (f"{STEP},a\n1,2\n1,2,3\n".encode(), "row 2 has more fields"),
        (b"\xff\n", "can't decode byte 0xff"),
    ],
)
def test_an_edited_log_is_refused_by_name_and_stays(tmp_path, edited, message):
    (tmp_path / "progress.csv").write_bytes(edited)
    with pytest.raises(ValueError, match=rf"progress.csv' is no log that can go on: .*{message}"):
        CSVLog(tmp_path / "progress.csv", 10)
    assert (tmp_path / "progress.csv").read_bytes() == edited


def test_columns_come_in_the_order_of_the_log_in_every_process(tmp_path):
    code = (
        "import sys; from pathlib import Path; from textgym.sb3.logs import CSVLog\n"
        "names = [f'k{i}' for i in range(30)]\n"
        "CSVLog(Path(sys.argv[1])).write(dict.fromkeys(names, 1), dict.fromkeys(names))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True)
    assert (tmp_path / "a").read_text().splitlines()[0] == ",".join(f"k{i}" for i in range(30))


def test_a_kill_while_a_column_is_added_loses_no_row(tmp_path, monkeypatch):
    log = CSVLog(tmp_path / "progress.csv")
    dump(log, 10, a=1)
    before = (tmp_path / "progress.csv").read_text()
    monkeypatch.setattr("textgym.files.os.replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dump(log, 20, a=1, b=2)
    assert (tmp_path / "progress.csv").read_text() == before


def test_what_no_csv_holds_is_refused_as_sb3_does(tmp_path):
    with pytest.raises(FormatUnsupportedError):
        dump(CSVLog(tmp_path / "progress.csv"), 10, picture=Image("none", "HW"))


def test_a_key_may_be_left_out(tmp_path):
    log = CSVLog(tmp_path / "progress.csv")
    log.write({"a": 1, "b": 2}, {"a": ("csv",), "b": None})
    assert (tmp_path / "progress.csv").read_text() == "b\n2\n"


def test_tensorboard_hides_what_came_after_the_checkpoint(tmp_path, monkeypatch):
    for steps, values in ((0, {10: 1.0, 20: 2.0, 30: 3.0}), (20, {30: 4.0})):
        monkeypatch.setattr(RunFolder, "num_timesteps", steps)
        logger = run_logger(RunFolder(tmp_path), "PPO")
        for step, value in values.items():
            logger.record("rollout/reward", value)
            logger.record(STEP, step, exclude="tensorboard")
            logger.dump(step)
        logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "PPO"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("rollout/reward")] == [(10, 1.0), (20, 2.0), (30, 4.0)]
    assert [row[STEP] for row in csv.DictReader((tmp_path / "progress.csv").open())] == ["10", "20", "30"]
