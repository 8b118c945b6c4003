"""Pieces of a batch: the cheapest cut, and how much of it is padding; what the buffer derives from rows."""

from itertools import combinations

import numpy as np
import pytest
import torch

from tests.conftest import episodes_of
from textgym.language_models.pieces import cheapest_slices
from textgym.mdp import TextMDP
from textgym.sb3 import EpisodeRolloutBuffer
from textgym.training.episodes import minibatches


def partitions(n, size):
    """Every way to cut n things, in order, into slices of at most `size`."""
    for k in range(n):
        for cuts in combinations(range(1, n), k):
            slices = list(zip((0, *cuts), (*cuts, n), strict=True))
            if all(end - start <= (size or n) for start, end in slices):
                yield slices


@pytest.mark.parametrize("cost", [0, 3, 8, 1000])
def test_pieces_are_the_cheapest_of_all_partitions(cost, rng):
    def price(slices):
        return sum((end - start) * lengths[end - 1] + cost for start, end in slices)

    for n in range(1, 9):
        for size in (None, 1, 2, 3, n):
            lengths = np.sort(rng.integers(1, 33, n))
            least, pieces = cheapest_slices(lengths, size, cost)
            assert pieces in list(partitions(n, size))
            assert least == price(pieces) == min(map(price, partitions(n, size)))


def geometric_episodes(n, seed, prompt=8, limit=32):
    """Lengths with a mean of about a third of the limit, where each token ends the text with the same probability."""
    lengths = np.random.default_rng(seed).geometric(3 / limit, n).clip(max=limit)
    episodes = episodes_of([[1.0]] * n, [[0.0]] * n, [0] * n)
    return episodes.replace(row_lengths=torch.from_numpy(prompt + lengths - 1))


def padding(episodes, size=None):
    """Padded tokens over real tokens, minus 1."""
    pieces = episodes.micro_batches(size, share_prompts=False)
    assert sorted(torch.cat(pieces).tolist()) == list(range(len(episodes)))
    padded = sum(len(piece) * int(episodes.row_lengths[piece].max()) for piece in pieces)
    return padded / int(episodes.row_lengths.sum()) - 1


@pytest.mark.parametrize("n", [64, 16])
def test_less_than_a_tenth_of_the_tokens_is_padding(n):
    shares = [padding(geometric_episodes(n, seed)) for seed in range(50)]
    assert np.mean(shares) < 0.1 and (n < 64 or max(shares) < 0.1)


def test_no_piece_is_larger_than_asked_for():
    episodes = geometric_episodes(64, 0)
    assert max(len(piece) for piece in episodes.micro_batches(5, share_prompts=False)) == 5
    assert [len(piece) for piece in episodes.micro_batches(1, share_prompts=False)] == [1] * 64 and padding(
        episodes, 1
    ) == 0


def test_minibatches_hold_every_episode_once():
    torch.manual_seed(0)
    batches = minibatches(10, 4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(10)) != torch.cat(batches).tolist()
    for size in (None, 10, 11):
        assert [batch.tolist() for batch in minibatches(10, size)] == [list(range(10))]


def test_the_buffer_reads_masks_and_lengths_off_the_rows():
    mdp = TextMDP(vocab_size=5, max_prompt_tokens=3, max_new_tokens=4, eos_token_ids=(4,))
    buffer = EpisodeRolloutBuffer(1, mdp.observation_space, mdp.action_space, "cpu", n_envs=2, max_new_tokens=4)
    with pytest.raises(RuntimeError, match="the buffer is empty"):
        buffer.episodes  # noqa: B018
    numbers = np.arange(8, dtype=np.float32).reshape(2, 4)
    buffer.fill(
        rows=np.array([[5, 5, 1, 0, 4, 5, 5], [2, 4, 3, 1, 1, 2, 3]]),
        prompt_ids=np.array([7, 1]),
        components=numbers[:, :1],
        rewards=numbers,
        sampled_log_probs=-numbers,
        values=numbers + 1,
    )
    episodes = buffer.episodes
    assert episodes.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert episodes.row_lengths.tolist() == [2, 6] and episodes.lengths.tolist() == [2, 4]
    assert episodes.actions.tolist() == [[0, 4, 5, 5], [1, 1, 2, 3]]
    assert torch.equal(episodes.log_probs, episodes.sampled_log_probs) and buffer.full
    second = episodes.select(torch.tensor([1]))
    assert second.rows.tolist() == [[2, 4, 3, 1, 1, 2, 3]] and second.prompt_ids.tolist() == [1] and len(second) == 1
    buffer.reset()
    with pytest.raises(RuntimeError, match="the buffer is empty"):
        list(buffer.get())
