"""The side of implicit itself: ALS without the wrapper; `serve` says how it is asked."""

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

import work
from work import Answer, Data, Jobs, recall, serve, timed


def jobs(data: Data) -> Jobs:
    """Return what implicit can be asked for."""
    threadpool_limits(1, "blas")  # as it asks to: its own threads are enough
    users = np.arange(data.train.shape[0])
    fitted: list[AlternatingLeastSquares] = []

    def fit() -> Answer:
        fitted[:] = [
            AlternatingLeastSquares(
                factors=work.FACTORS,
                regularization=work.REGULARIZATION,
                alpha=work.ALPHA,
                iterations=work.ITERATIONS,
                random_state=0,
            )
        ]
        seconds, _ = timed(lambda: fitted[0].fit(data.train, show_progress=False))
        return Answer(seconds, {})

    def recommend() -> Answer:
        seconds, (items, _) = timed(lambda: fitted[0].recommend(users, data.train, N=work.TOP, recalculate_user=True))
        return Answer(seconds, {"recall_all@20": recall(items, data.targets, 20)})

    return {"als_fit": fit, "als_recommend": recommend}


if __name__ == "__main__":
    serve(jobs)
