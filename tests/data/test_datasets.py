import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from miaprune import files, grid
from miaprune.catalog import DATASETS
from miaprune.data import archives, datasets, readers
from miaprune.data.archives import ARCHIVES, Archive, DatasetError, check_archives
from miaprune.data.datasets import load, prepare

SHARED = Path(os.environ.get("MIAPRUNE_SHARED", Path(__file__).parents[3] / "shared"), "datasets")
TABLES = {"location": 446, "purchase": 600, "texas": 6_169}


def checksum(path, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, Path(path).read_bytes()).hexdigest()}"


def write_tar(path, members, compresslevel=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=compresslevel) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def csv(bits):
    return [",".join(map(str, row)).encode() for row in bits.tolist()]


def table_members(name, labels, bits):
    """The members of a table's published archive, with these records; labels are 1-based."""
    if name == "texas":
        feats = b"".join(row + b"\n" for row in csv(bits))
        return {"texas/100/feats": feats, "texas/100/labels": b"".join(b"%d\n" % y for y in labels)}
    label = b'"%d",' if name == "location" else b"%d,"
    lines = b"".join(label % y + row + b"\n" for y, row in zip(labels, csv(bits), strict=True))
    return {"bangkok" if name == "location" else "dataset_purchase": lines}


@pytest.fixture
def shrink(monkeypatch):
    """Let a dataset have few records, and an archive of another checksum than any file's."""

    def to(name, records, checksum="sha256:00", url="https://example.invalid/archive"):
        few = tuple(replace(a, checksum=checksum, url=url) for a in ARCHIVES[name])
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], records=records))
        monkeypatch.setitem(archives.ARCHIVES, name, few)

    return to


@pytest.fixture
def table(tmp_path, shrink):
    """Write a table's archive with these members; return what prepares and loads it."""

    def make(name, members, records=3):
        shrink(name, records)
        write_tar(tmp_path / name / ARCHIVES[name][0].name, members)

        def prepared():
            prepare(name, tmp_path, tmp_path / "out.safetensors", download=False)
            return load(tmp_path / "out.safetensors")

        return prepared

    return make


def random_bits(records, width, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (records, width), dtype=np.uint8)


def all_inputs(data):
    return data.batch(torch.arange(len(data)))


