"""Figures are whole, in both formats and of the same bytes each time; captions count what stands behind."""

import functools
import os
import re
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from synthetic import make_signals

from miaprune import catalog, entries, grid, metrics
from miaprune.margins import Margins
from miaprune.report import figures, page, results, tables
from miaprune.report.figures import controls, style
from miaprune.report.scores import Scores

ROOT = Path(__file__).parents[2]
LOCATION = {"datasets": ["location"], "models": ["fc"], "pruners": ["l1"], "sparsities": [0.5, 0.7, 0.9]}
IMAGES = LOCATION | {"datasets": ["cifar10", "svhn"], "models": ["vgg16"], "pruners": ["l1", "slim"]}
RATE = "tpr_at_fpr_0.01"


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def table_of(attacked, names=grid.ATTACKS, seeds=(7,)):
    rng = np.random.default_rng(0)
    rows = []
    for setting, adversary in attacked:
        for seed in seeds:
            # One victim: its facts are the same whoever attacks it.
            facts = {f"victim_{key}": rng.uniform(-0.3, 0.3) for key in results.VICTIM_KEYS}
            facts |= dict.fromkeys(("victim_epsilon", "victim_delta", "failed"))
            for name in names:
                accuracy = 0.6 + 0.05 * (name == "samia") + rng.uniform(0, 0.04)
                rest = {"adversary": adversary, "attack": name, "seed": seed, "accuracy": accuracy}
                rest |= {"accuracy_ci_lo": accuracy - 0.01, "accuracy_ci_hi": accuracy + 0.01}
                auc = 1.1 - accuracy  # so that SAMIA, the most accurate, is not the strongest
                rest |= {"auc": auc, "auc_ci_lo": auc - 0.01, "auc_ci_hi": auc + 0.01}
                rate = rng.uniform(0.02, 0.06)
                rest |= {RATE: rate, f"{RATE}_ci_lo": rate - 0.01, f"{RATE}_ci_hi": rate + 0.01}
                rows.append(asdict(setting) | rest | facts)
    return tables._typed(pd.DataFrame(rows))


def attacks(*blocks, names=grid.ATTACKS, seeds=(7,)):
    return table_of([(s, "matched") for s in grid.settings(*blocks)], names, seeds)


def everyone(block, sweep=("1", "4", "16"), seeds=(7,)):
    """Every adversary: on the undefended victims, on those with PPB and one with dp, and the mismatched ones."""
    config = {
        "parts": {"all": {}},
        "transfer": "all",
        "controls": "all",
        "defenses": [
            {"defense": name, "strengths": strengths, "part": "all", "adversaries": ["adaptive", "unaware"]}
            for name, strengths in (("ppb", sweep), ("dp", ("1",)))
        ],
    }
    table = table_of(grid.attacked(grid.settings(block), config), ("samia", "conf"), seeds)
    # An unaware adversary and the adaptive one attack the same victim.
    where = [*results.SETTING_KEYS[:-1], "seed"]
    table["victim_test_accuracy"] = table.groupby(where, dropna=False)["victim_test_accuracy"].transform("first")
    return table


LONG = "location_2024/densenet121 pruned by l1_structured"
FULL, WIDE = everyone(LOCATION), everyone(IMAGES)


def signals(classes=10, **more):
    return replace(make_signals(300, classes, 0, member_boost=1.0), **more)


def some_scores(n=300):
    rng, members = np.random.default_rng(0), np.arange(n) < n // 2
    return Scores({a: rng.normal(members).astype("f4") for a in grid.ATTACKS}, np.arange(n), members)


def some_margins():
    rng, parts = np.random.default_rng(0), np.zeros((5, 80), np.int8)
    values = rng.normal(size=(6, 80)).astype("f4")
    return Margins(values[0], values[1:], parts, np.arange(40)), np.arange(40) < 20


def failing(table, **at):
    """The table with these results marked, their accuracy as if the attack found nothing."""
    here = np.logical_and.reduce(
        [table[key].isna() if value is None else table[key] == value for key, value in at.items()]
    )
    return table.assign(failed=table["failed"].mask(here, "attack"), accuracy=table["accuracy"].mask(here, 0.5))


@functools.cache
def every_figure():
    table, some = attacks(LOCATION, names=("samia", "conf", "corr")), signals()
    many, undefended = signals(100), dict.fromkeys(("0.5", "0.6", "0.7", "0.8", "0.9"), some)
    family = undefended | {f"{level} + ppb 4": some for level in undefended}
    failed = functools.reduce(
        lambda t, name: failing(t, attack=name, sparsity=0.7), grid.NEURAL_ATTACKS, attacks(LOCATION)
    )
    none_works, one_not = failing(FULL, attack="samia"), failing(WIDE, attack="samia", sparsity=0.7)
    lost = functools.reduce(lambda t, pruner: failing(t, pruner=pruner), (None, "random"), FULL)
    return {
        "failed accuracy": lambda: figures.accuracy_vs_sparsity(failed, "location", "fc"),
        "failed samia": lambda: figures.samia_vs_others(failed),
        "failed frontier": lambda: figures.frontier(none_works, "location", "fc"),
        "failed frontiers": lambda: figures.frontier(one_not, "svhn", "vgg16"),
        "failed effect": lambda: figures.defense_effect(none_works, "location", "fc"),
        "failed effects": lambda: figures.defense_effect(one_not, "svhn", "vgg16"),
        "failed transfer": lambda: figures.transfer(one_not, "svhn", "vgg16"),
        "accuracy": lambda: figures.accuracy_vs_sparsity(table, "location", "fc"),
        "samia": lambda: figures.samia_vs_others(table),
        "roc": lambda: figures.roc({"original": some_scores(), "l1_0.5 + ppb_4": some_scores(600)}, "ROC", {}),
        "failed roc": lambda: figures.roc(
            {"original": some_scores(), "l1_0.5 + ppb_4": some_scores(600)},
            "ROC",
            {"original": ["samia"], "l1_0.5 + ppb_4": list(grid.ATTACKS), "l1_0.9": ["samia"]},
        ),
        "no roc": lambda: figures.roc({}, "ROC", {"original": ["samia"]}),
        "margins": lambda: figures.margin_distributions(some_margins(), {"0.5 + ppb 4": some_margins()}, "Margins"),
        "distributions": lambda: figures.signal_distributions(some, {"0.5": some}, "Signals"),
        "classes": lambda: figures.gaps_per_class(some, {"0.5": some}, "Gaps"),
        "gaps": lambda: figures.gaps_vs_accuracy(table),
        "frontier": lambda: figures.frontier(FULL, "location", "fc"),
        "frontier of the strongest": lambda: figures.frontier_strongest(FULL, "location", "fc"),
        "frontiers": lambda: figures.frontier(WIDE, "svhn", "vgg16"),
        "effect": lambda: figures.defense_effect(FULL, "location", "fc"),
        "effects": lambda: figures.defense_effect(WIDE, "svhn", "vgg16"),
        "transfer": lambda: figures.transfer(FULL, "location", "fc"),
        "transfers": lambda: figures.transfer(WIDE, "svhn", "vgg16"),
        "controls": lambda: figures.effects(FULL, "location", "fc"),
        "controls of two": lambda: figures.effects(WIDE, "svhn", "vgg16"),
        "failed controls": lambda: figures.effects(lost, "location", "fc"),
        "leak": lambda: figures.leak_vs_accuracy(FULL, "location", "fc"),
        "leak of two": lambda: figures.leak_vs_accuracy(WIDE, "svhn", "vgg16"),
        "failed leak": lambda: figures.leak_vs_accuracy(lost, "location", "fc"),
        "defended distributions": lambda: figures.signal_distributions(some, family, "Signals"),
        "defended classes": lambda: figures.gaps_per_class(some, family, "Gaps"),
        "long distributions": lambda: figures.signal_distributions(some, undefended, LONG),
        "long classes": lambda: figures.gaps_per_class(some, undefended, LONG),
        "many classes": lambda: figures.gaps_per_class(many, dict.fromkeys(undefended, many), LONG),
    }


