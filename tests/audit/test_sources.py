"""The four formats say the same, and what no attack can take is one line."""

import pickle

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from miaprune.audit import formats, of_logits, of_posteriors, references, sources
from miaprune.files import FileError
from miaprune.margins import of_logits as margins_of_logits

N, C, K = 50, 4, 3


def said(seed=0):
    """Logits, labels and members of N records, and logits and members of K references."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(K + 1, N, C)).astype("f4")
    return logits[0], rng.integers(0, C, N), rng.random(N) < 0.5, logits[1:], rng.random((K, N)) < 0.5


def softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def table(kind, outputs, labels, members, **columns):
    stem = formats.COLUMNS[kind]
    names = {f"{stem}{c}": outputs[:, c] for c in range(outputs.shape[1])}
    return pd.DataFrame({"label": labels, "member": members, **names, **columns})


def write(path, kind, outputs, labels, members):
    arrays = {kind: outputs, "labels": labels, "members": members}
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    else:
        if outputs.ndim == 3:
            rows = outputs.shape[0] * outputs.shape[1]
            outputs, members = outputs.reshape(rows, -1), members.reshape(-1)
            frame = table(kind, outputs, np.resize(labels, rows), members)
            frame["reference"] = np.arange(rows) // len(labels)
        else:
            frame = table(kind, outputs, labels, members)
        if path.suffix == ".parquet":
            pytest.importorskip("pyarrow")
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("piece", [7 * C, 10**6])
@pytest.mark.parametrize("kind", ["logits", "posteriors"])
@pytest.mark.parametrize("suffix", formats.FORMATS)
def test_all_formats_say_the_same(tmp_path, monkeypatch, suffix, kind, piece):
    monkeypatch.setattr(formats, "PIECE", piece)
    logits, labels, members, of_references, theirs = said()
    outputs = logits if kind == "logits" else softmax(logits)
    plain = (of_logits if kind == "logits" else of_posteriors)(outputs, labels, members)
    read = sources.read_version(write(tmp_path / f"version{suffix}", kind, outputs, labels, members))
    np.testing.assert_allclose(read.signals.posteriors, softmax(logits), atol=1e-6)
    np.testing.assert_allclose(read.margins, plain.margins, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(read.signals.labels, labels)
    np.testing.assert_array_equal(read.signals.members, members)
    assert read.source["file"] == f"version{suffix}"
    told = of_references if kind == "logits" else softmax(of_references)
    path = write(tmp_path / f"references{suffix}", kind, told, labels, theirs)
    found, expected = sources.read_references(path, labels), references(told, labels, theirs, kind)
    np.testing.assert_allclose(found.margins, expected.margins, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.members, theirs)


def test_margins_are_the_library_s():
    torch = pytest.importorskip("torch")
    logits, labels, members, _, _ = said()
    expected = margins_of_logits(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(of_logits(logits, labels, members).margins, expected, atol=1e-5)
    np.testing.assert_allclose(of_posteriors(softmax(logits), labels, members).margins, expected, atol=1e-5)


@pytest.mark.parametrize("reads", [of_logits, of_posteriors])
def test_half_precision_loses_no_more_than_it_has(reads):
    """A posterior of logits within float16's 1/2048 of 1 is not 1."""
    logits = np.tile(np.array([[9.0, 0.0, -1.0], [4.0, 1.0, 0.0]], "f2"), (10, 1))
    said = logits if reads is of_logits else softmax(logits.astype("f4")).astype("f2")
    labels, members = np.zeros(20, int), np.arange(20) % 2 == 0
    half, single = (reads(said.astype(kind), labels, members) for kind in ("f2", "f4"))
    np.testing.assert_array_equal(half.signals.posteriors, single.signals.posteriors)
    np.testing.assert_array_equal(half.margins, single.margins)


def test_arrays_in_fortran_order_and_of_other_types_are_read(tmp_path):
    logits, labels, members, _, _ = said()
    path = tmp_path / "version.npz"
    np.savez(
        path, logits=np.asfortranarray(logits.astype("f8")), labels=labels.astype("u1"), members=members.astype(int)
    )
    np.testing.assert_allclose(sources.read_version(path).signals.posteriors, softmax(logits), atol=1e-6)


