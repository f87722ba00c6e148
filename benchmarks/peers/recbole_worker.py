"""RecBole's side: MultiVAE and its evaluation; `serve` says how it is asked.

RecBole has a user and an item more than the data, numbered 0, for padding; it trains on that user too, which is an
update more where the users fill their batches (41 for 40). Its latent dimension counts means and log-variances, and
its network pads every history to the longest, so one long history slows all down. Its evaluation is asked for in the
batches in which it is fastest, and with its default eval_batch_size: of fewer scores than there are items, so that
it goes user by user.
"""
# pyright: reportMissingImports=false
# RecBole is not installed where this package is checked.

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import work
from work import Answer, Course, Data, Jobs, Limits, serve, timed, validated

# Names that RecBole sets up its own aliases from, and that numpy 2 no longer has.
for _old, _new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, _old, _new)

import torch  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402

NAME = "madeup"
USERS_AT_ONCE = 100  # in an evaluation; 50 to 1000 take up to 1.3 times as long
EVAL_BATCH_SIZE = 4096  # scores, RecBole's default
FILES = Path(NAME)  # RecBole's files are named as their folder is
_NAMES = {"recall@20": "recall_all@20", "recall@50": "recall_all@50"}  # over all targets

# Letters in shape comments: I items, H width of the hidden layer, B users of a block.


def write_files(data: Data) -> None:
    """Write the interactions and the list of all items as RecBole's atomic files."""
    FILES.mkdir()
    parts = {"train": data.train} | ({"test": data.targets} if data.fold_in is None else {})
    for part, matrix in parts.items():
        rows, columns = sp.csr_matrix(matrix).nonzero()
        with (FILES / f"{NAME}.{part}.inter").open("w", encoding="ascii") as file:
            file.write("user_id:token\titem_id:token\n")
            np.savetxt(file, np.column_stack([rows, columns]), fmt="%d", delimiter="\t")
    with (FILES / f"{NAME}.item").open("w", encoding="ascii") as file:
        file.write("item_id:token\n")
        np.savetxt(file, np.arange(data.train.shape[1]), fmt="%d")


def settings(eval_batch_size: int, held_out: str = "test") -> dict[str, object]:
    """Return the settings in which RecBole does what recvae does, evaluating so many scores of a part at a time."""
    return {
        "data_path": ".",
        "benchmark_filename": ["train", held_out, held_out],  # it wants validation users; nobody asks for them
        "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]},
        "mlp_hidden_size": [work.HIDDEN],
        "latent_dimension": 2 * work.LATENT,
        "dropout_prob": work.DROPOUT,
        "anneal_cap": work.BETA,
        "total_anneal_steps": 0,
        "train_neg_sample_args": None,
        "train_batch_size": work.BATCH_SIZE,
        "learning_rate": work.LEARNING_RATE,
        "eval_batch_size": eval_batch_size,
        "metrics": ["Recall", "NDCG"],
        "topk": [20, 50, work.TOP],
        "metric_decimal_place": 8,
        "use_gpu": False,
        "show_progress": False,
        "state": "WARNING",
    }


