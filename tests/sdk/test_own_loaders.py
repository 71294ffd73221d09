"""Data loaders of users, which yield dicts or pairs of inputs and labels."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from perceiver_core import PerceiverConfig
from perceiver_plugins.sdk.tasks.batches import as_batch
from perceiver_registry import UserError, create_module, registry
from perceiver_registry.testing.subjects import AdapterSubject

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

INPUTS, LABELS = torch.arange(12.0).view(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])


def created(task: str, encoder: str, decoder: str):
    """Module of a small model."""
    torch.manual_seed(0)
    configs = (
        AdapterSubject(registry().get(kind, name).spec, {}).config()
        for kind, name in (("input", encoder), ("output", decoder))
    )
    return create_module(task, PerceiverConfig(*configs, 4, 16))


class Dicts(TensorDataset):
    """Data set of dicts instead of tuples."""

    def __init__(self, names: tuple[str, ...], *tensors: torch.Tensor):
        super().__init__(*tensors)
        self.names = names

    def __getitem__(self, index):
        return dict(zip(self.names, super().__getitem__(index), strict=True))


def test_pairs_train_like_dicts(quiet_trainer):
    weights = []
    for names in (("pixel_values", "labels"), None):
        module = created("classification", "image-pixels", "classification")
        pixels = module.model.input_adapter.example_batch(6, torch.Generator().manual_seed(1))["pixel_values"]
        tensors = (pixels, LABELS)
        data = Dicts(names, *tensors) if names else TensorDataset(*tensors)
        loader = DataLoader(data, batch_size=2)
        trainer = quiet_trainer(max_steps=3)
        trainer.fit(module, loader, loader)
        weights.append(module.state_dict())
        outputs = trainer.predict(module, DataLoader(TensorDataset(pixels), batch_size=6))
        torch.testing.assert_close(outputs[0], module.eval()({"pixel_values": pixels}))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_be_other_integers(dtype):
    module = created("classification", "image-pixels", "classification").eval()
    batch = dict(module.model.input_adapter.example_batch(6, torch.Generator().manual_seed(1)))
    losses = [module.loss_sum(batch | {"labels": labels}).total for labels in (LABELS, LABELS.to(dtype))]
    torch.testing.assert_close(*losses, rtol=0, atol=0)


def test_text_without_a_mask_trains(quiet_trainer):
    module = created("mlm", "text", "text")
    ids = module.model.input_adapter.example_batch(4, torch.Generator().manual_seed(1))["input_ids"]
    quiet_trainer(max_steps=2).fit(module, DataLoader(Dicts(("input_ids", "labels"), ids, ids), batch_size=2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            TensorDataset(INPUTS.long(), LABELS),
            r"data: a batch is a list of Tensor, Tensor, not a dict with input_ids, attention_mask, labels \(return ",
        ),
        (
            Dicts(("tokens", "labels"), INPUTS.long(), LABELS),
            r"data: a batch has tokens, labels, and not input_ids, which is needed",
        ),
        (Dicts(("input_ids", "y"), INPUTS.long(), LABELS), r"data: a batch has input_ids, y, and not labels, which"),
    ],
    ids=["pairs", "wrong input", "wrong labels"],
)
def test_wrong_entries_are_named(quiet_trainer, data, message):
    with pytest.raises(UserError, match=message):
        quiet_trainer(max_steps=1).fit(created("classification", "text", "classification"), DataLoader(data))


@pytest.mark.parametrize("given", [[INPUTS], (INPUTS, LABELS), [INPUTS, LABELS], INPUTS])
def test_tensors_of_a_single_entry_are_a_batch(given):
    tensors = [INPUTS] if given is INPUTS else list(given)
    assert list(as_batch(given, ("inputs",)).values()) == tensors


@pytest.mark.parametrize("given", [(INPUTS, LABELS, LABELS), [], [INPUTS, ["a", "b"]]])
def test_other_tuples_are_refused(given):
    with pytest.raises(
        UserError, match=r"^data: a batch is a (list|tuple) of .*not a dict with inputs, labels \(return"
    ):
        as_batch(given, ("inputs",))


def test_objects_of_plugins_are_unchanged():
    given = object()
    assert as_batch(given, ("inputs",)) is given
