"""Made-up histories from a trained autoencoder, and how like real ones they are.

Where codes come from:

    prior           N(0, I), the prior of multvae, and of hvamp its own; recvae was trained with another. With a beta
                    below 1, codes of users are not spread like that, and what comes is poor.
    mixture         a mixture of normal distributions, fitted to users' mean codes together with the logarithm of
                    their lengths, so that a long history comes from the code of somebody with a long one
    interpolation   a point between the mean codes of two users, drawn evenly, and a length between theirs

Items are then drawn by the softmax of the decoder, none twice (`CodeModel.sample`).

Letters in shape comments: U users, I items, D latent dimensions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.stats import ks_2samp

from recvae.display import plural
from recvae.errors import DataError, UsageError, requires_extra
from recvae.interactions import HeldOut, as_interactions
from recvae.metrics import ndcg_at_k
from recvae.models.common.base import Model
from recvae.models.common.codes import CodeModel
from recvae.models.common.draws import check_seed
from recvae.models.ease import EASE
from recvae.progress import Progress, part_of

SOURCES = ("mixture", "prior", "interpolation")
_MOST_COMPONENTS = 30
_K = 100
_LEAST_USERS = 50
_BEFORE_DRAWING = 0.2  # of the work, about: codes of users, and a mixture of them
_MOST_PAIRED = 300  # items whose co-occurrence is compared
_REGULARISATION = 1e-3  # of covariances, as a part of the mean variance


def generate(
    model: Model,
    users: sp.csr_matrix,
    n: int = 1000,
    source: str = "mixture",
    *,
    components: int | None = None,
    seed: int = 0,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> sp.csr_matrix:
    """Make up histories.

    Parameters
    ----------
    model : Model
        A fitted autoencoder whose scores are made of its codes; "prior" needs one with a known prior.
    users : sparse matrix of shape (n_users, n_items)
        Real users, such as those of training: their codes and lengths are what is imitated.
    n : int
        How many histories, 1 or more.
    source : str
        "mixture", "prior" or "interpolation"; see `recvae.latent.generation`.
    components : int, optional
        Of the mixture, at most a tenth of the users; by default a fiftieth of them, at least 1 and at most 30.
    seed : int
        Of all draws.
    max_memory : int, optional
        Bytes that encoding and drawing may take at a time.
    progress : Progress, optional
        Called with how much is done, in per cent, and what is being done.

    Returns
    -------
    csr_matrix of shape (n, n_items), float32
        Ones.

    Raises
    ------
    UsageError
        If the model is no autoencoder with a decoder, a parameter is out of range, or scikit-learn is missing.
    DataError
        If fewer than 50 users have an interaction.
    NotFittedError
        Before `fit`.
    """
    if not isinstance(model, CodeModel) or not model.has_decoder:
        raise UsageError(f"got {model.name}, which has no codes to draw; use multvae, recvae, hvamp, multdae or ae")
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise UsageError(f"got {n!r} histories to make, expected a whole number >= 1; give e.g. 1000")
    check_seed(seed)
    if source not in SOURCES:
        raise UsageError(f"got source {source!r}, expected one of {', '.join(SOURCES)}")
    if components is not None and source != "mixture":
        raise UsageError(
            f"got components={components} for {source!r}, expected them of a mixture alone; leave them out"
        )
    if source == "prior" and not model.has_distribution:
        raise UsageError(
            f"got source 'prior' for {model.name}, whose codes are points without a prior; use mixture or "
            "interpolation, or a run of multvae, recvae or hvamp"
        )
    model.check_fitted()
    real = as_interactions(users, "the users", model.n_items_)
    lengths = real.getnnz(axis=1)
    real, lengths = real[lengths > 0], lengths[lengths > 0]
    if len(lengths) < _LEAST_USERS:
        raise DataError(
            f"got {plural(len(lengths), 'user')} with an interaction, expected {_LEAST_USERS} or more to imitate"
        )
    rng = np.random.default_rng(seed)
    drawing = part_of(progress, 0 if source == "prior" else _BEFORE_DRAWING, 1, "drawing items")
    if source == "prior":
        return model.sample(rng.choice(lengths, n), seed=seed, max_memory=max_memory, progress=drawing)
    if progress is not None:
        progress(0, 1, "codes of users")
    mean = model.encode(real, max_memory=max_memory).mean.astype(np.float64)  # (U, D)
    if source == "interpolation":
        codes, wanted = _between(mean, lengths, n, rng)
    else:
        codes, wanted = _from_mixture(mean, lengths, n, components, seed)
    wanted = wanted.clip(1, model.n_items_)
    return model.sample(wanted, codes=codes, seed=seed, max_memory=max_memory, progress=drawing)


def _between(mean: np.ndarray, lengths: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first, second = rng.integers(len(mean), size=(2, n))
    share = rng.random(n)  # (n,)
    codes = mean[first] + share[:, None] * (mean[second] - mean[first])  # (n, D)
    log_lengths = np.log(lengths[first]) + share * (np.log(lengths[second]) - np.log(lengths[first]))
    return codes, np.rint(np.exp(log_lengths)).astype(np.int64)


def _from_mixture(
    mean: np.ndarray, lengths: np.ndarray, n: int, components: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw codes with their lengths; a tenth of the users is the most that a component is fitted to on average."""
    with requires_extra("latent", "a mixture of codes"):
        from sklearn.mixture import GaussianMixture
    if components is None:
        components = min(max(len(mean) // 50, 1), _MOST_COMPONENTS)
    if not isinstance(components, int) or isinstance(components, bool) or not 1 <= components <= len(mean) // 10:
        raise UsageError(f"got components={components}, expected 1 to {len(mean) // 10}, a tenth of the users")
    points = np.column_stack([mean, np.log(lengths)])  # (U, D + 1)
    center, scale = points.mean(axis=0), points.std(axis=0) + 1e-9
    mixture = GaussianMixture(
        components, covariance_type=_covariance(points, components), reg_covar=_REGULARISATION, random_state=seed
    )
    drawn, _ = mixture.fit((points - center) / scale).sample(n)
    drawn = np.random.default_rng(seed).permutation(drawn) * scale + center  # they come component by component
    wanted = np.rint(np.exp(drawn[:, -1].clip(0, np.log(lengths.max())))).astype(np.int64)
    return drawn[:, :-1], wanted


def _covariance(points: np.ndarray, components: int) -> str:
    """Return "full" where a component has ten users for each dimension, else "diag"."""
    return "full" if len(points) >= 10 * components * points.shape[1] else "diag"


@dataclass(frozen=True, kw_only=True)
class Realism:
    """How like real users made-up ones are.

    Parameters
    ----------
    popularity : float
        Total variation between the shares of items in all interactions, from 0 (the same) to 1.
    lengths : float
        Largest difference of the two distributions of lengths (Kolmogorov-Smirnov), from 0 to 1.
    co_occurrence : float
        Correlation of the cosines of all pairs of the most popular items, at most 1.
    copies : float
        Share of histories that are exactly those of a training user.
    ndcg : float or None
        NDCG@100 of real held-out users by EASE trained on these users.
    """

    popularity: float
    lengths: float
    co_occurrence: float
    copies: float
    ndcg: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the figures by name, null where there is no number."""
        return {name: value if value is not None and np.isfinite(value) else None for name, value in vars(self).items()}


def realism(
    made: sp.csr_matrix,
    real: sp.csr_matrix,
    train: sp.csr_matrix,
    held_out: HeldOut | None = None,
    *,
    max_memory: int | None = None,
) -> Realism:
    """Compare made-up users with real ones.

    For the same figures of real users against one another, give a part of them as `made` and another as `real`.

    Parameters
    ----------
    made, real : sparse matrix of shape (n_users, n_items)
        Both kinds of users; numbers of users may differ.
    train : sparse matrix of shape (n_train_users, n_items)
        Users of whom nothing should be copied.
    held_out : HeldOut, optional
        Real users to test a model on that is trained on `made`.
    max_memory : int, optional
        Bytes that this model may take.

    Returns
    -------
    Realism

    Raises
    ------
    DataError
        If there are no interactions to compare.
    MemoryLimitError
        If the model that is trained on `made` does not fit.
    """
    made = as_interactions(made, "the made-up users")
    real = as_interactions(real, "the real users", made.shape[1])
    train = as_interactions(train, "the training users", made.shape[1])
    if not made.nnz or not real.nnz:
        raise DataError("got no interactions to compare, expected some in both; make more users, or longer ones")
    shares = [np.bincount(rows.indices, minlength=rows.shape[1]) / rows.nnz for rows in (made, real)]  # (I,)
    ndcg = None
    if held_out is not None:
        model = EASE().fit(made, max_memory=max_memory)
        ranked, _ = model.recommend(held_out.fold_in, _K, max_memory=max_memory)
        ndcg = float(np.nanmean(ndcg_at_k(ranked, held_out.targets, _K)))
    with np.errstate(all="ignore"):  # of the p-value, which is not asked for
        apart = ks_2samp(made.getnnz(axis=1), real.getnnz(axis=1), method="asymp").statistic
    return Realism(
        popularity=float(0.5 * np.abs(shares[0] - shares[1]).sum()),
        lengths=float(apart),
        co_occurrence=_agreement(made, real, shares[1]),
        copies=_copies(made, train),
        ndcg=ndcg,
    )


def _agreement(made: sp.csr_matrix, real: sp.csr_matrix, popularity: np.ndarray) -> float:
    chosen = np.argsort(-popularity, kind="stable")[:_MOST_PAIRED]
    pairs: list[Any] = []
    for rows in (made, real):
        part = rows[:, chosen].astype(np.float64)
        part.data[:] = 1
        counts = (part.T @ part).toarray()  # a few hundred items squared
        length = np.sqrt(np.maximum(counts.diagonal(), 1))
        pairs.append((counts / length[:, None] / length)[np.triu_indices(len(chosen), 1)])
    if len(chosen) < 2 or min(values.std() for values in pairs) == 0:
        return float("nan")
    return float(np.corrcoef(*pairs)[0, 1])


def _copies(made: sp.csr_matrix, train: sp.csr_matrix) -> float:
    known = {row.tobytes() for row in np.split(train.indices.astype(np.int64), train.indptr[1:-1])}
    rows = np.split(made.indices.astype(np.int64), made.indptr[1:-1])
    return float(np.mean([row.tobytes() in known for row in rows]))
