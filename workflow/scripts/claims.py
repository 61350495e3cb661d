"""The claims, tested over a scope's results: a table, a text, a summary for the terminal; and the effects."""

from job import logged

from miaprune.extensions import register
from miaprune.files import write_text
from miaprune.report import claims, claims_text, summary, tables
from miaprune.report.effects import effects

register(snakemake.config)

with logged(snakemake.log[0]):
    attacks, models = tables.read_table(snakemake.input.attacks), tables.read_table(snakemake.input.models)
    guessing = tables.learnt_nothing(models)
    verdicts = claims.evaluate(attacks)
    tables.write_csv(snakemake.output.csv, claims.claims_table(verdicts))
    tables.write_csv(snakemake.output.effects, effects(attacks))
    markdown = claims_text.markdown(verdicts, guessing, tables.source(attacks))
    write_text(snakemake.output.md, markdown)
    write_text(snakemake.output.summary, summary.summary(attacks, verdicts, guessing))
