"""Specs of the text plugin. Does not import torch."""

from __future__ import annotations

from typing import Any

from perceiver_plugins.generation.defaults import SMALL_MODEL
from perceiver_registry import AdapterSpec, DataSpec, ModelSpec, TaskSpec, hookimpl

DATA = "perceiver_plugins.text.data"

PERCEIVER_INTERFACE = "2.2"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="text",
            kind="input",
            adapter="perceiver_plugins.text.adapters:TextInputAdapter",
            config="perceiver_plugins.text.config:TextEncoderConfig",
            summary="tokens or UTF-8 bytes with learned positions",
            links={"vocab_size": "vocab_size", "max_seq_len": "max_seq_len"},
            reads=("input_ids", "attention_mask"),
            reader="perceiver_plugins.text.reading:TextReader",
            data_options=("tokenizer", "max_seq_len", "padding_side", "add_special_tokens"),
            example={
                "model.encoder.vocab_size": 40,
                "model.encoder.max_seq_len": 12,
                "model.encoder.num_input_channels": 16,
            },
            size_rule="perceiver_plugins.text.sizing:size_rule",
            column_readers={"text": "perceiver_plugins.text.column:TextColumn"},
        ),
        AdapterSpec(
            name="text",
            kind="output",
            adapter="perceiver_plugins.text.adapters:TextOutputAdapter",
            config="perceiver_plugins.text.config:TextDecoderConfig",
            summary="token logits at each position of a sequence, with tied or separate output weights",
            links={"vocab_size": "vocab_size", "max_seq_len": "max_seq_len"},
            tasks=("mlm",),
            example={"model.decoder.vocab_size": 40, "model.decoder.max_seq_len": 12},
        ),
    ]


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="mlm",
            module="perceiver_plugins.text.lightning:LitLanguageModel",
            summary="masked language modelling: predict masked tokens or bytes",
            data="python-docs",
            reads=("input_ids", "attention_mask"),
            defaults={
                # A small model learns to predict single bytes within minutes, whole words much more slowly.
                "data.mask_words": False,
                "data.max_seq_len": 128,
                "data.batch_size": 32,
                "model.encoder": "text",
                "model.encoder.num_input_channels": 128,
                "model.encoder.num_cross_attention_heads": 4,
                "model.encoder.num_self_attention_heads": 4,
                "model.encoder.num_self_attention_layers_per_block": 4,
                "model.encoder.init_scale": 0.08,
                "model.decoder": "text",
                "model.decoder.num_cross_attention_heads": 4,
                "model.decoder.init_scale": 0.08,
                "model.num_latents": 64,
                "model.num_latent_channels": 128,
                "model.init": "local",
                "optimizer": "AdamW",
                "optimizer.lr": 2e-3,
                "lr_scheduler": "CosineWithWarmup",
                "lr_scheduler.warmup_steps": 100,
                "trainer.max_epochs": 10,
                "trainer.gradient_clip_val": 1.0,
            },
            predictor="perceiver_plugins.text.fill_mask:MaskPredictor",
            published="language-perceiver",
        ),
        TaskSpec(
            name="clm",
            module="perceiver_plugins.text.causal:LitCausalLanguageModel",
            summary="causal language modelling: predict the next token or byte",
            data="python-docs",
            reads=("input_ids",),
            architecture="perceiver-ar",
            defaults={**SMALL_MODEL, "model.encoder": "tokens", "model.prefix_dropout": 0.5},
            predictor="perceiver_plugins.text.continuation:ContinuationPredictor",
        ),
        TaskSpec(
            name="text-classification",
            module="perceiver_plugins.classification.lightning:LitClassifier",
            summary="predict the class of a text",
            data="languages",
            defaults={
                "data.target": "class",
                "data.batch_size": 32,
                "model.encoder": "text",
                "model.encoder.num_input_channels": 128,
                "model.encoder.num_cross_attention_heads": 4,
                "model.encoder.num_self_attention_heads": 4,
                "model.encoder.num_self_attention_layers_per_block": 4,
                "model.encoder.dropout": 0.1,
                "model.encoder.init_scale": 0.08,
                "model.decoder": "classification",
                "model.decoder.num_output_query_channels": 128,
                "model.decoder.num_cross_attention_heads": 1,
                # With a smaller initialisation, the single output query passes too little gradient to the encoder.
                "model.decoder.init_scale": 0.1,
                "model.num_latents": 32,
                "model.num_latent_channels": 128,
                "model.init": "local",
                "optimizer": "AdamW",
                "optimizer.lr": 1e-3,
                "lr_scheduler": "CosineWithWarmup",
                "lr_scheduler.warmup_steps": 100,
                "trainer.max_epochs": 10,
                "trainer.gradient_clip_val": 1.0,
            },
            predictor="perceiver_plugins.classification.prediction:ClassPredictor",
        ),
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    unlabelled = ("mlm", "clm")
    labelled = ("text-classification", "classification", "regression", "token-classification")
    modules = {
        "python-docs": (
            "PythonDocsDataModule",
            unlabelled,
            "English text that comes with Python: help topics and docstrings",
        ),
        "python-code": (
            "PythonCodeDataModule",
            ("token-classification",),
            "Python's standard library: lexical class of each byte of code (name, string, comment, ...)",
        ),
        "languages": (
            "LanguagesDataModule",
            ("text-classification", "classification"),
            "language identification: names of countries, days, currencies etc. from Babel's locale data",
        ),
        "text-files": (
            "TextFilesDataModule",
            unlabelled + labelled,
            "your own .txt, .jsonl, .csv, .tsv or .parquet files",
        ),
        "hub-text": ("HubTextDataModule", unlabelled + labelled, "any text data set of the hub, or a local folder"),
        "imdb": (
            "ImdbDataModule",
            (*unlabelled, "text-classification", "classification"),
            "IMDb movie reviews, positive and negative",
        ),
        "wikipedia": ("WikipediaDataModule", unlabelled, "English Wikipedia"),
        "wikitext": ("WikiTextDataModule", unlabelled, "WikiText-103"),
        "bookcorpus": ("BookCorpusDataModule", unlabelled, "BookCorpus"),
        "enwik8": ("Enwik8DataModule", unlabelled, "the first 100 MB of a Wikipedia dump"),
    }
    with_labels = {
        "text-files": "LabelledTextFilesDataModule",
        "hub-text": "LabelledHubTextDataModule",
        "imdb": "LabelledImdbDataModule",
    }
    causal = {
        "python-docs": "CausalPythonDocsDataModule",
        "text-files": "CausalTextFilesDataModule",
        "hub-text": "CausalHubTextDataModule",
        "imdb": "CausalImdbDataModule",
        "wikipedia": "CausalWikipediaDataModule",
        "wikitext": "CausalWikiTextDataModule",
        "bookcorpus": "CausalBookCorpusDataModule",
        "enwik8": "CausalEnwik8DataModule",
    }
    others = {"clm": causal, **dict.fromkeys(labelled, with_labels)}
    # Words of the training texts are learned in fewer steps than bytes. Classes of tokens remain classes of bytes.
    own: dict[str, dict[str, Any]] = {
        task: {"data.tokenizer": "train:auto", "data.max_seq_len": 512}
        for task in ("text-classification", "classification", "regression")
    }
    # Small demonstration data: a run takes a few minutes on a laptop.
    embedded: dict[str, dict[str, Any]] = {
        "mlm": {"trainer.max_steps": 2000, "trainer.val_check_interval": 500},
        "clm": {"trainer.val_check_interval": 0.5},
    }
    # An epoch may take days: validate by steps.
    large = {"trainer.val_check_interval": 1000}
    defaults = {
        "python-docs": {},
        "languages": {"data.max_seq_len": 64, "trainer.max_epochs": 10},
        "python-code": {"data.max_seq_len": 128},
        "text-files": {},
    }
    task_defaults = {"python-docs": embedded, "text-files": own, "hub-text": own}
    return [
        DataSpec(
            name=name,
            module=f"{DATA}:{module}",
            tasks=tasks,
            summary=summary,
            yields=("input_ids", "attention_mask"),
            defaults=defaults.get(name, large),
            task_defaults=task_defaults.get(name, {}),
            modules={task: f"{DATA}:{others[task][name]}" for task in tasks if name in others.get(task, {})},
            path_option="train_files" if name == "text-files" else None,
        )
        for name, (module, tasks, summary) in modules.items()
    ]


