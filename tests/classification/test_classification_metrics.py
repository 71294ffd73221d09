"""Metrics of classifiers through a trainer against scikit-learn, in one and two processes."""

from __future__ import annotations

import io
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, top_k_accuracy_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_plugins.classification import metrics
from perceiver_plugins.classification.metrics import class_metrics, draw_confusion
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.tasks.pictures import optional

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)


@pytest.fixture
def nine(classifier, sequences):
    """Classifier of nine classes, of which the last never occurs or is predicted, and a labelled batch."""
    module, batch = classifier(9), {**sequences(61), "labels": torch.randint(8, (61,))}
    with torch.no_grad():
        bias = module.model.output_adapter.linear.bias
        bias -= module.model(batch).mean(dim=0)  # centre the logits, so that many classes are predicted
        bias[8] = -100
    return module, batch


def expected_metrics(logits: np.ndarray, labels: np.ndarray, stage: str) -> dict[str, float]:
    predicted, probabilities = logits.argmax(1), torch.from_numpy(logits).double().softmax(-1).numpy()
    classes = range(logits.shape[1])
    return {
        f"{stage}_loss": log_loss(labels, probabilities, labels=classes),
        f"{stage}_accuracy": accuracy_score(labels, predicted),
        f"{stage}_top5_accuracy": top_k_accuracy_score(labels, probabilities, k=5, labels=classes),
        f"{stage}_f1": f1_score(labels, predicted, average="macro"),
    }


@pytest.mark.parametrize(("stage", "batch_size"), [("val", 7), ("test", 100)])
def test_metrics_equal_those_of_scikit_learn(nine, data_module, quiet_trainer, stage, batch_size):
    module, batch = nine
    logits = module.model(batch).detach().numpy()
    assert len(set(logits.argmax(1))) >= 5
    expected = expected_metrics(logits, batch["labels"].numpy(), stage)
    trainer = quiet_trainer()
    evaluate = {"val": trainer.validate, "test": trainer.test}[stage]
    for _ in range(2):  # metrics are reset between runs
        (metrics,) = evaluate(module, datamodule=data_module(batch, batch_size), verbose=False)
        assert metrics == pytest.approx(expected, rel=1e-5)


def test_metrics_ignore_examples_without_label(nine, data_module, quiet_trainer):
    module, batch = nine
    labelled = torch.arange(61) % 3 > 0
    batch["labels"][~labelled] = IGNORED
    expected = expected_metrics(
        module.model(batch)[labelled].detach().numpy(), batch["labels"][labelled].numpy(), "val"
    )
    (metrics,) = quiet_trainer().validate(module, datamodule=data_module(batch, 6), verbose=False)
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_metrics_equal_on_the_first_batch_are_not_merged(nine, data_module, quiet_trainer):
    module, batch = nine
    logits = module.model(batch).detach()
    batch["labels"] = logits.topk(3).indices[:, 2]
    batch["labels"][:10] = logits[:10].argmax(dim=1)
    (metrics,) = quiet_trainer().validate(module, datamodule=data_module(batch, 10), verbose=False)
    assert metrics["val_accuracy"] == pytest.approx(10 / 61)
    assert metrics["val_top5_accuracy"] == 1
    assert metrics["val_f1"] == pytest.approx(f1_score(batch["labels"], logits.argmax(1), average="macro"))


def test_confusion_matrix_equals_that_of_scikit_learn():
    confusion = class_metrics(4)["confusion"]
    logits, labels = torch.randn(50, 4), torch.randint(4, (50,))
    for part in range(0, 50, 15):
        confusion.update(logits[part : part + 15], labels[part : part + 15])
    np.testing.assert_array_equal(confusion.compute(), confusion_matrix(labels, logits.argmax(1)))


@pytest.mark.parametrize("num_classes", [2, 5, 6])
def test_top5_accuracy_needs_more_than_five_classes(num_classes):
    assert ("top5_accuracy" in class_metrics(num_classes)) == (num_classes > 5)


def cells(picture: np.ndarray, number: int) -> np.ndarray:
    """Mask of the dark cells of a drawn matrix, sampled near a corner of each cell."""
    lightest, darkest = (np.array(matplotlib.colormaps["Blues"](value)[:3]) for value in (0.0, 1.0))
    drawn = [np.abs(picture[..., :3] - colour).max(-1) < 0.01 for colour in (lightest, darkest)]
    rows, columns = (np.flatnonzero((drawn[0] | drawn[1]).any(axis)) for axis in (1, 0))
    fractions = (np.arange(number) + 0.1) / number
    sampled = [(ends[0] + fractions * (ends[-1] - ends[0])).astype(int) for ends in (rows, columns)]
    return drawn[1][np.ix_(*sampled)]


