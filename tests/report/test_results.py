"""A result says what the design says, and its file is whole or absent."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
from synthetic import make_signals

from miaprune import catalog, entries, grid, metrics
from miaprune.files import FileError
from miaprune.report import results

MODEL = {"train_accuracy": 0.99, "dev_accuracy": 0.7, "test_accuracy": 0.6, "epoch": 12}
TRAINED = {"recipe": {"epochs": 50}, "device": "NVIDIA H100", "commit": "0123456789ab", "torch": "2.12"}
TRAINED |= {"epoch": 12, "epochs_run": 18}
MEASURED = {"recipe": {"draws": 3}, "device": "cpu", "commit": "123456789abc", "torch": "2.12"}
FITTED = {"recipe": {"lr": 0.1}, "device": "cpu", "commit": None, "torch": "2.12"}
FITTED |= {"extensions": {"gap": {"path": "my_lab.py", "sha256": "0"}}, "attempt": 2}
MODEL |= TRAINED | {"original": MEASURED | {"recipe": {}}, "signals": MEASURED, "data": "sha256:0"}
ORIGINAL = grid.Setting("location", "fc")
PRUNED = grid.Setting("location", "fc", "l1", "0.7")
DEFENDED = replace(PRUNED, defense="ppb", strength="4")
PRIVATE = replace(PRUNED, defense="dp", strength="0.5")
PRIVACY = {"epsilon": 3.25, "delta": 1e-5, "steps": 90, "covers": "the fine-tuning alone"}


def a_result(setting=PRUNED, attack="conf", seed=7, shift=0.0, adversary="matched"):
    victim = make_signals(60, 4, 0, member_boost=1.0)
    facts = MODEL | {"achieved_sparsity": float(setting.sparsity or 0)}
    if setting.defense == "dp":
        facts["privacy"] = PRIVACY
    scores = victim.confidence.astype("f8") - 0.5 + shift
    return results.attack_result(setting, attack, seed, scores, victim, facts, FITTED | {"attack": attack}, adversary)


def test_a_result_has_the_names_and_values_of_the_design():
    victim = make_signals(60, 4, 0, member_boost=1.0)
    scores = victim.confidence.astype("f8") - 0.5
    result = a_result()
    assert list(result) == [
        *("setting", "attack", "seed", "accuracy", "accuracy_ci", "auc", "auc_ci", "tpr_at_fpr", "roc"),
        *("members", "non_members", "references", "trained", "failed", "victim", "provenance", "versions"),
    ]
    assert result["setting"] == {
        "dataset": "location",
        "model": "fc",
        "pruner": "l1",
        "sparsity": 0.7,
        "tuning": None,
        "defense": None,
        "strength": None,
        "adversary": "matched",
    }
    assert (result["attack"], result["seed"]) == ("conf", 7)
    assert (result["members"], result["non_members"]) == (30, 30)
    assert result["accuracy"] == metrics.accuracy(scores, victim.members)
    assert result["auc"] == metrics.auc(scores, victim.members)
    assert result["auc_ci"] == list(metrics.auc_interval(scores, victim.members))
    # 1 % of 30 non-members is less than one
    assert result["tpr_at_fpr"] == {fpr: {"tpr": None, "ci": None, "false_positives": 0} for fpr in ("0.01", "0.001")}
    assert result["roc"] == metrics.roc_points(scores, victim.members)
    assert result["accuracy_ci"][0] <= result["accuracy"] <= result["accuracy_ci"][1]
    assert result["victim"] == {
        "train_accuracy": 0.99,
        "test_accuracy": 0.6,
        "sparsity": 0.7,
        **metrics.gaps(victim),
    }
    assert result["provenance"] == {
        "data": "sha256:0",
        "original": MEASURED | {"recipe": {}},
        "victim": TRAINED | {"extensions": None, "defense_options": None},
        "signals": MEASURED,
        "attack": FITTED,
    }
    assert set(result["versions"]) == {"miaprune", "commit", "torch", "numpy", "python", "scipy"}
    assert result["versions"]["commit"] == results.commit()


def test_a_stage_says_what_was_heeded_there():
    recipe = {"epochs": 50, "precision": "bfloat16"}
    on_cpu = results.stage(recipe, "cpu, AVX2")
    made_by = {"device": "cpu, AVX2", "commit": results.commit(), "torch": version("torch")}
    assert on_cpu == {"recipe": {"epochs": 50}} | made_by | {"extensions": {}}
    assert results.stage(recipe, "NVIDIA H100")["recipe"] == recipe
    own = entries.Entry("mine", None, entries.Extension("my_lab.py", "12ab"))
    of_both = results.stage(recipe, "cpu, AVX2", [own, catalog.MODELS["fc"]])["extensions"]
    assert of_both == {"mine": {"path": "my_lab.py", "sha256": "12ab"}}


def test_a_model_that_was_trained_before_checkpoints_said_so_is_attacked(monkeypatch):
    for key in (*TRAINED, "original", "signals", "data"):
        monkeypatch.delitem(MODEL, key)
    found = a_result()["provenance"]
    assert found["data"] is found["original"] is found["signals"] is None
    assert set(found["victim"].values()) == {None}


def test_the_commit_is_that_of_the_checkout_or_none(tmp_path, monkeypatch):
    copy = tmp_path / "outer/miaprune"
    (copy / "report").mkdir(parents=True)
    monkeypatch.setattr(results, "__file__", str(copy / "report/results.py"))
    commit, git = results.commit.__wrapped__, ["git", "-C", str(tmp_path / "outer")]
    assert commit() is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert commit() is None, "a checkout that lies around the library's folder is not its own"
    subprocess.run(["git", "init", "-q", str(tmp_path / "outer")], check=True)
    assert commit() is None, "nothing is committed"
    (copy / "results.py").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert commit() == head[:12]
    (copy / "results.py").write_text("2")
    assert commit() == f"{head[:12]}-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_an_original_has_nulls_and_a_defence_its_name_and_number():
    assert a_result(ORIGINAL)["setting"] == dict.fromkeys(results.SETTING_KEYS) | {
        "dataset": "location",
        "model": "fc",
        "adversary": "matched",
    }
    setting = a_result(DEFENDED, adversary="unaware")["setting"]
    assert list(setting) == list(results.SETTING_KEYS)
    assert (setting["defense"], setting["strength"], setting["adversary"]) == ("ppb", 4.0, "unaware")
    assert json.loads(json.dumps(setting))["strength"] == 4


def test_only_a_private_victim_has_a_privacy_block():
    assert "privacy" not in a_result(DEFENDED)["victim"]
    result = a_result(PRIVATE)
    assert result["victim"]["privacy"] == PRIVACY
    assert (results.flat(result)["victim_epsilon"], results.flat(result)["victim_delta"]) == (3.25, 1e-5)
    assert results.flat(a_result())["victim_epsilon"] is None


def test_an_attack_job_starts_without_pandas():
    code = "import sys, miaprune.report.results; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_same_job_gives_the_same_bytes(tmp_path):
    for name in "ab":
        results.write_json(tmp_path / name, a_result())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_job_draws_its_own_bootstrap(monkeypatch):
    monkeypatch.setattr(metrics, "bootstrap_interval", lambda scores, members, seed: (seed, seed))
    jobs = [{}, {"seed": 8}, {"attack": "samia"}, {"setting": ORIGINAL}, {"setting": DEFENDED}]
    jobs += [{"setting": DEFENDED, "adversary": "unaware"}, {"adversary": "shadows_l1_0.5"}]
    assert len({a_result(**job)["accuracy_ci"][0] for job in jobs}) == len(jobs)
    assert a_result()["accuracy_ci"] == a_result()["accuracy_ci"]


def test_json_comes_back_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "new" / "conf.json"
    results.write_json(path, a_result())
    assert results.read_result(path) == a_result()
    with pytest.raises(ValueError, match="JSON"):
        results.write_json(path, a_result() | {"auc": float("nan")})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        results.write_json(path, {"other": 1})
    assert results.read_result(path) == a_result()
    assert os.listdir(path.parent) == ["conf.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        (json.dumps(a_result())[:-200], "Expecting|Unterminated"),
        ("[]", "list indices|not"),
        ("{}", "lacks 'accuracy_ci'"),
        (json.dumps(a_result() | {"accuracy": 67.1}), "67.1 is no fraction"),
        (json.dumps(a_result() | {"accuracy": True}), "accuracy True is no number"),
        (json.dumps(a_result() | {"auc": float("nan")}), "auc nan is no number"),
        (json.dumps(a_result() | {"auc": "x"}), "auc 'x' is no number"),
        (json.dumps(a_result() | {"attack": 3}), "attack 3 is no text"),
        (json.dumps({k: v for k, v in a_result().items() if k != "victim"}), "lacks 'victim'"),
        (json.dumps(a_result() | {"setting": {"dataset": "location"}}), "lacks 'model'"),
        (json.dumps(a_result() | {"victim": a_result()["victim"] | {"privacy": {"epsilon": 1}}}), "lacks 'delta'"),
        (json.dumps(a_result() | {"roc": {"fpr": [0.1], "tpr": []}}), "ROC"),
    ],
)
def test_a_damaged_result_is_named_in_one_line(tmp_path, content, reason):
    path = tmp_path / "samia.json"
    path.write_text(content)
    with pytest.raises(results.ResultError, match=f"(?s)samia.json: .*({reason}).*delete it") as caught:
        results.read_result(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "seed", "message"),
    [
        ("location/fc/l1_0.7/conf.json", 8, "of seed 7, not 8"),
        ("location/fc/l1_0.6/conf.json", 7, "of sparsity 0.7, not 0.6"),
        ("location/fc/l1_0.7/ppb_4/unaware/conf.json", 7, "of defense None, not ppb"),
        ("location/fc/l1_0.7/samia.json", 7, "of attack conf, not samia"),
    ],
)
def test_a_result_that_lies_in_anothers_place_is_refused(tmp_path, place, seed, message):
    result, root = a_result(), str(tmp_path / "results")
    right = f"{root}/{PRUNED.path}/conf.json"
    results.write_json(right, result)
    assert results.read_result_in_place(right, root, 7) == result
    results.write_json(f"{root}/{place}", result)
    with pytest.raises(FileError, match=message):
        results.read_result_in_place(f"{root}/{place}", root, seed)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(results.ResultError, match=re.escape(f"snakemake {tmp_path}/x.json")):
        results.read_result(tmp_path / "x.json")
