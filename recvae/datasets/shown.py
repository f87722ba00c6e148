"""How a data set shows itself: one line at a prompt, a table in a notebook."""

from typing import Any

import scipy.sparse as sp

from recvae.display import html_table, one_line, plural
from recvae.interactions import HeldOut


class ShownDataset:
    """The part of `Dataset` that people see."""

    train: sp.csr_matrix
    validation: HeldOut
    test: HeldOut
    titles: Any
    features: Any
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        """Return the data set in one line: its name, its sizes, its protocol."""
        n_users, n_items = self.train.shape
        sizes = f"{n_users:,} training users x {plural(n_items, 'item')}, {plural(self.train.nnz, 'interaction')}"
        held_out = f"{self.validation.n_users:,} validation and {plural(self.test.n_users, 'test user')}"
        return f"<Dataset {self._name()}: {sizes}; {held_out}{self._protocol()}>"

    def _repr_html_(self) -> str:
        n_users, n_items = self.train.shape
        parts = (("validation", self.validation), ("test", self.test))
        rows = [("train", n_users, int(self.train.nnz), None, None)]
        rows += [(name, one.n_users, None, int(one.fold_in.nnz), int(one.targets.nnz)) for name, one in parts]
        n_titles = 0 if self.titles is None else sum(title is not None for title in self.titles)
        remarks = [f"{plural(n_items, 'item')}, {f'{n_titles:,}' if n_titles else 'none'} with a title"]
        if self.features is not None:
            remarks.append(plural(len(self.features.names), "item feature"))
        title = f"{self._name()}{self._protocol()}; fingerprint {str(self.manifest.get('fingerprint', 'unknown'))[:12]}"
        return html_table(title, ["part", "users", "interactions", "fold-in", "targets"], rows, remarks)

    def _name(self) -> str:
        return one_line(self.manifest.get("name", "unnamed"))

    def _protocol(self) -> str:
        """Return how it was split, after a separator; nothing where that is not known."""
        protocol = self.manifest.get("protocol")
        split = protocol.get("split") if isinstance(protocol, dict) else None
        return "" if split is None else f"; split {one_line(split)}"
