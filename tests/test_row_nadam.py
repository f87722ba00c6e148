"""NAdam by rows: each row has the NAdam of PyTorch on the gradients it gets, and stands still without one."""

import pytest
import torch
from torch.nn import functional

from recvae.training.row_nadam import RowNAdam

N_ROWS, WIDTH, STEPS = 7, 5, 40


def gradients(seed: int = 0) -> torch.Tensor:
    return torch.randn(STEPS, N_ROWS, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start() -> torch.Tensor:
    return torch.linspace(-1, 1, N_ROWS * WIDTH, dtype=torch.float64).reshape(N_ROWS, WIDTH)


def nadam_of(of_row: torch.Tensor, weight: torch.Tensor, lr: float) -> torch.Tensor:
    """Return a row after PyTorch's dense NAdam has seen some gradients (steps, width)."""
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.NAdam([parameter], lr=lr, foreach=False)
    for gradient in of_row:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def by_rows(which: list[list[int]], given: torch.Tensor, lr: float) -> tuple[torch.nn.Parameter, RowNAdam]:
    """Return a matrix and its optimiser after steps in which some rows had gradients."""
    parameter = torch.nn.Parameter(start())
    optimizer = RowNAdam([parameter], lr=lr)
    for rows, gradient in zip(which, given, strict=True):
        optimizer.zero_grad(set_to_none=True)
        wanted = torch.tensor(rows, dtype=torch.int64)
        (functional.embedding(wanted, parameter, sparse=True) * gradient[wanted]).sum().backward()
        optimizer.step()
    return parameter, optimizer


@pytest.mark.parametrize("lr", [0.1, 0.003])
def test_with_all_rows_in_every_step_it_is_dense_nadam(lr: float) -> None:
    given = gradients()
    parameter, _ = by_rows([list(range(N_ROWS))] * STEPS, given, lr)
    dense = torch.nn.Parameter(start())
    optimizer = torch.optim.NAdam([dense], lr=lr, foreach=False)
    for gradient in given:
        dense.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), dense.detach(), rtol=1e-6, atol=1e-8)


def test_each_row_has_a_nadam_of_its_own() -> None:
    generator, given = torch.Generator().manual_seed(3), gradients(1)
    which = [torch.nonzero(torch.rand(N_ROWS, generator=generator) < 0.4)[:, 0].tolist() for _ in range(STEPS)]
    which = [[row for row in rows if row != 2] for rows in which]  # row 2 is never there
    parameter, optimizer = by_rows(which, given, 0.05)
    for row in range(N_ROWS):
        seen = given[[at for at, rows in enumerate(which) if row in rows], row]  # none for row 2
        torch.testing.assert_close(parameter[row].detach(), nadam_of(seen, start()[row], 0.05), rtol=1e-6, atol=1e-8)
    state = optimizer.state[parameter]
    assert torch.equal(parameter[2].detach(), start()[2])
    assert not state["exp_avg"][2].any() and not state["exp_avg_sq"][2].any() and state["updates"][2] == 0
    assert state["updates"][:, 0].tolist() == [sum(row in rows for rows in which) for row in range(N_ROWS)]
    assert float(state["step"]) == STEPS


def test_a_row_that_comes_twice_in_a_step_has_the_sum_of_its_gradients_once() -> None:
    given = gradients(2)[:1]
    twice, optimizer = by_rows([[1, 1, 4]], given, 0.1)
    expected = nadam_of(2 * given[:, 1], start()[1], 0.1)
    torch.testing.assert_close(twice[1].detach(), expected, rtol=1e-6, atol=1e-8)
    assert optimizer.state[twice]["updates"][:, 0].tolist() == [0, 1, 0, 0, 1, 0, 0]