def test_names_are_the_grids():
    assert set(ARCHIVES) == set(DATASETS) - {"digits", "noisy_digits"}
    assert {n for n, entry in DATASETS.items() if entry.kind == "table"} == set(TABLES)
    assert all(name == entry.name for name, entry in DATASETS.items())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "records", "mean", "std"),
    [
        ("cifar10", (3, 32, 32), 10, 60_000, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("cifar100", (3, 32, 32), 100, 60_000, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("svhn", (3, 32, 32), 10, 99_289, (0.5,) * 3, (0.5,) * 3),
        ("chmnist", (3, 32, 32), 8, 5_000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("location", (446,), 30, 5_010, (), ()),
        ("purchase", (600,), 100, 197_324, (), ()),
        ("texas", (6_169,), 100, 67_330, (), ()),
    ],
)
def test_specs_are_the_methods(name, shape, classes, records, mean, std):
    spec = DATASETS[name]
    assert (spec.shape, spec.classes, spec.records) == (shape, classes, records)
    assert (spec.mean, spec.std) == (mean, std)


@pytest.mark.parametrize("name", TABLES)
def test_table_is_read_as_published(name, table):
    bits, labels = random_bits(3, TABLES[name]), [1, DATASETS[name].classes, 7]
    data = table(name, table_members(name, labels, bits))()
    assert (data.name, data.input_shape, data.classes) == (name, (TABLES[name],), DATASETS[name].classes)
    assert data.labels.tolist() == [y - 1 for y in labels] and data.labels.dtype == torch.int64
    assert all_inputs(data).dtype == torch.float32
    assert np.array_equal(all_inputs(data), bits)
    assert data.inputs.nbytes == 3 * -(-TABLES[name] // 8)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**31))
def test_packed_bits_come_back_in_any_width(width, records, seed):
    bits = random_bits(records, width, seed)
    unused = torch.tensor(1.0)
    packed = torch.from_numpy(np.packbits(bits, axis=1))
    data = datasets.Dataset("t", packed, torch.zeros(records, dtype=torch.long), 2, unused, unused, width)
    index = torch.randint(records, (5,), generator=torch.Generator().manual_seed(seed))
    assert np.array_equal(data.batch(index), bits[index])


def test_batch_trains_although_first_made_in_inference_mode():
    datasets._bits.cache_clear()
    unused = torch.tensor(1.0)
    data = datasets.Dataset("t", torch.tensor([[160]], dtype=torch.uint8), torch.tensor([0]), 2, unused, unused, 3)
    with torch.inference_mode():
        data.batch(torch.tensor([0]))
    layer = torch.nn.Linear(3, 1)
    layer(data.batch(torch.tensor([0]))).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (
            "location",
            lambda rows: [rows[0], b'"31"' + rows[1][3:]],
            "bangkok, line 2: label '31' is not in 1..30",
        ),
        ("location", lambda rows: [b'"0"' + rows[0][3:]], "bangkok, line 1: label '0' is not in 1..30"),
        ("location", lambda rows: [b"x" + rows[0][3:]], "bangkok, line 1: label 'x' is not in 1..30"),
        ("location", lambda rows: [rows[0], b"", rows[1]], "bangkok, line 2: label '' is not in 1..30"),
        ("location", lambda rows: [rows[0][:-2]], "line 1: 445 features, but location has 446"),
        ("location", lambda rows: [rows[0] + b",1"], "line 1: 447 features, but location has 446"),
        ("location", lambda rows: [rows[0][:-1] + b"2"], "line 1: feature 446 is '2', neither 0 nor 1"),
        ("location", lambda rows: [rows[0][:-2] + b";1"], "line 1: 445 features, but location has 446"),
        ("location", lambda rows: [rows[0][:-1]], "line 1: feature 446 is '', neither 0 nor 1"),
        ("location", lambda rows: [rows[0] + b".0"], r"line 1: feature 446 is '[01]\.0', neither 0 nor 1"),
        ("location", lambda rows: [rows[0][:-1] + b"/"], "line 1: feature 446 is '/', neither 0 nor 1"),
        ("location", lambda rows: rows[:2], r"inputs \[2, 446\].* location has 3 records"),
        ("location", lambda rows: [*rows, rows[0]], r"inputs \[4, 446\].* location has 3 records"),
        ("location", lambda rows: [], r"inputs \[0, 446\].* location has 3 records"),
    ],
)
def test_wrong_line_is_named(name, spoil, message, table):
    rows = table_members(name, [1, 2, 3], random_bits(3, TABLES[name]))["bangkok"].splitlines()
    with pytest.raises(DatasetError, match=message) as error:
        table(name, {"bangkok": b"".join(row + b"\n" for row in spoil(rows))})()
    assert "dataset_location.tgz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("member", "label"), [("texas/100/labels", "''"), ("texas/100/feats", "1 features")])
def test_texas_with_unequal_files(member, label, table):
    members = table_members("texas", [1, 2, 3], random_bits(3, 6_169))
    members[member] = b"".join(members[member].splitlines(keepends=True)[:2])
    with pytest.raises(DatasetError, match=f"labels and feats, line 3: .*{label}"):
        table("texas", members)()


def test_archive_without_its_member(table):
    with pytest.raises(DatasetError, match="not the published archive: no file 'bangkok' in it"):
        table("location", {"paris": b""})()


def test_member_that_links(shrink, tmp_path):
    shrink("purchase", 3)
    path = tmp_path / "purchase" / "dataset_purchase.tgz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("dataset_purchase")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DatasetError, match="no file 'dataset_purchase' in it"):
        check_archives("purchase", tmp_path)


@pytest.mark.parametrize("keep", [slice(0), slice(1), slice(-3_000), slice(-500), slice(-9), slice(-1)])
def test_truncated_archive(keep, table, tmp_path):
    table("purchase", table_members("purchase", np.full(20, 5), random_bits(20, 600)))
    path = tmp_path / "purchase" / "dataset_purchase.tgz"
    path.write_bytes(path.read_bytes()[keep])
    message = r"dataset_purchase\.tgz: (damaged archive|not the published archive).*download it again from"
    with pytest.raises(DatasetError, match=message):
        check_archives("purchase", tmp_path)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flipped=st.integers(0, 2**31))
def test_a_flipped_bit_of_an_archive_packed_anew(flipped, table, tmp_path):
    """Where the lines are valid still, gzip's checksum tells."""
    table("purchase", table_members("purchase", np.full(20, 5), random_bits(20, 600)))
    path = tmp_path / "purchase" / "dataset_purchase.tgz"
    content = bytearray(path.read_bytes())
    header = content.index(b"\0", 10) + 1  # with a time, a name and such: nothing depends on it
    place = header + flipped // 8 % (len(content) - header)
    content[place] ^= 1 << flipped % 8
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"damaged archive|not the published archive"):
        check_archives("purchase", tmp_path)


