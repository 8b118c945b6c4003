"""Episodes as files: what is written is read again, and what is wrong is named by its line."""

import json
from functools import partial

import gymnasium as gym
import pytest
import torch

from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.evaluation import ModelPolicy, off_policy, off_policy_sample, read_episodes, write_episodes
from textgym.training import TokenModel

ANSWERS = [{"prompt": p, "answer": a} for p, a in (("", "a"), ("a", "b"), ("ab", "c"), ("cad", "d"))]


def begins_with_the_answer(completions, answer):
    return [float(text.startswith(a)) for text, a in zip(completions, answer, strict=True)]


def policy_of(seed=0, n=64, scorer=count_tokens, **kwargs):
    env = gym.make_vec("TextGen-v0", num_envs=n, autoreset_mode="Disabled", scorer=scorer, **(CHARACTERS | kwargs))
    return ModelPolicy(env, TokenModel(env.unwrapped.mdp, small_llama(env.unwrapped.mdp.vocab_size, seed)), seed=0)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A file of 128 episodes, what it holds, and what wrote it."""
    path, policy = tmp_path_factory.mktemp("log") / "more" / "log.jsonl", policy_of(prompts=ANSWERS)
    episodes = policy.sample_episodes(128)
    write_episodes(path, episodes, policy.task)
    return path, episodes, policy


def test_what_is_written_is_read_again(log):
    path, episodes, policy = log
    read = read_episodes(path, policy_of(prompts=ANSWERS).task)
    for name in ("rows", "mask", "row_lengths", "prompt_ids", "log_probs", "sampled_log_probs", "rewards"):
        assert torch.equal(getattr(read, name), getattr(episodes, name)), name
    assert [path.name] == [file.name for file in path.parent.iterdir()]
    other = policy_of(1, prompts=ANSWERS)
    ours, theirs = off_policy_sample(read, other), off_policy_sample(episodes, other)
    assert torch.equal(ours.log_ratios, theirs.log_ratios) and torch.equal(ours.rewards, theirs.rewards)


def test_a_line_is_what_people_and_trl_expect(log):
    path, episodes, policy = log
    line = json.loads(path.read_text().splitlines()[5])
    prompt, completion = policy.task.decode_parts(episodes.rows[5])
    length = int(episodes.lengths[5])
    assert (line["prompt"], line["completion"]) == (prompt, completion)
    assert line["completion_ids"] == episodes.actions[5, :length].tolist()
    assert line["prompt_ids"] == [i for i in episodes.rows[5, :3].tolist() if i != 5]
    assert line["rewards"] == [0.0] * (length - 1) + [float(length)]
    assert line["logprobs"] == pytest.approx(episodes.log_probs[5, :length].tolist(), abs=1e-6)
    assert line["columns"] == {"answer": {row["prompt"]: row["answer"] for row in ANSWERS}[prompt]}


def test_a_log_is_scored_with_its_columns(log):
    path, _, _ = log
    scored = policy_of(prompts=ANSWERS, scorer=begins_with_the_answer)
    sample = off_policy_sample(read_episodes(path, scored.task), scored, scorer=begins_with_the_answer)
    expected = scored.sample_episodes(128).rewards  # the same seed and model
    assert torch.equal(sample.rewards, expected) and 0 < expected.sum() < 128


def test_logs_of_several_behaviours_may_stand_in_one_file(log, tmp_path):
    path, episodes, _ = log
    second, both = policy_of(2, prompts=ANSWERS), tmp_path / "both.jsonl"
    more = second.sample_episodes(128)
    write_episodes(tmp_path / "second.jsonl", more, second.task)
    both.write_bytes(path.read_bytes() + (tmp_path / "second.jsonl").read_bytes())
    read = read_episodes(both, second.task)
    assert torch.equal(read.log_probs, torch.cat([episodes.log_probs, more.log_probs]))
    assert off_policy(read, second).effective_sample_size > 50


def test_prompts_that_the_env_does_not_have_are_taken_over(log):
    path, episodes, _ = log
    elsewhere = policy_of(1, prompts=[{"prompt": "bb", "answer": "b"}])
    read = read_episodes(path, elsewhere.task)
    assert torch.equal(read.rows, episodes.rows) and read.prompt_ids.unique().numel() == 4
    torch.testing.assert_close(
        off_policy_sample(read, elsewhere).log_ratios,
        off_policy_sample(episodes, policy_of(1, prompts=ANSWERS)).log_ratios,
        atol=1e-5,
        rtol=0,
    )


def test_a_column_that_is_no_json(tmp_path):
    policy = policy_of(prompts=[{"prompt": "a", "answer": {1, 2}}], n=2)
    with pytest.raises(ValueError, match="the prompt 'a' has a column that JSON cannot hold"):
        write_episodes(tmp_path / "log.jsonl", policy.sample_episodes(2), policy.task)
    assert not (tmp_path / "log.jsonl").exists()


def lacks(name, line):
    return {key: value for key, value in line.items() if key != name}


def with_(line, **changed):
    return line | changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (partial(lacks, "logprobs"), "it lacks 'logprobs'; it has"),
        (partial(with_, logprobs=None), "logprobs must be a list of numbers, not None"),
        (lambda line: with_(line, logprobs=[None] * len(line["logprobs"])), "not with None in it"),
        (lambda line: with_(line, logprobs=line["logprobs"][1:]), r"it has \d logprobs for \d completion_ids"),
        (lambda line: with_(line, logprobs=[-float("inf"), *line["logprobs"][1:]]), "token 0 .* finite log-prob"),
        (lambda line: with_(line, logprobs=[0.7, *line["logprobs"][1:]]), "at most 0"),
        (lambda line: with_(line, rewards=[*line["rewards"], 1.0]), r"it has \d rewards for \d completion_ids"),
        (lambda line: with_(line, completion_ids=[7, *line["completion_ids"][1:]]), "completion_ids contain 7"),
        (lambda line: with_(line, completion_ids=["a"]), "completion_ids must be a list of token ids, not with 'a' in"),
        (partial(with_, completion_ids=[], logprobs=[], rewards=[]), "it has 0 completion_ids"),
        (partial(with_, completion_ids=[0], logprobs=[-1], rewards=[1], completion="a"), "nothing else"),
        (partial(with_, completion="zz"), "another tokenizer: its tokens read '.*' here, not 'zz'"),
        (partial(with_, prompt="bc"), r"the policy would read its prompt as the tokens \[1, 2\], not as prompt_ids"),
        (partial(with_, prompt=7), "the pinned prompt is 7"),
        (partial(with_, columns=3), "columns must be an object, not 3"),
        (partial(with_, columns={"anser": "a"}), "column 'anser', which the source's prompts do not have"),
        (lambda line: [line], "not an object with"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(log, tmp_path, change, message):
    path, _, policy = log
    lines = path.read_text().splitlines()
    lines[6] = json.dumps(change(json.loads(lines[6])))
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"^line 7 of '.*log.jsonl'.*{message}"):
        read_episodes(tmp_path / "log.jsonl", policy.task)


def test_a_file_that_was_cut_and_an_empty_one(log, tmp_path):
    path, _, policy = log
    data = path.read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"line \d+ of '.*cut.jsonl' is not JSON"):
        read_episodes(tmp_path / "cut.jsonl", policy.task)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="there is no episode in"):
        read_episodes(tmp_path / "empty.jsonl", policy.task)
    with pytest.raises(FileNotFoundError, match="the log file"):
        read_episodes(tmp_path / "none.jsonl", policy.task)


def test_another_env_is_refused(log):
    path, _, _ = log
    with pytest.raises(ValueError, match="another tokenizer: its tokens read|the policy would read its prompt as"):
        others = {"tokenizer": {"name": "characters", "alphabet": "badc"}, "prompts": [{"prompt": "", "answer": ""}]}
        read_episodes(path, policy_of(**others).task)
    with pytest.raises(ValueError, match=r"it has \d completion_ids; the env wants 1 to max_new_tokens=2"):
        read_episodes(path, policy_of(max_new_tokens=2, prompts=ANSWERS).task)
    with pytest.raises(ValueError, match="nothing else"):
        read_episodes(path, policy_of(max_new_tokens=9, prompts=ANSWERS).task)
    with pytest.raises(ValueError, match="the env forbids this token there"):
        read_episodes(path, policy_of(banned_tokens=[2], prompts=ANSWERS).task)
