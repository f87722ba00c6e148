"""`recvae.plots`: a picture has the figures of its data, is readable in grey, and touches nothing of the caller's."""

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import scipy.sparse as sp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from recvae import plots
from recvae.errors import BundleError, DataError, UsageError
from recvae.evaluation.evaluate import Summary, summarise
from recvae.reports.canvas import COLORS, DASHES, MARKERS, as_svg, look_of
from recvae.reports.groups import groups_of, means_of, shares_of
from recvae.reports.labels import read_labels
from recvae.reports.latent import OTHER
from recvae.reports.logs import check_one_data
from recvae.training.records import EpochRecord

GENERATOR = np.random.default_rng(3)
N = 60  # users
KS = [1, 2, 5, 10]
NAMES = ("multvae", "_nolegend_", "a $run$ with a longer name")
VALUES = {name: np.clip(GENERATOR.normal(0.4, 0.2, (N, len(KS))), 0, 1) for name in NAMES}
for _values in VALUES.values():
    _values[7] = np.nan  # a user without a target
LENGTHS = GENERATOR.integers(3, 90, N)
USERS = np.sort(GENERATOR.integers(0, N, 400))
POPULARITY = GENERATOR.integers(1, 500, 400)
FOUND = {name: GENERATOR.random(400) < 0.3 for name in NAMES}
CONSUMED = GENERATOR.random(N)
BIAS = {name: CONSUMED / 2 + GENERATOR.random(N) for name in NAMES}
COUNTS = {name: GENERATOR.integers(0, 4, 80) for name in NAMES}
EMBEDDED = {name: GENERATOR.normal(size=(N, 5)) for name in NAMES}
LOGS = {
    name: [
        {"epoch": epoch, "loss": 9 / epoch, "kl": 1.0 * epoch, "beta": 0.1, "ndcg": ndcg, "best": best}
        for epoch, (ndcg, best) in enumerate(((0.1, True), (0.3, True), (0.2, False)), 1)
    ]
    for name in NAMES
}
PICTURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: plots.training_curves(LOGS),
    "by-k": lambda: plots.metric_by_k(VALUES, KS),
    "by-history": lambda: plots.accuracy_by_history({name: v[:, 3] for name, v in VALUES.items()}, LENGTHS),
    "by-popularity": lambda: plots.accuracy_by_popularity(FOUND, POPULARITY, USERS, 20),
    "bias": lambda: plots.popularity_bias(BIAS, CONSUMED, 20),
    "coverage": lambda: plots.coverage_curve(COUNTS, 20, consumed=np.arange(80)),
    "map": lambda: plots.latent_map(EMBEDDED, LENGTHS),
}


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def all_lines(axis: Any) -> list[Any]:
    return axis.get_lines()


def lines_in(axis: Any, place: int) -> list[Any]:
    """Return the lines of the series at a place, known by its colour and marker."""
    look = look_of(place)
    return [
        line
        for line in axis.get_lines()
        if to_hex(line.get_color()) == look["color"] and line.get_marker() == look["marker"]
    ]


# ---------------------------------------------------------------- what all pictures promise


@pytest.mark.parametrize("name", PICTURES)
def test_every_axis_has_a_title_and_labels_and_every_series_its_name(name: str) -> None:
    figure = PICTURES[name]()
    assert figure.get_suptitle()
    for axis in figure.axes:
        assert axis.get_xlabel() and axis.get_ylabel() and axis.get_title(loc="left")
    if name != "map":
        assert [text.split(":")[0] for text in legend_of(figure)[: len(NAMES)]] == list(NAMES)
    else:
        assert [axis.get_title(loc="left") for axis in figure.axes] == list(NAMES)