def test_confusion_matrix_image(classifier, sequences, data_module, quiet_trainer, tmp_path):
    module = classifier(3)
    batch = sequences(40)
    predicted = module.model(batch).argmax(dim=1)
    batch["labels"] = torch.where(predicted == 1, 2, 0)  # row 2 has counts only in column 1
    logger = TensorBoardLogger(tmp_path, name=None)
    quiet_trainer(logger=logger).validate(module, datamodule=data_module(batch), verbose=False)
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()["images"] == ["val_confusion"]
    (image,) = events.Images("val_confusion")
    confusion = confusion_matrix(batch["labels"], predicted, labels=range(3))
    picture = imread(io.BytesIO(image.encoded_image_string))
    np.testing.assert_array_equal(cells(picture, 3), confusion == confusion.max())
    assert not np.array_equal(confusion, confusion.T)


@pytest.mark.parametrize("num_classes", [21, 65])
def test_confusion_matrix_of_many_classes_is_not_drawn(
    classifier, sequences, data_module, quiet_trainer, tmp_path, num_classes
):
    logger = TensorBoardLogger(tmp_path, name=None)
    batch = {**sequences(5), "labels": torch.arange(5)}
    trainer = quiet_trainer(logger=logger)
    trainer.test(classifier(num_classes), datamodule=data_module(batch), verbose=False)
    logger.finalize("success")
    assert EventAccumulator(logger.log_dir).Reload().Tags()["images"] == ["test_confusion"] * (num_classes < 65)


@pytest.mark.slow
def test_sanity_check_does_not_affect_metrics(nine, data_module, quiet_trainer, tmp_path):
    module, batch = nine
    logger = TensorBoardLogger(tmp_path, name=None)
    # With a learning rate of 0, the model at the end is the one at the start.
    module.optimizer_config = {"name": "SGD", "lr": 0.0}
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=2, logger=logger)
    trainer.fit(module, datamodule=data_module(batch))
    expected = expected_metrics(module.model(batch).detach().numpy(), batch["labels"].numpy(), "val")
    assert {name: float(trainer.callback_metrics[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert len(EventAccumulator(logger.log_dir).Reload().Images("val_confusion")) == 1


TWO = {"devices": 2, "strategy": "ddp_fork"}


@pytest.mark.slow
def test_metrics_of_two_processes_equal_those_of_one(nine, data_module, quiet_trainer, recwarn):
    module, batch = nine
    expected = expected_metrics(module.model(batch).detach().numpy(), batch["labels"].numpy(), "val")
    (metrics,) = quiet_trainer(**TWO).validate(module, datamodule=data_module(batch), verbose=False)
    assert metrics == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_gradients_of_two_processes_equal_those_of_one(classifier, sequences, data_module, quiet_trainer):
    """The processes have different labels, and different weights of them."""
    labels = torch.randint(4, (16,))
    labels[torch.rand(16) < 0.4] = IGNORED
    batch = {**sequences(16), "labels": labels}

    def train(batch_size: int, **options) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        module = classifier(class_weights=[2.0, 1.0, 5.0, 3.0], optimizer={"name": "SGD", "lr": 0.3})
        before = module.model.encoder.latents.clone()
        quiet_trainer(max_epochs=2, limit_val_batches=0, **options).fit(
            module, datamodule=data_module(batch, batch_size)
        )
        assert (module.model.encoder.latents - before).abs().max() > 0.01
        return module.state_dict()

    torch.testing.assert_close(train(4, **TWO), train(8), rtol=1e-5, atol=1e-5)


NAMES = ["R$10 (5%) - R$20", "$x^", "\udce9t\udce9", "\u65e5\u672c", "\\frac{", "a\nb", "", "x" * 200, "{}%_#&"]


def test_class_names_are_drawn_as_plain_text():
    figure = draw_confusion(torch.ones(len(NAMES), len(NAMES)), NAMES)
    with optional("picture"), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO())
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()][:2] == NAMES[:2]


def test_counts_above_zero_are_drawn():
    figure = draw_confusion(torch.tensor([[12, 0], [3, 1]]), ["cat", "dog"])
    assert [(*text.get_position(), text.get_text()) for text in figure.axes[0].texts] == [
        (0, 0, "12"),
        (0, 1, "3"),
        (1, 1, "1"),
    ]


def test_failed_drawing_does_not_stop_the_run(nine, data_module, quiet_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "draw_confusion", lambda *_: 1 / 0)
    module, batch = nine
    trainer = quiet_trainer(logger=TensorBoardLogger(str(tmp_path)))
    with pytest.warns(UserWarning, match="picture val_confusion left out: ZeroDivisionError"):
        (logged,) = trainer.validate(module, datamodule=data_module(batch, 9), verbose=False)
    assert "val_accuracy" in logged
