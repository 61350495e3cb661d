"""Data sets of users' own: what of a file or a function is stored, and what is wrong with one, in one line."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from miaprune import catalog, entries, extensions
from miaprune.data import own
from miaprune.data.archives import DatasetError
from miaprune.data.datasets import load, prepare
from miaprune.grid import GridError

pytestmark = pytest.mark.usefixtures("catalogue")

N = 40
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(5.0, 3.0, (N, 3)) * [1, 100, 0] + [0, 0, 7]  # the last feature is constant
LABELS = np.arange(N) % 3
IMAGES = RNG.integers(0, 256, (N, 3, 5, 4), dtype=np.uint8)


@pytest.fixture
def prepared(tmp_path):
    """A data set of what a user's function gives, prepared and loaded."""

    def make(found, kind="table", **facts):
        catalog.DATASETS.pop("mine", None)
        with catalog.registering(entries.Extension("my_lab.py", "0")):
            catalog.dataset("mine", kind=kind, **facts)(lambda: found)
        prepare("mine", tmp_path, tmp_path / "out")
        return load(tmp_path / "out")

    return make


def batch(data):
    return data.batch(torch.arange(len(data)))


def test_numbers_are_standardised(prepared):
    data = prepared((NUMBERS, LABELS))
    x = NUMBERS.astype(np.float32).astype(np.float64)
    expected = (x - x.mean(axis=0)) / [*x.std(axis=0)[:2], 1.0]
    torch.testing.assert_close(batch(data), torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-5)
    assert (data.input_shape, data.classes, data.width) == ((3,), 3, None)
    assert batch(data).dtype == torch.float32


def test_numbers_as_they_are_and_by_what_is_given(prepared):
    as_they_are = prepared((NUMBERS, LABELS), mean=[0], std=[1])
    np.testing.assert_array_equal(batch(as_they_are), NUMBERS.astype(np.float32))
    given = prepared((NUMBERS, LABELS), scale=10, mean=[1, 2, 3], std=[4, 5, 6])
    np.testing.assert_allclose(batch(given), (NUMBERS / 10 - [1, 2, 3]) / [4, 5, 6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float64])
def test_bits_are_packed_and_taken_as_they_are(prepared, kind):
    bits = RNG.integers(0, 2, (N, 11)).astype(kind)
    data = prepared((bits, LABELS))
    assert (data.inputs.dtype, data.width) == (torch.uint8, 11) and data.inputs.shape == (N, 2)
    np.testing.assert_array_equal(batch(data), bits.astype(np.float32))
    numbers = prepared((bits, LABELS), mean=[0.5], std=[0.5])
    np.testing.assert_array_equal(batch(numbers), 2 * bits.astype(np.float32) - 1)


def test_images_are_standardised_by_channel_and_stay_bytes(prepared):
    data = prepared((IMAGES, LABELS), kind="image")
    mean, std = (getattr(IMAGES, what)(axis=(0, 2, 3), keepdims=True, dtype=np.float64) for what in ("mean", "std"))
    np.testing.assert_allclose(batch(data), (IMAGES - mean) / std, rtol=1e-5, atol=1e-5)
    assert data.inputs.dtype == torch.uint8
    grey = prepared((IMAGES[:, 0], LABELS), kind="image")
    assert grey.input_shape == (1, 5, 4)


def test_moments_of_more_than_one_part():
    inputs = RNG.normal(3.0, 2.0, (2500, 2, 3, 1)).astype(np.float32)
    mean, std = own.moments(inputs, scale=2.0)
    np.testing.assert_allclose(mean, inputs.mean(axis=(0, 2, 3), dtype=np.float64) / 2)
    np.testing.assert_allclose(std, inputs.std(axis=(0, 2, 3), dtype=np.float64) / 2)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "c", "a"], ["a", "b", "c"]),
        ([5, 7, 1], ["1", "5", "7"]),
        (["b", None, "a"], None),
        (["b", float("nan"), "a"], None),  # as pandas reads a gap among texts
        ([1.0, 2, 0.5], ""),
    ],
)
def test_labels_are_numbered_as_they_sort(prepared, labels, names):
    given = np.array(labels, object if isinstance(labels[0], str) else None)[LABELS]
    if names is None:
        with pytest.raises(DatasetError, match="mine: labels of 13 of 40 records are missing"):
            prepared((NUMBERS, given))
    else:
        data = prepared((NUMBERS, given))
        assert data.labels.tolist() == [sorted(labels).index(each) for each in given.tolist()]
        assert own.arrays(catalog.DATASETS["mine"], (NUMBERS, given))[2] == (names or ["0.5", "1.0", "2.0"])


