"""Attack a setting's victim, one JSON per attack.

The matched adversary fits each attack on the setting's own shadows and writes the fitted attackers; any other
reads attackers that were fitted on another setting's shadows.
"""

import torch

from miaprune import grid, results, signals
from miaprune.attacks import ATTACKS
from miaprune.files import load_metadata, load_tensors, save_tensors
from miaprune.job import running

params, path = snakemake.params, snakemake.input.victim
setting = grid.Setting.parse(snakemake.wildcards.setting)
adversary = snakemake.wildcards.get("adversary", "matched")
trained_on = grid.shadows_of(setting, adversary)
attackers = (snakemake.output if adversary == "matched" else snakemake.input).attackers
attackers = [attackers] if isinstance(attackers, str) else attackers

with running(snakemake.log[0], snakemake.threads, params.device) as device:
    victim = signals.load(path, "victim")
    facts = load_metadata(path)["victim"]
    shadows = signals.load_shadows(path, grid.SHADOWS) if adversary == "matched" else None
    for (name, options), attacker, output in zip(params.options.items(), attackers, snakemake.output, strict=False):
        attack, seed = ATTACKS[name], grid.derive_seed(params.seed, trained_on.path, name)
        if shadows is not None:
            fitted = attack.fit(shadows, options, seed, str(device))
            save_tensors(attacker, {key: torch.from_numpy(array) for key, array in fitted.items()}, {"attack": name})
        else:
            fitted = {key: tensor.numpy() for key, tensor in load_tensors(attacker)[0].items()}
        scores = attack.score(fitted, victim, options, seed, str(device))
        result = results.attack_result(setting, name, params.seed, scores, victim, facts, adversary=adversary)
        results.write_json(output, result)
        print(f"{setting.path} {adversary} {name}: accuracy {result['accuracy']:.4f}, AUC {result['auc']:.4f}")
