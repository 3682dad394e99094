"""Tables: scikit-learn's and the teachers', cut, standardised and noisy where they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
from sklearn.linear_model import LogisticRegression, Ridge

from learned_opt.tasks import datasets, teachers
from learned_opt.tasks.base import SPLITS
from learned_opt.tasks.datasets import standardised
from learned_opt.tasks.sources import SKLEARN_TABLES, in_order

SHAPES = {
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2),
    "iris": (149, 4, 3),  # 150, two of them alike
    "diabetes": (442, 10, 0),
    "teacher_classification": (4500, 20, 10),
    "teacher_regression": (4500, 20, 0),
}
CLASSIFICATION = [name for name, (_, _, classes) in SHAPES.items() if classes]
REGRESSION = [name for name, (_, _, classes) in SHAPES.items() if not classes]


def joined(values):
    return np.concatenate([values[split] for split in SPLITS])


@pytest.mark.parametrize("name", datasets.TABLES)
def test_shapes_types_and_disjoint_splits(name):
    table = datasets.load_table(name)
    rows, columns, classes = SHAPES[name]
    assert joined(table.features).shape == (rows, columns)
    assert len(np.unique(joined(table.features), axis=0)) == rows  # no row of one split in another
    assert table.num_classes == classes
    for split in SPLITS:
        assert (
            len(table.targets[split])
            == len(table.features[split])
            == pytest.approx(rows * {"train": 0.8, "valid": 0.1, "test": 0.1}[split], abs=1)
        )
        assert table.features[split].dtype == np.float32
        assert table.targets[split].dtype == (np.int32 if classes else np.float32)
        if classes:
            assert set(table.targets[split]) == set(range(classes))


@pytest.mark.parametrize("name", datasets.TABLES)
def test_the_training_split_is_standardised(name):
    table = datasets.load_table(name)
    values = [table.features["train"]] + ([] if table.num_classes else [table.targets["train"]])
    for x in values:
        np.testing.assert_allclose(x.mean(0, dtype=np.float64), 0, atol=1e-6)
        np.testing.assert_allclose(x.std(0, dtype=np.float64), 1, atol=1e-6)
    assert np.abs(table.features["test"].mean(0)).max() > 1e-3  # by training statistics, not by its own


@pytest.mark.parametrize("name", SKLEARN_TABLES)
def test_rows_are_scikit_learns(name):
    """Standardised by the statistics of the originals that the training rows turn out to be."""
    source = getattr(sklearn.datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    table = datasets.load_table(name)
    # Scaled to [0, 1], columns are the same on both sides: so each row is found among the originals.
    ours, theirs = joined(table.features).astype(float), source.data
    ours, theirs = (((x - x.min(0)) / np.ptp(x, axis=0)) for x in (ours, theirs))
    distances = np.abs(ours[:, None] - theirs[None]).max(2)
    match = distances.argmin(1)
    assert distances.min(1).max() < 1e-5
    assert len(set(match)) == len(ours)
    targets, expected = joined(table.targets), source.target[match]
    if table.num_classes:
        np.testing.assert_array_equal(targets, expected)
    train = match[: len(table.features["train"])]
    mean, deviation = source.data[train].mean(0), source.data[train].std(0)
    np.testing.assert_allclose(joined(table.features), (source.data[match] - mean) / deviation, atol=1e-4)
    if not table.num_classes:
        t = source.target[train]
        np.testing.assert_allclose(targets, (expected - t.mean()) / t.std(), atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_columns_that_never_change_in_training_stay_finite(constant):
    rng = np.random.default_rng(0)
    values = {split: rng.normal(3, 5, (37, 2)) for split in SPLITS}
    values["train"][:, 1] = constant
    values["test"][:, 1] = constant + 2
    result = standardised(values)
    np.testing.assert_allclose(result["train"][:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(result["test"][:, 1], 2, atol=1e-6)
    mean, deviation = values["train"][:, 0].mean(), values["train"][:, 0].std()
    for split in SPLITS:
        np.testing.assert_allclose(result[split][:, 0], (values[split][:, 0] - mean) / deviation, rtol=1e-5)


def test_teachers_features_and_outputs_are_those_of_the_network():
    features, outputs = teachers.teacher()
    np.testing.assert_allclose(features.mean(0), 0, atol=5 / np.sqrt(4500))
    np.testing.assert_allclose(features.std(0), 1, atol=5 / np.sqrt(2 * 4500))
    rng = np.random.RandomState(0)
    x, first, second = (rng.standard_normal(shape) for shape in ((4500, 20), (20, 16), (16, 10)))
    hidden = np.tanh(np.einsum("ni,ih->nh", x, first / 20**0.5))
    np.testing.assert_allclose(features, x)
    np.testing.assert_allclose(outputs, np.einsum("nh,ho->no", hidden, second / 4), rtol=1e-9)
    for name in teachers.TEACHERS:
        table = datasets.load_table(name)
        expected = standardised({split: features[cut] for split, cut in in_order(4500).items()})
        for split in SPLITS:
            np.testing.assert_array_equal(table.features[split], expected[split])


def test_labels_are_noisy_in_training_only():
    best = teachers.teacher()[1].argmax(1)
    targets = datasets.load_table("teacher_classification").targets
    wrong = {split: targets[split] != best[cut] for split, cut in in_order(4500).items()}
    assert {split: w.sum() for split, w in wrong.items()} == {"train": 360, "valid": 0, "test": 0}
    shift = (targets["train"] - best[:3600])[wrong["train"]] % 10
    np.testing.assert_allclose(np.bincount(shift, minlength=10)[1:], 40, atol=5 * np.sqrt(40))
    halves = wrong["train"].reshape(2, 1800).sum(1)
    assert halves.tolist() == pytest.approx([180, 180], abs=5 * np.sqrt(90))


def test_outputs_are_noisy_in_training_only():
    clean = teachers.teacher()[1][:, 0]
    raw = teachers.make("teacher_regression")
    cut = in_order(4500)
    noise = raw["train_targets"] - clean[cut["train"]]
    assert noise.std() / clean[cut["train"]].std() == pytest.approx(0.1, rel=0.06)
    assert noise.mean() == pytest.approx(0, abs=5 * noise.std() / 60)
    assert np.corrcoef(noise, clean[cut["train"]])[0, 1] == pytest.approx(0, abs=5 / 60)
    for split in ("valid", "test"):
        np.testing.assert_array_equal(raw[f"{split}_targets"], clean[cut[split]])


@pytest.mark.parametrize(
    ("name", "least"), [("wine", 0.9), ("breast_cancer", 0.9), ("iris", 0.8), ("teacher_classification", 0.5)]
)
def test_a_linear_model_classifies(name, least):
    """So that features and targets are of the same rows, in every split."""
    table = datasets.load_table(name)
    model = LogisticRegression(max_iter=1000).fit(table.features["train"], table.targets["train"])
    for split in ("valid", "test"):
        assert model.score(table.features[split], table.targets[split]) > least


@pytest.mark.parametrize(("name", "least"), [("diabetes", 0.3), ("teacher_regression", 0.5)])
def test_a_linear_model_explains(name, least):
    table = datasets.load_table(name)
    model = Ridge().fit(table.features["train"], table.targets["train"])
    for split in ("valid", "test"):
        assert model.score(table.features[split], table.targets[split]) > least


@pytest.mark.parametrize("name", ["iris", "diabetes"])
@pytest.mark.parametrize("split", SPLITS)
def test_draws_rows_of_that_split_with_their_targets(name, split):
    table = datasets.load_table(name)
    features, targets = jax.jit(lambda table, key: table.sample_batch(key, split, 300))(table, jax.random.key(0))
    assert features.dtype == jnp.float32
    assert targets.dtype == (jnp.int32 if table.num_classes else jnp.float32)
    rows = {row.tobytes(): target for row, target in zip(table.features[split], table.targets[split], strict=True)}
    for row, target in zip(np.asarray(features), np.asarray(targets), strict=True):
        assert rows[row.tobytes()] == target