def test_wrong_checksum(tmp_path):
    """Where a record cannot be checked, only the published archive will do."""
    path = tmp_path / "chmnist" / ARCHIVES["chmnist"][0].name
    path.parent.mkdir()
    path.write_bytes(b"other")
    for call in (
        lambda: check_archives("chmnist", tmp_path),
        lambda: prepare("chmnist", tmp_path, tmp_path / "out"),
    ):
        with pytest.raises(
            DatasetError, match=r"checksum sha384:\w+ does not match sha384:7d86.*delete it and download"
        ):
            call()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_whatever_form_people_have_it(name, shrink, tmp_path):
    """As published, packed anew and unpacked, two ways each: the same records, and it is said what was checked."""
    bits, labels = random_bits(3, TABLES[name]), [1, DATASETS[name].classes, 7]
    members = table_members(name, labels, bits)
    archive = ARCHIVES[name][0].name
    forms = {
        "published": {},
        "dotted": {f"./{member}": text + b"\n" for member, text in members.items()},
        "in_folder": {
            f"my data/{member}": text.replace(b"\n", b"\r\n") + b"\r\n\n" for member, text in members.items()
        },
    }
    write_tar(tmp_path / "published" / name / archive, members)
    shrink(name, 3, checksum=git_name(tmp_path / "published" / name / archive))
    for form in ("dotted", "in_folder"):
        write_tar(tmp_path / form / name / archive, forms[form])
    for form in ("unpacked", "unpacked in a folder"):
        for member, text in members.items():
            path = Path(tmp_path, form, name, "" if form == "unpacked" else "texas", member)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
    checked = {}
    for form in (*forms, "unpacked", "unpacked in a folder"):
        check_archives(name, tmp_path / form)
        prepare(name, tmp_path / form, tmp_path / f"{form}.out", download=False)
        data = load(tmp_path / f"{form}.out")
        assert np.array_equal(all_inputs(data), bits) and data.labels.tolist() == [y - 1 for y in labels]
        (checked[form],) = files.load_metadata(tmp_path / f"{form}.out")["checked"]
    assert checked["published"] == f"{archive}: {ARCHIVES[name][0].checksum}"
    for form in ("dotted", "in_folder"):
        assert checked[form].startswith(f"{archive}: every line is valid; it is not the published file")
    assert checked["unpacked"].endswith(": every line is valid; the archive was not there")
    assert checked["unpacked"] == checked["unpacked in a folder"]


def test_a_line_of_an_unpacked_table_is_checked_too(shrink, tmp_path):
    shrink("location", 3)
    lines = table_members("location", [1, 2, 31], random_bits(3, 446))["bangkok"]
    (tmp_path / "location").mkdir()
    (tmp_path / "location" / "bangkok").write_bytes(lines)
    with pytest.raises(DatasetError, match=r"location: bangkok, line 3: label '31' is not in 1\.\.30"):
        prepare("location", tmp_path, tmp_path / "out", download=False)


def git_name(path):
    content = path.read_bytes()
    return f"git-sha1:{hashlib.sha1(b'blob %d' % len(content) + bytes(1) + content).hexdigest()}"


def test_gits_name_of_a_file(tmp_path):
    """The one that `git hash-object` gives of a file with the text hello."""
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert archives._hexdigest(tmp_path / "hello", "git-sha1") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_missing_archives_may_be_downloaded_later(tmp_path):
    for name in DATASETS:
        check_archives(name, tmp_path)


def test_missing_archive_says_where_to_get_it_and_where_to_put_it(tmp_path):
    with pytest.raises(DatasetError) as error:
        prepare("purchase", tmp_path, tmp_path / "out", download=False)
    path = tmp_path / "purchase" / "dataset_purchase.tgz"
    url = "https://github.com/privacytrustlab/datasets/raw/master/dataset_purchase.tgz"
    assert str(error.value) == (
        f"{path} is missing, and no folder there has dataset_purchase: get it from {url} and put it there"
    )


def test_unknown_name(tmp_path):
    for call in (
        lambda: check_archives("cifar", tmp_path),
        lambda: prepare("cifar", tmp_path, tmp_path / "out"),
    ):
        with pytest.raises(grid.GridError, match="did you mean 'cifar10'"):
            call()


