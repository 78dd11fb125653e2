"""The architectures of the sweep: all classifiers of torchvision, families of timm and of transformers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torchvision
import transformers as t
from torch import nn

from tests.sweep.case import Case

_SIDES = {"inception_v3": 299, "maxvit_t": 224}
"""The smallest that the architecture takes where that is more than 64."""

TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "test_resnet": (64, {}),
    "test_vit": (64, {"img_size": 64}),
    "test_convnext": (64, {}),
    "test_efficientnet_gn": (64, {}),
    "test_nfnet": (64, {}),
    "test_byobnet": (64, {}),
    "test_mambaout": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "lcnet_050": (64, {}),
    "ghostnet_050": (64, {}),
    "mobilevit_xxs": (64, {}),
    "dla46_c": (64, {}),
    "edgenext_xx_small": (64, {}),
    "efficientvit_m0": (224, {}),
    "efficientvit_b0": (64, {}),
    "regnetx_002": (64, {}),
    "xcit_nano_12_p16_224": (64, {}),
    "convnextv2_atto": (64, {}),
    "deit_tiny_patch16_224": (64, {"img_size": 64}),
    "beit_base_patch16_224": (64, {"img_size": 64, "depth": 2, "embed_dim": 192, "num_heads": 3}),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 2}),
    "cait_xxs24_224": (64, {"img_size": 64}),
    "swin_tiny_patch4_window7_224": (64, {"img_size": 64, "window_size": 4}),
    "levit_128s": (224, {}),
    "pvt_v2_b0": (64, {}),
    "poolformer_s12": (64, {}),
    "mixer_s16_224": (64, {"img_size": 64}),
    "resmlp_12_224": (64, {"img_size": 64}),
    "efficientformer_l1": (224, {}),
    "res2net50_26w_4s": (64, {}),
    "resnest14d": (64, {}),
    "seresnet18": (64, {}),
    "skresnet18": (64, {}),
    "ese_vovnet19b_dw": (64, {}),
    "repvgg_a0": (64, {}),
    "rexnet_100": (64, {}),
    "hrnet_w18_small": (64, {}),
    "cspdarknet53": (64, {}),
    "dpn48b": (64, {}),
    "densenet121": (64, {}),
    "fastvit_t8": (64, {}),
    "inception_next_atto": (64, {}),
    "twins_svt_small": (64, {}),
    "visformer_tiny": (64, {"img_size": 64}),
    "gernet_s": (64, {}),
    "focalnet_tiny_srf": (64, {}),
    "tiny_vit_5m_224": (224, {}),
    "starnet_s1": (64, {}),
}
"""Side of the images, and arguments that make the model small or take small images."""

_ENCODER = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "num_labels": 5,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_IMAGE = {"image_size": 32, "num_labels": 5}
_VISION = {
    **_IMAGE,
    "patch_size": 8,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_TEXT = {"input_ids": ((16,), "ids"), "attention_mask": ((16,), "ones")}
_IDS = {"input_ids": ((16,), "ids")}
_PAIR = {"input_ids": ((16,), "ids"), "decoder_input_ids": ((8,), "ids")}


def _pixels(side: int) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"pixel_values": ((3, side, side), "pixels")}


def _without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


_SMALL_T5 = {
    "vocab_size": 100,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_SEQ2SEQ = {
    "vocab_size": 100,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
}
_SPEECH = {
    **_without(_ENCODER, "max_position_embeddings"),
    "conv_dim": (32, 32),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 32,
    "mask_time_prob": 0.0,
}
_GPT = {"vocab_size": 100, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4}
_OPT = {
    **_without(_ENCODER, "intermediate_size"),
    "ffn_dim": 128,
    "word_embed_proj_dim": 64,
    "pad_token_id": 1,
}
_DISTIL = {"vocab_size": 100, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "num_labels": 5}
_SWIN = {**_IMAGE, "patch_size": 2, "embed_dim": 32, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}

TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", _ENCODER, _TEXT),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", _ENCODER, _TEXT),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification", _DISTIL, _TEXT),
    "deberta_v2": (
        "DebertaV2Config",
        "DebertaV2ForSequenceClassification",
        {**_ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
        _TEXT,
    ),
    "albert": ("AlbertConfig", "AlbertForSequenceClassification", {**_ENCODER, "embedding_size": 32}, _TEXT),
    "electra": (
        "ElectraConfig",
        "ElectraForSequenceClassification",
        {**_ENCODER, "embedding_size": 32},
        _TEXT,
    ),
    "modernbert": (
        "ModernBertConfig",
        "ModernBertForSequenceClassification",
        {
            **_ENCODER,
            "pad_token_id": 0,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        _TEXT,
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT, _IDS),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _ENCODER, _IDS),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _DECODER, _IDS),
    "mistral": ("MistralConfig", "MistralForCausalLM", _DECODER, _IDS),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _DECODER, _IDS),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_DECODER, "head_dim": 16}, _IDS),
    "phi": ("PhiConfig", "PhiForCausalLM", {**_DECODER, "num_key_value_heads": 4}, _IDS),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _DECODER, _IDS),
    "falcon": (
        "FalconConfig",
        "FalconForCausalLM",
        {**_without(_ENCODER, "intermediate_size"), "multi_query": False, "new_decoder_architecture": False},
        _IDS,
    ),
    "opt": ("OPTConfig", "OPTForCausalLM", _OPT, _IDS),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**_DECODER, "head_dim": 16}, _IDS),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**_DECODER, "num_local_experts": 4}, _IDS),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
        _IDS,
    ),
    "t5": ("T5Config", "T5ForConditionalGeneration", _SMALL_T5, _PAIR),
    "bart": (
        "BartConfig",
        "BartForConditionalGeneration",
        {**_SEQ2SEQ, "max_position_embeddings": 64},
        _PAIR,
    ),
    "vit": ("ViTConfig", "ViTForImageClassification", _VISION, _pixels(32)),
    "deit": ("DeiTConfig", "DeiTForImageClassification", _VISION, _pixels(32)),
    "dinov2": ("Dinov2Config", "Dinov2ForImageClassification", {**_VISION, "mlp_ratio": 2}, _pixels(32)),
    "swin": ("SwinConfig", "SwinForImageClassification", _SWIN, _pixels(32)),
    "convnext": (
        "ConvNextConfig",
        "ConvNextForImageClassification",
        {**_IMAGE, "depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 128]},
        _pixels(32),
    ),
    "resnet": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {
            "embedding_size": 16,
            "hidden_sizes": [16, 32],
            "depths": [1, 2],
            "layer_type": "basic",
            "num_labels": 5,
        },
        _pixels(32),
    ),
    "clip": (
        "CLIPConfig",
        "CLIPModel",
        {
            "text_config": {**_without(_ENCODER, "num_labels"), "eos_token_id": 99},
            "vision_config": _without(_VISION, "num_labels"),
            "projection_dim": 32,
        },
        {"input_ids": ((16,), "ids"), **_pixels(32)},
    ),
    "wav2vec2": (
        "Wav2Vec2Config",
        "Wav2Vec2ForSequenceClassification",
        _SPEECH,
        {"input_values": ((800,), "pixels")},
    ),
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {
            **_SEQ2SEQ,
            "num_mel_bins": 16,
            "max_source_positions": 32,
            "max_target_positions": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        {"input_features": ((16, 64), "pixels"), "decoder_input_ids": ((8,), "ids")},
    ),
    "segformer": (
        "SegformerConfig",
        "SegformerForImageClassification",
        {
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [16, 32, 64, 64],
            "num_attention_heads": [1, 2, 4, 4],
            "decoder_hidden_size": 32,
            "num_labels": 5,
        },
        _pixels(64),
    ),
    "bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {"vocab_size": 100, "hidden_size": 64, "n_layer": 2, "n_head": 4},
        _IDS,
    ),
}
"""Configuration class, model class, sizes and inputs."""


def cases() -> dict[str, Case]:
    """All of them, by name."""
    every = [*map(_torchvision, torchvision.models.list_models(module=torchvision.models))]
    every += [_timm(name, *options) for name, options in TIMM.items()]
    every += [_transformers(name, *options) for name, options in TRANSFORMERS.items()]
    return {case.name: case for case in every}


def _torchvision(name: str) -> Case:
    side = _SIDES.get(name, 64)
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        side = 56 if name == "vit_h_14" else 64
        options = {"image_size": side}
    elif name in ("googlenet", "inception_v3"):
        options = {"init_weights": False}
    build: Callable[[], nn.Module] = partial(torchvision.models.get_model, name, weights=None, **options)
    return Case(f"torchvision/{name}", build, _pixels(side))


def _timm(name: str, side: int, options: dict[str, Any]) -> Case:
    build = partial(timm.create_model, name, pretrained=False, num_classes=10, **options)
    return Case(f"timm/{name}", build, _pixels(side))


def _transformers(
    name: str, config: str, model: str, options: dict[str, Any], inputs: dict[str, Any]
) -> Case:
    def build() -> nn.Module:
        module: nn.Module = getattr(t, model)(getattr(t, config)(**options))
        return module

    return Case(f"transformers/{name}", build, inputs)
