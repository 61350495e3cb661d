"""Users' files: what they register works like what is built in, and what is wrong with one is said in one line."""

import re
import textwrap

import numpy as np
import pytest
import torch
from synthetic import make_signals
from torch import nn

from miaprune import catalog, extensions, grid
from miaprune.attacks import attack
from miaprune.grid import GridError, Setting
from miaprune.margins import Margins
from miaprune.networks import models, pruning
from miaprune.training import defenses

pytestmark = pytest.mark.usefixtures("catalogue")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Write ``my_lab.py`` and run it as an extension."""
    monkeypatch.chdir(tmp_path)

    def run(text, path="my_lab.py"):
        (tmp_path / path).write_text("from miaprune import *\n" + textwrap.dedent(text))
        extensions.run(path)

    return run


def refused(call, *arguments):
    with pytest.raises(GridError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the file


def test_a_name_of_every_kind_is_the_grids(lab):
    lab("""
        dataset("wards", kind="table", classes=4)(lambda: None)
        model("mlp3", takes=["wards", "location"])(lambda classes: None)
        pruner("movement", prunes=["mlp3", "fc"])(lambda model: None)
        defense("smooth")(lambda strength: None)
    """)
    path = "wards/mlp3/movement_0.7/smooth_4"
    assert Setting.parse(path).path == path
    assert Setting.parse("location/mlp3/l1_0.7") and Setting.parse("wards/fc/l1_0.7")
    assert "movement does not apply to model cnn; use l1, l1_structured" in refused(
        Setting.parse, "digits/cnn/movement_0.5"
    )
    assert "model mlp3 does not take purchase; use fc" in refused(Setting.parse, "purchase/mlp3/l1_0.7")
    assert "does not apply to model mlp3" in refused(Setting.parse, "wards/mlp3/slim_0.7"), "it takes tables alone"
    block = {"datasets": ["wards"], "models": ["mlp3", "fc"], "pruners": ["movement", "slim"], "sparsities": [0.5]}
    assert [s.path for s in grid.pruned(block)] == ["wards/mlp3/movement_0.5", "wards/fc/movement_0.5"]


def test_a_file_is_run_once_until_it_changes(lab, tmp_path):
    text = 'open("runs", "a").write("x")\nmodel("mlp3", takes=["table"])(lambda: {})\n'
    lab(text.format(1))
    lab(text.format(1))
    assert (tmp_path / "runs").read_text() == "x"
    before = catalog.MODELS["mlp3"].extension
    lab(text.format(2) + 'model("mlp4", takes=["table"])(lambda: 2)')
    assert catalog.MODELS["mlp3"].extension != before and "mlp4" in catalog.MODELS
    lab(text.format(2))
    assert "mlp4" not in catalog.MODELS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "my_lab.py, line 2: ZeroDivisionError: division by zero"),
        ("def broken(:", "my_lab.py, line 2: SyntaxError: invalid syntax"),
        (
            "import helper_beside_it",
            "line 2: ModuleNotFoundError: No module named 'helper_beside_it'; it finds what is",
        ),
        ("exit('no')", "my_lab.py, line 2: SystemExit: no"),
        ("x = 1", "extensions: my_lab.py registers nothing; decorate"),
        ("\nmodel('fc', takes=['table'])(print)", "my_lab.py, line 3: model 'fc' exists already; choose another name"),
        (
            "attack('cheap')(object())",
            "line 2: attack 'cheap' has no fit; write fit(shadows) and score(fitted, victim)",
        ),
        ("dataset('all', kind='table')(print)", "line 2: dataset 'all': results have something else of that name"),
        ("dataset('a_controls', kind='table')(print)", "line 2: dataset 'a_controls': results have something else"),
        ("pruner('original')(print)", "line 2: pruner 'original': results have something else of that name"),
        ("pruner('shadows_mine')(print)", "pruner 'shadows_mine': results have something else"),
        ("dataset('my-wards', kind='table')(print)", "'my-wards': a name is letters, digits and _"),
        ("dataset('wards', kind='tables')", "dataset 'wards': its kind is 'tables'; write kind='table'"),
        ("pruner('p', unit='neurons')", "its unit is 'neurons'; write 'weights', 'filters' or 'channels'"),
        ("dataset('d', kind='table', mean=[0])", "dataset 'd': of mean and std it has one; give both or neither"),
        ("attack('a', sees='weights')", "it sees 'weights'; write sees='signals' or sees='margins'"),
        (
            "@model('m', takes=[])\ndef m(shape): 0",
            "line 2: model 'm': its parameter 'shape' is none of input_shape, cl",
        ),
    ],
)
def test_a_file_that_cannot_be_used(lab, text, message):
    before = [dict(table) for table in catalog._ALL]
    assert message in refused(lab, text)
    assert [dict(table) for table in catalog._ALL] == before


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(extensions.run, "my_lab.py") == (
        f"extensions: my_lab.py: cannot be read (No such file or directory) in {tmp_path}"
    )


def test_a_name_of_another_file(lab):
    lab("model('mine', takes=['table'])(lambda: 0)", "first.py")
    message = refused(lab, "model('mine', takes=['table'])(lambda: 1)", "second.py")
    assert message == "second.py, line 2: model 'mine' exists in first.py; choose another name"


def test_its_digest_is_that_of_what_was_run(lab, tmp_path):
    import hashlib

    lab("model('mine', takes=['table'])(lambda: 0)")
    sha256 = hashlib.sha256((tmp_path / "my_lab.py").read_bytes()).hexdigest()
    assert catalog.digests_of([catalog.MODELS["mine"], catalog.MODELS["fc"]]) == {
        "mine": {"path": "my_lab.py", "sha256": sha256}
    }
    assert catalog.files_of([*catalog.MODELS.values(), *catalog.ATTACKS.values()]) == ["my_lab.py"]


# --- what it registers


def test_a_network_begins_as_its_constructors_leave_it_by_the_seed(lab):
    lab("""
        import torch
        class Net(torch.nn.Module):
            def __init__(self, classes):
                super().__init__()
                self.place = torch.nn.Parameter(torch.randn(3))
                self.layers = torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.LayerNorm(8), torch.nn.GELU())
                self.head = torch.nn.Linear(8, classes)
            def forward(self, x):
                return self.head(self.layers(x + self.place))
        model("net", takes=["table"])(lambda classes: Net(classes))
    """)
    state = torch.get_rng_state()
    first, again, other = (models.build("net", (3,), 4, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["place"], other["place"])
    loaded = models.load("net", (3,), 4, other).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in other.items())


def test_a_network_that_its_state_does_not_tell(lab):
    lab("""
        import torch
        class Net(torch.nn.Linear):
            def __init__(self, classes):
                super().__init__(3, classes)
                self.register_buffer("drawn", torch.rand(3), persistent=False)
            def forward(self, x):
                return super().forward(x * self.drawn)
        model("net", takes=["table"])(lambda classes: Net(classes))
    """)
    assert "model net: two with the same state_dict answer differently" in refused(models.build, "net", (3,), 4, 0)


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        ("nn.Linear(3, 5)", "model net gives [2, 5] of inputs [2, 3]; give [2, 4], a logit for each class"),
        ("nn.LSTM(3, 4)", "model net gives tuple of inputs [2, 3]; give [2, 4]"),
        ("print", "model net is a builtin_function_or_method; give a torch.nn.Module"),
        (
            "nn.Linear(7, 4)",
            "my_lab.py: RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 7x4) (in net)",
        ),
        ("1 / 0", "my_lab.py, line 3: ZeroDivisionError: division by zero (in net)"),
    ],
)
def test_a_network_that_cannot_be_trained(lab, gives, message):
    lab(f"from torch import nn\nmodel('net', takes=['table'])(lambda classes: {gives})")
    assert message in refused(models.build, "net", (3,), 4, 0)


def test_a_pruner_that_prunes_nothing(lab):
    lab("""
        from torch.nn.utils import prune
        pruner("idle")(lambda: None)
        pruner("all_kept")(lambda model: prune.identity(model[1], "weight"))
        pruner("zeros")(lambda model, records: model[1].weight.data.mul_(len(records) > 1e9))
    """)
    for name in ("idle", "all_kept", "zeros"):
        message = refused(pruning.prune, name, models.build("fc", (6,), 3, 0), 0.5, torch.zeros(2, 6))
        assert message == f"pruner {name} pruned nothing at sparsity 0.5: no mask of torch.nn.utils.prune has a zero"
    assert "slim pruned nothing" in refused(
        pruning.prune, "slim", nn.Sequential(nn.Linear(6, 3)), 0.5, torch.zeros(2, 6)
    )


def test_a_pruners_units_are_counted(lab):
    lab("""
        from torch.nn.utils import prune
        @pruner("rows", unit="filters", sparsity=0.5)
        def rows(model):
            prune.ln_structured(model[0], "weight", amount=0.5, n=1, dim=0)
    """)
    model = models.build("cnn", (1, 8, 8), 3, 0)
    pruning.prune("rows", model, 0.5, torch.zeros(2, 1, 8, 8))
    assert pruning.layer_sparsity(model, "rows") == {"0": (8, 16)}
    assert "has one sparsity; write rows_0.5" in refused(Setting.parse, "digits/cnn/rows_0.7")


def test_masks_of_any_parameter_are_counted_and_made_permanent(lab):
    lab("""
        from torch.nn.utils import prune
        @pruner("with_norms", unit="filters")
        def with_norms(model, sparsity):
            prune.ln_structured(model[0], "weight", amount=sparsity, n=1, dim=0)
            for name in ("weight", "bias"):
                prune.l1_unstructured(model[1], name, amount=sparsity)
        @pruner("biases")
        def biases(model, sparsity):
            prune.random_unstructured(model[0], "bias", amount=sparsity)
        @pruner("projections")
        def projections(model, sparsity):
            prune.l1_unstructured(model[0], "in_proj_weight", amount=sparsity)
    """)
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    convolutions.register_buffer("causal_mask", torch.zeros(3))
    pruning.prune("with_norms", convolutions, 0.5, torch.zeros(2, 1, 8, 8))
    assert pruning.layer_sparsity(convolutions, "with_norms") == {"0": (2, 4)}
    assert "pruner biases masks no weights" in refused(
        pruning.prune, "biases", nn.Sequential(nn.Conv2d(1, 4, 3)), 0.5, torch.zeros(2, 1, 8, 8)
    )
    attention = nn.Sequential(nn.MultiheadAttention(4, 1))
    pruning.prune("projections", attention, 0.5, torch.zeros(2, 4))
    assert (pruning.finalise(attention)[0].in_proj_weight == 0).sum() == 24
    assert attention.state_dict().keys() == nn.Sequential(nn.MultiheadAttention(4, 1)).state_dict().keys()


def test_a_defence_gets_its_options_by_name(lab, digits):
    lab("""
        from miaprune import CrossEntropy
        @defense("smooth", least=0.5)
        class Smooth(CrossEntropy):
            def __init__(self, strength, batch_size, share, seed=0):
                self.got = strength, batch_size, share, seed
    """)
    built = defenses.build("smooth", 2.0, {"share": 0.1}, digits, None, {"batch_size": 7}, 3)
    assert built.got == (2.0, 7, 0.1, 3) and not built.by_loss
    lacking = refused(defenses.build, "smooth", 2.0, {}, digits, None, {"batch_size": 7}, 3)
    assert lacking == "smooth: its parameter 'share' is none of batch_size, strength, data, split, seed"
    assert "strength '0.4' of defense smooth must be a number from 0.5" in refused(grid.strength_value, "smooth", "0.4")


GAP = """
    import numpy as np
    @attack("gap")
    class Gap:
        def fit(self, shadows): return {fit}
        def score(self, fitted, victim, seed): return {score}
