"""Scores requests that arrive together in one batch: one more row in a matrix product costs almost nothing."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from recvae.recommenders.answers import Recommendations, Request
from recvae.recommenders.base import BaseRecommender

_LOG = logging.getLogger("uvicorn.error")


class OverloadedError(Exception):
    """Raised when too many users are waiting."""


class Observer(Protocol):
    """Receives counts of batches and waiting users."""

    def observe_batch(self, n_users: int) -> None:
        """Record a batch."""

    def observe_waiting(self, n_users: int) -> None:
        """Record how many users wait."""


@dataclass(eq=False)
class _Job:
    recommender: BaseRecommender
    requests: Sequence[Request]
    arrived: float
    done: "asyncio.Future[list[Recommendations]]" = field(repr=False)


class Batcher:
    """Scores waiting requests batch by batch, in a thread next to the event loop.

    Parameters
    ----------
    window : float
        Seconds that the first request of a batch waits for others; it does not wait if the batch is full.
    most : int
        Users per batch; a request with more users is scored in slices.
    capacity : int
        Maximum number of waiting users.
    observer : Observer
        Receives the size of each batch, and the number of waiting users.
    """

    def __init__(self, window: float, most: int, capacity: int, observer: Observer) -> None:
        self._window, self._most, self._capacity, self._observer = window, most, capacity, observer
        self._jobs: deque[_Job] = deque()
        self._n_waiting = 0
        self._arrival = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, "scoring")
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether requests are scored."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start scoring, in the running event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop, without waiting for requests that were given up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, recommender: BaseRecommender, requests: Sequence[Request]) -> list[Recommendations]:
        """Answer users, in a batch with other requests that arrive at the same time.

        Parameters
        ----------
        recommender : BaseRecommender
            The recommender that answers.
        requests : sequence of Request
            One per user.

        Raises
        ------
        OverloadedError
            If too many users would wait.
        RecvaeError
            Raised by the recommender for these requests; other requests in the batch are not affected.
        """
        if self._n_waiting + len(requests) > self._capacity:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        job = _Job(recommender, requests, loop.time(), loop.create_future())
        self._jobs.append(job)
        self._count(len(requests))
        self._arrival.set()
        return await job.done

    def _count(self, change: int) -> None:
        self._n_waiting += change
        self._observer.observe_waiting(self._n_waiting)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrival.wait()
            if self._n_waiting < self._most:
                await asyncio.sleep(max(0.0, self._jobs[0].arrived + self._window - loop.time()))
            for together in self._next_batch():
                await self._score(together)

    def _next_batch(self) -> list[list[_Job]]:
        """Take the oldest jobs that fit in a batch, grouped by recommender; jobs that were given up are dropped."""
        by_recommender: dict[int, list[_Job]] = {}
        n_taken = n_users = 0
        while self._jobs and (not n_users or n_users + len(self._jobs[0].requests) <= self._most):
            job = self._jobs.popleft()
            n_taken += len(job.requests)
            if not job.done.done():
                by_recommender.setdefault(id(job.recommender), []).append(job)
                n_users += len(job.requests)
        self._count(-n_taken)
        if not self._jobs:
            self._arrival.clear()
        return list(by_recommender.values())

    async def _score(self, jobs: list[_Job]) -> None:
        """Answer jobs of one recommender; after any error, the next batch is still scored."""
        loop = asyncio.get_running_loop()
        try:
            self._observer.observe_batch(sum(len(job.requests) for job in jobs))
            outcomes: list[Any] = await loop.run_in_executor(self._pool, _outcomes, jobs, self._most)
        except Exception as error:
            _LOG.exception("a batch could not be scored")
            outcomes = [error] * len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.done.done():
                continue  # it was given up
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)


def _outcomes(jobs: Sequence[_Job], most: int) -> list[Any]:
    """Return the answers, or the exception, of each job; after a failure, halves of the batch are tried alone."""
    if len(jobs) == 1:
        return [_in_slices(jobs[0], most)]
    try:
        found = iter(jobs[0].recommender.answer([request for job in jobs for request in job.requests]))
    except Exception:
        half = len(jobs) // 2
        return [*_outcomes(jobs[:half], most), *_outcomes(jobs[half:], most)]
    return [[next(found) for _ in job.requests] for job in jobs]


def _in_slices(job: _Job, most: int) -> Any:
    """Return the answers to a job, or the exception; stop early if it was given up."""
    found: list[Recommendations] = []
    for start in range(0, len(job.requests), most):
        if job.done.done():
            break
        try:
            found += job.recommender.answer(job.requests[start : start + most])
        except Exception as error:
            return error
    return found