def test_download(shrink, tmp_path):
    bits = random_bits(3, 446)
    source = tmp_path / "elsewhere.tgz"
    write_tar(source, table_members("location", [1, 2, 3], bits))
    shrink("location", 3, checksum=checksum(source), url=source.as_uri())
    prepare("location", tmp_path, tmp_path / "out")
    assert np.array_equal(all_inputs(load(tmp_path / "out")), bits)
    assert (tmp_path / "location" / "dataset_location.tgz").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("content", [None, b"<html>sign in</html>"])
def test_failed_download_leaves_nothing(content, shrink, tmp_path):
    source = tmp_path / "elsewhere.tgz"
    if content:
        source.write_bytes(content)
    shrink("location", 3, checksum="sha256:00", url=source.as_uri())
    reason = "does not match sha256:00" if content else "No such file"
    with pytest.raises(DatasetError, match=rf"is missing, .*: get it from .*\(download failed: .*{reason}"):
        prepare("location", tmp_path, tmp_path / "out")
    assert list((tmp_path / "location").iterdir()) == []


def noise_image(seed, size):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def write_images(path, images, kind):
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in images.items():
            buffer = io.BytesIO()
            image.save(buffer, kind)
            archive.writestr(name, buffer.getvalue())


def test_chmnist_is_resized_with_antialiasing(shrink, tmp_path):
    folder = "Kather_texture_2016_image_tiles_5000"
    images = {f"{folder}/0{i}_{c}/{c}_{i}.tif": noise_image(i, 150) for i, c in [(8, "EMPTY"), (1, "TUMOR")]}
    images[f"{folder}/01_TUMOR/zz.tif"] = Image.new("RGB", (150, 150), (10, 20, 30))
    path = tmp_path / "chmnist" / "Kather_texture_2016_image_tiles_5000.zip"
    write_images(path, images, "TIFF")
    shrink("chmnist", 3, checksum=checksum(path, "sha384"))
    prepare("chmnist", tmp_path, tmp_path / "out")
    data = load(tmp_path / "out")
    assert data.labels.tolist() == [0, 0, 1]
    assert data.input_shape == (3, 32, 32)
    assert data.inputs[1].flatten(1).unique(dim=1).tolist() == [[10], [20], [30]]
    # Antialiasing averages about 44 pixels of noise (deviation 74); plain bilinear would average at most 4.
    assert data.inputs[0].float().std() < 25


CHMNIST = ARCHIVES["chmnist"][0].name


def test_damaged_image_is_named(shrink, tmp_path):
    path = tmp_path / "chmnist" / CHMNIST
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("01_TUMOR/0000.tif", b"no image")
    shrink("chmnist", 1, checksum=checksum(path))
    with pytest.raises(DatasetError, match=r"01_TUMOR/0000\.tif: damaged"):
        prepare("chmnist", tmp_path, tmp_path / "out")


def test_empty_zip(shrink, tmp_path):
    path = tmp_path / "chmnist" / CHMNIST
    write_images(path, {}, "TIFF")
    shrink("chmnist", 1, checksum=checksum(path))
    with pytest.raises(DatasetError, match=r"no \.tif images"):
        prepare("chmnist", tmp_path, tmp_path / "out")


def cifar_members(name, release, table, train, protocol=2):
    """The files of a release of CIFAR, as their archive has them, with these records: uint8 [n, labels + 3072]."""
    labels = 1 if name == "cifar10" else 2
    folder = {
        ("cifar10", "python"): "cifar-10-batches-py",
        ("cifar10", "binary"): "cifar-10-batches-bin",
        ("cifar100", "python"): "cifar-100-python",
        ("cifar100", "binary"): "cifar-100-binary",
    }[name, release]
    names = [f"data_batch_{i}" for i in range(1, 6)] if name == "cifar10" else ["train"]
    parts = [*np.split(table[:train], len(names)), table[train:]]
    members = {f"{folder}/readme.html": b"<html>"}
    for batch, rows in zip([*names, "test_batch" if name == "cifar10" else "test"], parts, strict=True):
        if release == "binary":
            members[f"{folder}/{batch}.bin"] = rows.tobytes()
            continue
        keys = ["labels"] if labels == 1 else ["coarse_labels", "fine_labels"]
        facts = {key: rows[:, i].tolist() for i, key in enumerate(keys)}
        facts |= {"batch_label": batch, "data": np.ascontiguousarray(rows[:, labels:])}
        members[f"{folder}/{batch}"] = pickle.dumps(facts, protocol)
    return members


