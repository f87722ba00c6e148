"""Requests that arrive together are scored together: a row more in a matrix product costs next to nothing."""

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
    """More is waiting than may wait."""


class Observer(Protocol):
    """Who is told how it goes."""

    def observe_batch(self, n_users: int) -> None:
        """Take note of a batch."""

    def observe_waiting(self, n_users: int) -> None:
        """Take note of how many wait."""


@dataclass(eq=False)
class _Job:
    recommender: BaseRecommender
    requests: Sequence[Request]
    arrived: float
    done: "asyncio.Future[list[Recommendations]]" = field(repr=False)


class Batcher:
    """Scores what waits, batch after batch, in a thread beside the event loop.

    Parameters
    ----------
    window : float
        Seconds that the first request of a batch waits for company; none where as many as fit already wait.
    most : int
        Users scored together; a request with more is scored in slices of so many.
    capacity : int
        Users that may wait.
    observer : Observer
        Is told of each batch, and of how many wait.
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
        """Whether what arrives is scored."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to score, in the running event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End, without waiting for what nobody waits for any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, recommender: BaseRecommender, requests: Sequence[Request]) -> list[Recommendations]:
        """Answer users, in company of whoever asks at the same time.

        Parameters
        ----------
        recommender : BaseRecommender
            Who answers.
        requests : sequence of Request
            Who asks for what.

        Raises
        ------
        OverloadedError
            If more would wait than may.
        RecvaeError
            What the recommender says of these requests; others in the batch are not concerned.
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
        """Take the jobs that waited longest, as many as fit, by recommender; those given up meanwhile are dropped."""
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
        """Answer jobs of one recommender; whatever happens, the next batch is scored too."""
        loop = asyncio.get_running_loop()
        try:
            self._observer.observe_batch(sum(len(job.requests) for job in jobs))
            outcomes: list[Any] = await loop.run_in_executor(self._pool, _outcomes, jobs, self._most)
        except Exception as error:
            _LOG.exception("a batch could not be scored")
            outcomes = [error] * len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.done.done():
                continue  # nobody waits any more
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)


def _outcomes(jobs: Sequence[_Job], most: int) -> list[Any]:
    """Return the answers, or the exception, of each job; where one fails, the others are tried in halves without it."""
    if len(jobs) == 1:
        return [_in_slices(jobs[0], most)]
    try:
        found = iter(jobs[0].recommender.answer([request for job in jobs for request in job.requests]))
    except Exception:
        half = len(jobs) // 2
        return [*_outcomes(jobs[:half], most), *_outcomes(jobs[half:], most)]
    return [[next(found) for _ in job.requests] for job in jobs]


def _in_slices(job: _Job, most: int) -> Any:
    """Return the answers to a job, or the exception; what is given up meanwhile is not gone on with."""
    found: list[Recommendations] = []
    for start in range(0, len(job.requests), most):
        if job.done.done():
            break
        try:
            found += job.recommender.answer(job.requests[start : start + most])
        except Exception as error:
            return error
    return found