def caption(figure):
    return figure.get_supxlabel().replace("\n", " ")


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize("name", ["accuracy", "distributions", "transfer", "controls", "leak"])
def test_every_format_is_written_with_the_same_bytes(tmp_path, name):
    before = dict(matplotlib.rcParams)
    for folder in "ab":
        figures.save(every_figure()[name](), tmp_path / folder / "location_0.7")
    assert sorted(os.listdir(tmp_path / "a")) == ["location_0.7.pdf", "location_0.7.png", "location_0.7.svg"]
    for suffix, magic in (("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")):
        first, second = ((tmp_path / folder / f"location_0.7.{suffix}").read_bytes() for folder in "ab")
        assert first[: len(magic)] == magic
        assert first == second
    assert b"CreationDate" not in (tmp_path / "a" / "location_0.7.pdf").read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_an_svg_has_title_and_caption_in_its_metadata_and_not_in_its_panels():
    drawn = figures.gaps_per_class(signals(), {}, "Gaps < 1")
    before = drawn.get_suptitle(), drawn.get_supxlabel()
    shown = page.picture(figures.as_svg(drawn))
    assert (shown.title, shown.caption) == ("Gaps < 1", caption(drawn)) and "sorted" not in shown.caption
    texts = re.findall("<!-- (.*?) -->", shown.svg)  # what each text says, which is drawn as shapes
    assert any("sorted by confidence gap" in text for text in texts) and not any("Gaps" in text for text in texts)
    assert (drawn.get_suptitle(), drawn.get_supxlabel()) == before


SAVE = """
from synthetic import make_signals
from miaprune.report import figures
figures.save(figures.gaps_per_class(make_signals(60, 3, 0), {}, "Gaps"), "x")
"""
KEPT = "import matplotlib; assert matplotlib.rcParams['backend'] == 'svg'"
DARK = "figure.facecolor: black\nsavefig.facecolor: black\naxes.facecolor: black\n"
TEX = "text.usetex: True\nfont.family: serif\nsavefig.bbox: tight\n"


@pytest.fixture(scope="module")
def as_everywhere(tmp_path_factory):
    """The bytes of the figure that `SAVE` draws, in each format."""
    path = tmp_path_factory.mktemp("figure") / "x"
    figures.save(figures.gaps_per_class(make_signals(60, 3, 0), {}, "Gaps"), path)
    return [path.with_suffix(suffix).read_bytes() for suffix in (".pdf", ".png", ".svg")]


