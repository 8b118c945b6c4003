"""The human ratings, from an archive that is made up, to files that are read again."""

import io
import subprocess
import tarfile

import numpy as np
import pytest

from scripts import ratings as script
from scripts.preferences import human_ratings
from scripts.preferences.human_ratings import FILES, download, ratings_of
from textgym.preferences import read_preferences, read_ratings
from textgym.preferences.agreement import concordance
from textgym.text_files import write_json_lines


def table(rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def tables(n=120):
    """Sentences whose number is their quality, with three raters; the texts stand in another order than the ratings."""
    ratings = [(f"1_{k}", 9.9, 0.5, [k % 9 - 4, (k + 1) % 9 - 4, 0]) for k in range(n)]
    texts = [(f"1_{k}", 9.9, f" Sentence {k}. ") for k in reversed(range(n))]
    files = {f"{name}_anonDataRatings.txt": table(ratings) for name in FILES.values()}
    return files | {f"{name}_GroundTruth.txt": table(texts) for name in FILES.values()}


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_text_gets_its_own_ratings_and_their_mean():
    last, *_, first = ratings_of("products", tables())
    assert (last.text, last.ratings, last.rating) == ("Sentence 119.", (-2, -1, 0), -1)
    assert (first.text, first.ratings, first.rating) == ("Sentence 0.", (-4, -3, 0), -7 / 3)


def test_the_archive_is_the_pinned_one(monkeypatch):
    files = {name: ("\ufeff" + text).encode() for name, text in tables().items()}
    sdist = archive({"hutto_ICWSM_2014.tar.gz": archive(files | {"lexicon.txt": b"\xff"})})

    def pip(command, check):
        with open(f"{command[command.index('--dest') + 1]}/package.tar.gz", "wb") as file:
            file.write(sdist)

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(ValueError, match="SHA-256 is .*, not the pinned 5d7c06e0"):
        download()
    monkeypatch.setattr(human_ratings, "SHA256", human_ratings.hashlib.sha256(sdist).hexdigest())
    assert download() == tables()


def test_the_files_are_read_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "download", tables)
    script.main(script.Args(tmp_path, train_pairs=50, test_pairs=20, agreement=0.8))
    assert "movies" in capsys.readouterr().out
    folder = tmp_path / "movies"
    parts = [read_ratings(folder / f"{part}.jsonl", scale=human_ratings.SCALE) for part in ("train", "test")]
    assert sorted(parts[0] + parts[1], key=str) == sorted(ratings_of("movies", tables()), key=str)
    for part, whole in zip(("train", "test"), parts, strict=True):
        texts = {one.text for one in whole}
        halves = [read_ratings(folder / f"{part}-half-{k}.jsonl") for k in (1, 2)]
        assert [(a.ratings[0], *b.ratings, a.ratings[1]) for a, b in zip(*halves, strict=True)] == [
            one.ratings for one in whole
        ]
        pairs = read_preferences(folder / f"{part}-pairs.jsonl")
        assert len(pairs) == {"train": 50, "test": 20}[part]
        assert {text for pair in pairs for text in (pair.chosen, pair.rejected)} <= texts
    assert any(pair.tie for pair in pairs) and not any(p.tie for p in read_preferences(folder / "train-pairs.jsonl"))


def test_concordance_against_all_pairs():
    scores, ratings = np.random.default_rng(0).integers(4, size=(2, 30))
    pairs = [(i, j) for i in range(30) for j in range(30) if ratings[i] > ratings[j]]
    right = [(scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i, j in pairs]
    assert concordance(scores, ratings) == pytest.approx(np.mean(right), abs=1e-12)
    with pytest.raises(ValueError, match="all ratings are the same"):
        concordance([1, 2], [3, 3])


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "rows.jsonl"
    write_json_lines(file, [{"text": "é\u2028"}])
    with pytest.raises(ValueError):
        write_json_lines(file, [{"a": 1}, {"a": float("nan")}])
    assert file.read_text(encoding="utf-8") == '{"text": "é\u2028"}\n'
