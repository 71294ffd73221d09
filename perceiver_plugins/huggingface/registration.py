"""Registration of the zoo's models with ``transformers``."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from perceiver_plugins.huggingface.image_processor import ZooImageProcessor
from perceiver_plugins.huggingface.pipelines import register_pipelines
from perceiver_plugins.huggingface.zoo_config import ZooConfig
from perceiver_plugins.huggingface.zoo_models import (
    ZooForCausalLM,
    ZooForImageClassification,
    ZooForMaskedLM,
    ZooForSequenceClassification,
    ZooForTokenClassification,
    ZooModel,
)
from perceiver_plugins.huggingface.zoo_tokenizer import ZooTokenizer


def register() -> None:
    """Register the zoo's models with the Auto classes and pipelines, and the zoo's pipelines. Idempotent."""
    AutoConfig.register(ZooConfig.model_type, ZooConfig, exist_ok=True)
    AutoTokenizer.register(ZooConfig, fast_tokenizer_class=ZooTokenizer, exist_ok=True)
    AutoImageProcessor.register(ZooConfig, slow_image_processor_class=ZooImageProcessor, exist_ok=True)
    for auto_class, model in (
        (AutoModel, ZooModel),
        (AutoModelForMaskedLM, ZooForMaskedLM),
        (AutoModelForCausalLM, ZooForCausalLM),
        (AutoModelForSequenceClassification, ZooForSequenceClassification),
        (AutoModelForTokenClassification, ZooForTokenClassification),
        (AutoModelForImageClassification, ZooForImageClassification),
    ):
        auto_class.register(ZooConfig, model, exist_ok=True)
    register_pipelines()
