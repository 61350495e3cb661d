"""One dataset's results as the paper prints them: a row per pruner and sparsity, a column per attack."""

from miaprune import results
from miaprune.job import running

with running(snakemake.log[0]):
    attacks = results.read_table(snakemake.input[0])
    results.write_csv(snakemake.output[0], results.paper_table(attacks, snakemake.wildcards.dataset))
