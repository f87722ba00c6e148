"""How probable an autoencoder finds users' rows, and what is hidden of them.

    log p(x) >= log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x),  z_k ~ q(z | x)      Burda et al., ICLR 2016, eq. 8

K = 1 is the ELBO, and the bound rises with K. The prior is N(0, I), but that of H+Vamp its own; log p(x | z) has no
constant of the multinomial, as in the loss, so that it is of the interactions in their order, not of the set.

Letters in shape comments: U users, B users of a block, N interactions of them, I items, K draws, D width of the codes.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import in_blocks
from recvae.errors import UsageError
from recvae.interactions import as_interactions
from recvae.models.common.codes import CodeModel
from recvae.models.common.draws import check_apart, check_samples, content_keys, draws_for
from recvae.models.common.item_networks import ProductNetwork
from recvae.progress import Progress
from recvae.training.losses import output_nll, sum_of_each

_DRAWS_AT_A_TIME, _NOISE_BYTES = 16, 64 << 20  # of noise, at most
_NOISE_PART = 8  # of the memory that is allowed, noise may take one part in so many

Measure = Callable[[torch.Tensor, int, int], torch.Tensor]
"""What the last layer is given (n_users, width), first user and the one after the last -> a number of each user."""


class DensityModel(CodeModel):
    """The part of an autoencoder that says how probable rows are; what has no probability is refused by name."""

    @property
    def has_likelihood(self) -> bool:
        """Whether a row has a probability, so that `elbo` and `log_likelihood` work."""
        likelihood = self._likelihood()
        known = self.has_distribution and self.has_decoder and self.has_prior
        return known and likelihood is not None and likelihood[1] == 1

    @property
    def has_prior(self) -> bool:
        """Whether it is known how likely codes are before a row is seen, so that they can be drawn."""
        network = self._a_network()
        return isinstance(network, ProductNetwork) and self.has_distribution and network.has_normal_prior

    def log_weights(
        self,
        user_items: sp.csr_matrix,
        n_samples: int = 100,
        *,
        seed: int = 0,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return log p(x | z) + log p(z) - log q(z | x) of draws z of each user, in nats.

        Their mean is an estimate of the ELBO, the logarithm of the mean of their exponentials one of the bound with
        `n_samples` draws, which is never smaller.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Rows whose probability is asked for, not masked.
        n_samples : int
            Draws per user, 1 or more.
        seed : int
            Of the draws. Those of a user depend on the seed and on the history, not on its row or on the other users.
        max_memory : int, optional
            Bytes that it may take.
        progress : Progress, optional
            Called with the draws done and the draws in all.

        Returns
        -------
        ndarray of shape (n_users, n_samples), float64

        Raises
        ------
        UsageError
            If the model gives rows no probability; see `has_likelihood`.
        NotFittedError
            Before `fit`.
        """
        rows = self._check_density(user_items)
        weights = np.empty((rows.shape[0], check_samples(n_samples)))  # (U, K)

        def keep(start: int, end: int, k: int, values: np.ndarray) -> None:
            weights[start:end, k] = values

        self._over_draws(rows, n_samples, seed, max_memory, self._of_rows(rows), keep, weighted=True, progress=progress)
        return weights

    def elbo(
        self,
        user_items: sp.csr_matrix,
        n_samples: int = 10,
        *,
        seed: int = 0,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return E_q[log p(x | z)] - KL(q(z | x) || p(z)) of each user, in nats: the bound with beta = 1.

        Parameters
        ----------
        user_items, n_samples, seed, max_memory, progress
            See `log_weights`; draws are for the first term, the second is exact where p(z) is N(0, I). For H+Vamp
            both are of draws: it is the mean of `log_weights`.

        Returns
        -------
        ndarray of shape (n_users,), float64

        Raises
        ------
        UsageError, NotFittedError
            See `log_weights`.
        """
        rows = self._check_density(user_items)
        if not self.network_.has_normal_prior:
            k, measure = check_samples(n_samples), self._of_rows(rows)
            return self._folded(rows, k, seed, max_memory, measure, np.add, weighted=True, progress=progress) / k
        reconstruction = self.reconstruction(rows, n_samples, seed=seed, max_memory=max_memory, progress=progress)
        divergence = self._each_block(
            rows.shape[0], max_memory, lambda start, end: self._kl_block(rows[start:end]).sum(axis=1)
        )
        return reconstruction - divergence  # (U,)

    def reconstruction(
        self,
        user_items: sp.csr_matrix,
        n_samples: int = 10,
        *,
        seed: int = 0,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return E_q[log p(x | z)] of each user, in nats: how well a row is made again from its own code.

        Parameters
        ----------
        user_items, n_samples, seed, max_memory, progress
            See `log_weights`; a code that is a point is its only draw.

        Returns
        -------
        ndarray of shape (n_users,), float64

        Raises
        ------
        UsageError
            If scores are not made of codes alone, or the model states no likelihood.
        NotFittedError
            Before `fit`.
        """
        rows = self._check_histories(user_items)
        self._check_reconstruction()
        n_draws, measure = self._n_draws(n_samples), self._of_rows(rows)
        return self._folded(rows, n_draws, seed, max_memory, measure, np.add, progress=progress) / n_draws  # (U,)

    def log_likelihood(
        self,
        user_items: sp.csr_matrix,
        n_samples: int = 100,
        *,
        seed: int = 0,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return a lower bound of log p(x) of each user, in nats, tighter the more draws there are.

        log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), Burda et al., ICLR 2016, eq. 8; with K = 1 an estimate of the
        ELBO.

        Parameters
        ----------
        user_items, n_samples, seed, max_memory, progress
            See `log_weights`.

        Returns
        -------
        ndarray of shape (n_users,), float64

        Raises
        ------
        UsageError, NotFittedError
            See `log_weights`.
        """
        rows, k = self._check_density(user_items), check_samples(n_samples)
        measure = self._of_rows(rows)
        total = self._folded(rows, k, seed, max_memory, measure, np.logaddexp, weighted=True, progress=progress)
        return total - math.log(k)  # (U,)

    def target_log_likelihood(
        self,
        fold_in: sp.csr_matrix,
        targets: sp.csr_matrix,
        n_samples: int = 100,
        *,
        seed: int = 0,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return log p(targets | fold-in) of each user, in nats: how well what is hidden is foreseen.

        log 1/K sum_k prod_i p(i | z_k)^x_i,  z_k ~ q(z | fold-in), where p(i | z) is the softmax over the items that
        are not in the fold-in, since none of these can follow. A code that is a point is its only draw.

        Parameters
        ----------
        fold_in, targets : sparse matrix of shape (n_users, n_items)
            What is known of users, and what is to be foreseen, none of which is known.
        n_samples, seed, max_memory, progress
            See `log_weights`.

        Returns
        -------
        ndarray of shape (n_users,), float64
            0 for a user without targets.

        Raises
        ------
        UsageError
            If the likelihood is not multinomial, or users have no codes that scores are made of.
        NotFittedError
            Before `fit`.
        DataError
            If a target is in the fold-in, or the shapes differ.
        """
        rows = self._check_histories(fold_in)
        self._check_foresight()
        wanted = as_interactions(targets, "the targets", self.n_items_)
        check_apart(rows, wanted)

        def measure(hidden: torch.Tensor, start: int, end: int) -> torch.Tensor:
            seen, batch = self._batch(rows[start:end]), self._batch(wanted[start:end])
            logits = self.network_.output(hidden)  # (B, I)
            logits[seen.rows, seen.items.long()] = -math.inf
            hits = logits[batch.rows, batch.items.long()] * batch.values  # (N,)
            return sum_of_each(hits, batch) - batch.totals * logits.logsumexp(dim=1).nan_to_num(neginf=0.0)

        n_draws = self._n_draws(n_samples)
        total = self._folded(rows, n_draws, seed, max_memory, measure, np.logaddexp, progress=progress)
        return total - math.log(n_draws)  # (U,)

    def _n_draws(self, n_samples: int) -> int:
        """Return how many draws there are to a user: of a code that is a point, one."""
        return check_samples(n_samples) if self.has_distribution else min(check_samples(n_samples), 1)

    def _of_rows(self, rows: sp.csr_matrix) -> Measure:
        """Return what measures log p(x | z) of rows."""
        likelihood = self._likelihood()
        if likelihood is None:
            raise UsageError(
                f"got {self.name}, whose class states no likelihood of a row, expected one; let its `_likelihood` "
                "return e.g. ('multinomial', 1.0), if that is what its loss is"
            )

        def measure(hidden: torch.Tensor, start: int, end: int) -> torch.Tensor:
            found = -output_nll(hidden, self.network_.output, self._batch(rows[start:end]), *likelihood)  # (B,)
            return found - 0.5 * self.n_items_ * math.log(2 * math.pi) if likelihood[0] == "gaussian" else found

        return measure

    def _folded(
        self,
        rows: sp.csr_matrix,
        n_samples: int,
        seed: int,
        max_memory: int | None,
        measure: Measure,
        fold: Callable[[np.ndarray, np.ndarray], np.ndarray],
        *,
        weighted: bool = False,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return a measure of draws, added up or the like draw by draw, (n_users,), float64; see `_over_draws`."""
        total = np.empty(rows.shape[0])  # (U,)

        def keep(start: int, end: int, k: int, values: np.ndarray) -> None:
            total[start:end] = values if k == 0 else fold(total[start:end], values)

        self._over_draws(rows, n_samples, seed, max_memory, measure, keep, weighted=weighted, progress=progress)
        return total

    def _over_draws(
        self,
        rows: sp.csr_matrix,
        n_samples: int,
        seed: int,
        max_memory: int | None,
        measure: Measure,
        keep: Callable[[int, int, int, np.ndarray], None],
        *,
        weighted: bool,
        progress: Progress | None,
    ) -> None:
        """Hand on a measure of each draw of codes, (n_users,), float64, block by block of users; draws start at 0.

        If weighted, log p(z) - log q(z | x) is added. No more than a block of users and a few draws are held.
        """
        width = self._code_width()
        noise_bytes = _NOISE_BYTES if max_memory is None else max(1, min(_NOISE_BYTES, max_memory // _NOISE_PART))

        @torch.no_grad()
        def work(start: int, end: int) -> None:
            draw = self.network_.draws(self._batch(rows[start:end]))
            sources = [draws_for(seed, key) for key in content_keys(rows[start:end])]
            at_a_time = max(1, min(_DRAWS_AT_A_TIME, noise_bytes // (4 * width * (end - start))))
            for first in range(0, n_samples, at_a_time):
                n = min(at_a_time, n_samples - first)
                noise = np.stack([source.standard_normal((n, width), np.float32) for source in sources])  # (B, n, D)
                for k, of_draw in enumerate(torch.from_numpy(noise).to(self.device_).unbind(dim=1), first):
                    z, ratio = draw(of_draw)  # (B, D), (B,)
                    values = measure(self.network_.decode(z), start, end).double()  # (B,)
                    keep(start, end, k, (values + ratio.double() if weighted else values).cpu().numpy())
                    if progress is not None:
                        progress(start * n_samples + (k + 1) * (end - start), rows.shape[0] * n_samples, "draws")

        self._stop_training()
        most = max(1, noise_bytes // (4 * width))  # users whose noise of one draw is held
        in_blocks(rows.shape[0], min(self.rows_at_a_time(max_memory), most), work)

    def _check_reconstruction(self) -> None:
        """Refuse a model, fitted or not, without `reconstruction`."""
        self._check_decoder()
        self._of_rows(sp.csr_matrix((0, 1)))  # which are not looked at

    def _check_foresight(self) -> None:
        """Refuse a model, fitted or not, without `target_log_likelihood`."""
        self._check_decoder()
        name, _ = self._likelihood() or ("none", 1.0)
        if name != "multinomial":
            raise UsageError(f"got {self.name} with likelihood {name}, expected multinomial; train such a run")

    def _check_likelihood(self) -> None:
        """Refuse a model, fitted or not, without `log_likelihood`."""
        if not self.has_likelihood:
            _, weight = self._likelihood() or ("", 1.0)
            what = "no probability of a row" if weight == 1 else "a weight of interactions (confidence)"
            raise UsageError(f"got {self.name} with {what}, expected a likelihood; use multvae, recvae or hvamp")

    def _check_density(self, user_items: sp.csr_matrix) -> sp.csr_matrix:
        rows = self._check_histories(user_items)
        self._check_likelihood()
        return rows
