"""What counts as a model in a listing."""

from schemas.zoo import ModelKind
from service.store.blobs import Blob
from service.zoo.layout import Candidate, candidates


def found(*keys: str) -> list[Candidate]:
    return candidates("zoo", [Blob(key, 10, "etag") for key in keys])


def uris(*keys: str) -> list[str]:
    return [one.uri for one in found(*keys)]


def test_a_folder_with_config_or_weights_is_a_model():
    assert uris(
        "a/config.json", "b/model.safetensors", "c/pytorch_model.bin", "d/x/y.pth", "e/README.md"
    ) == [
        "s3://zoo/a/",
        "s3://zoo/b/",
        "s3://zoo/c/",
        "s3://zoo/d/x/",
    ]


def test_the_top_of_the_bucket_may_be_one_too():
    assert uris("config.json", "model.safetensors", "inner/config.json") == ["s3://zoo/", "s3://zoo/inner/"]


def test_a_folders_own_files_only_are_the_models():
    outer, inner = found("a/config.json", "a/b/config.json", "a/b/model.safetensors", "a/model.safetensors")

    assert sorted(outer.files) == ["config.json", "model.safetensors"]
    assert (inner.uri, len(inner.files)) == ("s3://zoo/a/b/", 2)


def test_archives_and_onnx_files_are_models_of_their_own():
    models = found("a/m.pt2", "a/n.onnx", "a/n.onnx.data", "a/config.json")

    assert [(one.uri, one.kind) for one in models] == [
        ("s3://zoo/a/m.pt2", ModelKind.torch_export),
        ("s3://zoo/a/n.onnx", ModelKind.onnx),
    ]
    assert list(models[1].files) == ["n.onnx", "n.onnx.data"]


def test_a_result_folder_is_a_folder_and_its_programs():
    names = ("config.json", "model.safetensors", "model.onnx", "model.pt2")

    assert len(uris(*(f"out/{name}" for name in names))) == 3


def test_data_sets_and_what_trainers_leave_are_no_models():
    assert uris("d/train.parquet", "d/train-00000-of-00002.safetensors", "d/validation.safetensors") == []
    assert uris("t/optimizer.pt", "t/scheduler.pt", "t/training_args.bin", "t/rng_state.pth") == []
    assert uris("n/train.bin", "n/val.npz", "empty/") == []


def test_models_come_by_uri():
    assert uris("b/config.json", "a/config.json", "a-b/config.json") == [
        "s3://zoo/a-b/",
        "s3://zoo/a/",
        "s3://zoo/b/",
    ]


def test_weights_are_the_safetensors_else_the_pickles():
    (both,) = found("a/model.safetensors", "a/pytorch_model.bin")
    (old,) = found("a/pytorch_model.bin", "a/optimizer.pt")

    assert [blob.key for blob in both.weights()] == ["a/model.safetensors"]
    assert [blob.key for blob in old.weights()] == ["a/pytorch_model.bin"]