def tell_records(monkeypatch, name, table, train):
    """Let these records be the published ones."""
    (archive,) = ARCHIVES[name]
    records = tuple(hashlib.sha256(part.tobytes()).hexdigest() for part in (table[:train], table[train:]))
    few = replace(archive, records=records, instead=replace(archive.instead, records=records))
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], records=len(table)))
    monkeypatch.setitem(archives.ARCHIVES, name, (few,))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_every_form_of_cifar_prepares_the_same_bytes(name, tmp_path, monkeypatch):
    labels = 1 if name == "cifar10" else 2
    table = np.random.default_rng(0).integers(0, 256, (12, labels + 3_072), dtype=np.uint8)
    table[:, :labels] = np.random.default_rng(1).integers(0, 10, (12, labels))
    tell_records(monkeypatch, name, table, train=10)
    seen = {}
    for release, protocol in (("binary", 0), ("python", 2), ("python", 5)):
        members = cifar_members(name, release, table, 10, protocol)
        for form in ("archive", "folder"):
            place = tmp_path / f"{release}{protocol}_{form}"
            if form == "archive":
                turned = dict(reversed(members.items()))  # in no order, as in the published ones
                write_tar(place / name / f"cifar-{name.removeprefix('cifar')}-{release}.tar.gz", turned)
            else:
                for member, content in members.items():
                    (place / name / member).parent.mkdir(parents=True, exist_ok=True)
                    (place / name / member).write_bytes(content)
            check_archives(name, place)
            prepare(name, place, place / "out", download=False)
            seen[place.name] = (place / "out").read_bytes()
    assert len(seen) == 6 and len(set(seen.values())) == 1
    data = load(tmp_path / "binary0_folder" / "out")
    assert data.labels.tolist() == table[:, labels - 1].tolist()
    assert np.array_equal(data.inputs.flatten(1), table[:, labels:])
    (checked,) = files.load_metadata(tmp_path / "binary0_folder" / "out")["checked"]
    assert checked == "all records: " + ", ".join(f"sha256:{r}" for r in ARCHIVES[name][0].records)


@pytest.mark.parametrize("release", ["binary", "python"])
def test_a_changed_record_of_cifar_is_refused(release, tmp_path, monkeypatch):
    table = np.zeros((12, 3_073), np.uint8)
    tell_records(monkeypatch, "cifar10", table, train=10)
    table[11, 5] = 1
    archive = tmp_path / "cifar10" / f"cifar-10-{release}.tar.gz"
    write_tar(archive, cifar_members("cifar10", release, table, 10))
    with pytest.raises(DatasetError, match=r"tar\.gz: the test records have SHA-256 \w+, but those published have"):
        prepare("cifar10", tmp_path, tmp_path / "out", download=False)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_calls_nothing(tmp_path):
    assert pickle.loads(pickle.dumps(Harmful(tmp_path / "called"))) is None and (tmp_path / "called").exists()
    (tmp_path / "called").unlink()
    table = np.zeros((12, 3_073), np.uint8)
    members = cifar_members("cifar10", "python", table, 10)
    facts = {"labels": [0, 0], "data": table[:2, 1:], "more": Harmful(tmp_path / "called")}
    members["cifar-10-batches-py/data_batch_3"] = pickle.dumps(facts)
    write_tar(tmp_path / "cifar10" / "cifar-10-python.tar.gz", members)
    with pytest.raises(DatasetError, match=r"data_batch_3: no batch of the Python release \(it calls pathlib"):
        prepare("cifar10", tmp_path, tmp_path / "out", download=False)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "exec", "__import__"])
def test_no_builtin_but_bytes_is_called(name):
    with pytest.raises(pickle.UnpicklingError, match=f"it calls builtins.{name}"):
        readers._Unpickler(io.BytesIO(f"cbuiltins\n{name}\n.".encode())).load()


@pytest.mark.parametrize("content", [b"", b"\x80", b"no pickle", pickle.dumps([1]), pickle.dumps({"labels": [1]})])
def test_a_damaged_batch_is_named(content, tmp_path):
    members = cifar_members("cifar100", "python", np.zeros((3, 3_074), np.uint8), 2) | {
        "cifar-100-python/test": content
    }
    write_tar(tmp_path / "cifar100" / "cifar-100-python.tar.gz", members)
    with pytest.raises(DatasetError, match=r"cifar-100-python\.tar\.gz: test: no batch of the Python release"):
        prepare("cifar100", tmp_path, tmp_path / "out", download=False)


