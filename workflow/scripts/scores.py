"""Gather the scores of a setting's families of attacks in one file."""

import numpy as np
from job import logged

from miaprune.data import splits
from miaprune.files import FileError, load_arrays, save_tensors

with logged(snakemake.log[0]):
    gathered, about = {}, {}
    for path in snakemake.input:
        arrays, facts = load_arrays(path)
        split = splits.of_role("victim", facts["of"], facts["seed"])
        attacked = np.concatenate([split.train, split.test])
        if not np.array_equal(arrays["records"], attacked) or facts != (about or facts):
            raise FileError(f"{path}: scores of other records than are attacked here; delete it and run again")
        gathered, about = gathered | arrays, facts
    save_tensors(snakemake.output[0], gathered, about)