def boxes(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Return every text that is drawn, with the place it takes in pixels."""
    drawn: list[Text] = []
    draw = Text.draw
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout is found
    monkeypatch.setattr(Text, "draw", lambda self, *rest: (drawn.append(self), draw(self, *rest))[1])
    canvas.draw()
    return [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in drawn
        if text.get_visible() and text.get_text()
    ]


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_covers_another_or_is_cut_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = PICTURES[name]()
    texts = boxes(figure, monkeypatch)
    assert len(texts) > 8
    inside = figure.bbox.padded(1)
    for text, box in texts:
        assert inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1), text
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (one, other)


def test_series_differ_by_colour_line_and_marker_also_in_grey() -> None:
    assert len({str(dash) for dash in DASHES}) == len(set(MARKERS)) == len(set(COLORS)) == len(COLORS) == 7
    okabe_ito = {"#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#1a1a1a"}
    assert set(COLORS) <= okabe_ito
    for color in COLORS:  # none is lost on white paper
        assert 0.2126 * to_rgb(color)[0] + 0.7152 * to_rgb(color)[1] + 0.0722 * to_rgb(color)[2] < 0.75


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_written_as_its_ending_says_and_the_same_every_time(
    name: str, ending: str, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}{ending}" for number in (1, 2)]
    for path in paths:
        plots.save(PICTURES[name](), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second and first.lstrip().startswith(
        {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[ending]
    )
    if ending == ".svg":
        texts = {
            "".join(node.itertext()).strip() for node in ET.fromstring(first).iter("{http://www.w3.org/2000/svg}text")
        }
        assert PICTURES[name]().get_suptitle() in texts
        assert any(NAMES[2] in text for text in texts) and any(NAMES[1] in text for text in texts)


def test_nothing_of_the_caller_s_state_is_touched_or_used(tmp_path: Path) -> None:
    plain = as_svg(PICTURES["by-k"]())
    changes: Any = {"font.size": 33, "axes.facecolor": "red", "lines.linewidth": 9, "axes.grid": False}
    with mpl.rc_context(changes):
        before = dict(mpl.rcParams)
        assert as_svg(PICTURES["by-k"]()) == plain
        assert dict(mpl.rcParams) == before
    code = (
        "import sys, numpy as np\nfrom recvae import plots\n"
        "assert 'matplotlib' not in sys.modules, 'imported too early'\n"
        "plots.save(plots.coverage_curve({'a': np.arange(9)}, 3), 'x.svg')\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_without_matplotlib_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\nimport numpy as np\nfrom recvae import plots\n"
        "try:\n    plots.coverage_curve({'a': np.arange(9)}, 3)\nexcept Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UsageError recvae.plots needs a library that cannot be imported (")
    assert done.stdout.endswith("; install it with: pip install 'recvae[plot]'\n") and done.stdout.count("\n") == 1


# ---------------------------------------------------------------- curves


def test_curves_have_the_figures_of_the_log_and_a_star_at_the_epoch_that_was_kept() -> None:
    figure = plots.training_curves(LOGS)
    assert [axis.get_ylabel().split(" (")[0] for axis in figure.axes] == ["NDCG@100", "loss", "KL", "beta"]
    for field, axis in zip(("ndcg", "loss", "kl", "beta"), figure.axes, strict=True):
        for place, records in enumerate(LOGS.values()):
            [line] = lines_in(axis, place)
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), [one[field] for one in records])
    stars = [line for line in all_lines(figure.axes[0]) if line.get_marker() == "*"]
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in stars] == [([2], [0.3])] * len(NAMES)
    assert legend_of(figure) == [*NAMES, "epoch whose weights are kept"]


def test_only_what_was_logged_is_drawn() -> None:
    record = EpochRecord(1, 5.0, 5.0, None, None, None, True, 1.0, 100.0)
    figure = plots.training_curves({"a": [record, {"epoch": 2, "loss": float("nan"), "best": True}]})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Loss"] and legend_of(figure) == ["a"]
    [line] = lines_in(figure.axes[0], 0)
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1], [5.0])
    newer = [{"epoch": epoch, "loss": 1.0, "active_units": 10 + epoch, "kl_per_dimension": [0.1]} for epoch in (1, 2)]
    figure = plots.training_curves({"old": [record], "new": newer})
    units = next(axis for axis in figure.axes if axis.get_title(loc="left") == "Active latent units")
    assert not lines_in(units, 0) and lines_in(units, 1)[0].get_ydata().tolist() == [11, 12]


# ---------------------------------------------------------------- accuracy


def test_a_metric_by_k_has_the_means_and_intervals_of_the_evaluation() -> None:
    [axis] = plots.metric_by_k(VALUES, KS).axes
    for place, values in enumerate(VALUES.values()):
        known = [summarise(column) for column in values.T]
        [line] = lines_in(axis, place)
        np.testing.assert_allclose(line.get_ydata(), np.array([one.mean for one in known], dtype=float))
        np.testing.assert_array_equal(line.get_xdata(), KS)
        band: Any = axis.collections[place].get_paths()[0].vertices
        for k, one in zip(KS, known, strict=True):
            of_k = [y for x, y in band if x == k]
            assert (min(of_k), max(of_k)) == pytest.approx((one.low, one.high))


def errors_of(axis: Any, place: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the points of a series, and the lower and upper ends of its bars."""
    container = axis.containers[place]
    segments = np.array(container.lines[2][0].get_segments())  # (points, 2 ends, x and y)
    return container.lines[0].get_ydata(), segments[:, 0, 1], segments[:, 1, 1]


def test_groups_of_users_have_the_means_of_their_users() -> None:
    values = {name: of_run[:, 3] for name, of_run in VALUES.items()}
    [axis] = plots.accuracy_by_history(values, LENGTHS, "ndcg@10", n_groups=4).axes
    labels = [label.get_text().split("\n") for label in axis.get_xticklabels()]
    seen = 0
    for column, (span, size) in enumerate(labels):
        low, _, high = span.partition("–")
        inside = (int(low) <= LENGTHS) & (int(high or low) >= LENGTHS) & ~np.isnan(values["multvae"])
        assert size == f"{inside.sum()} users"
        seen += int(inside.sum())
        for place, of_run in enumerate(values.values()):
            points, lows, highs = errors_of(axis, place)
            one = summarise(of_run[inside])
            assert (points[column], lows[column], highs[column]) == pytest.approx((one.mean, one.low, one.high))
    assert seen == N - 1 and axis.get_ylabel() == "NDCG@10 (mean over users)"


def test_equal_numbers_are_in_one_group_and_groups_are_about_equal() -> None:
    numbers = np.repeat([4, 1, 7, 2, 9], [3, 50, 3, 3, 41])
    groups = groups_of(numbers, 5)
    assert sum(groups.sizes) == len(numbers)
    for value in np.unique(numbers):
        assert len(np.unique(groups.of[numbers == value])) == 1
    assert groups.ranges == sorted(groups.ranges) and groups.ranges[0] == (1, 1)
    assert groups_of(np.arange(100), 5).sizes == [20] * 5
    assert groups_of(np.array([3]), 5).labels() == ["3"]
    assert groups_of(np.array([1000, 2000]), 1).labels() == ["1,000–2,000"]
    assert means_of(np.array([1.0, np.nan, 4.0]), groups_of(np.array([1, 1, 2]), 2)) == [Summary(1.0), Summary(4.0)]


def test_the_interval_of_a_share_is_over_users_not_over_targets() -> None:
    found = GENERATOR.random(40) < 0.4
    all_of_one = groups_of(np.ones(40, dtype=int))
    [alone] = shares_of(found, np.arange(40), all_of_one)  # one target each: a mean over users
    known = summarise(found.astype(float))
    assert (alone.mean, alone.se, alone.low, alone.high) == pytest.approx((known.mean, known.se, known.low, known.high))
    [twice] = shares_of(np.repeat(found, 2), np.repeat(np.arange(40), 2), groups_of(np.ones(80, dtype=int)))
    assert (twice.mean, twice.se) == pytest.approx((alone.mean, alone.se)), "a second equal target tells nothing new"
    users, hits = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 0, 1, 0, 1, 1], dtype=bool)
    share, residuals = 4 / 6, np.array([2 - 3 * 4 / 6, 0 - 4 / 6, 2 - 2 * 4 / 6])
    [one] = shares_of(hits, users, groups_of(np.ones(6, dtype=int)))
    assert one.mean == pytest.approx(share)
    assert one.se == pytest.approx(np.sqrt(3 / 2 * (residuals**2).sum()) / 6)
    assert shares_of(hits[:2], users[:2], groups_of(np.ones(2, dtype=int))) == [Summary(0.5)]


