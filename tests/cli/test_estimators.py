"""scikit-learn estimators."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import perceiver_zoo
from perceiver_zoo import PerceiverClassifier, PerceiverRegressor

MODEL = {
    "num_latents": 2,
    "num_latent_channels": 16,
    "encoder": {"num_self_attention_layers_per_block": 1},
    "decoder": {"num_output_query_channels": 16},
}
TABLE_MODEL = {**MODEL, "encoder": {**MODEL["encoder"], "num_input_channels": 16}}
OPTIONS = {"device": "cpu", "random_state": 0, "trainer": {"max_steps": 3}}
TEXTS = [f"a good day number {number}" if number % 2 else f"a bad night number {number}" for number in range(20)]
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=["age", "y0", "bmi"])
FRAME.loc[3, "age"] = np.nan
TARGETS = np.stack([FRAME["bmi"] * 1000, FRAME["y0"]], axis=1)


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def regressor() -> PerceiverRegressor:
    """Regressor of two targets. Read-only."""
    return PerceiverRegressor(model=TABLE_MODEL, **OPTIONS).fit(FRAME, TARGETS)


@pytest.fixture(scope="module")
def texts() -> PerceiverClassifier:
    """Classifier of texts. Read-only."""
    return PerceiverClassifier(model=MODEL, **OPTIONS).fit(TEXTS, [number % 2 == 1 for number in range(20)])


def checked(estimator: type, max_steps: int) -> PerceiverClassifier | PerceiverRegressor:
    """Create an estimator that trains just long enough for scikit-learn's checks of accuracy."""
    return estimator(
        model=TABLE_MODEL,
        optimizer={"lr": 0.02},
        lr_scheduler={"warmup_steps": 2},
        trainer={"max_steps": max_steps, "limit_val_batches": 0},
        device="cpu",
    )


def check_name(check) -> str:
    """Return the name of one of scikit-learn's checks, which are partial functions."""
    return getattr(check, "func", check).__name__


CHECKS_OF_THE_CLASSIFIER = {
    check_name(getattr(each, "values", each)[1])
    for each in parametrize_with_checks([checked(PerceiverClassifier, 30)]).mark.args[1]
}


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([checked(PerceiverClassifier, 30)])
def test_classifier_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_regressor_passes_its_own_checks_of_scikit_learn():
    """Slow checks of the shared base class are left out; the classifier passes them."""
    ran = 0
    for each in parametrize_with_checks([checked(PerceiverRegressor, 60)]).mark.args[1]:
        estimator, check = getattr(each, "values", each)
        if check_name(check) not in CHECKS_OF_THE_CLASSIFIER:
            check(clone(estimator))
            ran += 1
    assert ran >= 5


@pytest.mark.slow
def test_model_equals_that_of_train(tmp_path):
    X, y = FRAME.to_numpy(), np.where(FRAME["bmi"] > 0, "up", "down")  # noqa: N806
    FRAME.set_axis(["x0", "x1", "x2"], axis=1).assign(label=y).to_csv(tmp_path / "rows.csv", index=False)
    data = {"name": "table-files", "train_files": tmp_path / "rows.csv", "batch_size": 8}
    trainer = {"accelerator": "cpu", "max_steps": 3}
    trained = perceiver_zoo.train("classification", data, model=TABLE_MODEL, trainer=trainer, seed_everything=5)
    expected = [each["label"] for each in trained.predict(tmp_path / "rows.csv")]
    probabilities = [each["probability"] for each in trained.predict(tmp_path / "rows.csv")]
    options = {**OPTIONS, "random_state": 5, "data": {"batch_size": 8}}
    estimator = PerceiverClassifier(model=TABLE_MODEL, **options).fit(X, y)
    assert estimator.predict(X).tolist() == expected
    np.testing.assert_array_equal(estimator.predict_proba(X).max(axis=1), np.float32(probabilities))
    assert estimator.score(X, y) == np.mean(estimator.predict(X) == y)
    assert (estimator.n_features_in_, estimator.classes_.tolist()) == (3, ["down", "up"])
    again = clone(estimator).fit(X.tolist(), y.tolist())
    np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))


def test_regressor_predicts_several_targets(regressor):
    predicted = regressor.predict(FRAME)
    assert predicted.shape == TARGETS.shape
    assert predicted[:, 0].std() > 10 * predicted[:, 1].std()  # in the units of the targets
    assert list(regressor.feature_names_in_) == ["age", "y0", "bmi"]
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(regressor.predict(FRAME.to_numpy()), predicted)
    np.testing.assert_array_equal(regressor.predict(FRAME.set_index(FRAME["age"])), predicted)
    with pytest.raises(ValueError, match="feature names should match"):
        regressor.predict(FRAME[["bmi", "age", "y0"]])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda estimator: pickle.loads(pickle.dumps(estimator))])
def test_copies_predict_the_same(regressor, copied):
    np.testing.assert_array_equal(copied(regressor).predict(FRAME), regressor.predict(FRAME))


