"""The event loop in which async reward functions run: one for the life of a process, in a thread of its own.

An HTTP client, a lock or a semaphore belongs to the loop in which it was first used, and is often made once and kept. A
loop per call would break it in the second call; a loop in the caller's thread would not start where one runs already,
as in Jupyter. The loop is no part of a scorer, so that scorers can be copied and pickled. A forked process has a loop
of its own: what its parent's loop was using stays with the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Awaitable
from typing import Any

_starting = threading.Lock()


def wait(awaitable: Awaitable[Any]) -> Any:
    """The result of an async function, awaited in the loop while this thread waits.

    Whatever interrupts the waiting, such as Ctrl-C, cancels the function.

    Raises:
        RuntimeError: this thread is the loop's, which cannot wait for itself: an async reward function has called a
            scorer whose function is async too.
    """
    with _starting:
        loop, thread = _loop_of_process(os.getpid())
    if thread is threading.current_thread():
        if asyncio.iscoroutine(awaitable):
            awaitable.close()  # nobody will await it
        raise RuntimeError("an async function cannot call a scorer that is async too; await its function instead")
    future = asyncio.run_coroutine_threadsafe(_await(awaitable), loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # does nothing where it was the function that raised
        raise


@functools.cache
def _loop_of_process(_pid: int) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """A running loop and its thread. A fork inherits the memory of this cache, but no threads; hence the process id."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(loop,), name="textgym-async-rewards", daemon=True)
    thread.start()
    return loop, thread


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop for ever: a function that stops it, or exits (`sys.exit`), must not leave others waiting in vain."""
    while not loop.is_closed():
        with contextlib.suppress(BaseException):  # the thread that waits for the function gets it too
            loop.run_forever()


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