def test_accuracy_by_popularity_is_the_share_of_targets_found() -> None:
    [axis] = plots.accuracy_by_popularity(FOUND, POPULARITY, USERS, 20).axes
    for column, label in enumerate(axis.get_xticklabels()):
        low, high = map(int, label.get_text().split("\n")[0].split("–"))
        inside = (low <= POPULARITY) & (high >= POPULARITY)
        for place, found in enumerate(FOUND.values()):
            assert errors_of(axis, place)[0][column] == pytest.approx(found[inside].mean())


# ---------------------------------------------------------------- popularity and coverage


def test_popularity_of_lists_and_histories_by_hand() -> None:
    popularity = np.array([0.5, 0.1, 0.3])
    np.testing.assert_allclose(
        plots.popularity_of_lists(np.array([[0, 2], [1, -1], [-1, -1]]), popularity), [0.4, 0.1, np.nan]
    )
    histories = sp.csr_matrix([[1, 0, 1], [0, 0, 0], [0, 5, 0]])
    np.testing.assert_allclose(plots.popularity_of_histories(histories, popularity), [0.4, np.nan, 0.1])
    assert plots.times_recommended(np.array([[0, 2], [2, -1]]), 4).tolist() == [1, 0, 2, 0]


def test_the_bias_of_a_run_that_recommends_what_users_have_is_the_dotted_line() -> None:
    consumed = np.append(CONSUMED, np.nan)
    [axis] = plots.popularity_bias({"same": consumed}, consumed, 20).axes
    [line] = lines_in(axis, 0)
    np.testing.assert_allclose(line.get_xdata(), line.get_ydata())
    assert np.mean(line.get_xdata()) == pytest.approx(100 * CONSUMED.mean(), rel=0.02)
    [line] = lines_in(plots.popularity_bias({"twice": 2 * consumed}, consumed, 20).axes[0], 0)
    np.testing.assert_allclose(2 * line.get_xdata(), line.get_ydata())


