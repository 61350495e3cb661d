"""Draw every figure of a scope that needs only the attacks table."""

from pathlib import Path

from job import logged

from miaprune.extensions import register
from miaprune.report import figures, tables

register(snakemake.config)

with logged(snakemake.log[0]):
    attacks, folder = tables.read_table(snakemake.input[0]), Path(snakemake.output.pdf[0]).parent
    drawn = {name: getattr(figures, name)(attacks) for name in ("samia_vs_others", "gaps_vs_accuracy")}
    for name, pairs in snakemake.params.pairs.items():
        for dataset, model in pairs:
            drawn[f"{name}_{dataset}_{model}"] = getattr(figures, name)(attacks, dataset, model)
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
