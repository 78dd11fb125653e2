"""The zoo through the API, on a real S3: what a prefix holds, page by page, and why some of it is refused."""

import io
import json
import re
import secrets
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.store.blobs import Blob, Blobs
from service.zoo.weights import GUESS_BYTES
from tests.api import Api, bearer, new_key
from tests.zoo import BERT, config, safetensors, with_header

WEIGHTS = safetensors(**{"fc.weight": ("F32", [4, 3]), "fc.bias": ("F32", [4]), "steps": ("I64", [])})


@pytest.fixture
def zoo(blobs: Blobs) -> Iterator[Blobs]:
    """An empty bucket."""
    name = f"zoo-{secrets.token_hex(6)}"
    blobs.client.create_bucket(Bucket=name)
    yield blobs.of(name)
    blobs.client.delete_bucket(Bucket=name)


@pytest.fixture
def team(app: FastAPI, client: TestClient, zoo: Blobs) -> Api:
    """A tenant that may name the whole bucket."""
    return Api(client, bearer(new_key(app, "acme", prefixes=(f"s3://{zoo.bucket}/",))))


def put(zoo: Blobs, folder: str, **files: bytes) -> None:
    """Files by their names, a dot for each double underscore; config and weights unless given as b''."""
    named = {name.replace("__", "."): content for name, content in files.items()}
    for name, content in {"config.json": config(), "model.safetensors": WEIGHTS, **named}.items():
        if content:
            zoo.put_bytes(f"{folder}/{name}", content)


def listed(api: Api, zoo: Blobs, query: str = "", under: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"/v1/models?uri=s3://{zoo.bucket}/{under}{query}")
    assert answer.status_code == 200, answer.text
    models: list[dict[str, Any]] = answer.json()["data"]
    return models


def only(api: Api, zoo: Blobs) -> dict[str, Any]:
    [model] = listed(api, zoo)
    return model


def test_a_model_is_told_by_its_config_and_its_headers(team: Api, zoo: Blobs):
    put(zoo, "resnet")

    assert only(team, zoo) == {
        "object": "model",
        "uri": f"s3://{zoo.bucket}/resnet/",
        "kind": "folder",
        "library": "transformers",
        "architecture": "ResNetForImageClassification",
        "tasks": ["image-classification"],
        "parameters": 17,
        "bytes": len(WEIGHTS),
        "dtypes": {"F32": 16, "I64": 1},
        "readable": True,
        "reason": None,
    }


def test_a_header_longer_than_the_first_read_is_read_whole(team: Api, zoo: Blobs):
    long = safetensors(**{f"layer.{number:04}" + "x" * 100: ("F16", [2]) for number in range(600)})
    assert int.from_bytes(long[:8], "little") > GUESS_BYTES
    put(zoo, "long", model__safetensors=long)

    model = only(team, zoo)

    assert (model["parameters"], model["dtypes"], model["reason"]) == (1200, {"F16": 1200}, None)


def test_shards_count_together(team: Api, zoo: Blobs):
    index = {"weight_map": {"fc.weight": "model-1.safetensors", "other": "model-2.safetensors"}}
    put(zoo, "big", config__json=config(BERT), model__safetensors=b"")
    zoo.put_json("big/model.safetensors.index.json", index)
    zoo.put_bytes("big/model-1.safetensors", WEIGHTS)
    zoo.put_bytes("big/model-2.safetensors", safetensors(other=("BF16", [5])))

    model = only(team, zoo)

    assert (model["parameters"], model["dtypes"]) == (22, {"F32": 16, "BF16": 5, "I64": 1})
    assert (model["readable"], model["tasks"]) == (True, ["text-classification"])
    assert model["bytes"] > len(WEIGHTS)