def test_the_coverage_curve_is_the_lorenz_curve_read_from_its_other_end() -> None:
    counts = COUNTS["multvae"]
    items, shares = plots.concentration(counts)
    ascending = np.append(0, np.cumsum(np.sort(counts))) / counts.sum()  # Lorenz
    np.testing.assert_allclose(shares, 1 - ascending[::-1])
    figure = plots.coverage_curve(COUNTS, 20)
    [axis] = figure.axes
    [line] = lines_in(axis, 0)
    np.testing.assert_allclose(line.get_xdata(), 100 * items)
    np.testing.assert_allclose(line.get_ydata(), 100 * shares)
    n_listed = np.count_nonzero(counts)
    assert line.get_markevery() == [n_listed] and shares[n_listed] == 1 and shares[n_listed - 1] < 1
    assert legend_of(figure)[0] == f"multvae: {n_listed / 80:.0%} of the items"


# ---------------------------------------------------------------- map


def test_principal_components_are_those_of_the_covariance() -> None:
    values = EMBEDDED["multvae"] * [5, 3, 1, 1, 1] + 7
    places, shares = plots.principal_components(values)
    variances = np.linalg.eigvalsh(np.cov(values.T))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), variances[:2])
    np.testing.assert_allclose(shares, variances[:2] / variances.sum())
    np.testing.assert_allclose(plots.principal_components(values - 100)[0], places, atol=1e-9)
    assert abs(places[:, 0] @ places[:, 1]) < 1e-8
    line, share = plots.principal_components(np.array([[1.0], [2.0], [4.0]]))
    np.testing.assert_allclose(line, [[-4 / 3, 0], [-1 / 3, 0], [5 / 3, 0]])
    assert share.tolist() == [1, 0]


