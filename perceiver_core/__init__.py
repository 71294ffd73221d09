"""Generic building blocks of Perceiver models: torch only, knowing no modality and no plugin."""

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
from perceiver_core.config import DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_core.fourier import FourierPositions, fourier_features, grid_positions
from perceiver_core.kernels.onednn import Linear, linear
from perceiver_core.kernels.sdpa import attend
from perceiver_core.layers import CrossAttentionLayer, SelfAttentionLayer
from perceiver_core.perceiver_io import Attentions, PerceiverDecoder, PerceiverEncoder, PerceiverIO
from perceiver_core.position_layout import PositionLayout

__all__ = [
    "ActivationPolicy",
    "AdaptedInput",
    "Attentions",
    "Batch",
    "CrossAttentionLayer",
    "DecoderConfig",
    "EncoderConfig",
    "FourierPositions",
    "InputAdapter",
    "InputQueryProvider",
    "Linear",
    "MultiHeadAttention",
    "OutputAdapter",
    "PerceiverConfig",
    "PerceiverDecoder",
    "PerceiverEncoder",
    "PerceiverIO",
    "PositionLayout",
    "QueryProvider",
    "SelfAttentionLayer",
    "TrainableQueryProvider",
    "attend",
    "fourier_features",
    "grid_positions",
    "linear",
]
