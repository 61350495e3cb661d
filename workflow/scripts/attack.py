"""Attack a setting's victim with several attacks: one JSON per attack, and every record's score.

The matched adversary fits each attack on the setting's own shadows and writes the fitted attackers; any other
reads attackers that were fitted on another setting's shadows.
"""

from pathlib import Path

import numpy as np
from job import logged, running

from miaprune import grid, margins, signals
from miaprune.attacks import attack, checks
from miaprune.data import splits
from miaprune.extensions import register
from miaprune.files import load_arrays, load_metadata, save_tensors
from miaprune.report import results

register(snakemake.config)


params, path, names = snakemake.params, snakemake.input.victim, list(snakemake.params.options)
jsons = snakemake.output[: len(names)]
victims, results_of = Path(path).parent, Path(jsons[0]).parent
setting = grid.Setting.parse(str(victims.relative_to(snakemake.config["results_dir"])))
adversary = "matched" if results_of == victims else results_of.name
attackers = (snakemake.output if adversary == "matched" else snakemake.input).attackers


def main(device, where):
    victim = signals.load(path, "victim")
    facts = load_metadata(path)
    # Also for attacks that fit nothing: alone they would pass for the setting's strongest.
    guessing = [role for role in grid.ROLES[1:] if results.learnt_nothing(facts[role])]
    lost = ["victim"] if results.learnt_nothing(facts["victim"]) else []
    reference = {name for name in names if grid.ATTACKS[name].sees == "margins"}
    # Those who only score need the victim's margins: what references say of its records was fitted.
    count = params.options[names[0]]["references"] if reference and adversary == "matched" else grid.SHADOWS
    if count > grid.SHADOWS:
        further = {role: about for file in snakemake.input.margins[1:] for role, about in load_metadata(file).items()}
        used = map(grid.reference, range(grid.SHADOWS, count))  # the last job trained some more than are asked for
        guessing += [role for role in used if results.learnt_nothing(further[role])]
    of_models = margins.load(snakemake.input.margins, params.seed, count) if reference else None
    shadows = signals.load_shadows(path, grid.SHADOWS) if adversary == "matched" and set(names) - reference else None
    scored = {}
    for name, attacker, output in zip(names, attackers, jsons, strict=True):
        options, seed = params.options[name], grid.derive_seed(params.seed, setting.name, name)
        asked = of_models if name in reference else victim
        if adversary == "matched":
            fitted = attack(name).fit(of_models if name in reference else shadows, options, seed, device)
            about = results.stage(options, where, [grid.ATTACKS[name]])
            about |= {"failed": guessing + ([] if checks.trained(fitted) else ["attack"])}
            about |= {"attempt": int(fitted["attempt"]) if "attempt" in fitted else None}
            identity = {"setting": setting.name, "attack": name, "seed": params.seed}
            save_tensors(attacker, fitted, identity | about)
        else:
            fitted, about = load_arrays(attacker)
        # Rounded before they are counted: the file gives the JSON's numbers.
        scored[name] = scores = attack(name).score(fitted, asked, options, seed, device).astype("float32")
        failed = lost + about["failed"]
        result = results.attack_result(
            setting, name, params.seed, scores, victim, facts["victim"], about, adversary, failed,
            int(fitted["references"]) if name in reference else None,
        )  # fmt: skip
        results.write_json(output, result)
        says = f"learnt nothing: {', '.join(failed)}" if failed else f"accuracy {result['accuracy']:.4f}"
        print(f"{setting.name} {adversary} {name}: {says}, AUC {result['auc']:.4f}")
    n = facts["victim"]["records"]
    split = splits.of_role("victim", n, params.seed)
    scored |= {"records": np.concatenate([split.train, split.test]), "members": victim.members}
    save_tensors(
        snakemake.output.scores, scored, {"setting": setting.name, "adversary": adversary, "seed": params.seed, "of": n}
    )


if any(grid.ATTACKS[name].network for name in names):
    with running(snakemake.log[0], snakemake.threads, params.device) as device:
        from miaprune.devices import name_of  # imports torch

        main(str(device), name_of(device))
else:  # without a card
    with logged(snakemake.log[0]):
        main("cpu", "cpu")