class RecBole:
    """The jobs of RecBole.

    Parameters
    ----------
    data : Data
        What to work on.
    """

    def __init__(self, data: Data) -> None:
        write_files(data)
        config = self._config(USERS_AT_ONCE * (data.train.shape[1] + 1))
        dataset = create_dataset(config)
        self._train_data, _, self._test_data = data_preparation(config, dataset)
        by_default = self._config(EVAL_BATCH_SIZE)
        _, _, self._user_by_user = data_preparation(by_default, create_dataset(by_default))  # it uses a data set up
        self._columns = dataset.field2id_token["item_id"][1:].astype(np.int64)  # of RecBole's items from 1
        self._model = get_model("MultiVAE")(config, self._train_data.dataset)
        self._trainer = get_trainer(config["MODEL_TYPE"], "MultiVAE")(config, self._model)
        self._has_weights = False

    @staticmethod
    def _config(eval_batch_size: int) -> Config:
        return Config(model="MultiVAE", dataset=NAME, config_dict=settings(eval_batch_size))

    def train(self) -> Answer:
        """Train one more epoch."""
        seconds, _ = timed(lambda: self._trainer._train_epoch(self._train_data, 0))
        return Answer(
            seconds,
            {"parameters": sum(values.numel() for values in self._model.parameters()), "bits of the products": 32},
        )

    def evaluate(self) -> Answer:
        """Evaluate recvae's network."""
        return self._evaluate(self._test_data)

    def evaluate_by_default(self) -> Answer:
        """Evaluate it in batches of RecBole's own size."""
        return self._evaluate(self._user_by_user)

    def _evaluate(self, users: Any) -> Answer:
        if not self._has_weights:
            self._take_weights()
        seconds, found = timed(lambda: self._trainer.evaluate(users, load_best_model=False))
        return Answer(seconds, {_NAMES.get(str(name), str(name)): float(value) for name, value in found.items()})

    def _take_weights(self) -> None:
        with np.load(work.WEIGHTS) as file:
            theirs = {name: file[name] for name in file.files}
        theirs["encoder.0.weight"] = self._widen(theirs["encoder.0.weight"]).T  # (I, H) -> (H, 1 + I)
        for name in ("decoder.1.weight", "decoder.1.bias"):
            theirs[name] = self._widen(theirs[name])  # (I, H) -> (1 + I, H)
        # recvae numbers the layers that have weights, RecBole those of activations too.
        tensors = {name.replace(".1.", ".2."): torch.tensor(value) for name, value in theirs.items()}
        self._model.load_state_dict(tensors)
        self._has_weights = True

    def _widen(self, weights: np.ndarray) -> np.ndarray:
        """Return the rows of items in RecBole's order, after one for padding."""
        return np.concatenate([np.zeros_like(weights[:1]), weights[self._columns]])


class Learner:
    """MultiVAE, trained from the start and validated after every epoch.

    Parameters
    ----------
    data : Data
        With fold-in.
    """

    def __init__(self, data: Data) -> None:
        write_files(data)
        self._data = data

    def learn(self, seed: int, limits: dict[str, Any], own: bool) -> Answer:
        """Train to a limit, with RecBole's own batch size and learning rate or with recvae's."""
        chosen = settings(EVAL_BATCH_SIZE, "train")
        if own:
            del chosen["train_batch_size"], chosen["learning_rate"]
        config = Config(model="MultiVAE", dataset=NAME, config_dict=chosen)
        init_seed(seed, reproducibility=True)
        train_data, _, _ = data_preparation(config, create_dataset(config))
        # It raises the weight by 1 / total_anneal_steps with every update, up to the cap.
        config["total_anneal_steps"] = work.ANNEAL_EPOCHS * len(train_data) / work.BETA
        columns = train_data.dataset.field2id_token["item_id"][1:].astype(np.int64)  # of RecBole's items from 1
        model = get_model("MultiVAE")(config, train_data.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], "MultiVAE")(config, model)
        course = Course(Limits(**limits))
        goes_on = True
        while goes_on:
            seconds, _ = timed(lambda: trainer._train_epoch(train_data, len(course.ndcg)))
            goes_on = course.add(seconds, validated(lambda rows: scores(model, rows, columns), self._data))
        return course.answer(batch_size=config["train_batch_size"], learning_rate=config["learning_rate"])


@torch.no_grad()
def scores(model: Any, rows: sp.csr_matrix, columns: np.ndarray) -> np.ndarray:
    """Return what the model's own `full_sort_predict` does of training users, for other ones.

    Parameters
    ----------
    model : MultiVAE
        Trained.
    rows : csr_matrix of shape (n_rows, n_items)
        What they are known by.
    columns : ndarray of shape (n_items,)
        Of RecBole's items from 1.

    Returns
    -------
    ndarray of shape (n_rows, n_items)
    """
    model.eval()  # no dropout, and the mean in place of a sample
    theirs = torch.zeros(rows.shape[0], 1 + rows.shape[1])  # (B, 1 + I)
    theirs[:, 1:] = torch.from_numpy(rows.toarray()[:, columns])
    found, _, _ = model.forward(theirs)
    scored = np.empty(rows.shape, dtype=np.float32)  # (B, I)
    scored[:, columns] = found[:, 1:].numpy()
    return scored


def jobs(data: Data) -> Jobs:
    """Return what RecBole can be asked for."""
    if data.fold_in is not None:
        return {"learn": Learner(data).learn}
    recbole = RecBole(data)
    return {
        "train": recbole.train,
        "evaluate": recbole.evaluate,
        "evaluate_by_default": recbole.evaluate_by_default,
    }


if __name__ == "__main__":
    serve(jobs)
