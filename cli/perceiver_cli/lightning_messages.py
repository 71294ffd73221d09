"""Lightning's messages: without those that a person who runs a command can do nothing about."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

UNNEEDED = (
    "weights_only",
    "litlogger",
    "seamless",
    "Tip:",
    "HPU",
    "TPU available",
    "GPU available: False",
    "Loading `train_dataloader`",
    "Found current_model_state",
    "model summary callbacks",
)
"""What Lightning says of itself is known by these words."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out within this context the warnings that a person who runs a command can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")  # steps are counted across epochs
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*dataloader is not resumable.*")
        warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", ".*could not find the monitored key.*")  # no validation yet
        warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
        yield


class _Unneeded(logging.Filter):
    """Drops what Lightning says of itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(words in record.getMessage() for words in UNNEEDED)


for _name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
    logging.getLogger(_name).addFilter(_Unneeded())
