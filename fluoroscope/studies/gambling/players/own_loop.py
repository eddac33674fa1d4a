"""Asynchronous work in a thread and an event loop of its own, for callers that know of neither.

So it also works where a loop is running already, as in a notebook, and Ctrl-C ends it cleanly.
"""

import asyncio
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

_TURN_S = 0.2


def in_own_loop(
    work: Callable[[Callable[[int], None]], Coroutine[object, object, T]],
    on_event: Callable[[int], None],
) -> T:
    """The result of `work(tell)`. What it tells arrives at `on_event` in the caller's thread; if
    that raises, or the caller is interrupted, the work is cancelled and has ended on return.
    """
    told: SimpleQueue[int | None] = SimpleQueue()
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="own-loop", daemon=True)
    thread.start()
    try:
        future = asyncio.run_coroutine_threadsafe(work(told.put), loop)
        future.add_done_callback(lambda _: told.put(None))
        try:
            while (event := _next(told)) is not None:
                on_event(event)
            return future.result()
        finally:
            future.cancel()
            asyncio.run_coroutine_threadsafe(_all_ended(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _next(told: SimpleQueue[int | None]) -> int | None:
    # In short turns: Ctrl-C may reach a thread of some library, and would not end one long wait.
    while True:
        try:
            return told.get(timeout=_TURN_S)
        except Empty:
            continue


async def _all_ended() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