@pytest.mark.parametrize(
    ("file", "content", "environment", "then"),
    [
        # What a notebook exports where its own backend is not installed, and no place for a cache of fonts.
        ("nothing", "", {"MPLBACKEND": "no_such_backend", "HOME": "/proc"}, ""),
        ("matplotlibrc", DARK, {"MPLBACKEND": "svg"}, KEPT),
        ("mine", TEX, {"MATPLOTLIBRC": "mine"}, ""),
    ],
    ids=["backend", "working folder", "named file"],
)
def test_nobodys_own_settings_show(tmp_path, as_everywhere, file, content, environment, then):
    (tmp_path / file).write_text(content)
    own = {"MPLBACKEND", "MPLCONFIGDIR", "MATPLOTLIBRC", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"}
    environment = {key: os.environ[key] for key in os.environ.keys() - own} | environment
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run([sys.executable, "-c", SAVE + then], cwd=tmp_path, env=environment, check=True)
    assert [(tmp_path / f"x.{suffix}").read_bytes() for suffix in ("pdf", "png", "svg")] == as_everywhere


def test_tables_and_claims_do_without_matplotlib():
    code = "import sys; from miaprune.report import claims, page, tables; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


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
    top = figure._supxlabel.get_window_extent().y1
    assert all(axes.get_tightbbox().y0 >= top for axes in figure.axes if axes.axison), "the caption is below the axes"


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


def test_accuracy_has_a_panel_per_pruner_a_line_per_attack_and_the_originals_beside():
    table = attacks(IMAGES, names=("samia", "conf"))
    figure = figures.accuracy_vs_sparsity(table, "svhn", "vgg16")
    assert titles(figure) == ["l1", "slim"]
    mine = table[(table["dataset"] == "svhn") & (table["attack"] == "samia")]
    lines = [line for line in figure.axes[1].lines if line.get_color() == style.VERMILLION]
    mark, dashed, solid = sorted(lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_allclose(solid.get_xdata(), [0.5, 0.7, 0.9])
    np.testing.assert_allclose(solid.get_ydata(), 100 * mine.loc[mine["pruner"] == "slim", "accuracy"])
    original = 100 * mine.loc[mine["pruner"].isna(), "accuracy"].item()
    for line in (mark, dashed):
        np.testing.assert_allclose(line.get_ydata(), original)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["samia", "conf", "its original", "guessing"]
    units = {axes.get_title(): axes.get_xlabel() for axes in figure.axes if axes.axison}
    assert units["slim"] == "sparsity (fraction of channels)" and units["l1"] == "sparsity (fraction of weights)"


def test_no_two_attacks_or_datasets_look_alike():
    for marks, names in ((figures.ATTACK_MARKS, grid.ATTACKS), (figures.DATASET_MARKS, grid.DATASETS)):
        assert set(marks) <= set(names)
        assert len({marker for marker, _ in marks.values()}) == len(marks)
    some = style.marks_of({"a": ("o", style.BLUE)}, ["x", "a", "y"])
    assert some["a"] == ("o", style.BLUE) and len(set(some.values())) == 3, "new ones get marks of their own"


@pytest.mark.usefixtures("catalogue")
def test_what_users_add_is_drawn_in_grey():
    with catalog.registering(entries.Extension("my_lab.py", "0")):
        catalog.defense("smooth")(print)
        catalog.attack("gap")(Scorer)
    part = {"part": "all", "adversaries": ["adaptive", "unaware"]}
    config = {"parts": {"all": {}}, "transfer": "none", "controls": "none"}
    config["defenses"] = [{"defense": "smooth", "strengths": [1, 2], **part}]
    table = table_of(grid.attacked(grid.settings(LOCATION), config), ("samia", "gap"))
    figure = figures.frontier(table, "location", "fc")
    assert "smooth, strength = 1, 2" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert all(len(points) == 2 for axes in figure.axes for points in lines(axes, style.GREY).values())
    drawn = figures.roc({"victim": some_scores()}, "title", {}).axes[0]
    (label,) = [line.get_label() for line in drawn.lines if line.get_label().startswith("gap ")]
    assert label and figures.samia_vs_others(table)


class Scorer:
    fit = score = print


def test_samia_panels_count_the_points_above_the_diagonal():
    table = attacks(LOCATION, names=("samia", "nn", "conf"))
    at = (table["attack"] == "nn") & (table["sparsity"] == 0.7)
    table.loc[at, "accuracy"] = 0.9
    figure = figures.samia_vs_others(table)
    shown = [(axes.get_xlabel(), axes.get_title()) for axes in figure.axes if axes.axison]
    assert shown == [("nn (%)", "3 of 4 above"), ("conf (%)", "4 of 4 above")]


def test_samia_is_compared_over_the_seeds_in_which_neither_failed():
    table = attacks(LOCATION, names=("samia", "nn", "conf"), seeds=(7, 8, 9))
    table["accuracy"] = table["attack"].map({"samia": 0.7, "nn": 0.68, "conf": 0.6}).mask(table["seed"] == 9, 0.5)
    figure = figures.samia_vs_others(failing(table, attack="nn", seed=9))
    assert titles(figure)[:2] == ["4 of 4 above", "4 of 4 above"]
    nn, conf = (axes.lines[-1].get_xydata()[0] for axes in figure.axes[:2])
    np.testing.assert_allclose([nn, conf], [[68, 70], [170 / 3, 190 / 3]])
    assert "each point is the mean over 2 or 3 seeds" in caption(figure)
    assert caption(figure).endswith("Left out as failed, because a network learnt nothing: 4 of 36 results.")
    # In no seed both are sound; and what was not run in a seed is as little compared as what failed.
    apart = failing(failing(table, attack="nn", seed=9), attack="samia", seed=7)
    apart = apart[(apart["attack"] != "conf") & (apart["seed"] != 8)]
    assert titles(figures.samia_vs_others(apart))[0] == "0 of 0 above\n4 failed"
    unequal = table[(table["attack"] != "nn") | (table["seed"] != 9)]
    assert titles(figures.samia_vs_others(unequal))[0] == "4 of 4 above"


def test_distributions_state_the_exact_distance_between_the_groups():
    some = signals()
    inside, outside = some.confidence[some.members], some.confidence[~some.members]
    distance = max(abs((inside <= x).mean() - (outside <= x).mean()) for x in some.confidence)
    figure = figures.signal_distributions(some, {}, "x")
    assert figure.axes[0].get_xlabel() == f"confidence\nd = {distance:.2f}"


def test_the_distance_is_that_of_confidences_beyond_what_is_drawn():
    some = signals()
    true = (np.arange(len(some)), some.labels)
    sure = np.full_like(some.posteriors, 1e-8)
    sure[true] = np.where(some.members, 1 - 2e-7, 1 - 1e-6)
    figure = figures.signal_distributions(replace(some, posteriors=sure), {}, "x")
    assert figure.axes[0].get_xlabel() == "confidence\nd = 1.00"


def test_the_lines_of_a_pruner_have_no_untuned_models_of_the_random_one():
    rows = pd.DataFrame(
        {"pruner": ["l1", "random", "l1", "random"], "tuning": ["untuned", "untuned", None, None], "sparsity": 0.5}
    )
    lines = controls._versions(rows, "l1")
    assert {name: lines[name]["pruner"].tolist() for name in ("pruned", "untuned", "random")} == {
        "pruned": ["l1"], "untuned": ["l1"], "random": ["random"],
    }  # fmt: skip


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


def test_figures_of_undefended_models_draw_nothing_else():
    plain = FULL[FULL["defense"].isna() & (FULL["adversary"] == "matched")]
    for draw in (
        lambda table: figures.accuracy_vs_sparsity(table, "location", "fc"),
        figures.samia_vs_others,
        figures.gaps_vs_accuracy,
    ):
        pair = [draw(table) for table in (FULL, plain)]
        drawn = [[line.get_xydata().tolist() for axes in figure.axes for line in axes.lines] for figure in pair]
        assert drawn[0] == drawn[1]
        assert caption(pair[0]) == caption(pair[1])


def lines(axes, color):
    """(filled?, points) of every line with marks in this colour."""
    return {
        line.get_markerfacecolor() == color: line.get_xydata()
        for line in axes.lines
        if line.get_color() == color and line.get_marker() != "None"
    }


def test_the_frontier_joins_strengths_in_order_filled_for_the_adaptive_adversary():
    table = everyone(LOCATION, sweep=("16", "1", "4"))
    figure = figures.frontier(table, "location", "fc")
    assert titles(figure) == ["sparsity 0.5", "sparsity 0.7", "sparsity 0.9"]
    mine = table[(table["attack"] == "samia") & (table["sparsity"] == 0.7) & (table["defense"] == "ppb")]
    drawn = lines(figure.axes[1], style.BLUE)
    for filled, adversary in ((True, "matched"), (False, "unaware")):
        points = mine[mine["adversary"] == adversary].sort_values("strength")[["victim_test_accuracy", "accuracy"]]
        assert len(points) == 3
        np.testing.assert_allclose(drawn[filled], 100 * points)
    np.testing.assert_array_equal(drawn[True][:, 0], drawn[False][:, 0])
    assert [text.get_text() for text in figure.axes[1].texts] == ["16"]  # dp has one strength: no order to tell
    original = table[table["pruner"].isna() & (table["attack"] == "samia")].iloc[0]
    stars = [line for line in figure.axes[2].lines if line.get_marker() == "*"]
    expected = [[100 * original["victim_test_accuracy"], 100 * original["accuracy"]]]
    np.testing.assert_allclose(stars[0].get_xydata(), expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("original", "pruned only", "ppb, λ = 1, 4, 16", "dp, σ = 1", "adaptive adversary", "unaware adversary"),
        "guessing",
    ]
    assert "3 pruned settings, 12 defended ones, 1 original; each point is a single seed." in caption(figure)


def test_the_frontier_of_the_strongest_draws_the_largest_auc_of_each_victim():
    figure = figures.frontier_strongest(FULL, "location", "fc")
    rows = FULL[(FULL["sparsity"] == 0.5) & (FULL["defense"] == "ppb") & (FULL["adversary"] == "matched")]
    largest = rows.groupby("strength")["auc"].max() * 100
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert any(np.allclose(y, largest) for y in drawn if len(y) == len(largest))
    assert "(the strongest: conf " in caption(figure)
    once = WIDE[(WIDE["pruner"] != "slim") | WIDE["strength"].isna() | (WIDE["strength"] == 4)]
    here = once[(once["dataset"] == "svhn") & (once["pruner"] != "slim")]  # of the pruner that was not swept, nothing
    said, alone = (caption(figures.frontier_strongest(t, "svhn", "vgg16")) for t in (once, here))
    assert said == alone


def test_a_frontier_says_where_the_strongest_attack_failed_and_a_weaker_one_is_drawn():
    left_out = "Left out as failed, because a network learnt nothing:"
    table = failing(FULL, attack="conf", defense="ppb")
    figure = figures.frontier_strongest(table, "location", "fc")
    assert caption(figure).endswith(f"{left_out} 18 of 56 results. {TOO_LOW}")
    mine = table[(table["attack"] == "samia") & (table["sparsity"] == 0.5) & (table["adversary"] == "matched")]
    expected = mine[mine["defense"] == "ppb"].sort_values("strength")["auc"]
    np.testing.assert_allclose(lines(figure.axes[0], style.BLUE)[True][:, 1], 100 * expected)
    table = failing(FULL, defense="ppb")  # no point is drawn too low: there is none
    assert caption(figures.frontier_strongest(table, "location", "fc")).endswith(f"{left_out} 36 of 56 results.")
    assert "failed" not in caption(figures.frontier_strongest(FULL, "location", "fc"))
    of_samia = figures.frontier(failing(everyone(LOCATION, seeds=(7, 8)), attack="samia", seed=8), "location", "fc")
    assert caption(of_samia).endswith(f"{left_out} 28 of 56 results.")


def test_the_frontier_draws_the_pruners_that_were_swept():
    assert [a.get_ylabel() for a in figures.frontier(WIDE, "svhn", "vgg16").axes if a.get_ylabel()] == [
        "l1\nSAMIA accuracy (%)",
        "slim\nSAMIA accuracy (%)",
    ]
    once = WIDE[(WIDE["pruner"] != "slim") | WIDE["strength"].isna() | (WIDE["strength"] == 4)]
    figure = figures.frontier(once, "svhn", "vgg16")
    assert figure.get_suptitle().endswith("svhn/vgg16/l1")
    assert "3 pruned settings, 12 defended ones, 1 original" in caption(figure)


def test_the_effect_of_ppb_is_at_the_claims_strength_by_pruner():
    table = everyone(IMAGES, seeds=(7, 8))
    figure = figures.defense_effect(table, "svhn", "vgg16")
    assert titles(figure) == ["l1", "slim"]
    mine = table[(table["attack"] == "samia") & (table["dataset"] == "svhn") & (table["pruner"] == "slim")]
    drawn = lines(figure.axes[1], style.BLUE)
    for filled, adversary in ((True, "matched"), (False, "unaware")):
        at = (mine["defense"] == "ppb") & (mine["strength"] == 4) & (mine["adversary"] == adversary)
        means = 100 * mine[at].groupby("sparsity")["accuracy"].mean()
        np.testing.assert_allclose(drawn[filled], [[0.5, means[0.5]], [0.7, means[0.7]], [0.9, means[0.9]]])
    undefended = mine[mine["defense"].isna() & (mine["adversary"] == "matched") & mine["tuning"].isna()]
    undefended = undefended.groupby("sparsity")["accuracy"].mean()
    np.testing.assert_allclose(lines(figure.axes[1], style.PURPLE)[True][:, 1], 100 * undefended)
    text = caption(figure)
    assert "6 pruned settings, 6 defended ones, 1 original; each point is the mean over 2 seeds." in text


def cells(axes):
    """The numbers of a heat map: {(row label, column label): text}."""
    rows, columns = ([text.get_text() for text in texts] for texts in (axes.get_yticklabels(), axes.get_xticklabels()))
    where = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    return {(rows[i], columns[j]): number for (i, j), number in where.items()}


def test_transfer_has_the_shadows_in_rows_and_the_victim_in_columns():
    table = WIDE.copy()
    at = (table["dataset"] == "svhn") & (table["attack"] == "samia") & (table["adversary"] == "shadows_l1_0.9")
    table.loc[at & (table["pruner"] == "l1") & (table["sparsity"] == 0.5), "accuracy"] = 0.511
    table.loc[at & (table["pruner"] == "slim") & (table["sparsity"] == 0.9), "accuracy"] = 0.522
    figure = figures.transfer(table, "svhn", "vgg16")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [
        *("l1", "slim", "sparsity 0.5", "sparsity 0.7", "sparsity 0.9"),
    ]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in (shown[0], shown[4])] == [
        ("victim's sparsity", "shadow models' sparsity"),
        ("victim's pruner", "shadow models' pruner"),
    ]
    sparsities, pruners = cells(shown[0]), cells(shown[4])
    assert (len(sparsities), len(pruners)) == (9, 4)
    assert sparsities["0.9", "0.5"] == "51.1" != sparsities["0.5", "0.9"]
    assert pruners["l1", "slim"] == "52.2" != pruners["slim", "l1"]
    samia = table[(table["dataset"] == "svhn") & (table["attack"] == "samia") & table["defense"].isna()]
    samia = samia[samia["tuning"].isna()]
    matched = samia[(samia["adversary"] == "matched") & (samia["pruner"] == "l1") & (samia["sparsity"] == 0.9)]
    assert sparsities["0.9", "0.9"] == pruners["l1", "l1"] == f"{100 * matched['accuracy'].item():.1f}"
    assert (
        "6 victim models; each cell is a single seed. The 95 % interval of a single seed's accuracy is at most ±1.0"
        in (caption(figure))
    )


def test_a_cell_without_a_result_stays_empty():
    table = FULL[(FULL["adversary"] != "shadows_l1_0.5") | (FULL["sparsity"] != 0.7)]
    figure = figures.transfer(table, "location", "fc")
    assert set(cells(figure.axes[0])) == {(a, b) for a in ("0.5", "0.7", "0.9") for b in ("0.5", "0.7", "0.9")} - {
        ("0.5", "0.7")
    }


@pytest.mark.parametrize("kind", ["signal", "margin"])
def test_defended_models_stand_below_the_undefended_ones(kind):
    some, draw = {
        "signal": (signals(), figures.signal_distributions),
        "margin": (some_margins(), figures.margin_distributions),
    }[kind]
    levels = ("0.5", "0.7", "0.9")
    family = {level: some for level in levels} | {f"{level} + ppb 4": some for level in levels}
    figure = draw(some, family, "x")
    shown = [[axes.get_title() if axes.axison else None for axes in figure.axes[i : i + 4]] for i in (0, 8)]
    assert shown == [
        ["original", "sparsity 0.5", "sparsity 0.7", "sparsity 0.9"],
        [None, *(f"sparsity {level}\n+ ppb 4" for level in levels)],
    ]
    assert caption(figure).endswith("After a plus: a defence in fine-tuning.")
    assert "plus" not in caption(draw(some, {"0.5": some}, "x"))


def test_a_defended_models_gaps_have_the_mark_of_the_undefended_one_hollow():
    some = signals()
    axes = figures.gaps_per_class(some, {"0.5": some, "0.7": some, "0.5 + ppb 4": some}, "x").axes[0]
    plain, other, defended = (
        next(line for line in axes.lines if str(line.get_label()).startswith(f"sparsity {name}:"))
        for name in ("0.5", "0.7", "0.5 + ppb 4")
    )
    assert (plain.get_marker(), plain.get_color()) == (defended.get_marker(), defended.get_color())
    assert plain.get_marker() != other.get_marker()
    assert (plain.get_markerfacecolor(), defended.get_markerfacecolor()) == (plain.get_color(), "white")


TOO_LOW = "Where only some of a point's results failed, the largest of the others is drawn: it may be too low."


def drawn_below(figure, percent):
    """Whether a figure has a mark below that accuracy."""
    marked = [line for axes in figure.axes for line in axes.lines if line.get_marker() not in ("None", "")]
    return any((np.asarray(line.get_ydata(), float) < percent).any() for line in marked)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_failed_attacks_stand_by_their_name_and_are_not_drawn():
    table = failing(failing(attacks(LOCATION), attack="samia", sparsity=0.7), attack="nn", sparsity=0.7)
    table = failing(failing(table, attack="nn_cls", pruner=None), sparsity=0.9)
    figure = figures.accuracy_vs_sparsity(table, "location", "fc")
    assert [(text.get_position()[0], text.get_text()) for text in figure.axes[0].texts] == [
        (pytest.approx(0.3), "failed: nn_cls"),
        (0.7, "failed: samia, nn"),
        (0.9, "failed: all"),
    ]
    assert not drawn_below(figure, 55)
    assert caption(figure).endswith("Left out as failed, because a network learnt nothing: 18 of 60 results.")
    for draw, title in (
        (figures.samia_vs_others, "2 of 2 above\n2 failed"),
        (figures.gaps_vs_accuracy, "n = 2\n2 failed"),
    ):
        figure = draw(table)
        last = [axes.get_title() for axes in figure.axes if axes.get_title()][-1]
        assert last.endswith(title) and not drawn_below(figure, 55)
        assert "because a network learnt nothing:" in caption(figure)


def test_failed_attacks_on_defended_models_are_named_and_not_drawn():
    table = failing(FULL, attack="samia", sparsity=0.7, strength=4, adversary="unaware")
    table = failing(failing(table, attack="samia", sparsity=0.5, strength=16), attack="samia", pruner=None)
    figure = figures.frontier(table, "location", "fc")
    assert [title.replace("\n", " ") for title in titles(figure)] == [
        "sparsity 0.5; failed: original, ppb 16 adaptive, ppb 16 unaware",
        "sparsity 0.7; failed: original, ppb 4 unaware",
        "sparsity 0.9; failed: original",
    ]
    assert texts(figure) == ["16", "16"], "at 0.5 there is no strongest one to name"
    assert not drawn_below(figure, 55) and "Left out as failed" in caption(figure)
    figure = figures.defense_effect(table, "location", "fc")
    assert (titles(figure), texts(figure)) == (["l1; failed: its original"], ["failed: unaware"])
    assert not drawn_below(figure, 55) and "Left out as failed" in caption(figure)


def test_a_failed_mismatch_says_so_in_its_cell():
    table = failing(FULL, attack="samia", adversary="shadows_l1_0.5", sparsity=0.7)
    table = failing(table, attack="samia", adversary="matched", sparsity=0.9, defense=None)
    figure = figures.transfer(table, "location", "fc")
    assert {at for at, number in cells(figure.axes[0]).items() if number == "failed"} == {
        ("0.5", "0.7"),
        ("0.9", "0.9"),
    }
    assert np.nanmin(figure.axes[0].images[0].get_array().filled(np.nan)) > 55
    assert caption(figure).endswith("Left out as failed, because a network learnt nothing: 2 of 9 results.")


def test_a_failed_seed_is_left_out_of_the_mean():
    table = attacks(LOCATION, names=("samia",), seeds=(7, 8))
    figures_of = [
        figures.accuracy_vs_sparsity(t, "location", "fc") for t in (failing(table, seed=8), table[table["seed"] == 7])
    ]
    one, other = ([line.get_ydata() for line in figure.axes[0].lines] for figure in figures_of)
    assert all(np.allclose(a, b) for a, b in zip(one, other, strict=True)) and not texts(figures_of[0])
    assert "4 of 8 results" in caption(figures_of[0])


def test_an_interval_without_width_is_not_stated():
    same = attacks(LOCATION).assign(accuracy=0.5, accuracy_ci_lo=0.5, accuracy_ci_hi=0.5)
    assert "95 %" not in caption(figures.accuracy_vs_sparsity(same, "location", "fc"))


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
        "all failed": full.assign(failed="victim"),
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


@pytest.mark.parametrize("kind", ["no pruned", "saturated", "missing class"])
def test_degenerate_signals_are_drawn(kind):
    some = signals()
    if kind == "saturated":
        some = signals(posteriors=np.eye(10, dtype="f4")[some.labels], sensitivities=np.zeros((300, 10), "f4"))
    if kind == "missing class":
        some = signals(labels=np.where(some.labels == 3, 4, some.labels))
    pruned = {} if kind == "no pruned" else {"0.7": some}
    for draw in (figures.signal_distributions, figures.gaps_per_class):
        figure = draw(some, pruned, "x")
        figure.draw_without_rendering()
        assert figure.axes[0].lines


def degenerate_adversaries():
    full = FULL[(FULL["sparsity"] != 0.9) & (FULL["adversary"] != "shadows_l1_0.9")]  # fewer panels, sooner drawn
    original, defended = full["pruner"].isna(), full["defense"].notna()
    mismatched = full["adversary"].str.startswith("shadows_")
    return {
        "nothing": full[:0],
        "originals": full[original],
        "no originals": full[~original],
        "unaware only": full[full["adversary"] == "unaware"],
        "mismatched only": full[mismatched],
        "one sparsity": full[original | (full["sparsity"] == 0.7)],
        "another strength": full[~(full["strength"] == 4)],
        "one row": full[defended][:1],
        "no samia": full[full["attack"] != "samia"],
        "constant, worse than guessing": full.assign(accuracy=0.4, victim_test_accuracy=0.5),
        "another model": full.assign(model="cnn"),
        "all failed": full.assign(failed="victim"),
    }


@pytest.mark.parametrize("name", degenerate_adversaries())
def test_degenerate_adversaries_are_drawn(name):
    table = degenerate_adversaries()[name]
    for draw in (figures.frontier, figures.defense_effect, figures.transfer):
        figure = draw(table, "location", "fc")
        figure.draw_without_rendering()
        assert re.search(r"each (point|cell) is (a single seed|the mean over no seeds)\.", caption(figure))
        shown = any(axes.lines or axes.images for axes in figure.axes)
        assert shown or figure.axes[0].get_title(loc="left").startswith("no ")


def controlled(block=LOCATION, seeds=(7,), pruners=("l1",)):
    """Undefended victims with their controls: by SAMIA and conf, of whom conf has the larger AUC."""
    config = {"parts": {"some": {"pruners": pruners}}, "controls": "some", "transfer": "none", "defenses": []}
    return table_of(grid.attacked(grid.settings(block), config), ("samia", "conf"), seeds)


def of_version(table, version, pruner="l1"):
    """A table's rows of one of the versions that `figures.effects` tells apart."""
    unpruned, tuning = table["pruner"].isna(), table["tuning"]
    return table[
        {
            "original": unpruned & tuning.isna(),
            "finetuned": unpruned & (tuning == "finetuned"),
            "pruned": (table["pruner"] == pruner) & tuning.isna(),
            "untuned": (table["pruner"] == pruner) & (tuning == "untuned"),
            "random": table["pruner"] == "random",
        }[version]
    ]


def the_largest(rows, measure):
    """Of each sparsity the largest mean over seeds of any attack, in percent."""
    means = rows.fillna({"sparsity": 0}).groupby(["sparsity", "attack"])[measure].mean()
    return 100 * means.groupby("sparsity").max().to_numpy()


def thick(axes, version):
    """The lines of a version, not SAMIA's thin ones."""
    line = controls.LINES[version]
    return [
        each for each in axes.lines if (each.get_color(), each.get_linewidth()) == (line["color"], line["linewidth"])
    ]


def segments(axes, color=None):
    """Ends [n, 2, 2] of the error bars in a panel."""
    those = [
        c for c in axes.collections if color is None or matplotlib.colors.to_hex(c.get_color()[0]) == color.lower()
    ]
    return np.array([segment for collection in those for segment in collection.get_segments()])


VERSIONS = ("original", "finetuned", "pruned", "untuned", "random")


def test_effects_draw_the_largest_of_any_attack_each_version_in_its_line():
    table = controlled(seeds=(7, 8, 9))
    figure = figures.effects(table, "location", "fc")
    assert titles(figure) == ["l1", ""]
    for axes, measure in zip(figure.axes, ("auc", RATE), strict=True):
        for version in VERSIONS:
            (line,) = thick(axes, version)
            rows = of_version(table, version)
            np.testing.assert_allclose(np.unique(line.get_ydata()), np.unique(the_largest(rows, measure)))
            if version in ("pruned", "untuned", "random"):
                np.testing.assert_allclose(line.get_ydata(), the_largest(rows, measure))
                np.testing.assert_allclose(line.get_xdata(), [0.5, 0.7, 0.9], atol=0.02)
        samia = 100 * table[table["attack"] == "samia"].groupby("tuning", dropna=False)[measure].mean()
        thin = [line for line in axes.lines if line.get_linewidth() == controls.THIN["linewidth"]]
        assert len(thin) == 3 and any(np.allclose(line.get_ydata(), samia["finetuned"]) for line in thin)
    assert "Strongest by AUC: conf 11 times; by TPR: " in caption(figure)
    text = "11 victim models (1 original, 1 finetuned, 3 pruned, 3 untuned, 3 random); each point is the mean over 3"
    assert text in caption(figure)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((7,), "95 % interval of the one result."),
        ((7, 8), "Of two seeds no interval is drawn."),
        ((7, 8, 9), "95 % interval of the mean over seeds (Student's t)."),
    ],
)
def test_bars_and_bands_are_intervals_of_the_one_result_or_of_the_mean(seeds, said):
    table = controlled(seeds=seeds)
    values = 100 * of_version(table, "finetuned").query("attack == 'conf'")["auc"]
    half = {1: 1.0, 2: None, 3: 4.302653 * values.std() / np.sqrt(3)}[len(seeds)]  # t of 2 degrees of freedom at 0.975
    figure = figures.effects(table, "location", "fc")
    assert caption(figure).endswith(said)
    bands = [patch.get_extents().transformed(figure.axes[0].transData.inverted()) for patch in figure.axes[0].patches]
    assert len(bands) == (0 if half is None else 2), "of the original and of the finetuned"
    assert len(segments(figure.axes[0])) == (0 if half is None else 9)
    leak = figures.leak_vs_accuracy(table, "location", "fc")
    assert caption(leak).endswith(said)
    ours = segments(leak.axes[0], controls.LINES["finetuned"]["color"])
    assert len(ours) == {1: 1, 2: 0, 3: 2}[len(seeds)], "of a victim's accuracy only over seeds"
    if half is not None:
        np.testing.assert_allclose([bands[1].y0, bands[1].y1], values.mean() + np.array([-half, half]), rtol=1e-5)
        np.testing.assert_allclose(ours[0][:, 1], values.mean() + np.array([-half, half]), rtol=1e-5)
    if len(seeds) == 3:
        accuracies = 100 * of_version(table, "finetuned").drop_duplicates("seed")["victim_train_accuracy"]
        half = 4.302653 * accuracies.std() / np.sqrt(3)
        np.testing.assert_allclose(ours[1][:, 0], accuracies.mean() + np.array([-half, half]), rtol=1e-5)


