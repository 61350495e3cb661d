"""Read a dataset's archive, downloading it if it is missing, and write it as one prepared file."""

from miaprune.datasets import prepare
from miaprune.job import logged

with logged(snakemake.log[0]):
    prepare(snakemake.wildcards.dataset, snakemake.params.data_dir, snakemake.output[0])
