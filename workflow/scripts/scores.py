"""Gather the scores of a setting's families of attacks in one file."""

from pathlib import Path

from job import logged

from miaprune.files import FileError, load_arrays, save_tensors
from miaprune.training.resume import forget

with logged(snakemake.log[0]):
    gathered, about = {}, {}
    for path in snakemake.input:
        arrays, facts = load_arrays(path)
        if facts != (about or facts):  # of data set, setting and seed: by them the records are drawn
            raise FileError(f"{path}: scores of other records than are attacked here; delete it and run again")
        gathered, about = gathered | arrays, facts
    save_tensors(snakemake.output[0], gathered, about)
    # No job of the setting is left that could fail and take its checkpoints along. Else their second names would hold
    # the space of all that have served until the run ends.
    forget(Path(snakemake.config["results_dir"], "states", snakemake.wildcards.setting))
