"""What an autoencoder says of users' codes: encoded, decoded, drawn, and how much of the latent space is used.

Encoders get whole rows, no noise is added. Where codes have a distribution, the prior is N(0, I); H+Vamp has its own.

Letters in shape comments: U users, B users of a block, I items, D width of the codes, H of the last layer.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import in_blocks
from recvae.errors import UsageError
from recvae.models.common.base import Model
from recvae.models.common.draws import as_codes, check_lengths, check_seed, draws_of, standard_normal
from recvae.models.common.item_networks import ItemNetwork, ProductNetwork
from recvae.progress import Progress
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.latents import ACTIVE, LOOKED_AT, active_units, mutual_information
from recvae.training.losses import kl_of_units

MOST_COMPARED = 2000  # whose posteriors are compared with one another


class Posterior(NamedTuple):
    """What an encoder says of users.

    Parameters
    ----------
    mean : ndarray of shape (n_users, latent_dim), float32
        Means of q(z | x), or the codes where they are points.
    logvar : ndarray of shape (n_users, latent_dim), float32, or None
        Logarithms of the variances, None where codes are points.
    """

    mean: np.ndarray
    logvar: np.ndarray | None


class CodeModel(Model):
    """The part of an autoencoder that is asked about its codes; what a model does not have is refused by name."""

    network_: Any
    device_: torch.device

    def _likelihood(self) -> tuple[str, float] | None:
        """Return name and confidence of the likelihood of a row given its logits, None where there is none."""
        return None

    @property
    def has_distribution(self) -> bool:
        """Whether users have a distribution of codes, or points."""
        return type(self._a_network()).posterior is not ItemNetwork.posterior

    @property
    def has_decoder(self) -> bool:
        """Whether scores are made of codes alone."""
        return isinstance(self._a_network(), ProductNetwork)

    @abstractmethod
    def _network(self, n_items: int) -> Any:
        """Return the network, not initialised."""

    def _a_network(self) -> Any:
        if self.n_items_:
            return self.network_
        with torch.device("meta"):
            return self._network(1)

    def encode(self, user_items: sp.csr_matrix, *, max_memory: int | None = None) -> Posterior:
        """Return what the encoder says of users, seen in training or not; no noise is added.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Their histories.
        max_memory : int, optional
            Bytes that it may take.

        Returns
        -------
        Posterior
            For H+Vamp both layers side by side; `logvar` is None where codes are points (ae, multdae, elsa).

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the number of items is not that of the training data.
        """
        rows = self._check_histories(user_items)
        width = self._code_width()
        mean = np.empty((rows.shape[0], width), np.float32)  # (U, D)
        logvar = np.empty_like(mean) if self.has_distribution else None

        @torch.no_grad()
        def work(start: int, end: int) -> None:
            found = self._posterior(rows[start:end])
            mean[start:end] = found[0].cpu().numpy()
            if logvar is not None and found[1] is not None:
                logvar[start:end] = found[1].cpu().numpy()

        in_blocks(len(mean), self.rows_at_a_time(max_memory), work)
        return Posterior(mean, logvar)

    def decode(self, codes: np.ndarray, *, max_memory: int | None = None) -> np.ndarray:
        """Return the score of every item given codes: `decode(encode(x).mean)` is `score(x)`.

        Parameters
        ----------
        codes : ndarray of shape (n, latent_dim)
            Any points of the latent space; of few users, since what is returned is dense.
        max_memory : int, optional
            Bytes that it may take besides what is returned.

        Returns
        -------
        ndarray of shape (n, n_items), float32
            Logits; their softmax is the distribution of an interaction under a multinomial likelihood.

        Raises
        ------
        UsageError
            If scores are not made of codes alone (vasp, elsa), or codes have another width or are no finite numbers.
        NotFittedError
            Before `fit`.
        """
        points = self._check_codes(codes)
        self._stop_training()
        scores = np.empty((len(points), self.n_items_), np.float32)  # (U, I)

        @torch.no_grad()
        def work(start: int, end: int) -> None:
            scores[start:end] = self._logits(points[start:end]).cpu().numpy()

        in_blocks(len(points), self.rows_at_a_time(max_memory), work)
        return scores

    def sample(
        self,
        lengths: np.ndarray,
        *,
        codes: np.ndarray | None = None,
        seed: int = 0,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> sp.csr_matrix:
        """Draw histories: a code from the prior, then as many different items as are asked for.

        Items are drawn one after the other by the softmax of the logits, also of a bernoulli likelihood, none twice.

        Parameters
        ----------
        lengths : ndarray of shape (n,), int
            How many items each history shall have, from 0 to the number of items.
        codes : ndarray of shape (n, latent_dim), optional
            Codes to draw from; by default from the prior, unlike those of users (see `recvae.latent.generation`).
        seed : int
            Seed of all draws, 0 or more.
        max_memory : int, optional
            Bytes that it may take.
        progress : Progress, optional
            Called with the histories done and the histories in all.

        Returns
        -------
        csr_matrix of shape (n, n_items), float32
            Ones, with sorted columns.

        Raises
        ------
        UsageError
            If none are given and the model has no prior, its likelihood is gaussian, or a length is wrong.
        NotFittedError
            Before `fit`.
        """
        self.check_fitted()
        wanted = check_lengths(lengths, self.n_items_)
        likelihood = self._likelihood()
        if likelihood is None or likelihood[0] == "gaussian":
            what = "no likelihood" if likelihood is None else "a gaussian likelihood, which draws numbers"
            raise UsageError(f"got {self.name} with {what}, expected one of interactions; set likelihood=multinomial")
        if codes is None:
            self._check_distribution()
            codes = self._from_prior(len(wanted), check_seed(seed), max_memory)  # (U, D)
        points = self._check_codes(codes)
        if len(points) != len(wanted):
            raise UsageError(f"got {len(points):,} codes for {len(wanted):,} lengths, expected as many of each")
        columns: list[np.ndarray] = [np.empty(0, np.int64)] * len(wanted)
        self._stop_training()

        @torch.no_grad()
        def work(start: int, end: int) -> None:
            logits = self._logits(points[start:end]).cpu()  # (B, I)
            for row, of_row in enumerate(logits, start):
                # The largest of logit + Gumbel noise are draws without replacement (Kool et al., ICML 2019).
                keys = of_row.double().numpy() + draws_of(seed, row, of="items").gumbel(size=self.n_items_)
                columns[row] = np.sort(np.argpartition(-keys, min(wanted[row], len(keys) - 1))[: wanted[row]])
                if progress is not None:
                    progress(row + 1, len(wanted), "users")

        in_blocks(len(wanted), self.rows_at_a_time(max_memory), work)
        starts = np.concatenate([[0], np.cumsum(wanted)])
        found = np.concatenate([np.empty(0, np.int64), *columns])
        return sp.csr_matrix((np.ones(len(found), np.float32), found, starts), shape=(len(wanted), self.n_items_))

    def _from_prior(self, n: int, seed: int, max_memory: int | None) -> np.ndarray:  # noqa: ARG002
        return standard_normal(n, self._code_width(), seed)  # (U, D)

    def kl(self, user_items: sp.csr_matrix, *, max_memory: int | None = None) -> np.ndarray:
        """Return KL(q(z_d | x) || N(0, 1)) of each user and latent dimension, in nats.

        Parameters
        ----------
        user_items, max_memory
            See `encode`.

        Returns
        -------
        ndarray of shape (n_users, latent_dim), float64
            At least 0. For H+Vamp, whose prior is another, against N(0, 1) all the same, and with q(z1 | x, z2) as it
            is at the mean of q(z2 | x): an approximation, since z1 depends on z2.

        Raises
        ------
        UsageError
            If codes are points, so that they have no distribution.
        NotFittedError
            Before `fit`.
        """
        rows = self._with_distribution(user_items)
        return self._each_block(rows.shape[0], max_memory, lambda start, end: self._kl_block(rows[start:end]))  # (U, D)

    def kl_per_dimension(self, user_items: sp.csr_matrix, *, max_memory: int | None = None) -> np.ndarray:
        """Return the mean over users of `kl`, shape (latent_dim,), float64; parameters and errors are the same."""
        rows, n = self._with_distribution(user_items), user_items.shape[0]
        total = self._each_block(
            n, max_memory, lambda start, end: self._kl_block(rows[start:end]).sum(0, keepdims=True)
        )
        return total.sum(axis=0) / n  # (n_blocks, D) -> (D,)

    def active_units(
        self, user_items: sp.csr_matrix, threshold: float = ACTIVE, *, max_memory: int | None = None
    ) -> int:
        """Return how many latent dimensions differ between users: Burda et al., ICLR 2016, section 5.2.

        Parameters
        ----------
        user_items, max_memory
            See `encode`.
        threshold : float
            Variance over users of the mean of q(z_d | x), above which a dimension is active.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        return int(active_units(torch.from_numpy(self.encode(user_items, max_memory=max_memory).mean), threshold))

    def mutual_information(self, user_items: sp.csr_matrix, *, seed: int = 0, max_memory: int | None = None) -> float:
        """Return how much codes tell of who the user is, in nats, at most the logarithm of the number of users.

        E KL(q(z | x) || p(z)) - KL(q(z) || p(z)), Hoffman and Johnson, ELBO surgery, 2016; q(z) is the mean of the
        posteriors of the users that are given, of which 2,000 at most are taken, spread evenly. For H+Vamp an
        approximation, with q(z1 | x, z2) as it is at the mean of q(z2 | x).

        Parameters
        ----------
        user_items, max_memory
            See `encode`.
        seed : int
            Of one draw for each user.

        Raises
        ------
        UsageError, NotFittedError
            See `kl`.
        """
        rows, n = self._with_distribution(user_items), user_items.shape[0]
        chosen = np.unique(np.linspace(0, n - 1, min(MOST_COMPARED, n), dtype=np.int64))
        mean, logvar = self.encode(rows[chosen], max_memory=max_memory)
        assert logvar is not None
        noise = np.random.default_rng(check_seed(seed)).standard_normal(mean.shape)
        return mutual_information(*(torch.from_numpy(part) for part in (mean, logvar, noise)))

    def item_embeddings(self) -> np.ndarray:
        """Return the weight of the last layer: a vector for each item, shape (n_items, width), float32, a copy."""
        self.check_fitted()
        return self.network_.output.weight.detach().cpu().numpy().copy()

    @torch.no_grad()
    def _codes_while_training(self, user_items: sp.csr_matrix) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mean and logvar of the first of some users, for the log."""
        return self._posterior(user_items[:LOOKED_AT])

    def _stop_training(self) -> None:
        if self.network_.training:  # looked up once: telling every layer takes longer than some of them
            self.network_.eval()

    def _batch(self, rows: sp.csr_matrix) -> SparseBatch:
        return whole_batch(rows, self.device_)

    def _posterior(self, rows: sp.csr_matrix) -> tuple[torch.Tensor, torch.Tensor | None]:
        self._stop_training()
        return self.network_.posterior(self._batch(rows))

    def _logits(self, points: torch.Tensor) -> torch.Tensor:
        return self.network_.output(self.network_.decode(points.to(self.device_)))  # (B, D) -> (B, H) -> (B, I)

    def _code_width(self) -> int:
        with torch.no_grad():
            return self._posterior(sp.csr_matrix((1, self.n_items_)).astype(np.float32))[0].shape[1]

    @torch.no_grad()
    def _kl_block(self, rows: sp.csr_matrix) -> np.ndarray:
        mean, logvar = self._posterior(rows)
        assert logvar is not None
        return kl_of_units(mean.double(), logvar.double()).cpu().numpy()  # (B, D)

    def _with_distribution(self, user_items: sp.csr_matrix) -> sp.csr_matrix:
        """Return checked rows of users who have a distribution of codes."""
        self._check_distribution()
        return self._check_histories(user_items)

    def _check_decoder(self) -> None:
        if not self.has_decoder:
            raise UsageError(
                f"got {self.name}, whose scores are not made of codes alone; use ae, multdae, multvae, recvae or hvamp"
            )

    def _check_distribution(self) -> None:
        if not self.has_distribution:
            raise UsageError(
                f"got {self.name}, whose codes are points without a distribution; use multvae, recvae, hvamp or vasp"
            )

    def _check_codes(self, codes: np.ndarray) -> torch.Tensor:
        self.check_fitted()
        self._check_decoder()
        points, width = as_codes(codes), self._code_width()
        if points.ndim != 2 or points.shape[1] != width:
            raise UsageError(f"got codes of shape {points.shape}, expected (n, {width}); give one row for each user")
        if not np.isfinite(points).all():
            raise UsageError("got codes that are not finite, expected numbers; look for NaN in them")
        return torch.from_numpy(points)
