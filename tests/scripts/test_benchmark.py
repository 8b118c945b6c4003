"""`scripts/benchmark.py`: every case is measured, and the figures are consistent."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro

from agents import RewardModelTrainer
from scripts import benchmark
from scripts.benchmarks.bare import BareLoops, end_at_random, round_trip_prompts
from scripts.benchmarks.env import draw_actions
from scripts.benchmarks.reward_models import BareStep, random_pairs
from scripts.benchmarks.timing import measure
from tests.conftest import small_llama
from textgym import TextMDP
from textgym.language_models import load_tokenizer
from textgym.tokenizers import from_pretrained

ROOT = Path(__file__).parents[2]


def main(arguments):
    benchmark.main(tyro.cli(benchmark.Args, args=arguments))


SMALL = ["env", "--env-id", "TextGenChars-v0", "--transitions", "200", "--repeats", "1"]


def test_every_case_once(capsys):
    main([*SMALL, "--num-envs", "1", "4", "--sizes", "1", "8", "3", "5"])
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cases = [tuple(r[k] for k in ("max_prompt_tokens", "max_new_tokens", "num_envs", "scorer", "eos")) for r in results]
    assert cases == [
        (p, t, n, scorer, eos)
        for p, t in ((1, 8), (3, 5))
        for n in (1, 4)
        for scorer in ("no_text", "reads_text")
        for eos in (True, False)
    ]
    for result in results:
        assert result["benchmark"] == "env" and result["env_id"] == "TextGenChars-v0"
        assert result["steps_per_second"] == pytest.approx(result["num_envs"] / result["cpu_seconds"], rel=0.01)
        assert result["copy_only_steps_per_second"] > result["steps_per_second"] > 0
        packages = {"textgym", "numpy", "gymnasium", "torch", "transformers", "stable_baselines3", "sacrebleu"}
        assert set(result["versions"]) == {"python"} | packages


def test_measure_takes_the_median_per_call(monkeypatch):
    # The clock is read twice around each counted run: 1, 100 and 3 seconds for 10 calls.
    cpu, wall = iter([0, 1, 1, 101, 101, 104]), iter([0, 2, 2, 202, 202, 208])
    monkeypatch.setattr("time.process_time", lambda: next(cpu))
    monkeypatch.setattr("time.perf_counter", lambda: next(wall))
    runs = []
    timing = measure(lambda: runs.append(1), calls=10, repeats=3)
    assert len(runs) == 4
    assert (timing.cpu_seconds, timing.wall_seconds) == (0.3, 0.6)


def test_command_line_from_another_directory(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *SMALL, "--num-envs", "2", "--sizes", "1", "8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["scorer"] for line in done.stdout.splitlines()] == 2 * ["no_text"] + 2 * ["reads_text"]


def test_actions_with_and_without_eos():
    mdp = TextMDP(vocab_size=5, max_prompt_tokens=1, max_new_tokens=8, eos_token_ids=(4,))
    assert set(draw_actions(mdp, (50, 4), 0, True).flat) == {0, 1, 2, 3, 4}
    assert set(draw_actions(mdp, (50, 4), 0, False).flat) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("command", "others"),
    [
        (
            ["rollout", "--num-envs", "4", "--new-tokens", "8", "--rounds", "2"],
            {"generate", "generate_batch", "bare_loop"},
        ),
        (["update", "--num-envs", "4", "--new-tokens", "8"], {"bare"}),
        (["train", "--algorithm", "ppo", "--kl-coef", "0.1", "--num-envs", "4", "--new-tokens", "8"], {"bare"}),
        (["train", "--algorithm", "dpo", "--num-envs", "4", "--new-tokens", "8"], {"bare"}),
        (["train", "--num-envs", "8", "--num-generations", "8", "--new-tokens", "8"], {"bare"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_models_beside_bare_loops(command, others, capsys):
    main([*command, "--repeats", "1", "--prompt-tokens", "4"])
    equal, ragged = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [equal["lengths"], ragged["lengths"]] == ["equal", "ragged"]
    for result in (equal, ragged):
        rates = result["tokens_per_second"]
        assert set(rates) == {"textgym"} | others and min(rates.values()) > 0
        assert result["peak_memory_mib"] > 100
        for name, ratio in result["ratio_to"].items():
            assert ratio == pytest.approx(rates["textgym"] / rates[name], rel=0.02)
    if command[0] == "rollout":
        assert 0 < equal["outside_policy"] < 1 and equal["cache_mib"] > 0
    if command[0] == "update":
        assert 0 < equal["fed"] < 1 and ragged["fed"] > 0  # four completions share a prompt of eight tokens


def test_reward_models_beside_a_bare_step(capsys):
    main(["reward-model", "--pairs", "2", "--prompt-words", "2", "--new-words", "6", "--repeats", "1"])
    equal, ragged = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert equal["tokens"] == 4 * 8 > ragged["tokens"]
    for result in (equal, ragged):
        rates = result["tokens_per_second"]
        assert result["ratio_to"]["bare"] == pytest.approx(rates["textgym"] / rates["bare"], rel=0.02)


def test_a_bare_step_is_a_step_of_the_trainer():
    trainer = RewardModelTrainer("tiny", random_pairs(3, 2, 6, True), device="cpu", seed=0)
    bare = BareStep(trainer, [torch.tensor(ids) for (ids,) in trainer._tokens])
    trainer._train(np.arange(3), 1.0)
    assert bare() == trainer.num_tokens
    for theirs, ours in zip(bare.model.parameters(), trainer.model.module.parameters(), strict=True):
        assert torch.allclose(theirs, ours, atol=2e-5)


def test_bare_loops_count_the_tokens_up_to_eos():
    mdp = TextMDP(vocab_size=9, max_prompt_tokens=1, max_new_tokens=4, eos_token_ids=(8,))
    loops = BareLoops(None, mdp, torch.zeros(3, 1, dtype=torch.int64), "float32")
    completions = torch.tensor([[1, 8, 0, 0], [1, 2, 3, 4], [8, 8, 8, 8]])
    assert loops.real(completions).sum(-1).tolist() == [2, 4, 1]


def test_random_lengths_are_geometric():
    model = small_llama(9)
    end_at_random(model, 8, 0.25)
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.softmax(-1)[..., 8].allclose(torch.tensor(0.25), atol=1e-5)


def test_prompts_have_the_wanted_length():
    tokenizer = from_pretrained(load_tokenizer("tiny"))
    assert {len(tokenizer.encode(text)) for text in round_trip_prompts(tokenizer, 512, 20)} == {512}


def test_scorers_beside_their_rollout(capsys):
    main(["scorers", "--names", "log_prob", "exact_match", "--texts", "4", "--new-tokens", "8", "--repeats", "1"])
    token, plain = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [token["scorer"], plain["scorer"]] == ["log_prob", "exact_match"]
    for result in (token, plain):
        assert min(result["texts_per_second"].values()) > 0
        assert result["share_of_rollout"] == pytest.approx(
            result["rollout_texts_per_second"] / result["texts_per_second"]["batched"], rel=0.02
        )
    assert plain["share_of_rollout"] < token["share_of_rollout"]  # one compares strings, the other runs a model


def test_every_wrapper_is_measured(capsys):
    main(["wrappers", "--num-envs", "1", "2", "--steps", "40", "--repeats", "1"])
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [result["wrapper"] for result in results if result["num_envs"] == 1]
    assert names == [result["wrapper"] for result in results if result["num_envs"] == 2]
    assert {"none", "ConstantInfo", "PotentialShaping", "ReferenceReward", "CounterfactualCredit"} < set(names)
    assert all(result["microseconds_per_step"] > 0 for result in results)


def test_every_answer_beside_rows_of_their_own(capsys):
    main(["exact", "--prompts", "2", "--row-prompts", "1", "--repeats", "1"])
    (result,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (result["contexts_per_prompt"], result["outcomes_per_prompt"]) == (1111, 11_111)
    rates = result["contexts_per_second"]
    assert result["ratio_to_rows"] == pytest.approx(rates["tree"] / rates["rows"], rel=0.02) and rates["rows"] > 0


@pytest.mark.slow
def test_every_kind_of_adapters_beside_lora(capsys):
    main(["peft", "--num-envs", "8", "--repeats", "1"])
    results = {r["kind"]: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    assert results["LORA"]["ratio_to_lora"] == {"rollout": 1.0, "update": 1.0}
    hidden, layers = 256, 4  # of tiny, whose heads all have keys and values of their own
    counts = {"PROMPT_TUNING": 8 * hidden, "PREFIX_TUNING": 8 * 2 * layers * hidden}
    for kind, count in counts.items():
        assert results[kind]["trained_parameters"] == count
        assert 0 < results[kind]["file_kb"] - count * 4 / 1000 < 1