def test_every_user_is_on_the_map_once_with_the_mark_of_its_class() -> None:
    figure = plots.latent_map(EMBEDDED, LENGTHS)
    for name, axis in zip(NAMES, figure.axes, strict=True):
        places, _ = plots.principal_components(EMBEDDED[name])
        drawn = np.concatenate([line.get_xydata() for line in axis.get_lines()])
        assert sorted(map(tuple, drawn)) == sorted(map(tuple, places))
    for line, text in zip(figure.axes[0].get_lines(), legend_of(figure), strict=True):
        low, high = map(int, text.split("–"))
        places, _ = plots.principal_components(EMBEDDED[NAMES[0]])
        inside = (low <= LENGTHS) & (high >= LENGTHS)
        np.testing.assert_array_equal(line.get_xydata(), places[inside])


def test_of_very_many_users_a_part_is_drawn_and_the_map_says_so() -> None:
    values = np.random.default_rng(0).normal(size=(5000, 3))
    figure = plots.latent_map({"a": values}, np.arange(5000))
    drawn = np.concatenate([line.get_xydata() for line in all_lines(figure.axes[0])])
    assert len(drawn) == 2000 and {tuple(one) for one in drawn} <= set(
        map(tuple, plots.principal_components(values)[0])
    )
    assert figure.legends[0].get_title().get_text() == "items in the history (2,000 of 5,000 users are drawn)"


def test_labels_colour_the_map_and_too_many_are_put_together() -> None:
    labels = [None if user % 10 == 0 else f"label {user % 9}" for user in range(N)]
    figure = plots.latent_map({"a": EMBEDDED["multvae"]}, LENGTHS, labels)
    names = legend_of(figure)
    assert names[0] == "no label" and names[-1] == OTHER and len(names) == 8
    sizes = {name: len(line.get_xdata()) for name, line in zip(names, all_lines(figure.axes[0]), strict=True)}
    assert sizes["no label"] == labels.count(None) and sum(sizes.values()) == N
    for name in names[1:-1]:
        assert sizes[name] == labels.count(name)


def test_labels_are_read_by_the_id_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "ages.csv"
    path.write_text('label,user,more\nyoung,12,x\n"old, very",13.0,\n,14,\nyoung,12,\nx,99,\n', encoding="utf-8-sig")
    assert read_labels(path, np.array([13, 12, 14, 15])) == ["old, very", "young", None, None]


# ---------------------------------------------------------------- bad input