def test_leak_stands_against_train_and_against_test_accuracy_the_largest_sparsity_named():
    table = controlled(seeds=(7, 8))
    figure = figures.leak_vs_accuracy(table, "location", "fc")
    assert [axes.get_xlabel() for axes in figure.axes] == ["train accuracy (%)", "test accuracy (%)"]
    for axes, name in zip(figure.axes, ("victim_train_accuracy", "victim_test_accuracy"), strict=True):
        for version in VERSIONS:
            rows = of_version(table, version).fillna({"sparsity": 0})
            marks = [line for line in axes.lines if line.get_marker() == controls._mark(version, 1)["marker"]]
            drawn = np.concatenate([mark.get_xydata() for mark in marks])
            where = 100 * rows.groupby("sparsity")[name].mean().to_numpy()
            np.testing.assert_allclose(drawn, np.column_stack([where, the_largest(rows, "auc")]))
            sizes = [mark.get_markersize() for mark in marks]
            assert sizes == sorted(set(sizes)), "a larger mark for a larger sparsity"
        assert [text.get_text() for text in axes.texts] == ["0.9", "0.9", "0.9"]


def test_failed_controls_are_named_and_not_drawn():
    table = failing(controlled(), pruner="random", sparsity=0.7)
    table = failing(failing(table, tuning="finetuned"), pruner="l1", sparsity=0.7, tuning="untuned", attack="conf")
    figure = figures.effects(table, "location", "fc")
    assert titles(figure) == ["l1; failed: finetuned", ""] and texts(figure) == ["failed: random"] * 2
    assert not thick(figure.axes[0], "finetuned")
    assert np.isnan(thick(figure.axes[0], "random")[0].get_ydata()).tolist() == [False, True, False]
    others = of_version(table, "untuned").query("sparsity == 0.7 and attack == 'samia'")["auc"].item()
    np.testing.assert_allclose(thick(figure.axes[0], "untuned")[0].get_ydata()[1], 100 * others)
    leak = figures.leak_vs_accuracy(table, "location", "fc")
    assert leak.axes[0].get_title(loc="left") == "l1; failed: finetuned, random 0.7"
    assert not any(line.get_marker() == "D" for axes in leak.axes for line in axes.lines)
    for each in (figure, leak):
        failed = "Left out as failed, because a network learnt nothing: 5 of 22 results."
        assert caption(each).endswith(f"{failed} {TOO_LOW}")


