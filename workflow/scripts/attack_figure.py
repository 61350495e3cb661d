"""Draw one figure that needs only the attacks table."""

from miaprune import figures, tables
from miaprune.job import logged

with logged(snakemake.log[0]):
    attacks = tables.read_table(snakemake.input[0])
    figure = getattr(figures, snakemake.params.figure)(attacks, **snakemake.params.of)
    figures.save(figure, snakemake.output.pdf.removesuffix(".pdf"))
