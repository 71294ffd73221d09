"""scikit-learn estimators, which train as the command does."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pytorch_lightning.utilities.seed import isolate_rng

from perceiver_registry import UserError
from perceiver_registry.extras import missing_requirement
from perceiver_zoo.estimator_data import TABLE_FILE, Kind, infer_input_kind, to_model_inputs, write_data
from perceiver_zoo.models import LoadedModel, load
from perceiver_zoo.training import train

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError as error:
    raise ImportError(f"perceiver_zoo: an estimator {missing_requirement(error) or error}") from error

MAX_SEED = 2**31
"""Exclusive upper limit of seeds drawn from a random state. Arbitrary."""

FINITE_OR_MISSING = "allow-nan"
"""Option of scikit-learn's checks: accept missing numbers (NaN), refuse infinite ones."""


ONE_AT_A_TIME = threading.RLock()
"""Lock of estimators that train or predict."""


class PerceiverEstimator(BaseEstimator):
    """Base class of the estimators."""

    _tasks: ClassVar[Mapping[Kind, str]]
    """Task by kind of inputs."""

    def __init__(
        self,
        *,
        max_epochs: int | None = None,
        random_state: Any = None,
        device: str = "auto",
        model: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        trainer: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.max_epochs = max_epochs
        self.random_state = random_state
        self.device = device
        self.model = model
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.trainer = trainer
        self.data = data
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Train a model.

        Args:
            X: b inputs: a table, as a data frame or an array of numbers (b, m), NaN where missing; texts; or images, as
                a list of Pillow images or an array of uint8 (b, height, width[, channels]).
            y: their targets.

        Raises:
            ValueError: if inputs, targets or options are invalid.
        """
        self.__dict__.pop("checkpoint_", None)  # a fit that fails leaves no model, whose classes would be others
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        kind = infer_input_kind(X)
        if kind not in self._tasks:
            raise ValueError(f"X: {type(self).__name__} does not read {kind}s (it reads {', '.join(self._tasks)})")
        inputs = self._inputs(X, kind, is_new=True)
        labels = self._encode(y)
        check_consistent_length(X, labels)
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(MAX_SEED)
        with tempfile.TemporaryDirectory() as folder, _as_value_errors(folder), _isolated(self.verbose):
            data = write_data(Path(folder), kind, inputs, labels)
            trained = train(self._tasks[kind], **self._options(data, folder, int(seed)))
            if trained.source is None:
                raise UserError("trainer: no checkpoint was saved (leave out the option that disables checkpoints)")
            self.checkpoint_ = Path(trained.source).read_bytes()
            self._kind = kind
            self._loaded: LoadedModel | None = self._load()
        return self

    def _inputs(self, X: Any, kind: Kind, is_new: bool) -> Any:  # noqa: N803
        """Validate inputs, and convert them to those of a model."""
        names: list[str] = []
        if kind == "table":
            X = _validate_table(self, X, is_new)  # noqa: N806
            default = [f"x{index}" for index in range(self.n_features_in_)]
            names = list(getattr(self, "feature_names_in_", default))
        with _as_value_errors():
            return to_model_inputs(X, kind, names)

    def _encode(self, y: Any) -> np.ndarray:
        """Validate targets, and return them as numbers: (b,) or (b, t)."""
        raise NotImplementedError

    def _options(self, data: Mapping[str, Any], folder: str, seed: int) -> dict[str, Any]:
        """Return the options of training: the user's, and those that keep all files in ``folder``."""
        trainer = {
            "accelerator": self.device,
            "logger": False,
            "enable_progress_bar": bool(self.verbose),
            "enable_model_summary": bool(self.verbose),
            **({} if self.max_epochs is None else {"max_epochs": self.max_epochs}),
            **(self.trainer or {}),
            "default_root_dir": folder,
        }
        given = {"model": self.model, "optimizer": self.optimizer, "lr_scheduler": self.lr_scheduler}
        return {
            "data": {**data, **(self.data or {})},
            "trainer": trainer,
            "seed_everything": seed,
            **{name: value for name, value in given.items() if value is not None},
        }

    def _load(self) -> LoadedModel:
        """Load the model from the bytes of its checkpoint, which are plain data and never executed."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.ckpt")
            file.write_bytes(self.checkpoint_)
            model = load(file, self.device)
            _ = model.module  # read before the file is removed
        return model

    def _predict(self, X: Any, **options: Any) -> list[dict[str, Any]]:  # noqa: N803
        check_is_fitted(self)
        kind = infer_input_kind(X)
        if kind != self._kind:
            raise ValueError(f"X: {kind}s, but the model was trained on {self._kind}s")
        inputs = self._inputs(X, kind, is_new=False)
        with _as_value_errors(), _isolated(self.verbose):
            self._loaded = self._loaded or self._load()  # it is not pickled
            return self._loaded.predict(inputs, **options)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "checkpoint_")

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_loaded": None} if "_loaded" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _more_tags(self) -> dict[str, Any]:  # of scikit-learn 1.5
        return {"allow_nan": True}


class PerceiverClassifier(ClassifierMixin, PerceiverEstimator):
    """scikit-learn classifier of tables, texts and images.

    >>> PerceiverClassifier(max_epochs=20, random_state=0).fit(X, y).predict(X)

    Options have the names and defaults of :func:`~perceiver_zoo.train`. A tenth of the training data is held out for
    validation (``data={"val_fraction": 0.2}``: a fifth). Pickles contain the checkpoint.

    Args:
        max_epochs: epochs of training. None: the task's default.
        random_state: seed, or NumPy random state from which a seed is drawn. None: NumPy's global random state.
        device: "auto", "cpu", "gpu" or another accelerator of Lightning.
        model: options of the model: ``{"num_latents": 8}``.
        optimizer: name and options of the optimizer: ``{"name": "Lamb", "lr": 1e-3}``.
        lr_scheduler: name and options of the learning-rate schedule.
        trainer: options of Lightning's trainer.
        data: options of the data module: ``{"batch_size": 64}``.
        verbose: show the progress of training.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: number of columns of a table.
        feature_names_in_: names of the columns of a data frame.
        checkpoint_: content of the model's checkpoint file.
    """

    _tasks: ClassVar[Mapping[Kind, str]] = {
        "table": "classification",
        "text": "text-classification",
        "image": "image-classification",
    }

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the most probable class of each input (b,)."""
        probabilities = self.predict_proba(X)
        classes: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return classes

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the probability of each class (b, classes), float32."""
        check_is_fitted(self)
        predictions = self._predict(X, top_k=len(self.classes_))
        found = np.zeros((len(predictions), len(self.classes_)), np.float32)
        for row, prediction in zip(found, predictions, strict=True):
            for each in prediction["top"]:
                row[int(each["label"])] = each["probability"]
        return found

    def _encode(self, y: Any) -> np.ndarray:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: at least two classes are needed, got one class ({self.classes_[0]})")
        return np.asarray(indices)


class PerceiverRegressor(MultiOutputMixin, RegressorMixin, PerceiverEstimator):
    """scikit-learn regressor of tables, with one or several targets.

    Arguments and attributes are those of :class:`PerceiverClassifier`, without ``classes_``.

    >>> PerceiverRegressor(max_epochs=20, random_state=0).fit(X, y).predict(X)
    """

    _tasks: ClassVar[Mapping[Kind, str]] = {"table": "regression"}

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the targets of each input: (b,), or (b, t) as for :meth:`fit`."""
        rows = [[value for name, value in each.items() if name != "input"] for each in self._predict(X)]
        return np.array(rows).reshape(-1, *self._target_shape)

    def _encode(self, y: Any) -> np.ndarray:
        targets: np.ndarray = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        self._target_shape = targets.shape[1:]
        return targets


def _validate_table(estimator: BaseEstimator, X: Any, is_new: bool) -> Any:  # noqa: N803
    """Validate a table, and set or check number and names of its columns. Values of data frames are not converted."""
    is_frame = hasattr(X, "columns")
    fewest = 2 if is_new else 1
    if is_frame and len(X) < fewest:
        raise ValueError(f"X: found {len(X)} sample(s), a minimum of {fewest} is required")
    limits = {"ensure_min_samples": fewest}
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:  # scikit-learn 1.5
        options = {} if is_frame else {"force_all_finite": FINITE_OR_MISSING, **limits}
        return estimator._validate_data(X, reset=is_new, cast_to_ndarray=not is_frame, **options)
    options = {"skip_check_array": True} if is_frame else {"ensure_all_finite": FINITE_OR_MISSING, **limits}
    return validate_data(estimator, X, reset=is_new, **options)


@contextlib.contextmanager
def _as_value_errors(folder: str = "") -> Iterator[None]:
    """Convert user errors within this context to those that scikit-learn expects.

    Args:
        folder: temporary folder of the training data, whose files are named X in messages.
    """
    try:
        yield
    except UserError as error:
        message = str(error)
        if folder:
            message = message.replace(f"{folder}{os.sep}{TABLE_FILE}", "X").replace(f"{folder}{os.sep}", "")
        raise ValueError(message) from error


@contextlib.contextmanager
def _isolated(verbose: bool) -> Iterator[None]:
    """Restore random generators after this context. Within it, only warn unless ``verbose``.

    Random generators and output are those of the process, so that other threads wait.
    """
    with ONE_AT_A_TIME, isolate_rng():
        if verbose:
            yield
            return
        logger = logging.getLogger("pytorch_lightning")
        level = logger.level
        logger.setLevel(logging.ERROR)
        nowhere = io.StringIO()
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                with warnings.catch_warnings(record=True) as caught:
                    yield
        finally:
            logger.setLevel(level)
        for each in caught:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
