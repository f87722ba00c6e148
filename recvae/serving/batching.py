"""Requests that arrive together are scored together: a row more in a matrix product costs next to nothing."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from recvae.recommendations import Recommendations, Request
from recvae.recommending import Recommending


class OverloadedError(Exception):
    """More is waiting than may wait."""


@dataclass(eq=False)
class _Job:
    recommender: Recommending
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
        Users scored together; a single request with more is scored alone.
    capacity : int
        Users that may wait.
    observe : callable
        Is told the number of users of each batch.
    """

    def __init__(self, window: float, most: int, capacity: int, observe: Callable[[int], None]) -> None:
        self._window, self._most, self._capacity, self._observe = window, most, capacity, observe
        self._jobs: deque[_Job] = deque()
        self._n_waiting = 0
        self._arrival = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, "scoring")
        self._task: asyncio.Task[None] | None = None

    @property
    def n_waiting(self) -> int:
        """Number of users waiting, those being scored left out."""
        return self._n_waiting

    def start(self) -> None:
        """Begin to score, in the running event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End; nothing may be waiting any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._pool.shutdown()

    async def answer(self, recommender: Recommending, requests: Sequence[Request]) -> list[Recommendations]:
        """Answer users, in company of whoever asks at the same time.

        Parameters
        ----------
        recommender : Recommending
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
        self._n_waiting += len(requests)
        self._arrival.set()
        return await job.done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrival.wait()
            if self._n_waiting < self._most:
                await asyncio.sleep(max(0.0, self._jobs[0].arrived + self._window - loop.time()))
            await self._score(self._next_batch())

    def _next_batch(self) -> list[_Job]:
        """Take the jobs that waited longest, as many as fit; those nobody waits for any more are dropped."""
        jobs: list[_Job] = []
        n_users = 0
        while self._jobs and (not jobs or n_users + len(self._jobs[0].requests) <= self._most):
            job = self._jobs.popleft()
            self._n_waiting -= len(job.requests)
            if not job.done.done():
                jobs.append(job)
                n_users += len(job.requests)
        if not self._jobs:
            self._arrival.clear()
        return jobs

    async def _score(self, jobs: list[_Job]) -> None:
        by_recommender: dict[int, list[_Job]] = {}
        for job in jobs:
            by_recommender.setdefault(id(job.recommender), []).append(job)
        for together in by_recommender.values():
            outcomes = await asyncio.get_running_loop().run_in_executor(self._pool, self._answered, together)
            for job, outcome in zip(together, outcomes, strict=True):
                if job.done.done():
                    continue  # nobody waits any more
                if isinstance(outcome, Exception):
                    job.done.set_exception(outcome)
                else:
                    job.done.set_result(outcome)

    def _answered(self, jobs: Sequence[_Job]) -> list[Any]:
        """Return the answers, or the exception, of each job."""
        requests = [request for job in jobs for request in job.requests]
        self._observe(len(requests))
        try:
            found = iter(jobs[0].recommender.answer(requests))
        except Exception as error:
            if len(jobs) == 1:
                return [error]
            return [outcome for job in jobs for outcome in self._answered([job])]  # only the culprit's shall fail
        return [[next(found) for _ in job.requests] for job in jobs]