def test_a_missing_label_of_pandas_own_type(prepared):
    labels = pd.array(["a", "b", None], dtype="string").take(LABELS)
    with pytest.raises(DatasetError, match="mine: labels of 13 of 40 records are missing"):
        prepared((NUMBERS, labels))


BAD = NUMBERS.copy()
BAD[3, 1] = np.nan


@pytest.mark.parametrize(
    ("found", "facts", "message"),
    [
        ((NUMBERS, LABELS), {"classes": 2}, "class 2 found (13 of 40 records), but mine has 2 classes from 0 on"),
        ((NUMBERS, LABELS - 1), {"classes": 3}, "class -1 found (14 of 40 records), but mine has 3 classes from 0 on"),
        ((BAD, LABELS), {}, "inputs of 1 of 40 records are no finite numbers; take these records or features out"),
        ((NUMBERS, 0 * LABELS), {}, "all records are of class 0; a classifier needs two or more"),
        ((NUMBERS, 0 * LABELS), {"classes": 2, "records": N}, "all records are of class 0; a classifier needs two or"),
        ((NUMBERS[:15], LABELS[:15]), {}, "15 records, but a split needs 16 or more"),
        ((NUMBERS, LABELS[1:]), {}, "inputs [40, 3], labels [39]"),
        ((NUMBERS[:, :0], LABELS), {}, "inputs have no features"),
        ((IMAGES, LABELS), {}, "inputs [40, 3, 5, 4], but those of a kind table are [n, features]"),
        ((NUMBERS, LABELS), {"kind": "image"}, "those of a kind image are [n, channels, height, width]"),
        (
            (IMAGES.transpose(0, 2, 3, 1)[..., :3], LABELS),
            {"kind": "image"},
            "have their channels last; give inputs.tra",
        ),
        ((NUMBERS.astype(str), LABELS), {}, "inputs are <U32; they must be uint8 or floats"),
        ((NUMBERS, LABELS), {"mean": [1, 2], "std": [1]}, "mean has 2 numbers; give one, or one for each of 3"),
        ((NUMBERS, LABELS), {"mean": [1], "std": [0]}, "std must be finite numbers above 0"),
        ((NUMBERS, LABELS), {"shape": (4,)}, "inputs [40, 3], labels [40], but mine has 40 records of [4]"),
        (None, {}, "give two arrays, inputs [n, ...] and labels [n]"),
    ],
)
def test_records_on_which_nothing_can_be_trained(prepared, found, facts, message, tmp_path):
    with pytest.raises(DatasetError) as caught:
        prepared(found, **facts)
    assert str(caught.value).startswith("mine: ") and message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_function_that_raises_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_lab.py").write_text(
        "from miaprune import dataset\n@dataset('mine', kind='table')\ndef f():\n    1/0"
    )
    extensions.run("my_lab.py")
    with pytest.raises(GridError, match=r"^my_lab.py, line 4: ZeroDivisionError: division by zero \(in mine\)$"):
        prepare("mine", tmp_path, tmp_path / "out")


def from_file(path, tmp_path, **block):
    catalog.DATASETS.pop("mine", None)
    extensions.register({"extensions": [], "own_datasets": {"mine": {"file": str(path), "kind": "table"} | block}})
    prepare("mine", tmp_path, tmp_path / "out")
    return load(tmp_path / "out")


