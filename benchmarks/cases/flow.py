"""The optical flow model of the Perceiver IO paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.case import HUGGING_FACE, OURS, PEERS, Case, Comparison, Contender, Job, Options
from benchmarks.cases.language_model import mixed_precision, with_floor

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "optical-flow-perceiver"


def overrides(options: Options, **encoder: Any) -> dict[str, Any]:
    """Return changes to the zoo's model: these fields of the encoder, and small sizes for a trial."""
    if not options.quick:
        return {"encoder": encoder}
    narrow = dict.fromkeys(("num_self_attention_qk_channels", "num_self_attention_v_channels"), 64)
    names = ("num_cross_attention_qk_channels", "num_cross_attention_v_channels")
    decoder = dict.fromkeys(names, 64)
    return {"num_latents": 8, "num_latent_channels": 64, "encoder": narrow | encoder, "decoder": decoder}


def sizes(options: Options) -> dict[str, Any]:
    """The frames' height and width, and what is other than in the zoo's model."""
    if not options.quick:
        return {"size": [368, 496], "overrides": {}}
    tiny = overrides(options, image_size=[16, 24], num_self_attention_layers_per_block=1)
    return {"size": [16, 24], "overrides": tiny}


def comparisons(options: Options) -> list[Comparison]:
    work = f"{__name__}:forward"
    contenders = [Contender(name, work, {"implementation": name, **sizes(options)}) for name in (OURS, *PEERS)]
    at_once = {"implementation": OURS, "at_once": True, **sizes(options)}
    contenders.insert(1, Contender(f"{OURS}, all positions decoded at once", work, at_once))
    return [Comparison(with_floor(contenders), max_rounds=3)]


def forward(
    options: Options,
    implementation: str,
    size: list[int],
    overrides: dict[str, Any],
    at_once: bool = False,
    batch_size: int = 1,
    compiled: bool = False,
) -> Job:
    """Predicts the motion between random frames."""
    import torch

    from benchmarks.implementations import build, compile_model, count_parameters
    from perceiver_core import perceiver_io as core
    from perceiver_plugins.flow.adapters import extract_patches

    if at_once:
        core.MAX_QUERIES_PER_CHUNK = size[0] * size[1]
    model = build(implementation, MODEL, overrides, options).eval()
    compute = compile_model(implementation, model, options) if compiled else model
    frames = torch.randn(batch_size, 2, 3, *size, generator=torch.Generator().manual_seed(7)).to(options.device)
    # The input of the peers: the patch of 3x3 pixels around each pixel.
    patches = None if implementation == OURS else extract_patches(frames, 3).permute(0, 1, 4, 2, 3)

    @torch.inference_mode()
    def run() -> Tensor:
        with mixed_precision(options):
            if implementation == HUGGING_FACE:
                return compute(inputs=patches).logits.flatten(1, 2)
            if implementation == OURS:
                return compute({"frames": frames})
            return compute(patches).flatten(1, 2)

    return Job(run, {"parameters": count_parameters(model)})


CASES = [
    Case(
        "optical-flow",
        "Optical flow, forward",
        "The optical flow model of the Perceiver IO paper on a pair of frames of 368x496 pixels, in single "
        "precision. Positions are decoded in chunks unless stated otherwise.",
        comparisons,
    )
]
