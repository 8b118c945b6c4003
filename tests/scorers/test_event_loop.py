"""Async reward functions share one event loop, so that what belongs to a loop can be made once and kept."""

import asyncio
import copy
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest

from textgym.scorers import FunctionScorer, ScorerError
from textgym.scorers.event_loop import wait
from textgym.testing import make_generations

BATCH = make_generations(["a"] * 4, ["4", "seven", "", "ab"])
LENGTHS = [1.0, 5.0, 0.0, 2.0]


class Judge:
    """Asks for rows one at a time under a semaphore, which binds itself to the loop where rows first wait for it."""

    def __init__(self):
        self.limit, self.loops = asyncio.Semaphore(1), set()

    async def one(self, text):
        async with self.limit:
            self.loops.add(id(asyncio.get_running_loop()))
            await asyncio.sleep(0.001)
            return float(len(text))

    async def __call__(self, completions):
        return await asyncio.gather(*map(self.one, completions))


SHARED = Judge()


async def judged(completions):
    return await SHARED(completions)


def rewards(scorer):
    return scorer.evaluate(BATCH).rewards.tolist()


def test_what_belongs_to_a_loop_works_in_every_call_and_scorer():
    judge = Judge()
    first, second = FunctionScorer(judge), FunctionScorer(judge)
    for scorer in (first, second, first):
        assert rewards(scorer) == LENGTHS
    assert len(judge.loops) == 1


def test_inside_a_running_loop_and_outside():
    async def notebook_cell():
        return rewards(scorer)

    judge = Judge()
    scorer = FunctionScorer(judge)
    assert asyncio.run(notebook_cell()) == rewards(scorer) == asyncio.run(notebook_cell()) == LENGTHS
    assert len(judge.loops) == 1


def test_from_several_threads():
    judge, values = Judge(), []
    scorer = FunctionScorer(judge)
    threads = [threading.Thread(target=lambda: values.append(rewards(scorer))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [LENGTHS] * 4 and len(judge.loops) == 1


def test_copies_share_the_loop():
    scorer = FunctionScorer(judged)
    for each in (scorer, copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        assert rewards(each) == LENGTHS
    assert len(SHARED.loops) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_loop_of_its_own():
    script = """
import os
from tests.scorers.test_event_loop import FunctionScorer, Judge, LENGTHS, rewards

async def fresh(completions):
    return await Judge()(completions)

scorer = FunctionScorer(fresh)
assert rewards(scorer) == LENGTHS
child = os.fork()
assert rewards(scorer) == LENGTHS  # in both
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


def test_an_error_is_the_functions_own():
    async def broken(completions):
        raise KeyError("oops")

    with pytest.raises(ScorerError, match=r"scorer 'broken' raised KeyError: 'oops' \(test_event_loop.py, line \d+\)"):
        rewards(FunctionScorer(broken))


def test_an_interrupt_cancels_the_function():
    cancelled = threading.Event()

    async def slow():
        try:
            await asyncio.sleep(0.5)  # the main thread is waiting by then
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            wait(slow())
    finally:
        signal.signal(signal.SIGINT, before)
    assert cancelled.wait(timeout=10)


@pytest.mark.parametrize("way", ["sys.exit()", "in a task of its own", "Ctrl-C", "stopping the loop"])
def test_a_function_that_ends_the_program_or_the_loop_leaves_nobody_waiting(way):
    script = f"""
import asyncio, sys
from tests.scorers.test_event_loop import FunctionScorer, LENGTHS, judged, rewards

async def leave():
    sys.exit("the judge is down")

async def ends(completions):
    if {way!r} == "sys.exit()":
        await leave()
    if {way!r} == "in a task of its own":
        await asyncio.create_task(leave())
    if {way!r} == "Ctrl-C":
        raise KeyboardInterrupt("the judge is down")
    asyncio.get_running_loop().stop()
    return await judged(completions)

try:
    assert rewards(FunctionScorer(ends)) == LENGTHS and {way!r} == "stopping the loop"
except (SystemExit, KeyboardInterrupt) as error:
    assert str(error) == "the judge is down"
assert rewards(FunctionScorer(judged)) == LENGTHS
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_an_async_function_that_calls_an_async_scorer_is_told_so():
    inner = FunctionScorer(judged)

    async def outer(completions):
        return inner.score(BATCH)

    with pytest.raises(ScorerError, match="'outer' raised RuntimeError: an async function cannot call a scorer"):
        rewards(FunctionScorer(outer))