"""


def test_whether_a_network_convolves_is_asked_when_its_data_set_is_there(catalogue):
    catalog.model("mine", takes=["wards"])(print)
    catalog.dataset("wards", kind="table")(print)
    assert not catalog.prunes("slim", "mine") and catalog.prunes("l1", "mine")


def test_one_name_is_a_list_of_one(catalogue):
    catalog.model("mine", takes="table")(print)
    assert not catalog.convolves(catalog.MODELS["mine"]) and catalog.MODELS["mine"].takes == ("table",)


def test_what_a_program_registers_is_no_built_in():
    @catalog.model("mine", takes=["location"])
    def mine(classes, input_shape):
        return nn.Sequential(nn.Linear(*input_shape, 8), nn.LayerNorm(8), nn.Linear(8, classes))

    assert models.build("mine", (446,), 30, 0)(torch.zeros(2, 446)).shape == (2, 30)


def test_an_attack_is_a_family_of_its_own_and_scores_like_any(lab):
    lab(GAP.format(fit="{'at': 0.5}", score="victim.confidence - fitted['at']"))
    victim = make_signals(60, 4, 0)
    fitted = attack("gap").fit(make_signals(60, 4, 1), {}, 0, "cpu")
    assert {name: array.dtype.kind for name, array in fitted.items()} == {"at": "f"}
    scores = attack("gap").score(fitted, victim, {}, 0, "cpu")
    np.testing.assert_allclose(scores, victim.confidence - 0.5)
    assert grid.families()["gap"] == ("gap",) and "gap" not in grid.families()["cheap"]


def test_an_attack_on_margins_is_scored_without_what_references_say(lab):
    """An unaware adversary's references are others than those beside the victim."""
    lab("""
        import numpy as np
        @attack("gap", sees="margins")
        class Gap:
            def fit(self, shadows): return {"at": np.mean(shadows.references)}
            def score(self, fitted, victim):
                assert not len(victim.references) and not len(victim.parts)
                return victim.victim[victim.records] - fitted["at"]
    """)
    seen = Margins(np.arange(4.0), np.ones((5, 4)), np.zeros((5, 4), np.int8), np.array([2, 0]))
    assert attack("gap").score(attack("gap").fit(seen, {}, 0, "cpu"), seen, {}, 0, "cpu").tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("fit", "score", "message"),
    [
        ("None", "0", "attack gap: fit gave NoneType; give arrays by name, such as {}"),
        ("{'a': 'text'}", "0", "attack gap: fit gave 'a' that is no array of numbers"),
        ("{'trained': 1}", "0", "attack gap: fit gave 'trained', which has a meaning here; rename it"),
        (
            "{}",
            "victim.confidence[1:]",
            "attack gap: score gave float32 [59]; give a number for each of the 60 records",
        ),
        ("{}", "None", "attack gap: score gave object []; give a number for each of the 60 records"),
        ("{}", "np.where(victim.members, np.nan, 0)", "attack gap: scores of 30 of 60 records are no finite numbers"),
        ("{}", "1 / 0", "my_lab.py, line 7: ZeroDivisionError: division by zero (in gap)"),
    ],
)
def test_an_attack_whose_answer_cannot_be_used(lab, fit, score, message):
    lab(GAP.format(fit=fit, score=score))
    signals = make_signals(60, 4, 0)
    assert message in refused(
        lambda: attack("gap").score(attack("gap").fit(signals, {}, 0, "cpu"), signals, {}, 0, "cpu")
    )


