"""What a setting is, where its files lie, and which settings exist.

The one source of truth for rules, scripts, tables and error messages. Imports nothing heavy, so that
planning thousands of jobs stays fast.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from miaprune.catalog import ATTACKS as ATTACKS
from miaprune.catalog import DATASETS as DATASETS
from miaprune.catalog import DEFENSES as DEFENSES
from miaprune.catalog import MODELS as MODELS
from miaprune.catalog import PRUNERS as PRUNERS
from miaprune.catalog import families as families
from miaprune.catalog import prunes as prunes
from miaprune.catalog import takes as takes
from miaprune.catalog import unit as unit
from miaprune.entries import GridError as GridError
from miaprune.entries import known as known
from miaprune.entries import nearest as nearest

_BUILT_IN = {name: entry for name, entry in ATTACKS.items() if entry.extension is None}
NEURAL_ATTACKS = tuple(name for name, entry in _BUILT_IN.items() if entry.network)
REFERENCE_ATTACKS = tuple(name for name, entry in _BUILT_IN.items() if entry.sees == "margins")
THRESHOLD_ATTACKS = tuple(name for name, entry in _BUILT_IN.items() if entry.family == "cheap" and name != "blindmi")
"""Built-in attacks, by what they are."""

FINETUNED, UNTUNED, RANDOM = "finetuned", "untuned", "random"
"""The controls (method, section 15): an original trained on as pruned ones are, a pruned model that was not, and the
pruner that draws what goes."""

PPB_STRENGTH = 4.0
"""The strength of PPB that the third claim is about, the paper's default."""

SHADOWS = 5
"""Shadow models per setting (method, section 4)."""

ROLES = ("victim", *(f"shadow_{i}" for i in range(SHADOWS)))

CHUNK = 8
"""Reference models beyond the shadows that one job trains, whether or not the last ones are asked for."""

MAX_REFERENCES = SHADOWS + 32 * CHUNK
"""Reference models that there can be."""


def reference(i: int) -> str:
    """The role of reference model ``i``, 0-based: the shadows come first (method, section 13)."""
    return f"shadow_{i}" if i < SHADOWS else f"reference_{i}"


def chunks(references: int) -> list[str]:
    """What one job each trains of the reference models beyond the shadows: "5-12", "13-20" of 14 to 21."""
    return [f"{first}-{first + CHUNK - 1}" for first in range(SHADOWS, references, CHUNK)]


def in_chunk(chunk: str) -> tuple[str, ...]:
    """The roles of the reference models in one of `chunks`."""
    first, last = map(int, chunk.split("-"))
    return tuple(map(reference, range(first, last + 1)))


SEED = "0|[1-9][0-9]*"
"""How a path writes a seed: in one way."""

MAX_SEED = 10**9


