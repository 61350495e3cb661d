"""The page of a run: every number has its interval, its seeds and its commit, and a failure is no number."""

import re
from dataclasses import replace

import pytest
from scipy.stats import binomtest, t
from test_results import DEFENDED, ORIGINAL, PRUNED, a_result

from miaprune.report import claims, tables
from miaprune.report.effects import effects
from miaprune.report.overview import TITLE, overview
from miaprune.report.page import Picture, Table, html

FINETUNED = replace(ORIGINAL, tuning="finetuned")
SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def result(setting, attack="samia", seed=7, auc=0.7, adversary="matched", **more):
    rates = {"tpr": auc / 10, "ci": [auc / 20, auc / 5], "false_positives": 4}
    made = a_result(setting, attack, seed, adversary=adversary)
    made["versions"] = made["versions"] | {"commit": f"c{seed}"}
    made |= {"auc": auc, "auc_ci": [auc - 0.02, auc + 0.03], "tpr_at_fpr": {"0.01": rates, "0.001": rates}}
    return made | {"non_members": 400, "accuracy": auc - 0.1, "accuracy_ci": [auc - 0.13, auc - 0.08]} | more


def of(found, **more):
    attacks = tables.attacks_table(found)
    rest = {"guessing": [], "pictures": {}, "files": ["claims.md", "tables/attacks.csv"], "first_seed": 7} | more
    return overview(attacks, claims.evaluate(attacks), effects(attacks), **rest)


def table_of(parts):
    (frame,) = (part.frame for part in parts if isinstance(part, Table))
    return frame


def settings_of(sections):
    return table_of(next(section for section in sections if section.heading == "Every setting").parts)


EVERYTHING = [
    *(result(ORIGINAL, attack, auc=auc) for attack, auc in (("samia", 0.7), ("rmia", 0.8))),
    *(result(PRUNED, attack, auc=auc) for attack, auc in (("samia", 0.75), ("rmia", 0.72))),
    result(FINETUNED, auc=0.77),
    result(DEFENDED, auc=0.6),
    result(DEFENDED, auc=0.65, adversary="unaware"),
]


def test_the_answer_comes_first_with_interval_seed_and_commit():
    answer, _ = of(EVERYTHING, results="../")
    assert answer[0].startswith(
        "**location, fc**: the strongest attack tells members from non-members with an AUC of 0.80"
    )
    assert any("**Too few to tell**" in part for part in answer if isinstance(part, str))
    rows = table_of(answer).set_index("network")
    assert list(rows.index) == ["original", "finetuned", "pruned", "defended"]
    pruned = rows.loc["pruned"]
    assert (pruned["setting"], pruned["AUC"], pruned["strongest attack"]) == (
        "l1_0.7",
        "0.750\n0.730 to 0.780",
        "samia",
    )
    assert pruned["TPR at 1 % FPR (%)"] == "7.5\n3.8 to 15.0\n4 false positives"
    low, high = binomtest(240, 400).proportion_ci()
    assert pruned["test accuracy (%)"] == f"60.0\n{100 * low:.1f} to {100 * high:.1f}"
    assert [(link.text, link.to) for link in pruned["seeds"]] == [("7", "../location/fc/l1_0.7/samia.json")]
    assert rows.loc["original", "seeds"][0].to == "../location/fc/original/rmia.json", "the strongest attack's"
    assert pruned["commit"] == "c7"


def test_every_setting_and_adversary_has_a_row():
    rows = settings_of(of(EVERYTHING)[1])
    assert list(zip(rows["setting"], rows["adversary"], strict=True)) == [
        ("original", "matched"),
        ("l1_0.7", "matched"),
        ("finetuned", "matched"),
        ("l1_0.7/ppb_4", "adaptive"),
        ("l1_0.7/ppb_4", "unaware"),
    ]
    assert rows["rmia"].tolist()[:2] == ["70.0\n67.0 to 72.0", "62.0\n59.0 to 64.0"] and rows["rmia"].isna()[2:].all()
    assert rows["seeds"][4][0].to == "location/fc/l1_0.7/ppb_4/unaware/samia.json"


@pytest.mark.parametrize("seeds", [(7, 8), (7, 8, 9)])
def test_of_several_seeds_all_are_linked_and_two_have_no_interval(seeds):
    values = {7: 0.70, 8: 0.72, 9: 0.77}
    row = settings_of(of([result(PRUNED, seed=seed, auc=values[seed]) for seed in seeds])[1]).iloc[0]
    assert [link.to for link in row["seeds"]] == [
        "location/fc/l1_0.7/samia.json",
        *(f"seed_{seed}/location/fc/l1_0.7/samia.json" for seed in seeds[1:]),
    ]
    assert row["commit"] == "\n".join(f"c{seed}" for seed in seeds)
    if len(seeds) == 2:
        assert row["AUC"] == "0.710\nno interval" and row["test accuracy (%)"] == "60.0\nno interval"
    else:
        half = t.ppf(0.975, 2) * (0.0013**0.5) / 3**0.5
        assert row["AUC"] == f"0.730\n{0.73 - half:.3f} to {0.73 + half:.3f}"