def test_an_incomplete_folder_is_none(tmp_path):
    """It is not taken; the archive is asked for."""
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"missing, and no folder there has data_batch_1, .*, test_batch: get"):
        prepare("cifar10", tmp_path, tmp_path / "out", download=False)


def test_svhn_is_train_then_test(shrink, tmp_path, monkeypatch):
    """Official-format .mat files: images last, and the digit 0 labelled 10."""
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = np.array([1, 10, 9, 10, 2])
    folder = tmp_path / "svhn"
    folder.mkdir()
    parts, few = {}, []
    for archive, part in zip(ARCHIVES["svhn"], (slice(0, 3), slice(3, 5)), strict=True):
        path = folder / archive.name
        scipy.io.savemat(path, {"X": images[part].transpose(2, 3, 1, 0), "y": labels[part, None]})
        few.append(replace(archive, checksum=checksum(path, "md5")))
        parts[archive.name[: -len("_32x32.mat")]] = ["", archive.name, few[-1].checksum[len("md5:") :]]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", parts)
    monkeypatch.setitem(DATASETS, "svhn", replace(DATASETS["svhn"], records=5))
    monkeypatch.setitem(ARCHIVES, "svhn", tuple(few))
    prepare("svhn", tmp_path, tmp_path / "out", download=False)
    data = load(tmp_path / "out")
    assert data.labels.tolist() == [1, 0, 9, 0, 2]
    assert np.array_equal(data.inputs, images)


def test_archives_are_the_ones_torchvision_reads():
    for name, official in [
        ("cifar10", torchvision.datasets.CIFAR10),
        ("cifar100", torchvision.datasets.CIFAR100),
    ]:
        (archive,) = ARCHIVES[name]
        assert (archive.name, archive.checksum) == (official.filename, f"md5:{official.tgz_md5}")
        assert archive.url == official.url
        assert list(archive.members) == [batch for batch, _ in official.train_list + official.test_list]
    for archive, split in zip(ARCHIVES["svhn"], ("train", "test"), strict=True):
        url, file, md5 = torchvision.datasets.SVHN.split_list[split]
        assert archive == Archive(file, f"md5:{md5}", url)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    prepare("digits", path.parent, path)
    return path


def test_digits(digits):
    from sklearn.datasets import load_digits

    data, (values, labels) = load(digits), load_digits(return_X_y=True)
    assert (len(data), data.input_shape, data.classes) == (1_797, (1, 8, 8), 10)
    assert np.array_equal(all_inputs(data).flatten(1), (values / 16).astype(np.float32))
    assert np.array_equal(data.labels, labels)


def test_same_bytes_every_time(digits, tmp_path):
    prepare("digits", tmp_path, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == digits.read_bytes()


@pytest.mark.parametrize("name", ["cifar10", "svhn", "chmnist"])
def test_normalisation_is_torchvisions(name, tmp_path, monkeypatch):
    from torchvision.transforms.v2 import functional

    raw = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    spec = DATASETS[name]
    monkeypatch.delitem(ARCHIVES, name)
    small = replace(spec, records=4, source=lambda: (raw, np.arange(4)))
    monkeypatch.setitem(DATASETS, name, small)
    prepare(name, tmp_path, tmp_path / "out")
    index = torch.tensor([2, 0, 2])
    expected = functional.normalize(torch.from_numpy(raw)[index] / 255, list(spec.mean), list(spec.std))
    torch.testing.assert_close(load(tmp_path / "out").batch(index), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("label", "classes", "message"),
    [
        (10, 10, r"digits: class 10 found \(1 of 2 records\), but digits has 10 classes"),
        (-1, 10, r"digits: class -1 found \(1 of 2 records\), but digits has 10 classes"),
        (1.5, 10, "digits: labels are float64; they must be integers"),
        (300, 300, r"digits: class 300 found \(1 of 2 records\), but digits has 300 classes"),
    ],
)
def test_class_that_there_is_not(label, classes, message, tmp_path, monkeypatch):
    def read():
        return np.zeros((2, 1, 8, 8), np.uint8), np.array([9, label])

    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], records=2, source=read, classes=classes))
    with pytest.raises(DatasetError, match=message):
        prepare("digits", tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_more_than_256_classes_are_kept(tmp_path, monkeypatch):
    labels = np.arange(300)
    read = lambda: (np.zeros((300, 1, 8, 8), np.uint8), labels)  # noqa: E731
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], records=300, classes=300, source=read))
    prepare("digits", tmp_path, tmp_path / "out")
    data = load(tmp_path / "out")
    assert data.labels.dtype == torch.int64 and data.labels.tolist() == labels.tolist()


