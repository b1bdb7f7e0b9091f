"""A team of threads for jobs of microseconds: its helpers watch a word of memory, for a while.

A pool of Python threads takes tens of microseconds to hand over a task, and so does waking a
thread: as long as a matrix-vector product lasts. Here the thread that has a job publishes it and
begins; helpers, which after a job watch for the next in compiled code without the interpreter's
lock, take blocks of it as they come. After a millisecond without work they sleep.
"""

import os
import threading
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tern_hw.kernels.atomics import call_job, exchange_if, fetch_add, load, pause
from tern_hw.reference.jit import jit

__all__ = ["processors", "run_job"]

#: Words of the shared state, a cache line apart: what one thread writes costs the others nothing.
TICKET: Final = 0  #: job's number * 2**32 + next block
DONE: Final = 8  #: blocks that are done
FUNCTION: Final = 16  #: address of the kernel
NUMBERS: Final = 24  #: address of its numbers
BLOCKS: Final = 32  #: blocks of the job
THREADS: Final = 40  #: into how many what is left is cut, for the next to take
AWAKE: Final = 48  #: helpers that watch
STATE_WORDS: Final = 56

#: The part of a ticket that counts blocks.
BLOCK_MASK: Final = (1 << 32) - 1
#: Looks at the ticket before a helper goes to sleep: about a millisecond.
HELPER_LOOKS: Final = 40_000
#: Looks at what the helpers still do before the caller lets other threads run.
CALLER_LOOKS: Final = 4_000


def run_job(function: int, numbers: NDArray[np.int64], blocks: int, threads: int) -> None:
    """Call a kernel for all blocks, on at most so many threads.

    Parameters
    ----------
    function : int
        Address of a C function (numbers, first block, end).
    numbers : int64 [...]
        Addresses and sizes, alive and unchanged for the call.
    blocks : int
    threads : int
        With one, or while another thread has the team, the caller does it alone.
    """
    helpers = min(threads, blocks) - 1
    if helpers > 0 and _turn.acquire(blocking=False):
        try:
            _team(helpers).run(function, numbers, blocks)
        finally:
            _turn.release()
    else:
        _alone(function, numbers, blocks)


def processors() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Team:
    """Helpers, and the state that they share with whoever has the team's turn."""

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self.number = 0
        memory = np.zeros(STATE_WORDS + 8, np.int64)
        start = (-memory.ctypes.data % 64) // 8
        self.state = memory[start : start + STATE_WORDS]
        self.woken = [threading.Event() for _ in range(helpers)]
        for event in self.woken:
            thread = threading.Thread(target=self._help, args=(event,), name="tern-kernels")
            thread.daemon = True
            thread.start()

    def run(self, function: int, numbers: NDArray[np.int64], blocks: int) -> None:
        self.number += 1
        # Who sleeps must see the new ticket, or be woken: it looks once more after it says so.
        awake = _publish(self.state, function, numbers, blocks, self.helpers + 1, self.number)
        if awake < self.helpers:
            for event in self.woken:
                event.set()
        _take_part(self.state, self.number)
        while not _finished(self.state, blocks, CALLER_LOOKS):
            time.sleep(0)

    def _help(self, woken: threading.Event) -> None:
        number = 0
        while True:
            woken.wait()
            woken.clear()
            number = _serve(self.state, number, HELPER_LOOKS)


#: Held by the thread that uses the team.
_turn = threading.Lock()
_teams: dict[int, _Team] = {}


def _team(helpers: int) -> _Team:
    if helpers not in _teams:
        _teams[helpers] = _Team(helpers)
    return _teams[helpers]


def _forget() -> None:
    """Start anew in a forked process: threads do not come with it."""
    global _turn
    _turn = threading.Lock()
    _teams.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@jit
def _alone(function: int, numbers: NDArray[np.int64], blocks: int) -> None:
    call_job(function, numbers.ctypes.data, 0, blocks)


@jit
def _publish(
    state: NDArray[np.int64],
    function: int,
    numbers: NDArray[np.int64],
    blocks: int,
    threads: int,
    number: int,
) -> int:
    """Make a job known, and return how many helpers are awake to see it."""
    # The last job's blocks are all taken: nobody reads these words until the ticket changes.
    state[FUNCTION] = function
    state[NUMBERS] = numbers.ctypes.data
    state[BLOCKS] = blocks
    state[THREADS] = threads
    state[DONE] = 0
    fetch_add(state, TICKET, (number << 32) - load(state, TICKET))
    return fetch_add(state, AWAKE, 0)


@jit
def _take_part(state: NDArray[np.int64], number: int) -> None:
    """Do blocks of a job for as long as there are any."""
    while True:
        ticket = load(state, TICKET)
        if ticket >> 32 != number:
            return
        first = ticket & BLOCK_MASK
        function, numbers, blocks = state[FUNCTION], state[NUMBERS], state[BLOCKS]
        last = min(first + max((blocks - first) // state[THREADS], 1), blocks)
        if first >= blocks:
            return
        # If the ticket is still the same, so was what was read of the job.
        if exchange_if(state, TICKET, ticket, ticket + last - first):
            call_job(function, numbers, first, last)
            fetch_add(state, DONE, last - first)


@jit
def _serve(state: NDArray[np.int64], number: int, looks: int) -> int:
    """Take part in jobs until there is none for so many looks; return the last."""
    fetch_add(state, AWAKE, 1)
    left = looks
    while True:
        ticket = load(state, TICKET)
        if ticket >> 32 != number:
            number = ticket >> 32
            left = looks
        first = ticket & BLOCK_MASK
        function, numbers, blocks = state[FUNCTION], state[NUMBERS], state[BLOCKS]
        last = min(first + max((blocks - first) // state[THREADS], 1), blocks)
        if first < blocks:
            # If the ticket is still the same, so was what was read of the job.
            if exchange_if(state, TICKET, ticket, ticket + last - first):
                call_job(function, numbers, first, last)
                fetch_add(state, DONE, last - first)
            continue
        left -= 1
        if left == 0:
            fetch_add(state, AWAKE, -1)
            # A job published before that was not known to find a helper asleep.
            if fetch_add(state, TICKET, 0) >> 32 == number:
                return number
            fetch_add(state, AWAKE, 1)
            left = looks
        pause()


@jit
def _finished(state: NDArray[np.int64], blocks: int, looks: int) -> bool:
    """Watch until all blocks are done, for so many looks at most."""
    for _ in range(looks):
        if load(state, DONE) == blocks:
            return True
        pause()
    return False
