"""What the text plugin registers. Imports nothing heavy."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, DataSpec, ModelSpec, TaskSpec, hookimpl

DATA = "perceiver_plugins.text.data"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="text",
            kind="input",
            adapter="perceiver_plugins.text.adapters:TextInputAdapter",
            config="perceiver_plugins.text.config:TextEncoderConfig",
            summary="tokens or UTF-8 bytes with learned positions",
        ),
        AdapterSpec(
            name="text",
            kind="output",
            adapter="perceiver_plugins.text.adapters:TextOutputAdapter",
            config="perceiver_plugins.text.config:TextDecoderConfig",
            summary="a token for each place of a sequence, tied to the input's embedding or not",
        ),
    ]


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="mlm",
            module="perceiver_plugins.text.lightning:LitLanguageModel",
            summary="masked language modelling: predict masked tokens or bytes from both sides",
            data="python-docs",
            defaults={
                # A small model learns from single masked bytes in minutes; whole words are much harder.
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
            links={
                "vocab_size": ("encoder.vocab_size", "decoder.vocab_size"),
                "max_seq_len": ("encoder.max_seq_len", "decoder.max_seq_len"),
            },
            predictor="perceiver_plugins.text.fill_mask:MaskPredictor",
            convert_config="perceiver_plugins.text.huggingface:published_config",
        )
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    modules = {
        "python-docs": ("PythonDocsDataModule", "English text that comes with Python: topics and docstrings"),
        "text-files": ("TextFilesDataModule", "your own .txt, .jsonl, .csv or .parquet files"),
        "hub-text": ("HubTextDataModule", "any text data set of the hub, or a local folder"),
        "wikipedia": ("WikipediaDataModule", "English Wikipedia"),
        "wikitext": ("WikiTextDataModule", "WikiText-103"),
        "bookcorpus": ("BookCorpusDataModule", "BookCorpus"),
        "enwik8": ("Enwik8DataModule", "the first 100 MB of a Wikipedia dump"),
        "imdb": ("ImdbDataModule", "IMDb movie reviews"),
    }
    # The embedded text is for a first try: a run on it ends by itself after some minutes on a laptop.
    embedded = {"trainer.max_steps": 2000, "trainer.val_check_interval": 500}
    # An epoch of these may take days.
    large = {"trainer.val_check_interval": 1000}
    defaults = {"python-docs": embedded, "text-files": {}}
    return [
        DataSpec(
            name=name,
            module=f"{DATA}:{module}",
            tasks=("mlm",),
            summary=summary,
            defaults=defaults.get(name, large),
        )
        for name, (module, summary) in modules.items()
    ]


@hookimpl
def perceiver_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="language-perceiver",
            task="mlm",
            config={
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
                "decoder": "text",
                "decoder.vocab_size": 262,
                "decoder.max_seq_len": 2048,
                "decoder.num_cross_attention_heads": 8,
                "decoder.num_cross_attention_qk_channels": 256,
                "decoder.num_cross_attention_v_channels": 768,
                "decoder.cross_attention_residual": False,
                "decoder.dropout": 0.1,
                "num_latents": 256,
                "num_latent_channels": 1280,
                "init": "normal",
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
        )
    ]
