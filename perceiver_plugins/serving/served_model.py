"""Named output tensors of exported models."""

from __future__ import annotations

from torch import Tensor, nn

from perceiver_core import Batch, Model
from perceiver_plugins.sdk.tasks.batches import entries


class ServedModel(nn.Module):
    """Model with named output tensors: the module that is exported.

    Args:
        model: model that computes the outputs.
    """

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the named output tensors of a batch."""
        return compute_outputs(self.model, batch)


def compute_outputs(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Compute the named output tensors of a model.

    The output adapter computes and names them (:meth:`~perceiver_core.OutputAdapter.serve`). An output with the name of
    an input is renamed, ``output_NAME``.

    Args:
        model: model that computes the outputs.
        batch: batch that the model's input adapter reads.
    """
    inputs = dict(entries(batch))
    outputs = model.output_adapter.serve(model, batch)
    return {f"output_{name}" if name in inputs else name: tensor for name, tensor in outputs.items()}
