"""The corpus that the embedded model "tiny" is trained on: human sentences and sampled ones."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from scripts.preferences.human_ratings import download, ratings_of
from textgym.text_files import write_json_lines

TONES = ["A glowing", "A positive", "A mixed", "A lukewarm", "A negative", "A scathing", "A critical", "A short"]
GENRES = [
    *("a movie", "a film", "a comedy", "a drama", "a thriller", "a horror film", "an action movie", "a romance"),
    *("a documentary", "an animated film", "a science fiction film", "a war movie", "a western", "a family film"),
    *("a crime film", "a musical", "a mystery", "a sequel", "a remake", "an independent film"),
]
PREFIXES = [f"{tone} review of {genre}:" for tone, genre in product(TONES, GENRES)]

SUBJECTS = [
    *("The movie", "This movie", "The film", "This film", "The plot", "The acting", "The story", "The cast"),
    *("The director", "The script", "The ending", "The music", "The lead actor", "The lead actress", "The dialogue"),
    *("The pacing", "The cinematography", "The humor", "The first half", "The second half", "The main character"),
    *("The supporting cast", "The visual effects", "The soundtrack", "The villain", "The hero", "The romance"),
    *("The twist", "The camera work", "The costumes", "The remake", "The sequel", "The comedy", "The drama"),
    *("The thriller", "The documentary", "The animation", "The opening scene", "The final scene", "This sequel"),
    *("This comedy", "This drama", "This thriller", "This documentary", "This remake", "His performance"),
    *("Her performance", "Their chemistry", "Every scene", "Each scene", "The whole thing", "The premise", "The tone"),
    *("The writing", "The editing", "The action", "The score", "The production", "The concept", "The message"),
    *("The filmmaker", "The screenplay", "The narrative", "The atmosphere", "The suspense", "The runtime"),
]
PLURAL_SUBJECTS = [
    *("The jokes", "The characters", "The actors", "The performances", "The special effects", "The scenes", "The kids"),
    *("The fight scenes", "The songs", "The critics", "The stars", "The action scenes", "The dialogues"),
]
VERBS = [
    *("is", "was", "feels", "seems", "has", "makes", "gives", "never", "always", "does", "could", "should", "might"),
    *("looks", "sounds", "starts", "ends", "keeps", "leaves", "offers", "tries", "works", "fails", "delivers"),
    *("manages", "deserves", "brings", "turns", "takes", "tells", "lacks", "remains", "becomes", "gets", ""),
]
PLURAL_VERBS = ["are", "were", "feel", "seem", "have", "make", "never", "look", "work", "fail", "deliver", ""]
FREE_OPENINGS = [
    *("I loved", "I hated", "I enjoyed", "I was", "I thought", "I felt", "I liked", "I laughed", "I cried", "I found"),
    *("I expected", "I would", "I did not", "I could not", "I really", "I highly recommend", "It is", "It was"),
    *("It has", "It feels", "It makes you", "It takes", "If you", "If you like", "You will", "You should", "There is"),
    *("There are", "There was", "What a", "With its", "With a", "A great", "A terrible", "A beautiful", "A boring"),
    *("A funny", "A sad", "A dark", "A sweet", "A clever", "A dull", "A moving", "A weak", "A strong", "A bland"),
    *("A wonderful", "An amazing", "An awful", "An honest", "An uneven", "Not a", "Not only", "One of the best"),
    *("One of the worst", "Overall,", "Unfortunately,", "Fortunately,", "Sadly,", "Despite", "Although", "While"),
    *(
        "Even though",
        "From the start,",
        "By the end,",
        "At times",
        "In the end,",
        "Never",
        "Watching this",
        "Anyone who",
    ),
    *("Everyone", "Nothing", "Nobody", "Some scenes", "Most of the", "As a fan,", "As a comedy,", "As a drama,"),
    *("For a low budget film,", "For a sequel,", "The only", "The best part", "The worst part", "The problem", "Like"),
    *("An", "A", "The", "This", "It's", "It's a", "There's", "You", "But", "And", "In", "When", "So", "Too", "Just"),
]
END_OF_SENTENCE = (".", "!", "?", '."', '!"', '?"', ".'")


@dataclass
class Args:
    """What to make."""

    out: Path = Path("corpus")
    """Directory; gets `human.jsonl` and `sampled-00000.jsonl`, `sampled-00001.jsonl`, ..."""
    model: str = "smollm2-q4"
    """The model that writes the sampled sentences."""
    first_shard: int = 0
    """Number of the first one to make, which is also its seed."""
    shards: int = 100
    """Number of shards of `sentences_per_shard` openings; existing ones are kept."""
    sentences_per_shard: int = 1024
    """Openings that are continued in a shard."""
    batch_size: int = 128
    """Rows that are sampled side by side."""
    min_new_tokens: int = 8
    """A row goes on through full stops that come earlier than this, so short sentences are followed by a second one."""
    max_new_tokens: int = 32
    """A row that has no full stop by then is thrown away."""
    min_p: float = 0.05
    """Tokens less likely than this share of the likeliest are never drawn."""
    device: str = "cpu"
    """Where the model runs."""
    threads: int = 2
    """CPU threads of torch."""


def opening(rng: random.Random) -> str:
    """The visible first words of a sentence."""
    kind = rng.random()
    if kind < 0.5:
        return f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)}".strip()
    if kind < 0.62:
        return f"{rng.choice(PLURAL_SUBJECTS)} {rng.choice(PLURAL_VERBS)}".strip()
    return rng.choice(FREE_OPENINGS)


def draw(logits: torch.Tensor, min_p: float, generator: torch.Generator) -> torch.Tensor:
    """One token per row of `logits` (B, V), by inverting the cumulative distribution; returns (B,) int64."""
    probs = logits.float().softmax(-1)
    probs[probs < min_p * probs.amax(-1, keepdim=True)] = 0
    cumulative = probs.cumsum(-1)
    u = torch.rand(len(probs), 1, generator=generator, device=probs.device) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, u, right=True).squeeze(-1).clamp_(max=probs.shape[-1] - 1)


@torch.inference_mode()
def sample_sentences(model, tokenizer, prefix: str, openings: list[str], args: Args, seed: int) -> list[str]:
    """Continue each opening, behind the shared `prefix`, to a full stop; rows that reach none are left out."""
    from transformers import DynamicCache

    device, batch = model.device, len(openings)
    generator = torch.Generator(device).manual_seed(seed)
    pieces = tokenizer.batch_decode([[i] for i in range(model.config.vocab_size)])
    stops = torch.tensor([p.endswith(END_OF_SENTENCE) for p in pieces], device=device)
    breaks = torch.tensor(["\n" in p for p in pieces], device=device)
    breaks[tokenizer.all_special_ids] = True

    head = tokenizer(prefix, return_tensors="pt").to(device)
    cache = DynamicCache(config=model.config)
    model(**head, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(batch)
    tail = tokenizer([f" {o}" for o in openings], return_tensors="pt", padding=True, padding_side="left").to(device)
    feed, positions = tail.input_ids, head.input_ids.shape[1] + (tail.attention_mask.cumsum(-1) - 1).clamp(min=0)
    mask = torch.cat([head.attention_mask.expand(batch, -1), tail.attention_mask], -1)  # (B, columns so far)

    rows, texts, sentences = torch.arange(batch, device=device), [list[int]() for _ in openings], list[str]()
    for new_tokens in range(1, args.max_new_tokens + 1):
        logits = model(
            input_ids=feed,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        token = draw(logits, args.min_p, generator)
        for row, value in zip(rows.tolist(), token.tolist(), strict=True):
            texts[row].append(value)
        ended = stops[token] & (new_tokens >= args.min_new_tokens)
        sentences += [openings[r] + tokenizer.decode(texts[r]) for r in rows[ended].tolist()]
        keep = ~(ended | breaks[token])
        if not keep.any():
            break
        rows, feed, positions = rows[keep], token[keep, None], positions[keep, -1:] + 1
        mask = torch.cat([mask[keep], mask.new_ones(len(rows), 1)], -1)
        cache.batch_select_indices(keep.nonzero().squeeze(-1))
    return sentences


def main(args: Args) -> None:
    """Fetch the human sentences, then sample the missing shards."""
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    if not (human := args.out / "human.jsonl").exists():
        write_json_lines(human, ({"text": one.text} for one in ratings_of("movies", download())))

    from textgym.language_models import load_model_and_tokenizer

    model, tokenizer = load_model_and_tokenizer(args.model, device=args.device, dtype="bfloat16")
    for shard in range(args.first_shard, args.first_shard + args.shards):
        path = args.out / f"sampled-{shard:05d}.jsonl"
        if path.exists():
            continue
        start, rng, texts = time.perf_counter(), random.Random(shard), []
        for batch in range(0, args.sentences_per_shard, args.batch_size):
            count = min(args.batch_size, args.sentences_per_shard - batch)
            openings = [opening(rng) for _ in range(count)]
            prefix = rng.choice(PREFIXES)
            texts += sample_sentences(model, tokenizer, prefix, openings, args, seed=rng.getrandbits(32))
        write_json_lines(path, ({"text": text} for text in texts))
        print(f"shard {shard}: {len(texts)} sentences in {time.perf_counter() - start:.0f} s", flush=True)