def test_a_failed_victims_accuracy_is_left_out_of_the_mean_as_its_leak_is():
    table = controlled(seeds=(7, 8))
    at = (table["tuning"] == "finetuned") & (table["seed"] == 8)
    table = table.assign(
        failed=table["failed"].mask(at, "victim"),
        victim_train_accuracy=lambda t: t["victim_train_accuracy"].mask(at, 0.1),
    )
    (mark,) = (
        line for line in figures.leak_vs_accuracy(table, "location", "fc").axes[0].lines if line.get_marker() == "D"
    )
    left = of_version(table, "finetuned").query("seed == 7 and attack == 'conf'").iloc[0]
    np.testing.assert_allclose(mark.get_xydata(), [[100 * left["victim_train_accuracy"], 100 * left["auc"]]])


def test_random_weights_stand_beside_every_pruner_and_untuned_ones_where_there_are_any():
    table = controlled(IMAGES, pruners=("l1",))
    figure = figures.effects(table, "svhn", "vgg16")
    assert titles(figure) == ["l1", "slim", "", ""]
    drawn = {
        version: [sum(np.isfinite(line.get_ydata()).sum() for line in thick(axes, version)) for axes in figure.axes[:2]]
        for version in VERSIONS
    }
    lines_have_two = {"original": [2, 2], "finetuned": [2, 2]}
    assert drawn == lines_have_two | {"pruned": [3, 3], "untuned": [3, 0], "random": [3, 3]}
    assert len(figures.leak_vs_accuracy(table, "svhn", "vgg16").axes) == 4
    assert "14 victim models (1 original, 1 finetuned, 6 pruned, 3 untuned, 3 random)" in caption(figure)


