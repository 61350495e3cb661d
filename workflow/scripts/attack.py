"""Attack a setting's victim: fit on the shadows' signals, score on the victim's, one JSON per output."""

from pathlib import Path

from miaprune import grid, results, signals
from miaprune.attacks import ATTACKS
from miaprune.files import load_metadata
from miaprune.job import running

params = snakemake.params
setting = grid.Setting.parse(snakemake.wildcards.setting)

with running(snakemake.log[0], snakemake.threads, params.device) as device:
    victim = signals.load(snakemake.input[0], "victim")
    shadows = signals.load_shadows(snakemake.input[0], grid.SHADOWS)
    facts = load_metadata(snakemake.input[0])["victim"]
    for path in snakemake.output:
        name = Path(path).stem
        attack, seed = ATTACKS[name], grid.derive_seed(params.seed, setting.path, name)
        fitted = attack.fit(shadows, params.options, seed, str(device))
        scores = attack.score(fitted, victim, params.options, seed, str(device))
        result = results.attack_result(setting, name, params.seed, scores, victim, facts)
        results.write_json(path, result)
        print(f"{setting.path} {name}: accuracy {result['accuracy']:.4f}, AUC {result['auc']:.4f}")