def test_sensitivities_are_read(tmp_path):
    logits, labels, members, _, _ = said()
    sensitivities = np.abs(logits)
    np.savez(tmp_path / "version.npz", logits=logits, labels=labels, members=members, sensitivities=sensitivities)
    frame = table("logits", logits, labels, members, **{f"sensitivity{c}": sensitivities[:, c] for c in range(C)})
    frame.to_csv(tmp_path / "version.csv", index=False)
    for suffix in ("npz", "csv"):
        read = sources.read_version(tmp_path / f"version.{suffix}")
        np.testing.assert_allclose(read.signals.sensitivities, sensitivities, rtol=1e-6)


def changed(**values):
    """A well-formed file's arrays, some changed."""
    logits, labels, members, _, _ = said()
    arrays = {"posteriors": softmax(logits), "labels": labels, "members": members}
    for name, value in values.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value(arrays[name]) if callable(value) else value
    return arrays


def with_nan(posteriors):
    posteriors = posteriors.copy()
    posteriors[7, 2] = np.nan
    return posteriors


BAD = {
    "posteriors that sum to 2": (changed(posteriors=lambda p: 2 * p), "record 0: posteriors .* the sum 2;"),
    "logits called posteriors": (changed(posteriors=said()[0]), "are they logits"),
    "posteriors called logits": (
        changed(posteriors=None) | {"logits": softmax(said()[0])},
        "sum to 1 in record 0 .* name them posteriors",
    ),
    "NaN": (changed(posteriors=with_nan), "record 7: posteriors with NaN"),
    "another n of labels": (changed(labels=lambda x: x[:-1]), r"labels \[49\] do not fit posteriors \[50, 4\]"),
    "another n of members": (changed(members=lambda x: x[:-1]), r"members \[49\] do not fit"),
    "all members": (changed(members=np.ones(N, bool)), "50 members and 0 non-members"),
    "no members": (changed(members=None), "no array members"),
    "no outputs": (changed(posteriors=None), "no array logits or posteriors"),
    "no labels": (changed(labels=None), "no array labels"),
    "float labels": (changed(labels=lambda x: x.astype(float)), "labels are float64"),
    "labels from 1": (changed(labels=lambda x: x + 1), "label 4; with 4 classes .* counted from 1"),
    "a label that is no class": (changed(labels=lambda x: x + 9), "with 4 classes they are 0 to 3"),
    "one class": (changed(posteriors=np.ones((N, 1)), labels=np.zeros(N, int)), "of 1 class"),
    "one probability a record": (changed(posteriors=np.full(N, 0.5)), "give both classes"),
    "no records": (
        changed(posteriors=np.empty((0, 4)), labels=np.empty(0, int), members=np.empty(0, bool)),
        "no records",
    ),
    "members that are numbers": (changed(members=np.full(N, 2)), "members are int64 and not only 0 and 1"),
    "whole numbers": (changed(posteriors=np.eye(4, dtype=int)[np.zeros(N, int)]), "posteriors are int64"),
    "logits and posteriors": (changed() | {"logits": np.zeros((N, C))}, "one of the two"),
    "Python objects": (changed(labels=lambda x: x.astype(object)), "a pickle, which is never read"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_attack_can_take_is_one_line(tmp_path, case):
    arrays, expected = BAD[case]
    path = tmp_path / "version.npz"
    np.savez(path, **arrays)
    with pytest.raises(FileError, match=expected) as error:
        sources.read_version(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def as_csv(**columns):
    logits, labels, members, _, _ = said()
    frame = table("posteriors", softmax(logits), labels, members).astype({"member": object})
    for name, value in columns.items():
        frame = frame.drop(columns=name) if value is None else frame.assign(**{name: value})
    return frame.to_csv(index=False)


BAD_TABLES = {
    "no column label": (as_csv(label=None), "no column label; it needs label, member and p0"),
    "no column member": (as_csv(member=None), "no column member"),
    "no posteriors": (as_csv(**{f"p{c}": None for c in range(C)}), "no column p0, p1"),
    "a class is missing": (as_csv(p1=None), "no column p1, but p3"),
    "text for numbers": (as_csv(p1=["x"] * N), "row 0: p1 is 'x'; it must be a number"),
    "text for labels": (as_csv(label=["cat"] * N), "row 0: label is 'cat'"),
    "float labels": (as_csv(label=np.full(N, 0.5)), "labels are float64"),
    "a label is missing": (as_csv(label=[None] + [0] * (N - 1)), "row 0: no label"),
    "a posterior is missing": (as_csv(p1=[None] + [0.0] * (N - 1)), "record 0: posteriors with NaN"),
    "members are yes and no": (as_csv(member=["yes"] * N), "row 0: member is 'yes'"),
    "two columns of a name": (as_csv().replace("p1", "p0", 1), "two columns p0"),
    "only a header": (as_csv().splitlines()[0], "no records"),
    "no table": ("a,b\n1,2,3\n4,5,6,7\n", "no column p0"),
    "no text": (b"\xff\xfe\x00\x01\xf0", "can't decode byte"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_no_attack_can_take_is_one_line(tmp_path, case):
    text, expected = BAD_TABLES[case]
    path = tmp_path / "version.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError, match=expected) as error:
        sources.read_version(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_header_of_128_bytes_makes_no_pickle(tmp_path):
    logits, labels, members, _, _ = said()
    path, arrays = tmp_path / "v.safetensors", {"logits": logits, "labels": labels, "members": members}
    for length in range(1500):
        save_file(arrays, path, {"note": "x" * length})
        if path.read_bytes()[0] == 0x80:
            break
    assert b"\x80" <= path.read_bytes()[:2] < b"\x80\x06", "as a pickle begins"
    np.testing.assert_allclose(sources.read_version(path).signals.posteriors, softmax(logits), atol=1e-6)


class Code:
    """A pickle that, read, would run code."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("version.pkl", pickle.dumps([1]), "never read"),
        ("model.pt", b"PK", "never read"),
        ("version.npz", pickle.dumps(Code()), "a pickle, which is never read"),
        ("version.csv", b"", "empty"),
        ("version.npz", b"", "empty"),
        ("version.npz", b"no zip", "not a zip file"),
        ("version.safetensors", b"no tensors at all", "header"),
        ("version.txt", b"x", "a format that is never read"),
        ("version.json", b"{}", "save what the model said as"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError, match=expected) as error:
        sources.read_version(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_path_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        sources.read_version(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileError, match="a folder"):
        sources.read_version(tmp_path / "folder.npz")


def test_a_truncated_file_is_one_line(tmp_path):
    for suffix in (".npz", ".safetensors"):
        path = write(tmp_path / f"version{suffix}", "logits", *said()[:3])
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(FileError) as error:
            sources.read_version(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_every_damaged_byte_is_one_line_or_harmless(tmp_path):
    path = write(tmp_path / "version.npz", "logits", *said()[:3])
    whole = path.read_bytes()
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            sources.read_version(path)
        except FileError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"logits": lambda x: x[:, :-1], "members": lambda x: x[:, :-1]},
            r"logits \[3, 49, 4\]; they must be \[K, 50, C\]",
        ),
        ({"members": lambda x: x[0]}, r"members \[50\] do not fit logits \[3, 50, 4\]"),
        ({"logits": lambda x: x[0]}, r"they must be \[K, 50, C\]"),
        ({"labels": lambda x: (x + 1) % C}, "record 0 of reference 0: label"),
        ({"logits": lambda x: x * np.nan}, "record 0: logits with NaN"),
    ],
)
def test_references_that_do_not_fit_are_one_line(tmp_path, changes, expected):
    _, labels, _, logits, members = said()
    arrays = {"logits": logits, "labels": labels, "members": members}
    arrays |= {name: change(arrays[name]) for name, change in changes.items()}
    if len(arrays["labels"]) != arrays["logits"].shape[-2]:
        del arrays["labels"]
    np.savez(tmp_path / "references.npz", **arrays)
    with pytest.raises(FileError, match=expected):
        sources.read_references(tmp_path / "references.npz", labels)


def test_references_in_a_table_come_one_after_the_other(tmp_path):
    _, labels, _, logits, members = said()
    path = write(tmp_path / "references.csv", "logits", logits, labels, members)
    frame = pd.read_csv(path).sort_values(["label", "reference"], kind="stable")
    frame.to_csv(path, index=False)
    with pytest.raises(FileError, match=r"one reference after the other|but the versions have"):
        sources.read_references(path, labels)