SHORT = {"a": np.ones(5)}
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: plots.training_curves({}), UsageError, "got no runs to draw, expected one or more"),
    (lambda: plots.training_curves({"a": []}), UsageError, "got no epoch of a, expected one or more"),
    (lambda: plots.training_curves({"a": [{"epoch": 1}]}), UsageError, "got records without a figure to draw"),
    (
        lambda: plots.training_curves(dict.fromkeys("abcdefgh", LOGS["multvae"])),
        UsageError,
        "got 8 runs, expected at most 7",
    ),
    (
        lambda: plots.metric_by_k({"a": np.ones((9, 4))}, KS),
        DataError,
        "got 9 users with a target, expected 10 or more",
    ),
    (
        lambda: plots.metric_by_k({"a": np.ones((N, 3))}, KS),
        UsageError,
        r"got values of shape \(60, 3\) for a, expected",
    ),
    (
        lambda: plots.metric_by_k({"a": VALUES["multvae"], "b": np.ones((N, 4))}, KS),
        UsageError,
        "got other users without a value for b, expected the same ones",
    ),
    (
        lambda: plots.accuracy_by_history(SHORT, LENGTHS),
        UsageError,
        r"got values of shape \(5,\) for a, expected \(60,\)",
    ),
    (
        lambda: plots.accuracy_by_history(SHORT, LENGTHS[:5]),
        DataError,
        "got 5 users with a target, expected 10 or more",
    ),
    (
        lambda: plots.accuracy_by_history({"a": np.ones(N)}, np.full(N, 3)),
        DataError,
        "all 60 users have a history of 3 items, expected different lengths",
    ),
    (
        lambda: plots.accuracy_by_popularity(FOUND, POPULARITY[:9], USERS, 20),
        UsageError,
        "expected one value for each target",
    ),
    (
        lambda: plots.accuracy_by_popularity(FOUND, np.full(400, 3), USERS, 20),
        DataError,
        "all targets have 3 training users, expected different popularity",
    ),
    (
        lambda: plots.accuracy_by_popularity(FOUND, POPULARITY, np.zeros(400), 20),
        DataError,
        "got 1 users with a target, expected 10 or more",
    ),
    (
        lambda: plots.popularity_bias(SHORT, CONSUMED, 20),
        UsageError,
        r"got values of shape \(5,\) for a, expected \(60,\)",
    ),
    (lambda: plots.popularity_bias(SHORT, np.ones(5), 20), DataError, "got 5 users with a target, expected 10 or more"),
    (lambda: plots.coverage_curve({"a": np.zeros(4)}, 20), UsageError, "with sum 0 for a, expected"),
    (lambda: plots.coverage_curve({"a": np.ones(4), "b": np.ones(5)}, 20), UsageError, r"got counts of shape \(5,\)"),
    (lambda: plots.latent_map({"a": np.ones((2, 3))}, np.ones(2, int)), DataError, r"got embeddings of shape \(2, 3\)"),
    (
        lambda: plots.latent_map({"a": np.ones((4, 3))}, np.ones(4, int)),
        DataError,
        "got the same embedding for all, expected different ones",
    ),
    (
        lambda: plots.latent_map({"a": np.array([[1.0], [2.0], [np.nan]])}, np.ones(3, int)),
        DataError,
        "got embeddings that are NaN or infinite, expected numbers",
    ),
    (
        lambda: plots.latent_map(EMBEDDED, LENGTHS[:4]),
        UsageError,
        "got 60 embeddings of multvae and 4 labels, expected 4",
    ),
    (
        lambda: plots.latent_map(EMBEDDED, LENGTHS, ["x"]),
        UsageError,
        "got 60 embeddings of multvae and 1 labels, expected 60",
    ),
    (
        lambda: plots.latent_map(dict.fromkeys("abcdefg", EMBEDDED["multvae"]), LENGTHS),
        UsageError,
        "got 7 runs, expected at most 6, a panel for each",
    ),
    (lambda: plots.save(Figure(), "x.jpg"), UsageError, r"got x\.jpg, expected a name ending in \.png, \.svg, \.pdf"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for *_, message in BAD])
def test_what_cannot_be_drawn_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"user,age\n1,2\n", "with user, age, expected a first line with the columns user and label"),
        (b"", "with no header, expected"),
        (b"user,label\n12,a\n12,b\n", r"with 'a' and 'b' for user 12 \(row 3\), expected one label for each user"),
        (b"user,label\n99,a\n", "with none of the 2 users to draw, whose ids are like 12"),
        (b"user,label\n12,\xff\n", "which cannot be read .* expected CSV in UTF-8"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "x.csv", np.array([12, 13]))
    with pytest.raises(UsageError, match="which is no file; expected a CSV file"):
        read_labels(tmp_path, np.array([12, 13]))


def test_a_log_is_read_as_it_was_written_and_damage_is_said(
    bundle_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in bundle_folder("multvae").iterdir():
        if file.is_file():  # another test may have exported it
            (run / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UsageError, match=r"has no training log \(log\.jsonl\), since multvae is fitted without epochs"):
        plots.read_log(run)
    log = run / "log.jsonl"
    log.write_text('{"epoch": 1, "loss": NaN, "new": [1]}\n\n{"epoch": 2, "loss": 1.5}\n')
    assert [one["epoch"] for one in plots.read_log(run)] == [1, 2] and plots.read_log(run)[0]["new"] == [1]
    for text, message in (("{", "log.jsonl, line 1: "), ("[1]", "line 1, got .1., expected an epoch and its number")):
        log.write_text(text)
        with pytest.raises(BundleError, match=message):
            plots.read_log(run)


def test_runs_on_different_data_are_told_apart() -> None:
    manifests = {"a": {"name": "x", "fingerprint": "1" * 64}, "b": {"name": "y", "fingerprint": "2" * 64}}
    check_one_data({"a": manifests["a"]})
    message = re.escape(
        "  a  x, fingerprint 111111111111\n  b  y, fingerprint 222222222222\nname runs on the same data"
    )
    with pytest.raises(UsageError, match=message):
        check_one_data(manifests)