GOOD = {
    "name": "mine",
    "inputs": torch.zeros(2000, 3),
    "labels": torch.arange(2000) % 4,
    "classes": 4,
    "mean": torch.zeros(3),
    "std": torch.ones(3),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.eye(4)[GOOD["labels"]]}, r"inputs \[2000, 3\], labels \[2000, 4\]; give .* one label"),
        ({"labels": GOOD["labels"][:-1]}, r"inputs \[2000, 3\], labels \[1999\]; give .* for each record, one label"),
        ({"labels": GOOD["labels"].float()}, "labels are float32; they must be integers from 0 on"),
        ({"labels": GOOD["labels"] + 1}, r"class 4 found \(500 of 2000 records\), but mine has 4 classes from 0 on"),
        ({"labels": GOOD["labels"] - 1}, r"class -1 found \(500 of 2000 records\), but mine has 4 classes from 0 on"),
        ({"inputs": torch.full((2000, 3), torch.nan)}, "inputs of 2000 of 2000 records are no finite numbers"),
        ({"inputs": torch.full((2000, 3), torch.inf).bfloat16()}, "inputs of 2000 of 2000 records are no finite"),
        ({"inputs": torch.zeros(2000)}, r"inputs \[2000\], labels \[2000\]; give inputs \[n, ...\]"),
        ({"inputs": torch.zeros(0, 3), "labels": torch.zeros(0)}, "there are no records"),
        ({"inputs": torch.zeros(2000, 3, dtype=torch.complex64)}, "inputs are complex64; they must be"),
        ({"std": torch.tensor([1.0, 0.0, 1.0])}, "mean and std must be finite numbers and std above 0"),
        ({"mean": torch.tensor([1.0, torch.nan, 1.0])}, "mean and std must be finite numbers and std above 0"),
        ({"inputs": np.zeros((2000, 3))}, "inputs is ndarray; it must be a tensor, such as torch.as_tensor makes"),
        ({"labels": GOOD["labels"].numpy()}, "labels is ndarray; it must be a tensor"),
        ({"mean": 0.0}, "mean is float; it must be a tensor"),
        ({"std": [1.0, 1.0, 1.0]}, "std is list; it must be a tensor"),
        ({"classes": 4.0}, r"classes is 4\.0; it must be an integer"),
        ({"labels": GOOD["labels"].bfloat16()}, "labels are bfloat16; they must be integers from 0 on"),
        (
            {"mean": torch.zeros(2)},
            r"mean \[2\], std \[3\], each input \[3\]; give mean and std of shape \(3,\) or \(\)",
        ),
        (
            {"inputs": torch.zeros(2000, 3, 32, 32)},
            r"mean \[3\], std \[3\], each input \[3, 32, 32\]; give mean and std of shape \(3, 1, 1\) or \(\)",
        ),
        (
            {"inputs": torch.zeros(2000, 1, 8, 8), "mean": torch.zeros(3, 1, 1), "std": torch.tensor(1.0)},
            r"mean \[3, 1, 1\], std \[\], each input \[1, 8, 8\]; give mean and std of shape \(1, 1, 1\) or \(\)",
        ),
        ({"width": 20}, r"20 features packed eight to the byte are uint8 \[2000, 3\]"),
        (
            {"inputs": torch.zeros(2000, 3, dtype=torch.uint8), "width": 30},
            r"30 features packed eight to the byte are uint8 \[2000, 4\]",
        ),
    ],
)
def test_a_data_set_of_ones_own_is_checked_as_it_is_made(change, message):
    datasets.Dataset(**GOOD)
    with pytest.raises(ValueError, match=f"^mine: {message}"):
        datasets.Dataset(**GOOD | change)


def test_images_are_normalised_by_one_number_or_one_a_channel():
    for shape in ((), (3, 1, 1), (1, 1, 1), (3, 4, 4)):
        change = {"inputs": torch.ones(2000, 3, 4, 4), "mean": torch.ones(shape), "classes": np.int64(4)}
        assert not datasets.Dataset(**GOOD | change | {"std": torch.ones(shape)}).batch(torch.tensor([5])).any()


