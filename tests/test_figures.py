"""Figures are whole, in both formats and of the same bytes each time; captions count what stands behind."""

import os
import re
import warnings
from dataclasses import asdict, replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import make_signals

from miaprune import figures, grid, results

LOCATION = {"datasets": ["location"], "models": ["fc"], "pruners": ["l1"], "sparsities": [0.5, 0.7, 0.9]}
IMAGES = LOCATION | {"datasets": ["cifar10", "svhn"], "models": ["vgg16"], "pruners": ["l1", "slim"]}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def attacks(*blocks, names=grid.ATTACKS, seeds=(7,)):
    rng = np.random.default_rng(0)
    rows = [
        {
            **dict.fromkeys(results.SETTING_KEYS),
            **asdict(setting),
            "adversary": "matched",
            "attack": name,
            "seed": seed,
            "accuracy": 0.6 + 0.05 * (name == "samia") + rng.uniform(0, 0.04),
            **{f"victim_{key}": rng.uniform(-0.3, 0.3) for key in results.VICTIM_KEYS},
        }
        for setting in grid.settings(*blocks)
        for seed in seeds
        for name in names
    ]
    return results._typed(pd.DataFrame(rows))


def signals(classes=10, **more):
    return replace(make_signals(300, classes, 0, member_boost=1.0), **more)


def every_figure():
    table, some = attacks(LOCATION, names=("samia", "conf", "corr")), signals()
    return {
        "accuracy": lambda: figures.accuracy_vs_sparsity(table, "location", "fc"),
        "samia": lambda: figures.samia_vs_others(table),
        "distributions": lambda: figures.signal_distributions(some, {"0.5": some}, "Signals"),
        "classes": lambda: figures.gaps_per_class(some, {"0.5": some}, "Gaps"),
        "gaps": lambda: figures.gaps_vs_accuracy(table),
    }


