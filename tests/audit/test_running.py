"""Every attack that the evidence allows is run, and what cannot be is named."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from runner import ROOT
from synthetic import Evidence, make_signals

from miaprune import grid, metrics
from miaprune.audit import References, Version, of_logits, query, run, running
from miaprune.audit import folder as folders

pytestmark = pytest.mark.usefixtures("quick")

THRESHOLDS_AND_NETWORKS = {*grid.THRESHOLD_ATTACKS, "blindmi", "nn", "nn_top3", "nn_cls"}


def test_the_recipe_is_the_fast_one(monkeypatch):
    monkeypatch.undo()
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    fast, of_nn = config["attack_recipes"]["fast"], dict.fromkeys(("nn", "nn_top3", "nn_cls"), "nn")
    assert {key: value for key, value in fast.items() if key != "epochs"} == running.RECIPE
    assert {name: fast["epochs"][of_nn.get(name, name)] for name in grid.NEURAL_ATTACKS} == running.EPOCHS
    assert config["blindmi"] == running.BLINDMI


def test_without_references_what_needs_none_is_run(evidence):
    found = run({"original": evidence.version(1.0)}).versions["original"]
    assert set(found.results) == set(found.scores) == THRESHOLDS_AND_NETWORKS
    assert found.not_run["samia"] == "no sensitivities"
    assert {found.not_run[name] for name in running.WITH_REFERENCES} == {"no references"}
    assert set(found.results) | set(found.not_run) == set(running.ATTACKS)


def test_with_all_evidence_every_attack_is_run(evidence):
    version = evidence.version(1.0)
    sensitivities = np.abs(np.random.default_rng(0).normal(size=version.signals.posteriors.shape)).astype("f4")
    version = replace(version, signals=replace(version.signals, sensitivities=sensitivities))
    found = run({"original": version}, evidence.references(1.0)).versions["original"]
    assert list(found.results) == list(running.ATTACKS) and found.not_run == {}
    assert {found.results[name]["references"] for name in running.WITH_REFERENCES} == {8}


def test_a_result_has_the_keys_of_every_attack_s_json_and_numbers_of_its_scores(evidence):
    audit = run({"original": evidence.version(1.0)}, evidence.references(1.0))
    found = audit.versions["original"]
    for name, result in found.results.items():
        assert set(result) == {
            *("setting", "version", "attack", "seed", "accuracy", "accuracy_ci", "auc", "auc_ci", "tpr_at_fpr", "roc"),
            *("members", "non_members", "references", "trained", "failed", "calibration", "victim", "provenance"),
            "versions",
        }
        assert {key for key, value in result["setting"].items() if value is not None} == {"adversary"}
        assert result["auc"] == metrics.auc(found.scores[name], evidence.members)
        if result["calibration"]["by"] != running.CROSS_FITTED:
            assert result["accuracy"] == metrics.accuracy(found.scores[name], evidence.members)
        assert (result["trained"] is None) == (name not in running.EPOCHS)


def test_the_same_evidence_gives_the_same_results(evidence):
    version, told = evidence.version(1.0), evidence.references(1.0)
    first, second = (run({"a": version, "b": version}, told) for _ in range(2))
    assert first.versions["a"].results == second.versions["a"].results
    assert first.differences == second.differences


def test_of_noise_nothing_is_found():
    evidence = Evidence(n=2000)
    found = run({"original": evidence.version(0.0)}, evidence.references(0.0)).versions["original"]
    for name, result in found.results.items():
        assert abs(result["auc"] - 0.5) < 0.06, name
        assert abs(result["accuracy"] - 0.5) < 0.05, name


def test_a_larger_leak_is_found_and_the_difference_said(evidence):
    evidence = Evidence(n=1500)
    audit = run({"original": evidence.version(0.5), "pruned": evidence.version(2.0)}, evidence.references(2.0))
    assert audit.differences["pruned"]["auc_ci"][0] > 0
    assert audit.differences["pruned"]["attacks"]["other"] in running.WITH_REFERENCES  # records differ in difficulty


def test_more_evidence_on_one_version_is_no_difference(evidence):
    evidence = Evidence(n=1500)
    audit = run(
        {"original": evidence.version(0.5), "pruned": evidence.version(0.5)}, {"pruned": evidence.references(0.5)}
    )
    assert audit.versions["pruned"].strongest in running.WITH_REFERENCES
    assert not set(audit.differences["pruned"]["of"]) & set(running.WITH_REFERENCES)
    low, high = audit.differences["pruned"]["auc_ci"]
    assert low < 0 < high
    assert "attacks that were run on both" in folders.answer(audit)[-1]


def test_swapped_members_of_references_are_noted(evidence):
    evidence = Evidence(n=600)
    told = evidence.references(2.0)
    swapped = References(told.margins, ~told.members, told.source)
    notes = [run({"v": evidence.version(2.0)}, each).versions["v"].notes for each in (told, swapped)]
    assert ["swapped" in " ".join(said) for said in notes] == [False, True]


def test_a_name_of_no_version_is_refused(evidence):
    with pytest.raises(ValueError, match="unknown version 'prund': did you mean 'pruned'"):
        run({"pruned": evidence.version(0.5)}, {"prund": evidence.references(0.5)})
    with pytest.raises(ValueError, match="no version"):
        run({})


def test_the_strongest_attack_is_none_that_failed(evidence):
    found = run({"original": evidence.version(1.0)}).versions["original"]
    best = found.strongest
    assert found.results[best]["auc"] == max(result["auc"] for result in found.results.values() if not result["failed"])
    found.results[best]["failed"] = ["attack"]
    assert found.strongest != best


def test_references_that_are_all_out_run_the_offline_attacks(evidence):
    told = evidence.references(1.0, np.zeros((4, 400), bool))
    found = run({"original": evidence.version(1.0)}, told).versions["original"]
    assert set(grid.REFERENCE_ATTACKS) <= set(found.results)
    assert set(running.ONLINE_ATTACKS) <= set(found.not_run)
    assert found.results["rmia"]["calibration"] == {"a": 0.3, "by": running.CROSS_FITTED, "folds": 5}
    assert any("RMIA's a is 0.3" in note for note in found.notes)


def test_references_with_members_are_calibrated_in_turn(evidence):
    found = run({"original": evidence.version(1.0)}, evidence.references(1.0)).versions["original"]
    for name in running.WITH_REFERENCES:
        assert found.results[name]["calibration"]["by"] == running.IN_TURN
    assert abs(found.results["lira"]["accuracy"] - 0.5) > 0.02


def test_a_threshold_in_turn_never_looks_at_who_the_victim_s_members_are(evidence):
    version, told = evidence.version(1.0), evidence.references(1.0)
    other = replace(version, signals=replace(version.signals, members=~version.signals.members))
    first, second = (run({"original": each}, told).versions["original"] for each in (version, other))
    for name in running.WITH_REFERENCES:
        np.testing.assert_array_equal(first.scores[name], second.scores[name])


def test_too_few_references_of_a_kind_are_named_with_the_numbers(evidence):
    few = evidence.theirs[:2]
    found = run({"original": evidence.version(1.0)}, evidence.references(1.0, few)).versions["original"]
    without_out = few.all(axis=0).sum()
    assert found.not_run["lira"].startswith(f"{without_out} of 400 records were left out by no reference")
    assert set(running.WITH_REFERENCES) <= set(found.not_run)


def test_references_trained_as_the_victim_are_refused_not_believed(evidence):
    """They are IN for members only: what they say tells the answer."""
    same = np.repeat(evidence.members[None], 4, axis=0)
    found = run({"original": evidence.version(1.0)}, evidence.references(1.0, same)).versions["original"]
    assert set(running.WITH_REFERENCES) <= set(found.not_run)


def test_one_reference_with_few_members_among_the_records_runs_no_attack_with_references(evidence):
    few = np.arange(400)[None] < 20
    found = run({"original": evidence.version(1.0)}, evidence.references(1.0, few)).versions["original"]
    assert set(running.WITH_REFERENCES) <= set(found.not_run) and "conf" in found.results


def test_references_of_one_version_are_that_one_s_only(evidence):
    versions = {"original": evidence.version(1.0), "pruned": evidence.version(1.0)}
    found = run(versions, {"pruned": evidence.references(1.0)}).versions
    assert "lira" in found["original"].not_run and "lira" in found["pruned"].results


@pytest.mark.parametrize("what", ["labels", "members", "records"])
def test_versions_of_other_records_are_not_compared(evidence, what):
    version = evidence.version(1.0)
    signals = version.signals
    if what == "records":
        other, expected = signals.at(np.arange(399)), "399 records, but original has 400"
    else:
        changed = getattr(signals, what).copy()
        changed[3] = not changed[3] if what == "members" else (changed[3] + 1) % 4
        other = replace(signals, **{what: changed})
        expected = f"its {what} differ from those of original in 1 of 400 records, the first record 3"
    with pytest.raises(ValueError, match=f"pruned: {expected}"):
        run({"original": version, "pruned": Version(other, version.margins[: len(other)])})


def test_references_of_other_records_are_refused(evidence):
    with pytest.raises(ValueError, match="references of original: 7 records, not 400"):
        run({"original": evidence.version(1.0)}, References(np.zeros((2, 7), "f4"), np.zeros((2, 7), bool)))


def test_classes_without_records_and_saturated_posteriors_are_noted(evidence):
    logits = np.c_[evidence.logits(evidence.members, 1.0), np.full(400, -9.0)]
    version = replace(of_logits(logits, evidence.labels, evidence.members), saturated=3)
    notes = run({"original": version}).versions["original"].notes
    assert any(note.startswith("3 of 400 posteriors") for note in notes)
    assert "1 of 5 classes have no record: 4." in notes


def test_large_evidence_leaves_out_what_takes_too_long(evidence, monkeypatch):
    monkeypatch.setattr(running, "BLINDMI_RECORDS", 100)
    assert "400 records" in run({"original": evidence.version(1.0)}).versions["original"].not_run["blindmi"]


def test_a_network_says_what_its_file_would(evidence):
    """`query` gives what `of_logits` gives of the same logits, with sensitivities."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4))
    inputs = np.random.default_rng(0).normal(size=(400, 5)).astype("f4")
    asked = query(model, inputs, evidence.labels, evidence.members)
    logits = model(torch.from_numpy(inputs)).detach().numpy()
    plain = of_logits(logits, evidence.labels, evidence.members)
    np.testing.assert_allclose(asked.signals.posteriors, plain.signals.posteriors, atol=1e-6)
    np.testing.assert_allclose(asked.margins, plain.margins, atol=1e-5)
    np.testing.assert_array_equal(asked.signals.members, evidence.members)
    np.testing.assert_array_equal(asked.signals.labels, evidence.labels)
    assert asked.signals.sensitivities.shape == (400, 4) and asked.signals.sensitivities.min() > 0


def test_too_few_members_are_refused(evidence):
    said = evidence.version(1.0)
    few = replace(said, signals=replace(said.signals, members=np.arange(400) < 9))
    with pytest.raises(ValueError, match="9 members and 391 non-members; an audit needs 10 or more of each"):
        run({"original": few})


@pytest.mark.parametrize("records", [399, 401])
def test_members_of_other_records_are_refused(evidence, records):
    import torch

    inputs, members = np.zeros((400, 5), "f4"), np.arange(records) < 200
    with pytest.raises(ValueError, match=rf"labels \[400\] and members \[{records}\] do not agree"):
        query(torch.nn.Linear(5, 4), inputs, evidence.labels, members)


def test_signals_without_sensitivities_have_no_gap_of_them():
    signals = replace(make_signals(40, 3, 0), sensitivities=np.empty((40, 0), "f4"))
    assert metrics.gaps(signals)["sensitivity_gap"] is None