# --- own_datasets


def registered(own):
    extensions.register({"extensions": [], "own_datasets": own})


def test_a_part_of_a_data_set_goes_where_the_whole_does():
    registered({"half": {"of": "digits", "records": 900}, "quarter": {"of": "half", "records": 450}})
    assert Setting.parse("quarter/fc/l1_0.7") and Setting.parse("half/cnn/slim_0.7")
    assert "resnet18 does not take quarter; use fc or cnn" in refused(Setting.parse, "quarter/resnet18/l1_0.7")
    registered({"half": {"of": "digits", "records": 900}})  # as often as one likes
    assert catalog.DATASETS["quarter"].kind == "image"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"of": "cifar1", "records": 60}, "unknown dataset 'cifar1': did you mean 'cifar10'?"),
        ({"of": "digits", "records": 1798}, "mine: 1798 records of digits, which has 1797"),
        ({"file": "a.csv", "kind": "table"}, None),
        ({"of": "digits"}, "own_datasets.mine has of; give of and records, or file and kind"),
        ({"file": "a.csv"}, "own_datasets.mine has file; give"),
        ({"file": "a.csv", "kind": "table", "mean": [0]}, "own_datasets.mine has file, kind, mean; give"),
    ],
)
def test_an_own_data_set_that_cannot_be(own, message):
    if message is None:
        assert "dataset 'tables': results have something else of that name" in refused(registered, {"tables": own})
    else:
        assert re.match(re.escape(message), refused(registered, {"mine": own}))


def test_a_part_of_a_users_data_set_comes_from_the_users_file(lab):
    lab("dataset('wards', kind='table')(lambda: 0)")
    extensions.register({"extensions": ["my_lab.py"], "own_datasets": {"half": {"of": "wards", "records": 100}}})
    assert catalog.digests_of([catalog.DATASETS["half"]]).keys() == {"half"}
    assert Setting.parse("half/fc/l1_0.5")
