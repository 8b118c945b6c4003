"""`scripts/frontier.py`: what it prints against the frontier that it returns."""

from scripts.frontier import Args, main
from tests.conftest import save_chars_model
from textgym.evaluation import best_of_n_reward
from textgym.matching import Estimate


def test_the_points_that_are_asked_for(tmp_path, capsys):
    model = save_chars_model(tmp_path / "model", seed=0)
    common = {"model": model, "env_id": "TextGenChars-v0", "device": "cpu"}
    frontier = main(Args(**common, samples=60, n_envs=20, kl=(0.1, 99.0), rewards=(0.15,), n=(4,)))
    assert frontier.rewards.shape == (1, 60)
    printed = capsys.readouterr().out
    for kl, reward in ((0.1, frontier.reward_within(0.1)), (frontier.least_kl(0.15), 0.15)):
        (line,) = (line for line in printed.splitlines() if f" {kl if reward != 0.15 else reward:g} " in line)
        cells = [cell.strip() for cell in line.split("│")[3:5]]
        for cell, number in zip(cells, (kl, reward), strict=True):
            value, *error = (number.value, number.standard_error) if isinstance(number, Estimate) else (number,)
            assert cell == f"{value:.3f}" + "".join(f" ± {1.96 * e:.3f}" for e in error)
    bound, reward = best_of_n_reward(frontier.rewards, 4)
    assert f"{bound:.3f}" in printed and f"{reward.value:.3f}" in printed and "nan" not in printed
    (line,) = (line for line in printed.splitlines() if " 99 " in line)
    assert [cell.strip() for cell in line.split("│")[3:5]] == ["-", "-"]
