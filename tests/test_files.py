"""Files and folders that are written whole or not at all, and pointers that change in one step."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textgym import files
from textgym.files import follow, point, remove, remove_leftovers, whole_file, whole_folder


def write(path, text):
    with whole_folder(path) as folder:
        (folder / "a").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_folder_replaces_another_whole(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *args, **kwargs: None)  # a system without renameat2
    write(tmp_path / "x" / "m", "old")
    write(tmp_path / "x" / "m", "new")
    assert (tmp_path / "x" / "m" / "a").read_text() == (tmp_path / "x" / "m" / "sub" / "b").read_text() == "new"
    assert names(tmp_path / "x") == ["m"]


def test_an_error_leaves_what_was_there(tmp_path):
    write(tmp_path / "m", "old")
    with pytest.raises(OSError, match="No space"), whole_folder(tmp_path / "m") as folder:
        (folder / "a").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "m" / "a").read_text() == "old" and names(tmp_path) == ["m"]


def test_a_file_replaces_another_whole_or_not_at_all(tmp_path):
    (file := tmp_path / "f").write_text("old")
    (tmp_path / "link").symlink_to("f")
    with pytest.raises(OSError, match="No space"), whole_file(tmp_path / "link") as new:
        new.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert file.read_text() == "old" and names(tmp_path) == ["f", "link"]
    with whole_file(tmp_path / "link") as new:
        new.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new" and names(tmp_path) == ["f", "link"] and (tmp_path / "link").is_symlink()


def test_a_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    write(tmp_path / "m", "old")
    (tmp_path / "link").symlink_to("m")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "m" / "a").read_text() == "new"


def test_all_is_brought_to_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    synced, real = [], files.sync
    monkeypatch.setattr(files, "sync", lambda path: (synced.append((path.name, (tmp_path / "m").exists())), real(path)))
    write(tmp_path / "m", "text")
    assert {"a", "b", "sub", ".m.tmp"} == {name for name, there in synced if not there}
    assert synced[-1] == (tmp_path.name, True)


def test_leftovers_of_killed_processes_go(tmp_path):
    write(tmp_path / "kept", "text")
    for name in (".7.tmp", ".8.tmp"):
        (tmp_path / name / "sub").mkdir(parents=True)
    assert [path.name for path in remove_leftovers(tmp_path)] == [".7.tmp", ".8.tmp"]
    assert names(tmp_path) == ["kept"]
    (tmp_path / ".kept.tmp").mkdir()
    write(tmp_path / "kept", "again")  # writing it again removes its own
    assert names(tmp_path) == ["kept"]


@pytest.mark.parametrize("links", [True, False])
def test_a_pointer_leads_to_its_target_wherever_the_folder_moves(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no links")))
    run = tmp_path / "run"
    for n in ("1", "2"):
        write(run / "checkpoints" / n, n)
        point(run / "pointer", run / "checkpoints" / n)
        assert (follow(run / "pointer") / "a").read_text() == n
    run.rename(tmp_path / "moved")
    assert (follow(tmp_path / "moved" / "pointer") / "a").read_text() == "2"
    assert names(tmp_path / "moved") == ["checkpoints", "pointer"]


def test_what_is_no_pointer_is_itself(tmp_path):
    (tmp_path / "text").write_text("nowhere")
    assert follow(tmp_path / "text") == tmp_path / "text" and follow(tmp_path / "none") == tmp_path / "none"


def test_what_is_removed_is_never_half_there(tmp_path, monkeypatch):
    write(tmp_path / "m", "text")
    monkeypatch.setattr(files.shutil, "rmtree", lambda path: None)  # killed in the middle
    remove(tmp_path / "m")
    assert names(tmp_path) == [".m.tmp"]


WRITER = """
import sys
from pathlib import Path
from textgym.files import whole_folder
path, n = Path(sys.argv[1]), 0
while True:
    n += 1
    with whole_folder(path) as folder:
        for name in "abcdef":
            (folder / name).write_text(str(n))
    if n == 1:
        print("begun", flush=True)
"""


def test_a_killed_writer_leaves_a_whole_folder(tmp_path, rng):
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "m")], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"begun\n"
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        texts = {name: (tmp_path / "m" / name).read_text() for name in "abcdef"}
        assert len(set(texts.values())) == 1, texts
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["m"]