@dataclass(frozen=True)
class Setting:
    """One cell of the grid: an original model (``pruner`` is None), a pruned one, or a pruned and defended one.

    ``sparsity`` and ``strength`` are texts as in paths and in ``config.yaml``, such as "0.7" and "4". ``tuning`` is
    None but for the controls (method, section 15): "finetuned", an original trained on as pruned ones are, and
    "untuned", a pruned model that was not. ``seed`` is None for the first of the run's seeds: the others' results lie
    in folders of their own.
    """

    dataset: str
    model: str
    pruner: str | None = None
    sparsity: str | None = None
    defense: str | None = None
    strength: str | None = None
    tuning: str | None = None
    seed: int | None = None

    @property
    def variant(self) -> str:
        """``original``, ``finetuned`` or ``{pruner}_{sparsity}``: how it was pruned, whatever came with or after it."""
        return self.tuning or "original" if self.pruner is None else f"{self.pruner}_{self.sparsity}"

    @property
    def version(self) -> str:
        """Its path below data set and model: ``original``, ``l1_0.7``, ``l1_0.7/untuned``, ``l1_0.7/ppb_4``."""
        after = self.tuning if self.defense is None else f"{self.defense}_{self.strength}"
        return self.variant if self.pruner is None or after is None else f"{self.variant}/{after}"

    @property
    def name(self) -> str:
        """What it is called, whatever its seed: ``location/fc/l1_0.7``."""
        return f"{self.dataset}/{self.model}/{self.version}"

    @property
    def path(self) -> str:
        """Folder below ``results_dir`` that holds everything about this setting: its name, below its seed's folder."""
        return self.name if self.seed is None else f"seed_{self.seed}/{self.name}"

    @property
    def original(self) -> Setting:
        """The unpruned setting that this one starts from."""
        return Setting(self.dataset, self.model, seed=self.seed)

    @classmethod
    def parse(cls, path: str) -> Setting:
        """The setting whose `path` this is; raises `GridError` if there is none."""
        first, *parts = path.strip("/").split("/")
        seed = None
        if first.startswith("seed_"):
            seed = _seed(path, first)
        else:
            parts.insert(0, first)
        if len(parts) not in (3, 4):
            raise GridError(f"{path!r} is no setting: write dataset/model/original or dataset/model/pruner_sparsity")
        dataset, model, variant, *after = parts
        if variant in ("original", FINETUNED):
            setting = cls(dataset, model, tuning=FINETUNED if variant == FINETUNED else None)
        else:
            setting = cls(dataset, model, *_halves(path, variant, "pruner_sparsity"))
        if after == [UNTUNED]:
            setting = replace(setting, tuning=UNTUNED)
        elif after:
            defense, strength = _halves(path, after[0], "defense_strength")
            setting = replace(setting, defense=defense, strength=strength)
        return replace(setting, seed=seed).check()

    def check(self) -> Setting:
        """Return self, or raise `GridError` if a name is unknown or the combination does not exist."""
        known("dataset", self.dataset, DATASETS)
        known("model", self.model, MODELS)
        if not takes(self.model, self.dataset):
            fitting = [m for m in MODELS if takes(m, self.dataset)]
            raise GridError(
                f"{self.dataset}/{self.model}: model {self.model} does not take {self.dataset}; use {_either(fitting)}"
            )
        if self.pruner in ("original", FINETUNED):
            raise GridError(f"{self.path}: {self.pruner} is not pruned and has no sparsity; write {self.pruner} alone")
        if self.pruner is None and self.tuning == UNTUNED:
            raise GridError(f"{self.path}: untuned is what was pruned and not fine-tuned; name a pruner_sparsity")
        if self.pruner is not None:
            known("pruner", self.pruner, PRUNERS)
            if not prunes(self.pruner, self.model):
                fitting = [p for p in PRUNERS if prunes(p, self.model)]
                raise GridError(
                    f"{self.path}: pruner {self.pruner} does not apply to model {self.model}; use {_either(fitting)}"
                )
            sparsity_value(self.sparsity)
            if self.sparsity != (only := PRUNERS[self.pruner].sparsity or self.sparsity):
                raise GridError(f"{self.path}: pruner {self.pruner} has one sparsity; write {self.pruner}_{only}")
        if self.defense is not None:
            known("defense", self.defense, DEFENSES)
            if self.tuning is not None or self.pruner is None:
                raise GridError(f"{self.path}: defences act in fine-tuning of pruned models; name a pruner_sparsity")
            strength_value(self.defense, self.strength)
        return self


def _halves(path: str, name: str, form: str) -> tuple[str, str]:
    """Split ``pruner_sparsity`` or ``defense_strength`` at its last underscore."""
    kind, _, value = name.rpartition("_")
    if not kind:
        raise GridError(f"{path!r}: {name!r} is neither 'original' nor {form}, such as l1_0.7 or ppb_4")
    return kind, value


def _seed(path: str, folder: str) -> int:
    text = folder.removeprefix("seed_")
    if not re.fullmatch(SEED, text, re.ASCII) or int(text) > MAX_SEED:
        raise GridError(f"{path}: {folder} is no seed's folder; write seed_8, a whole number from 0 to {MAX_SEED}")
    return int(text)


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) < 3 else ", ".join(names[:-1]) + " or " + names[-1]


PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?", re.ASCII)
"""How a number is written that a path can hold."""


def written(number: object) -> str:
    """The one way in which paths write a sparsity or a strength: 0.7 of "0.70", 4 of 4.0. No number stays as it is."""
    text = str(number)
    return f"{float(text):.12g}" if PLAIN.fullmatch(text) else text


def sparsity_value(text: object) -> float:
    """The number behind a sparsity as written; raise `GridError` unless it lies strictly between 0 and 1."""
    value = _number(text)
    if not 0.0 < value < 1.0:
        raise GridError(f"sparsity {text!r} must be a number above 0 and below 1, written as 0.7 is")
    _in_its_one_way(text)
    return value


def strength_value(defense: str, text: object) -> float:
    """The number behind a defence's strength; raise `GridError` unless it is one that training can compute with.

    That is from the defence's least one to 1e9.
    """
    value, least = _number(text), DEFENSES[defense].least
    if not least <= value <= 1e9:
        raise GridError(f"strength {text!r} of defense {defense} must be a number from {least:g} to 1e9, such as 4")
    _in_its_one_way(text)
    return value


def _number(text: object) -> float:
    """NaN if it is not plainly written."""
    return float(str(text)) if PLAIN.fullmatch(str(text)) else math.nan


def _in_its_one_way(text: object) -> None:
    if isinstance(text, str) and written(text) != text:
        raise GridError(f"{text!r} has one name in paths; write {written(text)}")