def test_a_rate_that_no_attack_has_is_said_to_be_missing():
    table = controlled().assign(**dict.fromkeys((RATE, f"{RATE}_ci_lo", f"{RATE}_ci_hi"), np.nan))
    figure = figures.effects(table, "location", "fc")
    assert figure.axes[1].get_title(loc="left") == "too few non-members: no attack has such a rate"
    assert "by TPR: none." in caption(figure)
    # The first of the attacks alone failed: no version did.
    figure = figures.effects(failing(table, attack="samia"), "location", "fc")
    assert not texts(figure) and titles(figure) == ["l1", ""]


PAIRS = ("accuracy_vs_sparsity", "frontier", "frontier_strongest", "defense_effect", "transfer")


def test_controls_show_in_no_other_figure():
    assert tables.controls(FULL).any()
    for name in (*PAIRS, "samia_vs_others", "gaps_vs_accuracy"):
        of = ("location", "fc") if name in PAIRS else ()
        with_them, without = (getattr(figures, name)(t, *of) for t in (FULL, FULL[~tables.controls(FULL)]))
        drawn, expected = (
            [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]
            for figure in (with_them, without)
        )
        assert drawn == expected, name
        assert (caption(with_them), texts(with_them)) == (caption(without), texts(without)), name


def test_means_have_their_interval_from_three_seeds_on():
    twice, thrice = everyone(LOCATION, seeds=(7, 8)), everyone(LOCATION, seeds=(7, 8, 9))
    for name, number in zip(
        (*PAIRS[:-1], "samia_vs_others", "gaps_vs_accuracy"),
        # A mark's one or two: 2 attacks on 4 models; 10 versions in each of 3 panels, twice; 3 lines over 3 sparsities.
        (8, 60, 60, 9, 8, 12),
        strict=True,
    ):
        of = ("location", "fc") if name in PAIRS else ()
        figure = getattr(figures, name)(thrice, *of)
        assert sum(len(segments(axes)) for axes in figure.axes) == number, name
        assert "95 % interval of the mean over seeds" in caption(figure)
        assert "interval of a single seed" not in caption(figure)
    figure = figures.accuracy_vs_sparsity(twice, "location", "fc")
    assert not len(segments(figure.axes[0])) and "interval" not in caption(figure)
    samia = thrice[
        (thrice["attack"] == "samia") & (thrice["adversary"] == "shadows_l1_0.9") & (thrice["sparsity"] == 0.5)
    ]
    half = 100 * 4.302653 * samia["accuracy"].std() / np.sqrt(3)
    shown = cells(figures.transfer(thrice, "location", "fc").axes[0])["0.9", "0.5"]
    assert shown == f"{100 * samia['accuracy'].mean():.1f}\n±{half:.1f}"
    assert "±" not in "".join(cells(figures.transfer(twice, "location", "fc").axes[0]).values())
    assert "±: 95 % interval of the mean" in caption(figures.transfer(thrice, "location", "fc"))


