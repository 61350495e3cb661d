"""The page of a scope: the answer, then the claims, figures and tables behind it."""

from pathlib import Path

from job import logged

from miaprune.extensions import register
from miaprune.report import claims, overview, page, tables
from miaprune.report.effects import effects

register(snakemake.config)

with logged(snakemake.log[0]):
    attacks, models = tables.read_table(snakemake.input.attacks), tables.read_table(snakemake.input.models)
    pictures = {
        figure: [page.picture(Path(svg).read_text(), f"figures/{Path(svg).name}") for svg in snakemake.input[figure]]
        for figure in snakemake.params.figures
    }
    answer, sections = overview.overview(
        attacks,
        claims.evaluate(attacks),
        effects(attacks),
        tables.learnt_nothing(models),
        pictures,
        snakemake.params.files,
        snakemake.params.seed,
        snakemake.params.results,
    )
    page.write(snakemake.output[0], overview.TITLE, answer, sections)