def caption(figure):
    return figure.get_supxlabel().replace("\n", " ")


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize("name", ["accuracy", "distributions"])
def test_both_formats_are_written_with_the_same_bytes(tmp_path, name):
    before = dict(matplotlib.rcParams)
    for folder in "ab":
        figures.save(every_figure()[name](), tmp_path / folder / "location_0.7")
    assert sorted(os.listdir(tmp_path / "a")) == ["location_0.7.pdf", "location_0.7.png"]
    for suffix, magic in (("pdf", b"%PDF"), ("png", b"\x89PNG")):
        first, second = ((tmp_path / folder / f"location_0.7.{suffix}").read_bytes() for folder in "ab")
        assert first[: len(magic)] == magic
        assert first == second
    assert b"CreationDate" not in (tmp_path / "a" / "location_0.7.pdf").read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        figures.save(every_figure()["gaps"](), tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", every_figure())
def test_text_is_readable_in_print_and_inside_the_page(name):
    figure = every_figure()[name]()
    assert figure.get_figwidth() == 7.0
    figure.draw_without_rendering()
    assert all(t.get_fontsize() >= 7 for t in figure.findobj(matplotlib.text.Text) if t.get_text())
    box = figure.get_tightbbox()  # in inches: all that is drawn
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 7.0 and box.y1 <= figure.get_figheight()


@pytest.mark.parametrize("classes", [10, 100])
def test_longest_captions_stay_below_the_axes(classes):
    some = signals(classes)
    pruned = {s: some for s in ("0.5", "0.6", "0.7", "0.8", "0.9")}
    for draw in (figures.signal_distributions, figures.gaps_per_class):
        figure = draw(some, pruned, "cifar10_jpeg/densenet121 pruned by l1_structured")
        figure.draw_without_rendering()
        top = figure._supxlabel.get_window_extent().y1
        assert all(axes.get_tightbbox().y0 >= top for axes in figure.axes)


def test_captions_count_settings_seeds_and_records():
    once, thrice = attacks(LOCATION), attacks(LOCATION, IMAGES, seeds=(7, 8, 9))
    assert "3 pruned settings, 1 original; each point is a single seed." in caption(
        figures.accuracy_vs_sparsity(once, "location", "fc")
    )
    for figure in (figures.samia_vs_others(thrice), figures.gaps_vs_accuracy(thrice)):
        assert "15 pruned settings, 3 originals; each point is the mean over 3 seeds." in caption(figure)
    some = signals()
    for draw in (figures.signal_distributions, figures.gaps_per_class):
        text = caption(draw(some, {"0.5": some, "0.7": some}, "x"))
        assert "3 victim models (one seed), each queried with 150 members and 150 non-members." in text


def test_accuracy_has_a_panel_per_pruner_a_line_per_attack_and_the_original_dashed():
    table = attacks(IMAGES, names=("samia", "conf"))
    figure = figures.accuracy_vs_sparsity(table, "svhn", "vgg16")
    assert titles(figure) == ["l1", "slim"]
    mine = table[(table["dataset"] == "svhn") & (table["attack"] == "samia")]
    lines = [line for line in figure.axes[1].lines if line.get_color() == figures.VERMILLION]
    dashed, solid = sorted(lines, key=lambda line: len(line.get_xdata()), reverse=True)
    np.testing.assert_allclose(solid.get_xdata(), [50, 70, 90])
    np.testing.assert_allclose(solid.get_ydata(), 100 * mine.loc[mine["pruner"] == "slim", "accuracy"])
    np.testing.assert_allclose(dashed.get_ydata(), 100 * mine.loc[mine["pruner"].isna(), "accuracy"].item())
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["samia", "conf", "its original", "guessing"]


def test_no_two_attacks_or_datasets_look_alike():
    for marks, names in ((figures.ATTACK_MARKS, grid.ATTACKS), (figures.DATASET_MARKS, grid.DATASETS)):
        assert set(marks) == set(names)
        assert len({marker for marker, _ in marks.values()}) == len(names)


def test_samia_panels_count_the_points_above_the_diagonal():
    table = attacks(LOCATION, names=("samia", "nn", "conf"))
    at = (table["attack"] == "nn") & (table["sparsity"] == 0.7)
    table.loc[at, "accuracy"] = 0.9
    figure = figures.samia_vs_others(table)
    shown = [(axes.get_xlabel(), axes.get_title()) for axes in figure.axes if axes.axison]
    assert shown == [("nn (%)", "3 of 4 above"), ("conf (%)", "4 of 4 above")]


def test_distributions_state_the_exact_distance_between_the_groups():
    some = signals()
    inside, outside = some.confidence[some.members], some.confidence[~some.members]
    distance = max(abs((inside <= x).mean() - (outside <= x).mean()) for x in some.confidence)
    figure = figures.signal_distributions(some, {}, "x")
    assert figure.axes[0].texts[0].get_text() == f"d = {distance:.2f}"


@pytest.mark.parametrize("classes", [10, 30, 100])
def test_gaps_show_every_class_in_the_originals_order(classes):
    some = signals(classes)
    figure = figures.gaps_per_class(some, {"0.5": some}, "x")
    points = [line for line in figure.axes[0].lines if line.get_label().startswith(("original", "sparsity"))]
    assert len(points) == 2
    shown = points[0].get_ydata()
    assert len(shown) == classes
    assert (np.diff(shown[np.isfinite(shown)]) >= 0).all()
    np.testing.assert_array_equal(points[1].get_ydata(), shown)
    assert len(figure.axes[0].get_xticks()) == (classes if classes <= 30 else 0)


def test_gaps_against_accuracy_state_both_correlations():
    table = attacks(LOCATION, names=("samia",))
    table["victim_generalization_gap"] = [0.1, 0.2, 0.3, 0.4]
    table["accuracy"] = [0.5, 0.6, 0.7, 0.9]
    table["victim_confidence_gap"] = -table["accuracy"]
    table["victim_sensitivity_gap"] = 0.2
    figure = figures.gaps_vs_accuracy(table)
    # Pearson by hand: deviations (-3, -1, 1, 3) and (-7, -3, 1, 9): 52 / sqrt(20 * 140) = 0.983.
    assert titles(figure) == [
        "r = 0.98, ρ = 1.00, n = 4",
        "r = −1.00, ρ = −1.00, n = 4",
        "r n/a, ρ n/a, n = 4",
    ]


def degenerate_tables():
    full = attacks(LOCATION, names=("samia", "corr"))
    return {
        "nothing": full[:0],
        "originals": full[full["pruner"].isna()],
        "no originals": full[full["pruner"].notna()],
        "one sparsity": full[full["sparsity"].isna() | (full["sparsity"] == 0.7)],
        "one row": full[:1],
        "no samia": full[full["attack"] == "corr"],
        "constant": full.assign(accuracy=0.5, victim_confidence_gap=0.0),
        "another model": full.assign(model="cnn"),
    }


@pytest.mark.parametrize("name", degenerate_tables())
def test_degenerate_tables_are_drawn(name):
    table = degenerate_tables()[name]
    for figure in (
        figures.accuracy_vs_sparsity(table, "location", "fc"),
        figures.samia_vs_others(table),
        figures.gaps_vs_accuracy(table),
    ):
        figure.draw_without_rendering()
        assert re.search(r"\d pruned settings?, \d originals?; each point is", caption(figure))


@pytest.mark.parametrize("kind", ["no original", "no pruned", "saturated", "missing class"])
def test_degenerate_signals_are_drawn(kind):
    some = signals()
    if kind == "saturated":
        some = signals(posteriors=np.eye(10, dtype="f4")[some.labels], sensitivities=np.zeros((300, 10), "f4"))
    if kind == "missing class":
        some = signals(labels=np.where(some.labels == 3, 4, some.labels))
    original = None if kind == "no original" else some
    pruned = {} if kind == "no pruned" else {"0.7": some}
    for draw in (figures.signal_distributions, figures.gaps_per_class):
        figure = draw(original, pruned, "x")
        figure.draw_without_rendering()
        assert figure.axes[0].lines
