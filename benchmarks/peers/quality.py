"""How long training takes until it is good: recvae, RecBole and Cornac, from a prepared data set.

    python benchmarks/peers/quality.py --data data/ml-1m
    python benchmarks/peers/quality.py --data data/ml-1m --only multvae --set batch_size=200
    python benchmarks/peers/quality.py --users 20000 --items 20108 --interactions 1540000 --limit 600
    python benchmarks/peers/quality.py --users 116677 --items 20108 --interactions 8500000 --mark .3 --stop --no-own

The mark is 99 % of the best validation NDCG@100 of recvae's Mult-VAE with its defaults, in a run of its own, which is
not timed; or it is given. What counts are the seconds of updates to the end of the first epoch whose validation
reaches it; a closed form's are those of its fit. Who never reaches it within the limits has a time with ">". The same
is told of 99 % of everyone's own best; with --stop, of the best until the mark was reached. For recvae there are also
the seconds of all that `fit` did until then, validations included; the peers are validated here, outside of what
counts.

Each training is a process of its own with the same number of threads, one after the other, in every round all of them
with the round's seed. A round's ratio is to recvae's Mult-VAE in that round, both without validations.

- RecBole's MultiVAE and Cornac's VAECF have the settings of the paper of Mult-VAE as far as each has them: 600-200,
  batches of 500, Adam 1e-3, dropout 0.5, a KL term whose weight rises to 0.2 in 170 epochs; Cornac has no dropout, and
  that weight from the start. And each once more with the batch size and the learning rate that it has by default.
- What stays different: recvae's Mult-VAE has its own defaults: 30 epochs, smaller batches where users are few, and a
  larger step size that decays. RecBole draws latent variables with a hundredth of the noise, both start from other
  weights, and Cornac does not scale its rows. So their epochs are not worth the same, which is why the time to a mark
  is taken.
- recvae multiplies in bfloat16 where the processor can; --set precision=float32 trains once more without.
- They score a validation user as they do a training user, from the fold-in, without sampling.
- Without --data, users are made up by `recvae.synthetic_log`, and split as `recvae preprocess` does.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from contenders import MODELS, PEERS, SHARE, Contender, contenders, table  # noqa: E402
from environments import NotInstalledError, environment  # noqa: E402
from measuring import machine_line, write_results  # noqa: E402
from recvae import Dataset, Filters, MultVAE, synthetic_log  # noqa: E402
from recvae.errors import RecvaeError, UsageError  # noqa: E402
from recvae.models.common.hyperparameters import build, parse_settings  # noqa: E402
from run import parsed, parser_of  # noqa: E402
from side import Side, WorkerError  # noqa: E402
from work import Answer, Data, Limits  # noqa: E402

EPOCHS, PATIENCE = 200, 50  # at most: those of the paper of Mult-VAE, and more than any training needs to go on
HELD_OUT = 10  # one user in so many is a made-up validation user, and one in so many a test user


def learn(contender: Contender, data: Path, given: argparse.Namespace, seed: int, mark: float = np.inf) -> Answer:
    """Return how a training went, in a process of its own.

    Parameters
    ----------
    contender : Contender
        Who.
    data : Path
        The folder of the data.
    given : Namespace
        The command line.
    seed : int
        Of all that it draws.
    mark : float
        The NDCG@100 where it ends.

    Raises
    ------
    NotInstalledError, WorkerError
        If it cannot be started, or fails.
    """
    worker = contender.worker
    python = Path(sys.executable) if worker == "recvae" else environment(worker, given.environments, given.install)
    limits = Limits(given.epochs, given.limit, given.patience, mark)
    with (
        tempfile.TemporaryDirectory(dir=data) as folder,
        Side(worker, python, data, Path(folder), given.threads) as side,
    ):
        side.wait_until_ready()
        answer = side.ask("learn", seed=seed, limits=vars(limits), **contender.settings)
    how = f"{answer.seconds:8.1f} s   best NDCG@100 {max(answer.found['ndcg']):.4f}"
    print(f"  {contender.label:<36} {len(answer.found['ndcg']):4d} epochs {how}", file=sys.stderr, flush=True)
    return answer


def mark_of(data: Path, given: argparse.Namespace) -> float:
    """Return the NDCG@100 to reach, and say where it is from; see `learn`."""
    if given.mark is not None:
        print(f"the mark is an NDCG@100 of {given.mark:.4f}")
        return given.mark
    usual = Contender("recvae Mult-VAE, for the mark", "recvae", {"model": "multvae", "values": {}})
    try:
        ndcg = learn(usual, data, given, seed=0).found["ndcg"]
    except WorkerError as error:
        sys.exit(f"failed: {error}")
    mark = SHARE * max(ndcg)
    print(f"the mark is an NDCG@100 of {mark:.4f}: of Mult-VAE in {len(ndcg)} epochs, best in {1 + np.argmax(ndcg)}")
    return mark


def compare(among: Sequence[Contender], data: Path, given: argparse.Namespace, mark: float) -> dict[str, str]:
    """Train all, round by round, and return why some did not come to their end, by their labels.

    Parameters
    ----------
    among : sequence of Contender
        Whose answers are filled in.
    data : Path
        The folder of the data.
    given : Namespace
        The command line.
    mark : float
        The NDCG@100 to reach, where a training ends if the command line says so.
    """
    reasons: dict[str, str] = {}
    for number in range(1, 1 + given.rounds):
        print(f"round {number}", file=sys.stderr, flush=True)
        for contender in among:
            if contender.label in reasons:
                continue
            try:
                contender.answers.append(learn(contender, data, given, number, mark if given.stop else np.inf))
            except NotInstalledError as error:
                reasons[contender.label] = f"not installed: {error}"
            except WorkerError as error:
                reasons[contender.label] = f"failed: {error}"
    return reasons


def made_up(n_users: int, n_items: int, n_interactions: int) -> Dataset:
    """Return a data set of so many training users and about so many items and interactions; held-out ones come on top.

    Parameters
    ----------
    n_users, n_items, n_interactions : int
        Within the limits of `recvae.synthetic_log`.
    """
    n_held_out = max(1, n_users // HELD_OUT)
    n_all = n_users + 2 * n_held_out
    events, _ = synthetic_log(n_users=n_all, n_items=n_items, n_events=n_interactions * n_all // n_users, seed=0)
    return Dataset.from_events(events, name="made-up", filters=Filters(), heldout_users=n_held_out)


def data_of(given: argparse.Namespace) -> Dataset:
    """Return the data set that a command line asks for."""
    if given.data is None:
        return made_up(given.users, given.items, given.interactions)
    dataset = Dataset.load(given.data)
    if not dataset.validation.has_targets:
        raise UsageError(f"got {given.data}, where no validation user has a target; hold out more users")
    return dataset


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Dataset]:
    """Return what the command line says, and the data."""
    parser = parser_of("How long training takes until it is good, in recvae and in other packages.")
    parser.add_argument("--data", type=Path, help="a prepared data set; by default one is made up")
    parser.add_argument("--only", action="append", choices=(*MODELS, *PEERS), help="may be given again")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of one more Mult-VAE")
    parser.add_argument("--mark", type=float, help="NDCG@100 to reach; by default 99 %% of the best of Mult-VAE")
    parser.add_argument("--stop", action="store_true", help="end a training once it has reached the mark")
    parser.add_argument("--no-own", action="store_true", help="leave out the peers' own defaults")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most, of each training")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of updates, at most, of each training")
    parser.add_argument("--patience", type=int, default=PATIENCE, help="epochs without a better validation")
    parser.add_argument("--rounds", type=int, default=1, help="of all trainings, each with another seed")
    given = parsed(parser, arguments)
    if given.epochs < 1 or given.patience < 1 or given.limit <= 0:
        parser.error("--epochs and --patience must be 1 or more, --limit above 0")
    if given.mark is not None and not 0 < given.mark <= 1:
        parser.error("--mark must be above 0, and at most 1")
    try:
        given.set = parse_settings(MultVAE, given.set)
        build(MultVAE, given.set)
        return given, data_of(given)
    except RecvaeError as error:
        parser.error(str(error))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    given, dataset = parse(arguments)
    torch.set_num_threads(given.threads)  # so that the machine is told as its sides are run
    n_users, n_items = dataset.train.shape
    shape = {"data": dataset.name, "users": n_users, "items": n_items, "interactions": dataset.train.nnz}
    shape |= {"validation_users": dataset.validation.n_users}
    shape |= {name: getattr(given, name) for name in ("rounds", "threads", "epochs", "limit", "patience", "stop")}
    print(machine_line())
    print(
        f"{dataset.name}: {n_users:,} users x {n_items:,} items, {dataset.train.nnz:,} interactions, "
        f"{dataset.validation.n_users:,} validation users; {given.rounds} rounds"
    )
    among = contenders(given.only or (*MODELS, *PEERS), given.set)
    among = [one for one in among if not (given.no_own and one.settings.get("own"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Data(dataset.train, dataset.validation.targets, dataset.validation.fold_in).write(folder)
        del dataset
        mark = mark_of(folder, given)
        reasons = compare(among, folder, given, mark)
    print(table(among, mark, reasons))
    found = {one.label.strip(): one.to_json(mark) | {"reason": reasons.get(one.label, "")} for one in among}
    write_results(given.json, "quality", shape | {"mark": mark}, found)
    if any(reason.startswith("failed") for reason in reasons.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