def test_the_same_records_in_every_form_are_the_same_data_set(tmp_path):
    frame = pd.DataFrame(NUMBERS, columns=["a", "b", "c"]).assign(answer=np.array(["x", "y", "z"])[LABELS])
    frame.to_csv(tmp_path / "t.csv", index=False)
    numbers = {"inputs": NUMBERS, "labels": LABELS}
    np.savez(tmp_path / "t.npz", **numbers)
    save_file(numbers, tmp_path / "t.safetensors")
    found = [from_file(tmp_path / "t.csv", tmp_path, label="answer")]
    found += [from_file(tmp_path / f"t.{suffix}", tmp_path) for suffix in ("npz", "safetensors")]
    assert len({data.digest for data in found}) == 1
    images = {"inputs": IMAGES, "labels": LABELS}
    np.savez(tmp_path / "i.npz", **images)
    assert np.array_equal(from_file(tmp_path / "i.npz", tmp_path, kind="image").inputs, IMAGES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b\n1,2\n", "t.csv: has no column 'label', the last ones are a, b; say label: ..."),
        ("t.csv", "a,sex,label\n1,f,2\n", "t.csv: column 'sex' is no number; leave it out or code it by numbers"),
        ("t.csv", "label\n1\n", "t.csv: has no column beside 'label'"),
        ("t.csv", "", "t.csv: cannot be read as .csv (No columns to parse from file)"),
        ("t.npz", "no zip", "t.npz: cannot be read as .npz ("),
        ("t.safetensors", "nothing", "t.safetensors: cannot be read as .safetensors ("),
        ("no.csv", None, "no.csv: cannot be read as .csv ("),
    ],
)
def test_a_file_that_is_no_data_set(name, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError) as caught:
        from_file(name, tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_of_other_names_and_pickles(tmp_path):
    np.savez(tmp_path / "a.npz", X=NUMBERS, labels=LABELS)
    with pytest.raises(DatasetError, match=r"a.npz: has no array 'inputs', but X, labels; name two inputs and labels"):
        from_file(tmp_path / "a.npz", tmp_path)
    np.savez(tmp_path / "p.npz", inputs=NUMBERS.astype(object), labels=LABELS)
    with pytest.raises(DatasetError, match=r"p.npz: cannot be read as .npz \(Object arrays cannot be loaded"):
        from_file(tmp_path / "p.npz", tmp_path)


def test_parquet_without_what_reads_it(tmp_path, monkeypatch):
    def read_parquet(file):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", read_parquet)
    with pytest.raises(DatasetError, match=r"t.parquet: to read Parquet, pandas needs pyarrow; install"):
        from_file(tmp_path / "t.parquet", tmp_path)


# --- a part of another


def part(tmp_path, name, of, records):
    catalog.DATASETS.pop(name, None)
    catalog.subset(name, of, records)
    prepare(name, tmp_path, tmp_path / name / f"{name}.safetensors")
    return load(tmp_path / name / f"{name}.safetensors")


def test_a_part_has_records_of_the_whole_drawn_once(tmp_path):
    prepare("digits", tmp_path, tmp_path / "digits/digits.safetensors")
    whole, half, few = load(tmp_path / "digits/digits.safetensors"), *(part(tmp_path, n, "digits", k) for n, k in PARTS)
    drawn = np.sort(np.random.RandomState(0).permutation(1797)[:900])
    np.testing.assert_array_equal(half.inputs, whole.inputs[drawn])
    np.testing.assert_array_equal(half.labels, whole.labels[drawn])
    rows = {record.tobytes() for record in half.inputs.numpy()}
    assert {record.tobytes() for record in few.inputs.numpy()} <= rows, "a smaller part lies within a larger one"
    assert (half.name, half.classes, half.mean, half.std) == ("half", 10, whole.mean, whole.std)
    assert len({data.digest for data in (whole, half, few)}) == 3
    # Five standard errors of a draw without replacement.
    share, of_whole = half.labels.bincount() / 900, whole.labels.bincount() / 1797
    assert (share - of_whole).abs().max() < 5 * (0.1 * 0.9 / 900 * 0.5) ** 0.5


PARTS = (("half", 900), ("few", 100))


def test_a_part_of_packed_bits_and_of_an_own_data_set(tmp_path, prepared):
    bits = RNG.integers(0, 2, (N, 11), dtype=np.uint8)
    prepared((bits, LABELS))
    (tmp_path / "mine").mkdir()
    (tmp_path / "out").rename(tmp_path / "mine/mine.safetensors")
    data = part(tmp_path, "some", "mine", 20)
    drawn = np.sort(np.random.RandomState(0).permutation(N)[:20])
    np.testing.assert_array_equal(batch(data), bits[drawn].astype(np.float32))
    with pytest.raises(DatasetError, match="more: 50 records of mine, which has 40"):
        part(tmp_path, "more", "mine", 50)


def test_a_part_on_which_nothing_can_be_trained(tmp_path, prepared):
    drawn = np.random.RandomState(0).permutation(N)[:16]
    labels = np.ones(N, int)
    labels[drawn] = 0
    prepared((NUMBERS, labels))
    (tmp_path / "mine").mkdir()
    (tmp_path / "out").rename(tmp_path / "mine/mine.safetensors")
    with pytest.raises(DatasetError, match=r"^few: all records are of class 0; a classifier needs two or more"):
        part(tmp_path, "few", "mine", 16)
