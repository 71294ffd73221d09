"""Specs of the composite plugin. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.composite"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="composite",
            kind="input",
            adapter=f"{PLUGIN}.adapters:CompositeInputAdapter",
            config=f"{PLUGIN}.config:CompositeEncoderConfig",
            summary="several input adapters as one, distinguished by learned modality embeddings",
            example={
                "model.encoder.inputs": {
                    "image": {
                        "adapter": "image-pixels",
                        "num_frequency_bands": 4,
                        "num_channels": 1,
                        "max_resolution": [8, 8],
                    },
                    "text": {"adapter": "text", "vocab_size": 40, "max_seq_len": 12, "num_input_channels": 16},
                }
            },
        )
    ]
