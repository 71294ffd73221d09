"""Building blocks of Perceiver models. Requires only torch; independent of modalities and plugins.

Letters of shapes in docstrings:

======  =================================================
letter  meaning
======  =================================================
b       batch
m, c    input positions, input channels
n, d    latents, latent channels
o, f    output positions, output query channels
p       queried output positions
h, k    attention heads, channels per head
e       value channels per head, where k are the queries'
======  =================================================

In attention layers, which can be anywhere in a model, n and d are the side of the queries, m and c the side of the
keys and values.
"""

from perceiver_core.activations import ActivationPolicy
from perceiver_core.adapters import (
    AdaptedInput,
    Batch,
    InputAdapter,
    InputQueryProvider,
    OutputAdapter,
    QueryProvider,
    TrainableQueryProvider,
)
from perceiver_core.attention import MultiHeadAttention
from perceiver_core.config import DecoderConfig, EncoderConfig, LatentsDecoderConfig, ModelConfig, PerceiverConfig
from perceiver_core.context import Context, select_positions
from perceiver_core.fourier import FourierPositions, fourier_features, grid_positions
from perceiver_core.kernels.onednn import Linear, linear
from perceiver_core.kernels.sdpa import attend
from perceiver_core.layers import CrossAttentionLayer, SelfAttentionLayer
from perceiver_core.model import Model
from perceiver_core.perceiver_ar import PerceiverAR, PerceiverARConfig
from perceiver_core.perceiver_io import Attentions, PerceiverDecoder, PerceiverEncoder, PerceiverIO
from perceiver_core.position_layout import PositionLayout
from perceiver_core.rotary import Rotary
from perceiver_core.sequence_cache import KeyValueCache, SequenceCache

__all__ = [
    "ActivationPolicy",
    "AdaptedInput",
    "Attentions",
    "Batch",
    "Context",
    "CrossAttentionLayer",
    "DecoderConfig",
    "EncoderConfig",
    "FourierPositions",
    "InputAdapter",
    "InputQueryProvider",
    "KeyValueCache",
    "LatentsDecoderConfig",
    "Linear",
    "Model",
    "ModelConfig",
    "MultiHeadAttention",
    "OutputAdapter",
    "PerceiverAR",
    "PerceiverARConfig",
    "PerceiverConfig",
    "PerceiverDecoder",
    "PerceiverEncoder",
    "PerceiverIO",
    "PositionLayout",
    "QueryProvider",
    "Rotary",
    "SelfAttentionLayer",
    "SequenceCache",
    "TrainableQueryProvider",
    "attend",
    "fourier_features",
    "grid_positions",
    "linear",
    "select_positions",
]
