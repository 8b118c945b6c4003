"""The folder of a run: its lock, its checkpoints and what is refused."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from textgym.training.run import RunFolder, open_run


def write(path):
    path.mkdir(parents=True)
    (path / "a").write_text(path.name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_checkpoints_are_kept_and_one_is_pointed_to(tmp_path):
    with open_run(tmp_path / "run", resume=False, keep=2) as run:
        assert run.checkpoint is None and run.num_timesteps == 0
        for steps in (90, 500, 1000):
            run.save(write, steps)
            assert run.num_timesteps == steps and run.checkpoint == tmp_path / "run" / "checkpoints" / str(steps)
            assert (tmp_path / "run" / "checkpoint" / "a").read_text() == str(steps)
        assert names(tmp_path / "run" / "checkpoints") == ["1000", "500"]


def test_what_came_after_a_checkpoint_that_was_returned_to_goes(tmp_path):
    with open_run(tmp_path, resume=False, keep=3) as run:
        for steps in (100, 200, 300):
            run.save(write, steps)
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint").symlink_to("checkpoints/100")
    with open_run(tmp_path, resume=True, keep=3) as run:
        assert run.num_timesteps == 100
        run.save(write, 150)
    assert names(tmp_path / "checkpoints") == ["100", "150"]


def test_a_writing_that_fails_leaves_the_one_before(tmp_path):
    def fail(path):
        raise OSError("No space left on device")

    with open_run(tmp_path, resume=False, keep=1) as run:
        run.save(write, 100)
        with pytest.raises(OSError, match="No space"):
            run.save(fail, 200)
        assert run.num_timesteps == 100 and names(tmp_path / "checkpoints") == ["100"]


def test_a_run_is_not_begun_over_another(tmp_path):
    with open_run(tmp_path / "run", resume=False) as run:
        run.log.write_text("x\n1\n")
    for _ in range(2):
        with pytest.raises(FileExistsError, match="holds a run; choose another --out, or go on with it"):
            open_run(tmp_path / "run", resume=False).__enter__()
    assert (tmp_path / "run" / "progress.csv").read_text() == "x\n1\n"
    with open_run(tmp_path / "run", resume=True) as run:
        assert run.checkpoint is None  # it ended before its first one


def test_where_no_run_is_none_is_resumed(tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("none", "other"):
        with pytest.raises(FileNotFoundError, match=rf"there is no run in '.*{name}' to go on with"):
            open_run(tmp_path / name, resume=True).__enter__()
    assert names(tmp_path) == ["other"]


def test_a_pointer_to_nowhere_is_an_error(tmp_path):
    (tmp_path / "checkpoint").symlink_to("checkpoints/7")
    with pytest.raises(FileNotFoundError, match=r"checkpoint' leads to '.*checkpoints/7', which is not there"):
        print(RunFolder(tmp_path).checkpoint)


@pytest.mark.parametrize("way", ["no link", "a folder"])
def test_a_copy_of_a_run_gets_its_link_again(tmp_path, way):
    with open_run(tmp_path / "run", resume=False) as run:
        for steps in (90, 500):
            run.save(write, steps)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "run", copy)  # follows links
    assert not (copy / "checkpoint").is_symlink()
    if way == "no link":
        shutil.rmtree(copy / "checkpoint")
    else:
        write(copy / "checkpoints" / "700")  # written whole, but not pointed to: the run was killed
    with open_run(copy, resume=True) as run:
        assert run.checkpoint == copy / "checkpoints" / "500" and (copy / "checkpoint").is_symlink()
        run.save(write, 900)
        assert run.num_timesteps == 900


def test_a_pointer_to_what_is_no_checkpoint_is_an_error_that_deletes_nothing(tmp_path):
    with open_run(tmp_path, resume=False) as run:
        run.save(write, 90)
        run.pointer.unlink()
        write(run.pointer)
    with open_run(tmp_path, resume=True) as run, pytest.raises(ValueError, match="none of the run's checkpoints"):
        _ = run.num_timesteps
    assert (tmp_path / "checkpoint" / "a").read_text() == "checkpoint"
    assert (tmp_path / "checkpoints" / "90").is_dir()


def test_a_file_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "run").write_text("")
    for resume in (True, False):
        with pytest.raises(NotADirectoryError, match="run' is a file"):
            open_run(tmp_path / "run", resume).__enter__()


def test_leftovers_go_at_the_next_start(tmp_path):
    with open_run(tmp_path, resume=False) as run:
        run.save(write, 100)
    write(tmp_path / "checkpoints" / ".200.tmp")
    (tmp_path / ".progress.csv.tmp").write_text("half")
    with open_run(tmp_path, resume=True):
        assert names(tmp_path) == ["checkpoint", "checkpoints", "lock"] and names(tmp_path / "checkpoints") == ["100"]


def test_fewer_than_one_checkpoint_cannot_be_kept(tmp_path):
    with pytest.raises(ValueError, match="keep is 0"):
        RunFolder(tmp_path, keep=0)


HOLDER = """
import sys
from pathlib import Path
from textgym.training.run import open_run
with open_run(Path(sys.argv[1]), resume=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_that_a_killed_process_does_not_leave_behind(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        for resume in (True, False):
            with pytest.raises(BlockingIOError, match=rf"another training writes to '.*run', process {holder.pid}"):
                open_run(tmp_path / "run", resume=resume).__enter__()
        os.kill(holder.pid, signal.SIGKILL)
    with open_run(tmp_path / "run", resume=True), pytest.raises(BlockingIOError):  # nor twice in one process
        open_run(tmp_path / "run", resume=True).__enter__()