def test_a_single_record_that_is_no_number_is_counted():
    inputs = torch.zeros(2000, 3)
    inputs[[3, 1500], 1] = torch.nan
    with pytest.raises(ValueError, match="inputs of 2 of 2000 records"):
        datasets.Dataset(**GOOD | {"inputs": inputs})


def test_labels_of_any_integers_are_taken_as_the_loop_takes_them():
    for kind in (torch.uint8, torch.int32, torch.uint16):
        data = datasets.Dataset(**GOOD | {"labels": GOOD["labels"].to(kind)})
        assert data.labels.dtype == torch.int64 and data.labels.tolist() == GOOD["labels"].tolist()


def test_tensors_without_values_are_checked_by_shape():
    meta = {key: value.to("meta") for key, value in GOOD.items() if isinstance(value, torch.Tensor)}
    assert len(datasets.Dataset(**GOOD | meta)) == 2000
    with pytest.raises(ValueError, match="one label"):
        datasets.Dataset(**GOOD | meta | {"labels": meta["labels"][:-1]})
    with pytest.raises(ValueError, match=r"of shape \(3, 1, 1\)"):
        datasets.Dataset(**GOOD | meta | {"inputs": torch.zeros(2000, 3, 4, 4, device="meta")})


def test_what_was_checked_is_not_checked_again(digits, monkeypatch):
    """Loading and moving are as quick as without."""
    monkeypatch.setattr(datasets, "_fault", lambda *_: pytest.fail("checked again"))
    load(digits).to("meta")


def test_to_moves_every_tensor(digits):
    data = load(digits).to("meta")
    assert {t.device.type for t in vars(data).values() if isinstance(t, torch.Tensor)} == {"meta"}


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_prepared_file(keep, digits, tmp_path):
    path = tmp_path / "short.safetensors"
    path.write_bytes(digits.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"short\.safetensors: damaged .*delete it and run again$"):
        load(path)


def test_foreign_prepared_file(tmp_path):
    path = tmp_path / "victim.safetensors"
    files.save_tensors(path, {"weight": torch.zeros(2)}, {"epoch": 3})
    with pytest.raises(DatasetError, match=r"victim\.safetensors: not a dataset prepared by this version"):
        load(path)
    with pytest.raises(DatasetError, match="absent"):
        load(tmp_path / "absent")


def real(name):
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=f"{name} is not in MIAPRUNE_SHARED/datasets")


@real("dataset_location.tgz")
def test_real_location(tmp_path):
    archive = tmp_path / "location" / "dataset_location.tgz"
    archive.parent.mkdir()
    shutil.copy(SHARED / archive.name, archive)
    check_archives("location", tmp_path)
    prepare("location", tmp_path, tmp_path / "out", download=False)
    data = load(tmp_path / "out")
    with tarfile.open(archive) as tar:
        plain = np.genfromtxt(io.StringIO(tar.extractfile("bangkok").read().decode().replace('"', "")), delimiter=",")
    assert len(data) == 5_010 and data.input_shape == (446,)
    assert data.labels.unique().tolist() == list(range(30))
    assert np.array_equal(data.labels + 1, plain[:, 0])
    assert np.array_equal(all_inputs(data), plain[:, 1:])


@real("cifar10")
def test_real_cifar10(tmp_path):
    """All 60 000 records, unpacked from the binary release and packed as the Python one."""
    subprocess.run([sys.executable, SHARED / "unpack.py", "cifar10", tmp_path / "bin" / "cifar10", "bin"], check=True)
    prepare("cifar10", tmp_path / "bin", tmp_path / "from_bin", download=False)
    data = load(tmp_path / "from_bin")
    assert data.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert data.labels[50_000:50_010].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert data.labels.bincount().tolist() == [6_000] * 10
    means = data.inputs[:50_000].sum((0, 2, 3)) / (50_000 * 32 * 32 * 255)
    torch.testing.assert_close(means, torch.tensor(DATASETS["cifar10"].mean), rtol=0, atol=1e-4)
    table = np.column_stack([data.labels.numpy().astype(np.uint8), data.inputs.flatten(1).numpy()])
    write_tar(
        tmp_path / "py" / "cifar10" / "cifar-10-python.tar.gz",
        cifar_members("cifar10", "python", table, 50_000),
        compresslevel=0,
    )
    prepare("cifar10", tmp_path / "py", tmp_path / "from_py", download=False)
    assert checksum(tmp_path / "from_py") == checksum(tmp_path / "from_bin")