REFUSED: list[tuple[dict[str, bytes], str]] = [
    ({"config__json": b""}, "the folder has no config.json"),
    ({"model__safetensors": b""}, "neither model.safetensors nor model.safetensors.index.json"),
    ({"model__safetensors": b"", "pytorch_model__bin": b"x"}, "a pickle.*: run `secateur convert`"),
    ({"model__safetensors": b"", "weights__safetensors": WEIGHTS}, "name a single file model.safetensors"),
    ({"model__safetensors": WEIGHTS[:-4]}, "model.safetensors is cut short or damaged"),
    ({"model__safetensors": with_header(b"no")}, "model.safetensors has a header that is no JSON"),
    ({"config__json": config(auto_map={"A": "b"})}, "'auto_map' asks for Python code"),
    ({"config__json": config(quantization_config={"bits": 4})}, "the weights are quantized"),
    ({"config__json": b" " * 2_000_000}, "config.json has 2,000,000 bytes; at most 1,048,576 are read"),
    ({"config__json": config(secateur={"surgery": "surgery.json"})}, "surgery.json, which is not in the"),
    ({"config__json": config(architectures=["\ud800"])}, r"'\\ud800' has no head"),
]


def test_what_cannot_be_pruned_is_listed_with_the_reason(team: Api, zoo: Blobs):
    for number, (files, _) in enumerate(REFUSED):
        put(zoo, f"model-{number:02}", **files)

    models = listed(team, zoo)

    assert len(models) == len(REFUSED)
    for model, (_, reason) in zip(models, REFUSED, strict=True):
        assert not model["readable"]
        assert re.search(reason, model["reason"]), model["reason"]


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (
            {"weight_map": {"a": "../other/model.safetensors"}},
            "is not a *.safetensors file",
        ),
        ({"weight_map": {"a": "code.py"}}, "is not a *.safetensors file"),
        ({"weight_map": {"a": "model-9.safetensors"}}, "which is not in the folder: upload it"),
        ({"weight_map": {str(one): f"{one}.safetensors" for one in range(1001)}}, "names 1,001 files"),
        ({"weight_map": []}, "has no 'weight_map'"),
        ([], "has no 'weight_map'"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(team: Api, zoo: Blobs, index: Any, reason: str):
    put(zoo, "sharded", model__safetensors=b"")
    zoo.put_json("sharded/model.safetensors.index.json", index)

    assert reason in only(team, zoo)["reason"]


def archive(*, weights: dict[str, Any] | None = None, packed: bool = False, **more: bytes) -> bytes:
    """A `.pt2` as torch lays it out, with more members (a double underscore is a slash)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        file.writestr("m/models/model.json", "{}")
        file.writestr("m/data/weights/weight_0", bytes(100_000))
        file.writestr("m/data/weights/model_weights_config.json", json.dumps({"config": weights or {}}))
        for name, content in more.items():
            file.writestr("m/" + name.replace("__", "/"), content)
    return buffer.getvalue()


def weight(**changes: Any) -> dict[str, Any]:
    meta = {"dtype": 7, "sizes": [{"as_int": 5}, {"as_int": 4}]}
    return {"w": {"path_name": "weight_0", "use_pickle": False, "tensor_meta": meta, **changes}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(weights=weight(use_pickle=True)), "'w' is stored as a pickle, which can run code"),
        (archive(weights=weight(), packed=True), "compressed members"),
        (archive(data__aotinductor__model__a=b"\x7fELF"), "machine code (AOTInductor)"),
        (archive(models__other=b"{}"), "does not hold one program"),
        (archive(weights={"w": 3}), "not a torch.export archive"),
        (archive(weights=weight(tensor_meta={"dtype": 7, "sizes": [{"as_int": -1}]})), "impossible size"),
        (archive()[:-30], "not a torch.export archive"),
        (b"", "not a torch.export archive"),
    ],
)
def test_an_archive_that_could_run_code_or_is_broken_is_refused(
    team: Api, zoo: Blobs, content: bytes, reason: str
):
    zoo.put_bytes("m.pt2", content)

    model = only(team, zoo)

    assert (model["kind"], model["readable"]) == ("torch_export", False)
    assert reason in model["reason"]


def test_the_weights_of_an_archive_are_counted(team: Api, zoo: Blobs):
    tied = {**weight(), "same": weight()["w"]}
    zoo.put_bytes("m.pt2", archive(weights=tied))

    model = only(team, zoo)

    assert (model["parameters"], model["dtypes"], model["library"]) == (20, {"F32": 20}, "torch.export")
    assert (model["readable"], model["reason"]) == (True, None)


def test_onnx_files_are_told_with_their_external_weights(team: Api, zoo: Blobs):
    zoo.put_bytes("a.onnx", b"\x08\x0a" + bytes(98))
    zoo.put_bytes("a.onnx.data", bytes(900))
    zoo.put_bytes("b.onnx", b"<html>")

    good, bad = listed(team, zoo)

    assert (good["kind"], good["bytes"], good["parameters"], good["readable"]) == ("onnx", 1000, None, True)
    assert "does not begin like an ONNX model" in bad["reason"]


def test_pages_neither_skip_nor_repeat(team: Api, zoo: Blobs):
    for name in ("a", "a/inner", "a-b", "b", "c"):
        put(zoo, name)
    uris: list[str] = []
    after = ""
    while True:
        page = team.get(f"/v1/models?uri=s3://{zoo.bucket}/&limit=2{after}").json()
        uris += [one["uri"] for one in page["data"]]
        assert page["last_id"] == uris[-1]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"

    assert uris == [f"s3://{zoo.bucket}/{name}/" for name in ("a-b", "a", "a/inner", "b", "c")]


def test_only_what_is_under_the_prefix_is_listed(team: Api, zoo: Blobs):
    put(zoo, "team/a")
    put(zoo, "team-b/a")

    assert [one["uri"] for one in listed(team, zoo, under="team")] == [f"s3://{zoo.bucket}/team/a/"]
    assert listed(team, zoo, under="nothing/") == []


def test_a_key_lists_what_its_jobs_may_name_and_nothing_else(
    app: FastAPI, client: TestClient, zoo: Blobs, blobs: Blobs
):
    put(zoo, "acme/model")
    put(blobs, "acme/jobs/job_1/artifacts")
    api = Api(client, bearer(new_key(app, "acme", prefixes=(f"s3://{zoo.bucket}/acme/",))))

    assert len(listed(api, zoo, under="acme/")) == 1
    assert len(api.get(f"/v1/models?uri=s3://{blobs.bucket}/acme/").json()["data"]) == 1
    for uri in (f"s3://{zoo.bucket}/", f"s3://{zoo.bucket}/rival/", f"s3://{blobs.bucket}/", "s3://other/"):
        answer = api.get(f"/v1/models?uri={uri}")
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (403, "prefix_not_allowed"), uri
        assert problem["errors"][0]["loc"] == ["query", "uri"]


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("", "uri"),
        ("uri=/etc", "uri"),
        ("uri=s3://zoo/../x", "uri"),
        ("uri=s3://zoo/&limit=0", "limit"),
        ("uri=s3://zoo/&limit=1001", "limit"),
        ("uri=s3://zoo/&colour=red", "colour"),
    ],
)
def test_a_bad_query_names_the_parameter(team: Api, query: str, where: str):
    answer = team.get(f"/v1/models?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["loc"] == ["query", where]


def test_a_bucket_that_is_not_there_is_said(app: FastAPI, client: TestClient):
    api = Api(client, bearer(new_key(app, "acme", prefixes=("s3://no-such-bucket/",))))

    answer = api.get("/v1/models?uri=s3://no-such-bucket/")

    assert (answer.status_code, answer.json()["code"]) == (422, "bucket_not_found")
    assert answer.json()["errors"][0]["loc"] == ["query", "uri"]
    assert "there is no bucket 'no-such-bucket'" in answer.json()["detail"]


def test_s3_that_refuses_the_service_is_said(settings: Settings, zoo: Blobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with TestClient(create_app(settings.model_copy(update={"auth": False}))) as client:
        answer = client.get(f"/v1/models?uri=s3://{zoo.bucket}/")

    assert (answer.status_code, answer.json()["code"]) == (422, "bucket_forbidden")
    assert "give its S3 credentials the right to read" in answer.json()["detail"]


def test_a_range_is_of_the_object_that_was_listed(zoo: Blobs):
    zoo.put_bytes("a", b"0123456789")
    [blob] = zoo.list("a")

    assert zoo.get_range(blob, 2, 5) == b"234"
    assert zoo.get_range(blob, 8, 100) == b"89"
    assert zoo.get_range(blob, 10, 20) == b""
    assert zoo.get_range(Blob("a", 0, blob.etag), 0, 5) == b""
