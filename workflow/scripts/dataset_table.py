"""One dataset's results for people: as the paper prints them (paper_table), its controls, or by defence."""

from job import logged

from miaprune.extensions import register
from miaprune.report import tables

register(snakemake.config)

with logged(snakemake.log[0]):
    attacks = tables.read_table(snakemake.input[0])
    table = getattr(tables, snakemake.params.table)(attacks, snakemake.wildcards.dataset)
    tables.write_csv(snakemake.output[0], table)
