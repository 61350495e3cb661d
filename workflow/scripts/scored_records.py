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
    loaded, failed = {}, {}
    for setting, path in zip(settings, snakemake.input.scores, strict=True):
        every = scores.load(path, setting.name, params.seed)
        loaded[setting] = scores.sound(every, attacks, setting)
        asked = scores.sound(every, attacks.assign(failed=None), setting)  # the file may have others
        failed[setting] = [name for name in asked.by_attack if name not in loaded[setting].by_attack]
    tables.write_csv(snakemake.output.exposed, scores.exposed(attacks, loaded))
    for pdf, (dataset, model) in zip(snakemake.output.pdf, params.pairs, strict=True):
        place = f"{dataset}/{model}"
        labels = {
            s: s.name.removeprefix(f"{place}/").replace("/", " + ")
            for s in settings
            if (s.dataset, s.model) == (dataset, model)
        }
        shown = scores.most_exposed({s: loaded[s] for s in labels}, attacks)
        title = f"What attacks find at low false positive rates: {place}"
        without = {labels[s]: failed[s] for s in labels if s in shown or not loaded[s].by_attack}
        figure = figures.roc({labels[s]: each for s, each in shown.items()}, title, without)
        figures.save(figure, Path(pdf).with_suffix(""))
