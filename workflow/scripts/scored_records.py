"""Every record's score over a scope, of its first seed: ROC curves of what leaks most, the most exposed records."""

from pathlib import Path

from job import logged

from miaprune import grid
from miaprune.extensions import register
from miaprune.report import figures, scores, tables

register(snakemake.config)

params = snakemake.params

with logged(snakemake.log[0]):
    attacks = tables.read_table(snakemake.input.attacks)
    attacks = attacks[attacks["seed"] == params.seed]
    settings = list(map(grid.Setting.parse, params.settings))
    loaded = {
        setting: scores.sound(scores.load(path, setting.name, params.seed), attacks, setting)
        for setting, path in zip(settings, snakemake.input.scores, strict=True)
    }
    tables.write_csv(snakemake.output.exposed, scores.exposed(attacks, loaded))
    for pdf, (dataset, model) in zip(snakemake.output.pdf, params.pairs, strict=True):
        place = f"{dataset}/{model}"
        shown = scores.most_exposed(
            {s: loaded[s] for s in settings if (s.dataset, s.model) == (dataset, model)}, attacks
        )
        title = f"What attacks find at low false positive rates: {place}"
        labelled = {setting.name.removeprefix(f"{place}/").replace("/", " + "): each for setting, each in shown.items()}
        figures.save(figures.roc(labelled, title), Path(pdf).with_suffix(""))
