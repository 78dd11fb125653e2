"""Recorded inspector layers: eligible is not picked."""

import json
from typing import Any

import pytest

from workers.benchmark.tensorrt.inspector import EngineLayer, read_engine, sparse_layers

PICKED = (
    "sm80_xmma_fprop_avdt_sparse_int8int8_tilesize64x64x64_tapsperload3_threadspercta128_r3s3_u1v1_scalebias_relu",
    "sm80_xmma_fprop_sparse_conv_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_stage3_sptensor16x8x32",
    "sm80_xmma_sparse_gemm_f16f16_f16f32_f32_nt_n_tilesize128x128x64_stage3_warpsize2x2x1_sptensor16x8x32",
    "sm80_xmma_sparse_gemm_i8i8_i8i32_f32_tn_n_tilesize128x128x128_sptensor16x8x64",
)
DENSE = (
    "sm80_xmma_fprop_avdt_dense_int8int8_tilesize64x64x64",
    "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_nchw_vect_c_32_"
    "tilesize32x32x64_stage6_warpsize2x1x1_g1_tensor16x8x32_t1r3s3",
)


def engine(*layers: Any, **more: Any) -> list[EngineLayer]:
    return read_engine(json.dumps({"Layers": layers, **more}))


def layer(**fields: Any) -> dict[str, Any]:
    return {"Name": "conv", "LayerType": "CaskConvolution", "HasSparseWeights": 1, **fields}


@pytest.mark.parametrize("tactic", PICKED)
def test_a_sparse_kernel_is_told_by_its_name(tactic: str):
    (found,) = engine(layer(TacticName=tactic))

    assert found.is_sparse


@pytest.mark.parametrize("tactic", DENSE)
def test_weights_with_the_pattern_do_not_make_a_dense_kernel_sparse(tactic: str):
    (found,) = engine(layer(TacticName=tactic))

    assert found.has_sparse_weights
    assert not found.is_sparse


@pytest.mark.parametrize("bindings", ["Bindings", "I/O Tensors"])
def test_reads_engines_of_10_and_of_11(bindings: str):
    (found,) = engine(layer(TacticName=PICKED[0]), **{bindings: ["x", "y"]})

    assert sparse_layers([found]) == [found]


def test_the_key_of_8_says_the_same():
    stated = layer(AllowSparse=1)
    del stated["HasSparseWeights"]

    assert engine(stated)[0].has_sparse_weights


def test_the_metadata_leads_back_to_the_onnx_nodes():
    metadata = "[ONNX Layer: /layer1/conv/Conv]\x1e[ONNX Layer: /layer1/relu/Relu]"

    (found,) = engine(layer(Metadata=metadata))

    assert found.onnx_nodes == ("/layer1/conv/Conv", "/layer1/relu/Relu")


def test_a_layer_without_a_kernel_name_is_opaque_where_it_computes():
    myelin, reformat = engine(
        {"Name": "{ForeignNode[a...b]}", "LayerType": "Myelin"}, {"Name": "r", "LayerType": "Reformat"}
    )

    assert myelin.is_opaque
    assert not myelin.is_sparse
    assert not reformat.is_opaque


def test_an_engine_that_was_built_without_details_has_names_only():
    (found,) = engine("conv1 + relu1")

    assert found == EngineLayer("conv1 + relu1", "unknown", None, None, ())
    assert found.is_opaque


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "no list 'Layers'"),
        ('{"Layers": 3}', "no list"),
        ("no JSON", "Expecting value"),
        ('{"Layers": [7]}', "a int"),
    ],
)
def test_other_text_is_refused(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        read_engine(text)
