"""`scripts/label.py`: keys in a terminal, kills at any key, several raters, and what comes out."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from scripts.label import main
from scripts.preferences.labelling import Args, is_swapped, label, pairs_to_judge
from scripts.preferences.labels import Journal, Pair, agreement, read_journals, read_pairs, write_pairs
from tests.conftest import save_chars_model
from textgym.preferences import read_preferences

SCRIPT = Path(__file__).parents[2] / "scripts" / "label.py"
PAIRS = [Pair("The plot", f" is good {k}.", f" is bad {k}.") for k in range(6)]


def source(tmp_path, pairs=PAIRS):
    file = tmp_path / "source.jsonl"
    rows = [{"prompt": pair.prompt, "chosen": pair.first, "rejected": pair.second} for pair in pairs]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def labelled(folder, keys, rater="anna", pairs=PAIRS):
    """The verdicts after some keys, given by what the rater means by "1" and "2": the first and the second text."""
    write_pairs(folder, pairs)
    journal, waiting = Journal(folder, rater, len(pairs)), list(keys)

    def press():
        return waiting.pop(0) if waiting else ""

    label(pairs, journal, rater, press, Console(file=io.StringIO()))
    return journal


def key_for(rater, number, better):
    return "1" if (better == "first") != is_swapped(rater, number) else "2"


def test_every_key(tmp_path):
    keys = [key_for("anna", 0, "first"), key_for("anna", 1, "second"), "0", "s", "?", "q", "1"]
    journal = labelled(tmp_path, keys)
    assert journal.verdicts == {0: "first", 1: "second", 2: "tie", 3: "skip"}
    assert Journal(tmp_path, "anna", 6).verdicts == journal.verdicts


def test_undo_asks_for_the_same_pair_again_also_after_a_stop(tmp_path):
    assert labelled(tmp_path, "00u").verdicts == {0: "tie"}
    assert labelled(tmp_path, "us").verdicts == {0: "skip"} == Journal(tmp_path, "anna", 6).verdicts
    assert labelled(tmp_path, "uuu").verdicts == {}


def test_sides_are_a_coin_for_each_rater_and_pair():
    sides = [[is_swapped(rater, number) for number in range(400)] for rater in ("anna", "bob")]
    assert all(160 < sum(side) < 240 for side in sides)
    assert 160 < sum(a == b for a, b in zip(*sides, strict=True)) < 240


@pytest.mark.parametrize("keys", range(7))
def test_a_kill_at_any_key_loses_nothing_that_was_pressed_before(tmp_path, keys):
    """The process kills itself while it waits for a key."""
    if (child := os.fork()) == 0:
        waiting = ["0"] * keys
        write_pairs(tmp_path, PAIRS)

        def press():
            return waiting.pop() if waiting else os.kill(os.getpid(), signal.SIGKILL)

        label(PAIRS, Journal(tmp_path, "anna", 6), "anna", press, Console(file=io.StringIO()))
        os._exit(0)
    os.waitpid(child, 0)
    assert Journal(tmp_path, "anna", 6).verdicts == dict.fromkeys(range(keys), "tie")


@pytest.mark.parametrize("lost", range(1, 30))
def test_half_a_line_is_removed_and_told(tmp_path, lost):
    path = labelled(tmp_path, "000").path
    os.truncate(path, path.stat().st_size - lost)
    assert read_journals(tmp_path, 6) == {"anna": {0: "tie", 1: "tie"}}  # another process only passes it over
    journal = Journal(tmp_path, "anna", 6)
    assert journal.verdicts == {0: "tie", 1: "tie"} and journal.was_cut
    journal.append(2, "skip")
    assert Journal(tmp_path, "anna", 6).verdicts == {0: "tie", 1: "tie", 2: "skip"}


def test_files_that_hold_something_else(tmp_path):
    labelled(tmp_path, "0")
    with pytest.raises(ValueError, match="the rater's name is '../x'"):
        Journal(tmp_path, "../x", 6)
    for row in ('{"pair": 6, "verdict": "tie"}', '{"pair": 1, "verdict": "good"}', "[]"):
        (tmp_path / "labels-anna.jsonl").write_text(row + "\n")
        with pytest.raises(ValueError, match="line 1 of '.*labels-anna.jsonl' is .*, no verdict on one of the 6 pairs"):
            Journal(tmp_path, "anna", 6)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "first": "a"}\n')
    with pytest.raises(ValueError, match="line 1 of '.*pairs.jsonl' is .*; it must have prompt, first and second"):
        read_pairs(tmp_path)


def test_agreement_of_several_raters():
    anna = {0: "first", 1: "second", 2: "tie", 3: "first"}
    assert agreement({"anna": anna}) == "agreement: no pair was judged by two raters yet"
    assert "4 pairs were judged by several raters; two of them say the same in 100%, Krippendorff's alpha is 1.00" in (
        agreement({"anna": anna, "bob": anna})
    )
    told = agreement({"anna": anna, "bob": {0: "first", 1: "first"}, "eve": {0: "second"}})
    assert told.startswith("2 pairs were judged by several raters; two of them say the same in 25%")
    assert "agreement beyond chance is not defined" in agreement({"anna": {0: "tie"}, "bob": {0: "tie"}})


def test_two_samples_of_a_model(tmp_path):
    model = save_chars_model(tmp_path, seed=0)
    args = Args(model, env_id="TextGenChars-v0", env_kwargs='{"prompts": ["a", "b"]}', device="cpu", pairs=30)
    pairs = pairs_to_judge(args)
    assert len(set(pairs)) == 30 and {pair.prompt for pair in pairs} == {"a", "b"}
    assert all(pair.first != pair.second and pair.first and pair.second for pair in pairs)
    assert pairs == pairs_to_judge(args)
    with pytest.raises(ValueError, match="times two samples brought only 12 different pairs"):
        pairs_to_judge(
            Args(model, env_id="TextGenChars-v0", env_kwargs='{"max_new_tokens": 1}', device="cpu", pairs=30)
        )


def test_raters_that_are_made_up(tmp_path, capsys):
    pairs = [Pair("The film is", f" wonderful {k}.", f" awful {k}.") for k in range(40)]
    out = tmp_path / "labels"
    for rater, noise in (("sure", 0.0), ("noisy", 0.5)):
        main(Args(source=source(tmp_path, pairs), out=out, rater=rater, synthetic=noise))
    assert "Krippendorff's alpha" in capsys.readouterr().out
    found = read_preferences(out / "preferences.jsonl")
    assert len(found) == 80 and not any(one.tie for one in found)
    assert set(read_journals(out, 40)["sure"].values()) == {"first"}
    wrong = list(read_journals(out, 40)["noisy"].values()).count("second")
    assert 0 < wrong < 12  # of 40, 40 sigmoid(-1.03 / 0.5) = 4.5 are expected


@pytest.mark.slow
def test_in_a_terminal_with_a_kill_between_two_keys(tmp_path):
    """Keys need no Enter; an arrow key is none; a killed session goes on where it was."""
    file, out = source(tmp_path), tmp_path / "labels"
    command = [sys.executable, str(SCRIPT), "--source", str(file), "--out", str(out)]
    journal = out / "labels-me.jsonl"

    def started():
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        return process, ours

    def seen_until(terminal, text):
        shown = b""
        while text not in shown:
            shown += os.read(terminal, 4096)

    process, terminal = started()
    for number, key in enumerate([b"0", b"\x1b[1~0", b"s"]):
        seen_until(terminal, b"%d of 6, me" % (number + 1))
        os.write(terminal, key)
    seen_until(terminal, b"4 of 6, me")
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.close(terminal)
    assert [json.loads(line)["verdict"] for line in journal.read_text().splitlines()] == ["tie", "tie", "skip"]

    process, terminal = started()
    for number, key in enumerate([b"0", b"0", b"q"]):
        seen_until(terminal, b"%d of 6, me" % (number + 4))
        os.write(terminal, key)
    seen_until(terminal, b"preferences")
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.returncode == 0
    assert [row.tie for row in read_preferences(out / "preferences.jsonl")] == [True] * 4
