"""One dataset's results for people: as the paper prints them (paper_table), its controls, or by defence."""

from job import logged

from miaprune.extensions import register
from miaprune.files import write_text
from miaprune.report import tables
from miaprune.report.page import page

register(snakemake.config)

with logged(snakemake.log[0]):
    attacks, dataset = tables.read_table(snakemake.input[0]), snakemake.wildcards.dataset
    table = getattr(tables, snakemake.params.table)(attacks, dataset)
    head = tables.head(snakemake.params.table, attacks, dataset)
    tables.write_csv(snakemake.output.csv, table)
    write_text(snakemake.output.page, page(head + tables.to_markdown(table)))
