"""Work spread over processes, with the results in order, whatever the number of processes.

Processes, not threads: a tokenizer's own threads tokenise in parallel, but what becomes of its results is Python, and
one core's worth of Python is a limit of a few cores. They are spawned, not forked: a fork of a process in which
tokenizers or torch have run threads may hang. A little work is done here: starting processes takes seconds.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

from clmed.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

LEAD = 32  # items that are done here before processes are started

_work: Callable[[Any], Any]


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> Iterator[Result]:
    """`work(item)` for each item, in their order. Only so many items are taken ahead, so that memory is bounded.

    work: must be picklable; workers: processes, by default one a core that this process may use; 1 works here.
    Raises UserError when a process dies.
    """
    workers = workers or len(os.sched_getaffinity(0))
    every = iter(items)
    yield from map(work, every if workers == 1 else islice(every, LEAD))
    if (following := next(every, None)) is None:
        return
    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(work,)
    )
    try:
        waiting: deque[Future[Result]] = deque([executor.submit(_do, following)])
        for item in every:
            waiting.append(executor.submit(_do, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that tokenises has died: perhaps there was not memory enough for one a core. (A script that "
            "calls clmed must have its main part behind `if __name__ == '__main__':`.)"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    """In a new process: one core's worth of threads, Ctrl-C is the parent's, and no life after the parent."""
    global _work
    _work = work
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _do(item: Any) -> Any:
    return _work(item)