@pytest.mark.parametrize("draw", [figures.effects, figures.leak_vs_accuracy])
def test_ones_own_settings_do_not_show_in_controls(draw):
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.markersize": 50}):
        own = draw(controlled(), "location", "fc")
    plain = draw(controlled(), "location", "fc")
    for a, b in zip(own.axes, plain.axes, strict=True):
        assert (a.get_facecolor(), a.xaxis.label.get_fontsize()) == (b.get_facecolor(), b.xaxis.label.get_fontsize())


def degenerate_controls():
    full = controlled()
    return {
        "nothing": full[:0],
        "no controls": full[~tables.controls(full)],
        "controls only": full[tables.controls(full)],
        "random only": full[full["pruner"] == "random"],
        "originals": full[full["pruner"].isna()],
        "one sparsity": full[full["sparsity"].isna() | (full["sparsity"] == 0.7)],
        "no samia": full[full["attack"] == "conf"],
        "constant": full.assign(auc=0.5, victim_train_accuracy=1.0),
        "another model": full.assign(model="cnn"),
        "all failed": full.assign(failed="victim"),
    }


@pytest.mark.parametrize("name", degenerate_controls())
def test_degenerate_controls_are_drawn(name):
    for draw in (figures.effects, figures.leak_vs_accuracy):
        figure = draw(degenerate_controls()[name], "location", "fc")
        figure.draw_without_rendering()
        assert re.search(r"each point is (a single seed|the mean over no seeds)\.", caption(figure))