def test_what_failed_says_so_and_has_no_number():
    gone = {"failed": ["victim"], "accuracy": 0.5, "auc": 0.5}
    some = [result(PRUNED, seed=seed, **(gone if seed == 8 else {})) for seed in (7, 8)]
    answer, sections = of([result(ORIGINAL, seed=seed, **gone) for seed in (7, 8)] + some)
    rows = settings_of(sections).set_index("setting")
    for column in ("AUC", "TPR at 1 % FPR (%)", "samia", "strongest attack"):
        assert rows.loc["original", column] == "failed"
    weaker = [result(ORIGINAL, **gone), result(ORIGINAL, "rmia", auc=0.6)]
    assert settings_of(of(weaker)[1])["strongest attack"].tolist() == ["rmia\n1 failed"]
    assert rows.loc["l1_0.7", "AUC"] == "0.700\n0.680 to 0.730\n1 of 2 seeds", "the interval of the one that is left"
    assert table_of(answer).set_index("network").loc["original", "settings"] == "1\n1 failed"
    assert any(
        "learnt nothing, no better" in part
        for part in of(some, guessing=["a/b/c (1 of 6)"])[0]
        if isinstance(part, str)
    )


def test_a_rate_on_less_than_a_record_is_no_failure():
    nothing = {"tpr": None, "ci": None, "false_positives": 0}
    made = result(PRUNED, tpr_at_fpr={"0.01": nothing, "0.001": nothing})
    assert settings_of(of([made])[1])["TPR at 1 % FPR (%)"].tolist() == ["n/a"]


def test_false_positives_are_those_of_the_seeds_that_have_the_rate():
    rates = {seed: {"tpr": 0.2, "ci": [0.1, 0.3], "false_positives": n} for seed, n in ((7, 11), (8, 13), (9, 0))}
    rates[9] = {"tpr": None, "ci": None, "false_positives": 0}
    made = [result(PRUNED, seed=seed, tpr_at_fpr={"0.01": rate, "0.001": rate}) for seed, rate in rates.items()]
    made.append(result(PRUNED, seed=10, failed=["attack"]))
    (said,) = settings_of(of(made)[1])["TPR at 1 % FPR (%)"]
    assert said.endswith("\n12 false positives"), said


def test_sections_have_their_figures_and_only_those_that_have_something():
    pictures = {"roc": [Picture(SVG, "Curves", file="figures/roc.svg")], "effects": [Picture(SVG, "Steps")]}
    _, sections = of(EVERYTHING, pictures=pictures)
    headings = [section.heading for section in sections]
    assert headings == ["Is it the pruning?", "The paper's claims", "At few false alarms", "Every setting", "Files"]
    assert pictures["roc"][0] in sections[2].parts and pictures["effects"][0] in sections[0].parts
    assert [section.heading for section in of([result(PRUNED)])[1]] == ["The paper's claims", "Every setting", "Files"]


def test_the_page_links_its_files_and_is_the_same_each_time():
    pages = [html(TITLE, *of(EVERYTHING, pictures={"roc": [Picture(SVG, "Curves")]})) for _ in range(2)]
    assert pages[0] == pages[1]
    links = re.findall(r'href="([^"#:]+)"', pages[0])
    assert {"claims.md", "tables/attacks.csv"} <= set(links)
    assert links.count("location/fc/l1_0.7/ppb_4/unaware/samia.json") == 1


def test_data_sets_have_claims_of_their_own_where_there_are_several():
    texas = [result(replace(setting, dataset="texas")) for setting in (ORIGINAL, PRUNED)]
    for results, scopes in ((EVERYTHING, {"all"}), (EVERYTHING + texas, {"all", "location", "texas"})):
        answer, sections = of(results)
        claimed = next(section for section in sections if section.heading == "The paper's claims")
        assert set(table_of(claimed.parts)["data set"]) == scopes
        assert ("data set" in table_of(answer)) == (len(scopes) > 1)
    assert answer[0].count("* **") == 2


def test_of_many_networks_the_verdicts_come_first_and_the_findings_after():
    sets = ["location", "texas", "purchase", "wards"]
    answer, sections = of([result(replace(setting, dataset=d)) for d in sets for setting in (ORIGINAL, PRUNED)])
    assert answer[0].startswith("Do pruned networks leak more than the original? **Too few to tell**")
    assert sections[0].heading == "Network by network"
    assert sections[0].parts[0].count("* **") == 4 and "* **wards, fc**: the strongest attack" in sections[0].parts[0]


@pytest.mark.parametrize(("more", "answered"), [(0.02, "**Yes** (supported)"), (-0.02, "**No** (refuted)")])
def test_a_verdict_is_an_answer(more, answered):
    values = {seed: 0.6 + seed / 100 for seed in range(7, 12)}
    found = [result(ORIGINAL, seed=seed, auc=auc) for seed, auc in values.items()]
    found += [result(PRUNED, seed=seed, auc=auc + more) for seed, auc in values.items()]
    answer, _ = of(found)
    assert f"Do pruned networks leak more than the original? {answered}: the strongest attack" in answer[2]
    assert not any("A verdict needs" in part for part in answer if isinstance(part, str))
