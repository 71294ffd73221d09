"""Validation loss of a language model beside that of a byte-unigram model, on the same masks.

python benchmarks/learning.py logs/mlm/version_0/checkpoints/best.ckpt
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from perceiver_core import Batch
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.text import LitLanguageModel
from perceiver_registry import read_checkpoint, registry
from perceiver_registry.checkpoint import KEY


def original_tokens(batch: Batch) -> Tensor:
    """The real tokens of a batch, as they were before masking."""
    tokens = torch.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    return tokens[batch["attention_mask"].bool()]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="a checkpoint of a masked language model")
    path = parser.parse_args().checkpoint

    options = dict(read_checkpoint(path)[KEY]["run"]["data"])
    data = registry().get("data", options.pop("name")).resolve("module")(**options)
    data.prepare_data()
    data.setup()
    module = LitLanguageModel.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()

    counts = torch.ones(data.vocab_size, dtype=torch.float64)  # one of each, so that none is impossible
    for batch in data.train_dataloader():
        counts += torch.bincount(original_tokens(batch), minlength=data.vocab_size)
    log_frequency = (counts / counts.sum()).log()

    model_loss = unigram_loss = num_masked = 0.0
    for batch in data.val_dataloader():
        loss = module.loss_sum(batch)
        model_loss += float(loss.total)
        num_masked += float(loss.count)
        unigram_loss -= float(log_frequency[batch["labels"][batch["labels"] != IGNORED]].sum())
    print(f"masked bytes        {num_masked:10.0f}")
    print(f"byte-unigram loss   {unigram_loss / num_masked:10.4f}")
    print(f"model's loss        {model_loss / num_masked:10.4f}")
    print(f"model / unigram     {model_loss / unigram_loss:10.4f}")


if __name__ == "__main__":
    main()
