"""One dataset's results for people: as the paper prints them (paper_table), or by defence (defense_table)."""

from miaprune import tables
from miaprune.job import logged

with logged(snakemake.log[0]):
    attacks = tables.read_table(snakemake.input[0])
    table = getattr(tables, snakemake.params.table)(attacks, snakemake.wildcards.dataset)
    tables.write_csv(snakemake.output[0], table)
