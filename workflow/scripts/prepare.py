"""Read a dataset's archive, downloading it if it is missing, and write it as one prepared file."""

from job import logged

from miaprune.data.datasets import prepare
from miaprune.extensions import register

register(snakemake.config)

with logged(snakemake.log[0]):
    prepare(snakemake.wildcards.dataset, snakemake.params.data_dir, snakemake.output[0])
