"""The ImageNet classifier of the Perceiver IO paper on pixels with Fourier positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.case import HUGGING_FACE, KRASSERM, OURS, PEERS, Case, Comparison, Contender, Job, Options
from benchmarks.cases.language_model import mixed_precision, with_floor

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "vision-perceiver-fourier"


def overrides(options: Options, **encoder: Any) -> dict[str, Any]:
    """Return changes to the zoo's model: these fields of the encoder, and small sizes for a trial."""
    if not options.quick:
        return {"encoder": encoder}
    narrow = dict.fromkeys(("num_self_attention_qk_channels", "num_self_attention_v_channels"), 64)
    names = ("num_cross_attention_qk_channels", "num_cross_attention_v_channels", "num_output_query_channels")
    decoder = dict.fromkeys(names, 64)
    return {"num_latents": 8, "num_latent_channels": 64, "encoder": narrow | encoder, "decoder": decoder}


def sizes(options: Options) -> dict[str, Any]:
    """The image's side, and what is other than in the zoo's model."""
    # Hugging Face's code fixes how fine positions are, and krasserm's takes no other size than that.
    shallow = {"num_self_attention_blocks": 1, "num_self_attention_layers_per_block": 1} if options.quick else {}
    return {"side": 224, "overrides": overrides(options, **shallow)}


def comparisons(options: Options) -> list[Comparison]:
    contenders = [
        Contender(name, f"{__name__}:forward", {"implementation": name, **sizes(options)}) for name in (OURS, *PEERS)
    ]
    return [Comparison(with_floor(contenders))]


def logits_of(implementation: str, model: Any, images: Tensor) -> Tensor:
    """Logits (b, classes) of images (b, 3, h, w)."""
    if implementation == HUGGING_FACE:
        return model(inputs=images).logits
    return model(images.movedim(1, -1)) if implementation == KRASSERM else model({"pixel_values": images})


def forward(
    options: Options,
    implementation: str,
    side: int,
    overrides: dict[str, Any],
    batch_size: int = 1,
    compiled: bool = False,
) -> Job:
    """Classifies random images."""
    import torch

    from benchmarks.implementations import build, compile_model, count_parameters

    model = build(implementation, MODEL, overrides, options).eval()
    compute = compile_model(implementation, model, options) if compiled else model
    images = torch.randn(batch_size, 3, side, side, generator=torch.Generator().manual_seed(7)).to(options.device)

    @torch.inference_mode()
    def run() -> Tensor:
        with mixed_precision(options):
            return logits_of(implementation, compute, images)

    return Job(run, {"parameters": count_parameters(model)})


def train(
    options: Options,
    implementation: str,
    side: int,
    overrides: dict[str, Any],
    batch_size: int = 1,
    compiled: bool = False,
) -> Job:
    """A training step on random images, without dropout: forward, backward and AdamW, fused for all."""
    import torch
    from torch.nn.functional import cross_entropy

    from benchmarks.implementations import build, compile_model, count_parameters

    torch.optim.AdamW([torch.zeros(1)])  # imports a lot, which is not the model's memory
    no_dropout = {part: {**overrides.get(part, {}), "dropout": 0.0} for part in ("encoder", "decoder")}
    model = build(implementation, MODEL, overrides | no_dropout, options).train()
    compute = compile_model(implementation, model, options) if compiled else model
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(batch_size, 3, side, side, generator=generator).to(options.device)
    labels = torch.randint(1000, (batch_size,), generator=generator).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with mixed_precision(options):
            loss = cross_entropy(logits_of(implementation, compute, images).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Job(run, {"parameters": count_parameters(model)})


CASES = [
    Case(
        "image-classifier",
        "Image classifier, forward",
        "The ImageNet classifier of the Perceiver IO paper on the pixels of one image of 224x224 with Fourier "
        "positions, in single precision.",
        comparisons,
    )
]