LANGUAGE_PERCEIVER = {
    "encoder": "text",
    "encoder.vocab_size": 262,
    "encoder.max_seq_len": 2048,
    "encoder.num_input_channels": 768,
    "encoder.num_cross_attention_heads": 8,
    "encoder.num_cross_attention_qk_channels": 256,
    "encoder.num_cross_attention_v_channels": 1280,
    "encoder.num_self_attention_heads": 8,
    "encoder.num_self_attention_qk_channels": 256,
    "encoder.num_self_attention_v_channels": 1280,
    "encoder.num_self_attention_layers_per_block": 26,
    "encoder.dropout": 0.1,
    "num_latents": 256,
    "num_latent_channels": 1280,
    "init": "normal",
}
"""Encoder of the byte-level language model of the Perceiver IO paper (arXiv 2107.14795)."""


@hookimpl
def perceiver_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="language-perceiver",
            task="mlm",
            config={
                **LANGUAGE_PERCEIVER,
                "decoder": "text",
                "decoder.vocab_size": 262,
                "decoder.max_seq_len": 2048,
                "decoder.num_cross_attention_heads": 8,
                "decoder.num_cross_attention_qk_channels": 256,
                "decoder.num_cross_attention_v_channels": 768,
                "decoder.cross_attention_residual": False,
                "decoder.dropout": 0.1,
            },
            num_parameters=201_108_230,
            summary="the byte-level language model of the Perceiver IO paper",
            params="deepmind/language-perceiver",
            defaults={
                "data.tokenizer": "deepmind/language-perceiver",
                "data.max_seq_len": 2048,
                "data.mask_words": True,
                "optimizer": "Lamb",
                "optimizer.lr": 1e-3,
            },
        ),
        ModelSpec(
            name="language-perceiver-classifier",
            task="text-classification",
            config={
                **LANGUAGE_PERCEIVER,
                "decoder": "classification",
                "decoder.num_output_query_channels": 1280,
                "decoder.num_cross_attention_heads": 1,
                "decoder.dropout": 0.1,
            },
            num_parameters=206_098_690,
            summary="encoder of language-perceiver with a classification decoder (parameters: with two classes)",
            defaults={
                "data.tokenizer": "deepmind/language-perceiver",
                "data.max_seq_len": 2048,
                "data.add_special_tokens": True,
                "optimizer.lr": 1e-5,
            },
        ),
        ModelSpec(
            name="small-text-classifier",
            task="text-classification",
            config={
                "encoder": "text",
                "encoder.vocab_size": 262,
                "encoder.max_seq_len": 512,
                "encoder.num_input_channels": 128,
                "encoder.num_cross_attention_heads": 4,
                "encoder.num_self_attention_heads": 4,
                "encoder.num_self_attention_layers_per_block": 4,
                "encoder.dropout": 0.1,
                "encoder.init_scale": 0.08,
                "decoder": "classification",
                "decoder.num_output_query_channels": 128,
                "decoder.num_cross_attention_heads": 1,
                "decoder.init_scale": 0.1,
                "num_latents": 256,
                "num_latent_channels": 128,
                "init": "local",
            },
            num_parameters=730_242,
            summary="classifier of texts of up to 512 bytes, small enough for a CPU (parameters: with two classes)",
            defaults={"data.tokenizer": "deepmind/language-perceiver", "data.max_seq_len": 512},
        ),
    ]
