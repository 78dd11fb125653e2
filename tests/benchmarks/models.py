"""1,000 models in a local SeaweedFS, listed by the installed command through a real API: at most 20 seconds.

Each folder has four files as the hub's have; headers are those of BERT-base (201 tensors, 20 kB), and one
model in twenty has 900 tensors, whose header needs a second read. Run: python -m tests.benchmarks.models
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from service.dev.process import Server, free_ports, start
from service.dev.seaweedfs import start_seaweedfs
from service.settings import Settings
from service.store.blobs import Blobs
from tests.benchmarks.bar import finish

MODELS = 1000
LIMIT_S = 20.0
ROUNDS = 3
BUCKET = "zoo"


def weights(tensors: int) -> bytes:
    """A safetensors file of so many [8, 8] float32 tensors of zeros, with names of BERT's length."""
    header = {
        f"bert.encoder.layer.{number}.attention.output.LayerNorm.weight": {
            "dtype": "F32",
            "shape": [8, 8],
            "data_offsets": [256 * number, 256 * (number + 1)],
        }
        for number in range(tensors)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(256 * tensors)


def fill(blobs: Blobs) -> None:
    """The zoo: folders in twenty teams."""
    config = json.dumps({"architectures": ["BertForSequenceClassification"], "model_type": "bert"}).encode()
    small, large = weights(201), weights(900)

    def put(number: int) -> None:
        folder = f"team-{number % 20:02}/model-{number:04}/"
        blobs.put_bytes(folder + "README.md", b"# A model\n" * 100)
        blobs.put_bytes(folder + "config.json", config)
        blobs.put_bytes(folder + "model.safetensors", large if number % 20 == 0 else small)
        blobs.put_bytes(folder + "tokenizer.json", b"{}" * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(MODELS)))


def start_api(folder: Path, endpoint: str) -> Server:
    """The API as an operator starts it, without keys, so that it needs no Redis."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "service.cli.main", "api", "--port", str(port)]
    env = {"SECATEUR_S3_ENDPOINT_URL": endpoint, "SECATEUR_AUTH": "false", "SECATEUR_LOG_LEVEL": "warning"}
    return start("api", command, folder=folder, url=url, ready=lambda: answers(url), env=env)


def answers(url: str) -> bool:
    """Whether the API is there; it is not ready, since it has no Redis."""
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def seconds(url: str) -> float:
    """One `secateur models`, from its start to its end; every model must be in the answer, and readable."""
    command = [sys.executable, "-m", "service.cli.main", "models", f"s3://{BUCKET}/", "--json"]
    started = time.perf_counter()
    answer = subprocess.run(
        command,
        capture_output=True,
        check=True,
        env={**os.environ, "SECATEUR_URL": url, "SECATEUR_API_KEY": "-"},
    )
    taken = time.perf_counter() - started
    models = json.loads(answer.stdout)["data"]
    assert len(models) == MODELS
    assert all(one["readable"] for one in models)
    assert {one["parameters"] for one in models} == {201 * 64, 900 * 64}
    return taken


def main() -> None:
    """Start the servers, fill the zoo, list it three times; the median counts."""
    key, secret = "bench-key", "bench-secret"
    os.environ |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    with tempfile.TemporaryDirectory() as disk:
        server = start_seaweedfs(Path(disk) / "s3", key, secret, [BUCKET])
        try:
            fill(Blobs.connect(Settings(s3_endpoint_url=server.url, bucket=BUCKET)))
            api = start_api(Path(disk), server.url)
            try:
                taken = [seconds(api.url) for _ in range(ROUNDS)]
            finally:
                api.stop()
        finally:
            server.stop()
    print(f"secateur models over {MODELS} models: {', '.join(f'{one:.1f}' for one in taken)} s")
    finish("models_seconds", statistics.median(taken), LIMIT_S, at_least=False)


if __name__ == "__main__":
    main()
