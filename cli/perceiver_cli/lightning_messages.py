"""Suppression of Lightning's messages that a user cannot act on."""

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
"""Substrings of Lightning's log messages to suppress."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress within this context the warnings that a user cannot act on."""
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
    """Drop log messages with :data:`UNNEEDED` substrings."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(words in record.getMessage() for words in UNNEEDED)


for _name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
    logging.getLogger(_name).addFilter(_Unneeded())
