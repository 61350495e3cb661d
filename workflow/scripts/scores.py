"""Gather the scores of a setting's families of attacks in one file."""

from job import logged

from miaprune.files import load_arrays, save_tensors

with logged(snakemake.log[0]):
    gathered, about = {}, {}
    for path in snakemake.input:
        arrays, about = load_arrays(path)
        gathered |= arrays
    save_tensors(snakemake.output[0], gathered, about)