def originals(grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Every original (dataset, model) pair of a grid block that exists (method, section 5).

    A block is ``{"datasets": [...], "models": [...], "pruners": [...], "sparsities": [...]}``. Combinations that
    do not exist are left out; a dataset that no listed model takes is a `GridError`.
    """
    found = [
        Setting(d, m)
        for d, m in product(_unique(grid["datasets"]), _unique(grid["models"]))
        if takes(known("model", m, MODELS), known("dataset", d, DATASETS))
    ]
    for dataset in grid["datasets"]:
        if all(s.dataset != dataset for s in found):
            fitting = [m for m in MODELS if takes(m, dataset)]
            raise GridError(f"none of the models {list(grid['models'])} takes {dataset}; add {_either(fitting)}")
    return found


def pruned(grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Every pruned setting of a grid block that exists: 255 for the paper's grid.

    A pruner that has but one sparsity, not listed, is a `GridError`.
    """
    sparsities = _unique(map(written, grid["sparsities"]))
    for sparsity in sparsities:
        sparsity_value(sparsity)
    for pruner in grid["pruners"]:
        only = PRUNERS[known("pruner", pruner, PRUNERS)].sparsity
        if only is not None and only not in sparsities:
            raise GridError(f"none of the sparsities {sparsities} is one of {pruner}; add {only}")
    return [
        Setting(o.dataset, o.model, pruner, sparsity)
        for o in originals(grid)
        for pruner, sparsity in product(_unique(grid["pruners"]), sparsities)
        if prunes(pruner, o.model) and PRUNERS[pruner].sparsity in (None, sparsity)
    ]


def settings(*grids: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Originals and pruned settings of one or more grid blocks, each once, originals first."""
    return _unique([s for g in grids for s in originals(g)] + [s for g in grids for s in pruned(g)])


Attacked = tuple[Setting, str]
"""A victim and its adversary: matched, unaware, or shadows_{pruner}_{sparsity} for a mismatched one (section 8)."""


def attacked(settings: Sequence[Setting], block: Mapping[str, Any]) -> list[Attacked]:
    """Everything that is attacked: the settings, `controls`, defended versions, and the mismatched adversaries.

    ``block`` holds ``parts`` (by name), ``controls``, ``defenses`` (entries with defense, strengths, part and
    adversaries) and ``transfer``, the part ("none": no part) whose settings are attacked with each other's shadows
    where they differ in sparsity alone or in pruner alone.
    """
    pairs = [(s, "matched") for s in [*settings, *controls(settings, block)]]
    for entry in block["defenses"]:
        known("defense", entry["defense"], DEFENSES)
        for strength in map(written, entry["strengths"]):
            strength_value(entry["defense"], strength)
            for s in _part(settings, block, entry["part"]):
                victim = replace(s, defense=entry["defense"], strength=strength)
                # The adaptive adversary is the matched one: its shadows are pruned and defended like the victim.
                pairs += [(victim, "matched" if a == "adaptive" else a) for a in entry["adversaries"]]
    crossed = _part(settings, block, block["transfer"]) if block["transfer"] != "none" else []
    pairs += [
        (victim, f"shadows_{shadows.variant}")
        for victim, shadows in product(crossed, crossed)
        if (victim.dataset, victim.model) == (shadows.dataset, shadows.model)
        and (victim.pruner == shadows.pruner) != (victim.sparsity == shadows.sparsity)
    ]
    return _unique(pairs)


def controls(settings: Sequence[Setting], block: Mapping[str, Any]) -> list[Setting]:
    """The controls of section 15: `FINETUNED` of every original, `UNTUNED` and `RANDOM` of a part's pruned settings.

    ``block["controls"]`` names the part; "none" means no controls.
    """
    if block["controls"] == "none":
        return []
    part = _part(settings, block, block["controls"])
    return _unique(
        [replace(s, tuning=FINETUNED) for s in settings if s.pruner is None]
        + [replace(s, tuning=UNTUNED) for s in part]
        + [replace(s, pruner=RANDOM) for s in part]
    )


def is_control(setting: Setting) -> bool:
    return setting.tuning is not None or setting.pruner == RANDOM


def over_seeds(attacked: Sequence[Attacked], seeds: Sequence[int]) -> list[Attacked]:
    """The same with each of ``seeds`` in turn: a full repetition (method, section 16)."""
    return [
        (replace(victim, seed=None if seed == seeds[0] else seed), adversary)
        for seed in seeds
        for victim, adversary in attacked
    ]


def _part(settings: Sequence[Setting], block: Mapping[str, Any], name: str) -> list[Setting]:
    """The pruned settings that a named part of the grid picks: per kind the values it keeps, all if it names none.

    Raises `GridError` if it picks none although the grid has settings of its data sets, models and pruners.
    """
    kept = block["parts"][known("part", name, block["parts"])]
    lists = {key: set(map(written, values)) for key, values in kept.items()}

    def picked(setting: Setting, keys: Sequence[str]) -> bool:
        return all(getattr(setting, KINDS[key]) in lists[key] for key in keys if key in lists)

    pruned = [s for s in settings if s.pruner is not None]
    found = [s for s in pruned if picked(s, list(KINDS))]
    if not found and any(picked(s, ("datasets", "models", "pruners")) for s in pruned):
        here = {key: _unique(getattr(s, kind) for s in pruned) for key, kind in KINDS.items() if key in lists}
        raise GridError(f"part {name} picks no setting: it keeps {dict(kept)}, the grid has {here}")
    return found


KINDS = {"datasets": "dataset", "models": "model", "pruners": "pruner", "sparsities": "sparsity"}
"""A part's lists and the field of a `Setting` that each is about."""


def folder(victim: Setting, adversary: str) -> str:
    """Folder below ``results_dir`` that holds the results of this adversary's attacks on this victim."""
    return victim.path if adversary == "matched" else f"{victim.path}/{adversary}"


def attacked_in(folder: str) -> Attacked:
    """The victim and the adversary whose `folder` this is; raises `GridError` if there is no such setting."""
    place, _, last = folder.rpartition("/")
    if last == "unaware" or last.startswith("shadows_"):
        return Setting.parse(place), last
    return Setting.parse(folder), "matched"


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def derive_seed(seed: int, *purpose: str) -> int:
    """A seed for one purpose of a job, from the one seed of the run: unrelated draws for distinct purposes."""
    return zlib.crc32("/".join([str(seed), *purpose]).encode())