def test_checkpoint_of_a_pickle_is_data(regressor, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    changed = copy.deepcopy(regressor)
    torch.save({"state_dict": Attack()}, tmp_path / "attack.ckpt")
    changed.checkpoint_ = (tmp_path / "attack.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"model\.ckpt: "):
        changed.predict(FRAME)
    assert not (tmp_path / "executed").exists()


def test_texts_are_classified(texts, tmp_path):
    predicted = texts.predict(pd.Series(TEXTS))
    assert predicted.dtype == bool
    assert texts.predict_proba(np.array(TEXTS)).sum(axis=1) == pytest.approx(np.ones(20), abs=1e-6)
    expected = texts.predict_proba(["night.txt"])
    (tmp_path / "night.txt").write_text("a good day")  # a text that names a file
    np.testing.assert_array_equal(texts.predict_proba(["night.txt"]), expected)


@pytest.mark.slow
def test_images_are_classified():
    classes = [3, 1, 20] * 4
    estimator = PerceiverClassifier(data={"image_size": 8}, **{**OPTIONS, "trainer": {"max_steps": 1}})
    estimator.fit(PIXELS, classes)
    assert set(estimator.predict(PIXELS)) <= {3, 1, 20}
    images = [Image.fromarray(pixels) for pixels in PIXELS]
    np.testing.assert_array_equal(estimator.predict_proba(images), estimator.predict_proba(PIXELS))
    again = clone(estimator).fit(images, classes)
    np.testing.assert_array_equal(again.predict_proba(PIXELS), estimator.predict_proba(PIXELS))


@pytest.mark.slow
def test_nothing_is_printed_and_no_file_remains(regressor, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    state = (random.getstate(), torch.get_rng_state())
    clone(regressor).fit(FRAME, TARGETS).predict(FRAME)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    with pytest.warns(UserWarning, match="constant 'age' "):
        clone(regressor).set_params(verbose=True).fit(FRAME.assign(age=1), TARGETS)
    assert "Trained for 3 steps." in capfd.readouterr().out


@pytest.mark.slow
def test_options_are_searched_in_a_pipeline():
    estimator = make_pipeline(StandardScaler(), PerceiverRegressor(model=TABLE_MODEL, **OPTIONS))
    learning_rates = [{"lr": 1e-3}, {"lr": 1e-2}]
    search = GridSearchCV(estimator, {"perceiverregressor__optimizer": learning_rates}, cv=2)
    search.fit(FRAME, TARGETS[:, 0])
    assert search.best_params_["perceiverregressor__optimizer"] in learning_rates
    assert search.predict(FRAME).shape == (30,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda regressor, texts: regressor.predict(TEXTS), "X: texts, but the model was trained on tables"),
        (lambda regressor, texts: texts.predict(PIXELS), "X: images, but the model was trained on texts"),
        (lambda regressor, texts: texts.predict(["a", 3]), "X: all texts must be strings, got int at index 1"),
        (lambda regressor, texts: texts.predict(["a", ""]), "inputs[1]: no text to read"),
        (
            lambda regressor, texts: clone(regressor).fit(TEXTS, TARGETS),
            "X: PerceiverRegressor does not read texts (it",
        ),
        (lambda regressor, texts: clone(texts).fit(TEXTS, ["a"] * 20), "y: at least two classes are needed, got one"),
        (
            lambda regressor, texts: clone(texts).fit([*PIXELS, 3], range(13)),
            "X: all inputs must be images, got int at",
        ),
        (
            lambda regressor, texts: clone(texts).fit(TEXTS, range(19)),
            "Found input variables with inconsistent numbers",
        ),
        (
            lambda regressor, texts: clone(regressor).fit(FRAME.assign(age=np.inf), TARGETS),
            "X, row 1: age: inf is",
        ),
        (lambda regressor, texts: clone(texts).fit(FRAME[:0], []), "X: found 0 sample(s), a minimum of 2 is required"),
        (lambda regressor, texts: regressor.predict(FRAME[:0]), "X: found 0 sample(s), a minimum of 1 is required"),
        (
            lambda regressor, texts: clone(regressor).fit(FRAME.assign(age=pd.cut(FRAME["bmi"], 3)), TARGETS),
            "X: a column has values that cannot be stored",
        ),
        (
            lambda regressor, texts: clone(regressor).set_params(trainer={"fast_dev_run": True}).fit(FRAME, TARGETS),
            "trainer: no checkpoint was saved",
        ),
        (
            lambda regressor, texts: PerceiverRegressor(model={"latents": 3}, device="cpu").fit(FRAME, TARGETS),
            "--model.latents: unknown flag",
        ),
    ],
)
def test_wrong_use_is_explained(regressor, texts, call, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call(regressor, texts)
    assert message in str(raised.value)
    assert tempfile.gettempdir() not in str(raised.value)


def test_failed_fit_leaves_no_model():
    classifier = PerceiverClassifier(model=TABLE_MODEL, **OPTIONS).fit(FRAME, FRAME["y0"] > 0)
    with pytest.raises(ValueError, match="inf is not a finite number"):
        classifier.fit(FRAME.assign(age=np.inf), ["a", "b"] * 15)
    with pytest.raises(NotFittedError):
        classifier.predict(FRAME)


@pytest.mark.slow
def test_fits_in_threads_equal_those_in_turn(regressor):
    state = torch.random.get_rng_state()
    with ThreadPoolExecutor(2) as threads:
        fitted = list(threads.map(lambda each: each.fit(FRAME, TARGETS), [clone(regressor), clone(regressor)]))
    for each in fitted:
        np.testing.assert_array_equal(each.predict(FRAME), regressor.predict(FRAME))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_missing_scikit_learn_is_named(monkeypatch):
    for name in ("sklearn", "sklearn.base"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "perceiver_zoo.estimators")
    with pytest.raises(ImportError) as raised:
        importlib.import_module("perceiver_zoo.estimators")
    expected = "an estimator needs scikit-learn, which is not installed (pip install 'perceiver-zoo[table]')"
    assert str(raised.value) == f"perceiver_zoo: {expected}"
