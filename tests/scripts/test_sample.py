"""`scripts/sample.py`: texts, rewards, pinned prompts."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from scripts.sample import main
from scripts.sampling.texts import Args, samples, samples_towards
from tests.conftest import small_llama
from tests.helpers.chat import chat_tokenizer
from tests.helpers.scripts import error_of
from textgym.matching import RLHF
from textgym.scorers.base import ScorerError

ENV = {"env_id": "TextGenChars-v0", "device": "cpu", "env_kwargs": '{"max_prompt_tokens": 4}'}


def test_rewards_are_the_scorers(model):
    found = samples(Args(model=model, n=32, **ENV))
    assert len(found) == 32 and {sample.prompt for sample in found} == {""}
    assert len({sample.reward for sample in found}) > 2
    for sample in found:
        assert re.fullmatch("[abcd]{0,8}", sample.completion)
        assert sample.reward == pytest.approx(2 * sample.completion.count("ab") / max(len(sample.completion), 1))


def test_prompts_are_pinned_in_order(model):
    found = samples(Args(model=model, n=2, prompt=["abc", "d"], **ENV))
    assert [sample.prompt for sample in found] == ["abc", "abc", "d", "d"]


def test_deterministic_gives_one_text_per_prompt(model):
    def texts(seed, deterministic):
        return {s.completion for s in samples(Args(model=model, n=8, seed=seed, deterministic=deterministic, **ENV))}

    assert len(texts(0, True)) == 1 and texts(0, True) == texts(1, True)
    assert len(texts(0, False)) > 1 and texts(0, False) == texts(0, False) != texts(1, False)


def test_output_for_people_and_machines(model, capsys):
    main(Args(model=model, n=3, prompt=["ab"], **ENV))
    people = capsys.readouterr().out.splitlines()
    main(Args(model=model, n=3, prompt=["ab"], jsonl=True, **ENV))
    machines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert people == [f"{s['reward']:+.3f} [{s['prompt']}]{s['completion']}" for s in machines]
    assert len(people) == 3


def test_nothing_need_be_scored(model, capsys):
    """The scorer is neither loaded nor called, so it may be broken."""
    broken = {"scorer": "no_such_module:reward", "no_score": True}
    main(Args(model=model, n=3, prompt=["ab"], **broken, **ENV))
    people = capsys.readouterr().out.splitlines()
    main(Args(model=model, n=3, prompt=["ab"], jsonl=True, **broken, **ENV))
    machines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert people == [f"[{s['prompt']}]{s['completion']}" for s in machines]
    assert [s["reward"] for s in machines] == [None] * 3
    scored = samples(Args(model=model, n=3, prompt=["ab"], **ENV))
    assert [s.completion for s in scored] == [s["completion"] for s in machines]  # the same texts
    with pytest.raises(ValueError, match="--best-of needs rewards, and --no-score gives none"):
        samples(Args(model=model, best_of=2, no_score=True, **ENV))


def contains(completions, answer):
    return [float(a in text) for text, a in zip(completions, answer, strict=True)]


def test_a_pinned_prompt_has_no_columns(model, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "c", "answer": "d"}\n')
    columns = {"prompts": str(tmp_path / "prompts.jsonl"), "scorer": "tests.scripts.test_sample:contains"}
    assert {s.prompt for s in samples(Args(model=model, n=8, **columns, **ENV))} == {"a", "c"}
    with pytest.raises(ScorerError, match=r"scorer 'contains' .*\n.*none of the columns \['answer'\].*--no-score"):
        samples(Args(model=model, prompt=["ab"], **columns, **ENV))
    assert len(samples(Args(model=model, n=2, prompt=["ab"], no_score=True, **columns, **ENV))) == 2


def test_a_scorer_by_name(model):
    for sample in samples(Args(model=model, n=4, scorer='{"name": "length", "target": 100}', **ENV)):
        tokens = len(sample.completion) + (len(sample.completion) < 8)  # EOS
        assert sample.reward == pytest.approx(tokens / 100 - 1)


@pytest.mark.parametrize("option", ["--n", "--best-of", "--temperature", "--top-k", "--top-p", "--acceptance"])
def test_numbers_must_be_positive(model, option):
    assert error_of(main, Args, "--model", model, option, "0").startswith(f"{option} is 0")


@pytest.mark.parametrize("warper", [{"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-6}], ids=lambda w: next(iter(w)))
def test_warpers_down_to_the_likeliest_token(model, warper):
    greedy = {s.completion for s in samples(Args(model=model, n=4, deterministic=True, **ENV))}
    assert {s.completion for s in samples(Args(model=model, n=16, **warper, **ENV))} == greedy


def test_a_checkpoints_temperature_may_be_replaced(tmp_path, model):
    from agents import REINFORCE

    env = gym.make_vec("TextGenChars-v0", num_envs=2, num_generations=2, autoreset_mode="Disabled")
    agent = REINFORCE("TokenPolicy", env, model, policy_kwargs={"temperature": 1e-4}, seed=0, device="cpu")
    agent.save(tmp_path / "cold")
    trained = {"model": str(tmp_path / "cold"), "n": 16, "device": "cpu"}
    assert len({s.completion for s in samples(Args(**trained))}) == 1
    assert len({s.completion for s in samples(Args(**trained, temperature=1.0))}) > 1


def test_best_of_takes_the_highest_reward_of_each_group(model):
    everything = samples(Args(model=model, n=24, prompt=["ab", "d"], **ENV))
    best = samples(Args(model=model, n=6, best_of=4, prompt=["ab", "d"], **ENV))
    groups = [everything[i : i + 4] for i in range(0, 48, 4)]  # the same 48 texts
    assert [s.reward for s in best] == [max(s.reward for s in group) for group in groups]
    assert all(s in group for s, group in zip(best, groups, strict=True))
    assert [s.prompt for s in best] == 6 * ["ab"] + 6 * ["d"]


def test_best_of_without_a_prompt_shares_the_drawn_ones(model):
    env = ENV | {"env_kwargs": '{"max_prompt_tokens": 4, "prompts": ["ab", "d", "c", "ca"]}'}
    everything = samples(Args(model=model, n=1, best_of=40, **env))
    assert len(everything) == 1 and everything[0].reward > 0


TARGET = '{"name": "rlhf", "beta": 0.2}'


def test_target(model, capsys):
    main(Args(model=model, n=200, target=TARGET, acceptance=0.3, jsonl=True, **ENV))
    out, err = capsys.readouterr()
    accepted = [json.loads(line)["reward"] for line in out.splitlines()]
    plain = [s.reward for s in samples(Args(model=model, n=200, **ENV))]
    assert len(accepted) == 200 and np.mean(accepted) > np.mean(plain) + 0.1
    rate = re.match(r"(0\.\d+) ± 0\.\d+ of \d+ texts accepted \(log beta -?\d+\.\d+\)\n", err)
    assert float(rate[1]) == pytest.approx(0.3, abs=0.07)
    number = r"(\d+\.\d+) ± \d+\.\d+"
    for title in ("total variation to the target", "KL(target || .)", "KL(. || target)"):
        before, after = re.search(rf"{re.escape(title)}: {number} -> {number}\n", err).groups()
        assert float(after) < float(before)


def test_target_with_a_prompt(model):
    found, _ = samples_towards(RLHF(0.2), Args(model=model, n=5, prompt=["abc"], **ENV))
    assert [s.prompt for s in found] == ["abc"] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.5, "top_k": 3, "best_of": 2}, "leave out --temperature, --top-k, --best-of"),
        ({"deterministic": True}, "leave out --deterministic"),
        ({"prompt": ["a", "b"]}, "one --prompt at a time"),
        ({"target": "rlhf"}, "--target is not JSON: .*: 'rlhf'"),
        ({"target": '{"name": "rlfh"}'}, "accepted are a Target or a dict whose 'name' is one of"),
    ],
)
def test_target_mistakes(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        main(Args(**({"model": model, "target": TARGET} | arguments), **ENV))


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A random model over the characters of a tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    small_llama(8, seed=1).save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return str(folder)


def chat_args(chat_model, **changed):
    kwargs = {"tokenizer": chat_model, "prompts": ["a"], "max_prompt_tokens": 24, "max_new_tokens": 5}
    given = {"model": chat_model, "env_id": "TextGen-v0", "device": "cpu", "env_kwargs": json.dumps(kwargs)}
    return Args(**given | changed)


def test_a_prompt_as_a_users_message(chat_model):
    found = samples(chat_args(chat_model, prompt=["ab", "d"], as_chat=True, n=2, no_score=True))
    assert [s.prompt for s in found] == ["u:ab;a:"] * 2 + ["u:d;a:"] * 2
    plain = samples(chat_args(chat_model, prompt=["ab"], n=1, no_score=True))
    assert plain[0].prompt == "ab"
    with pytest.raises(ValueError, match="--as-chat makes messages of --prompt, and there is none"):
        samples(chat_args(chat_model, as_chat=True))


def talk(monkeypatch, capsys, args, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    main(args)
    return capsys.readouterr().out.splitlines()


def test_a_chat_answers_every_line(chat_model, monkeypatch, capsys):
    args = chat_args(chat_model, chat=True, deterministic=True)
    first, second = talk(monkeypatch, capsys, args, "ab\nc\n/quit\nd\n")
    history = f"u:ab;a:{first};u:c;a:"
    kwargs = json.loads(args.env_kwargs)

    def alone(prompt):
        (one,) = samples(chat_args(chat_model, prompt=[prompt], n=1, deterministic=True, no_score=True))
        return one.completion

    assert (first, second) == (alone("u:ab;a:"), alone(history))
    assert len(history) <= kwargs["max_prompt_tokens"]
    again = talk(monkeypatch, capsys, args, "ab\n/new\n\nab\n")
    assert again == [first, first, ""]  # the end of the input ends the line


def test_a_chat_says_what_does_not_fit_and_goes_on(chat_model, monkeypatch, capsys):
    args = chat_args(chat_model, chat=True, deterministic=True)
    lines = talk(monkeypatch, capsys, args, "ab\nabcdabcdabcdabcdabcd\n/new\nab\n/quit\n")
    assert lines[0] == lines[-1] and lines[2] == "/new starts again"
    assert lines[1].startswith("not sent: ") and "more than max_prompt_tokens=24" in lines[1]


def test_ctrl_c_ends_a_chat(chat_model, monkeypatch, capsys):
    def interrupt(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    main(chat_args(chat_model, chat=True))
    assert capsys.readouterr().out == "\n"


def test_what_a_chat_leaves_out_and_needs(chat_model, model, monkeypatch, capsys):
    with pytest.raises(ValueError, match="leave out --prompt, --jsonl, --best-of"):
        main(chat_args(chat_model, chat=True, prompt=["a"], jsonl=True, best_of=2))
    with pytest.raises(ValueError, match="no chat template"):
        talk(monkeypatch, capsys, Args(model=model, chat=True, **ENV), "ab\n")


@pytest.mark.subprocess
def test_a_chat_over_a_pipe(chat_model, tmp_path):
    command = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "sample.py"), "--model", chat_model]
    options = ["--env-kwargs", chat_args(chat_model).env_kwargs, "--chat", "--device", "cpu", "--top-k", "1"]
    done = subprocess.run([*command, *options], input="ab\nc\n", cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