def test_a_roc_curve_is_the_best_of_its_kind_and_begins_at_one_false_positive():
    scores = some_scores(2000)
    scores.by_attack["lira"] = 3 * scores.members + np.random.default_rng(1).normal(size=2000).astype("f4")
    figure = figures.roc({"original": scores}, "ROC", {})
    curves = {line.get_label().partition(" ")[0]: line for line in figure.axes[0].lines}
    assert "lira" in curves and not {"base", "rmia", "lira_t"} & curves.keys()
    assert min(curves["lira"].get_xdata()) == pytest.approx(0.001, rel=0.01), "of 1 000 non-members"
    for name in ("lira", "samia"):
        x, y = curves[name].get_data()
        expected = [metrics.tpr_at_fpr(scores.by_attack[name], scores.members, fpr) for fpr in x]
        np.testing.assert_allclose(y, expected)
    assert "1000 members and 1000 non-members" in caption(figure)


def test_attacks_that_failed_have_no_curve_but_are_named():
    scores = some_scores()
    scores = replace(scores, by_attack={name: scores.by_attack[name] for name in ("nn", "conf")})
    victims = {"original": scores, "l1_0.5 + ppb_4": scores}
    failed = {"original": [], "l1_0.5 + ppb_4": ["samia", "nn_top3"], "l1_0.9": ["samia", "nn", "nn_top3", "conf"]}
    figure = figures.roc(victims, "ROC", failed)
    assert titles(figure)[:2] == ["original", "l1_0.5\n+ ppb_4\nfailed: samia, nn_top3"]
    left_out = "Left out as failed, because a network learnt nothing: 6 of 10 results. All failed: l1_0.9."
    assert caption(figure).endswith(f"150 members and 150 non-members. {left_out}")
    assert caption(figures.roc(victims, "ROC", {})).endswith("150 members and 150 non-members.")
    figure = figures.roc({}, "ROC", {"original": ["samia"]})
    assert figure.axes[0].get_title(loc="left") == "all results failed"
    assert "One seed. Left out as failed" in caption(figure)