def test_its_state_is_loaded_to_the_bit() -> None:
    which, given = [[at % N_ROWS, (at + 2) % N_ROWS] for at in range(STEPS)], gradients(4)
    straight, _ = by_rows(which, given, 0.1)
    half, optimizer = by_rows(which[: STEPS // 2], given[: STEPS // 2], 0.1)
    groups = optimizer.state_dict()["param_groups"]
    saved = optimizer.state_dict()["state"]
    state = {number: {name: value.clone() for name, value in values.items()} for number, values in saved.items()}
    resumed = RowNAdam([half], lr=0.1)
    resumed.load_state_dict({"state": state, "param_groups": groups})
    for rows, gradient in zip(which[STEPS // 2 :], given[STEPS // 2 :], strict=True):
        resumed.zero_grad(set_to_none=True)
        wanted = torch.tensor(rows)
        (functional.embedding(wanted, half, sparse=True) * gradient[wanted]).sum().backward()
        resumed.step()
    assert torch.equal(half.detach(), straight.detach())


def test_a_step_reads_and_changes_the_rows_with_a_gradient_and_no_other() -> None:
    """A step on two of a million rows has a gradient of two rows, and changes two of each state."""
    parameter = torch.nn.Parameter(torch.ones(1_000_000, 2))
    optimizer = RowNAdam([parameter], lr=0.1)
    wanted = torch.tensor([5, 999_999])
    functional.embedding(wanted, parameter, sparse=True).sum().backward()
    assert parameter.grad is not None and parameter.grad.is_sparse and parameter.grad._values().shape == (2, 2)
    optimizer.step()
    state = optimizer.state[parameter]
    for name in ("exp_avg", "exp_avg_sq", "updates"):
        assert state[name].any(dim=1).nonzero()[:, 0].tolist() == wanted.tolist(), name
    assert (parameter.detach() != 1).all(dim=1).nonzero()[:, 0].tolist() == wanted.tolist()


@pytest.mark.parametrize(("before", "dense", "in_all"), [(0, 1.06, 2.3), (999, 13.4, 25.2)])
def test_a_row_that_comes_late_moves_as_one_that_comes_at_once(before: int, dense: float, in_all: float) -> None:
    """What the module says of dense NAdam, and why rows have a clock of their own."""
    parameter, other = (torch.nn.Parameter(torch.zeros(2, 1, dtype=torch.float64)) for _ in range(2))
    ours, nadam = RowNAdam([parameter], lr=1.0), torch.optim.NAdam([other], lr=1.0, foreach=False)
    for step in range(before + 200):
        row = int(step == before)  # row 0 is in every batch but one, row 1 in that
        given = functional.embedding(torch.tensor([row]), parameter, sparse=True)
        ours.zero_grad(set_to_none=True)
        given.sum().backward()
        other.grad = torch.tensor([[1.0 - row], [float(row)]], dtype=torch.float64)
        ours.step()
        nadam.step()
        if row:
            assert -float(other[1].detach()) == pytest.approx(dense, rel=0.01)
    assert -float(parameter[1].detach()) == pytest.approx(1.06, rel=0.01)
    assert -float(other[1].detach()) == pytest.approx(in_all, rel=0.01)


def test_missed_steps_of_dense_nadam_have_the_closed_form_of_the_docstring() -> None:
    """A row with gradients in a few steps, moved all at once between them."""
    beta1, beta2, lr, ratio = 0.9, 0.999, 0.01, 0.9 / 0.999**0.5
    mu = [beta1 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in range(3001)]
    product = [1.0]
    for value in mu[1:]:
        product.append(product[-1] * value)

    def left(t: int) -> float:
        terms = ((1 - beta2 ** (t + k)) ** 0.5 * mu[t + k + 1] / (1 - product[t + k + 1]) for k in range(1, 400))
        return sum(ratio**k * term for k, term in enumerate(terms, start=1))

    given, weight = gradients(5)[:, 0], start()[0].clone()
    dense = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.NAdam([dense], lr=lr, foreach=False)
    m, v, last, seen = torch.zeros(WIDTH), torch.zeros(WIDTH), 0, (1, 2, 7, 8, 300, 301, 900, 1500)
    for t in range(1, 1600):
        g = given[seen.index(t)] if t in seen else torch.zeros(WIDTH, dtype=torch.float64)
        dense.grad = g.clone()
        optimizer.step()
        if t in seen:
            n = t - 1 - last
            if last:
                weight -= lr * m / v.sqrt() * (left(last) - ratio**n * left(last + n))
            m, v = beta1 ** (n + 1) * m + (1 - beta1) * g, beta2 ** (n + 1) * v + (1 - beta2) * g**2
            step = (1 - mu[t]) / (1 - product[t]) * g + mu[t + 1] / (1 - product[t + 1]) * m
            weight -= lr * step / ((v / (1 - beta2**t)).sqrt() + 1e-8)
            torch.testing.assert_close(weight, dense.detach(), rtol=1e-6, atol=1e-7)
            last = t
