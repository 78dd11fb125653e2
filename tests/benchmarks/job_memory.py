"""Memory of the child for a whole job on a Llama of 1.5 B random bf16 weights: at most 1.6 times their bytes.

The job: 50 % of the weights to zero by magnitude, global and then uniform, no fine-tuning, safetensors only,
synthetic tokens. A local SeaweedFS holds the model; the real child runs the order. The limit is held against
the sampled peak of RssAnon + RssShmem in /proc/PID/status: memory that the kernel cannot drop. Pages of files
that are only mapped (the model's own file) can be dropped; VmHWM, which is ru_maxrss, counts them too and is
printed beside it. Run: python -m tests.benchmarks.job_memory; `--layers 1` takes a smaller model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from schemas.job_spec import JobSpec
from service.dev.seaweedfs import start_seaweedfs
from service.settings import Settings
from service.store.blobs import Blobs
from tests.benchmarks.bar import finish
from workers.messages import JobOrder

LIMIT = 1.6
EVERY_S = 0.05
LAYERS = 28  # with the sizes below 1.54 B parameters, those of Qwen2 1.5B
BUCKET = "zoo"
BUILD = (sys.executable, "-m", "tests.benchmarks.job_memory", "--build")


def build(folder: Path, layers: int) -> None:
    """The folder, one shard a layer, so that this process never holds the model."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151_936,
        tie_word_embeddings=True,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: one.shape for name, one in LlamaForCausalLM(config).named_parameters()}
    shards: dict[str, list[str]] = {}
    for name in shapes:
        part = name.split(".")[2] if ".layers." in name else "rest"
        shards.setdefault(f"model-{part}.safetensors", []).append(name)
    for file, names in shards.items():
        drawn = {name: torch.randn(shapes[name], dtype=torch.bfloat16).mul_(0.02) for name in names}
        save_file(drawn, folder / file, metadata={"format": "pt"})
    where = {name: file for file, names in shards.items() for name in names}
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def spec_of(allocation: str) -> JobSpec:
    """One cut, judged on eight blocks of 32 tokens."""
    return JobSpec.model_validate(
        {
            "model": {"uri": f"s3://{BUCKET}/big/"},
            "data": {"synthetic": True, "task": "causal-lm", "max_length": 32},
            "goal": {"sparsity": 0.5},
            "floor": {"min_value": 0.0},
            "method": {"allocation": {"kind": allocation}},
            "schedule": {"kind": "one_shot"},
            "fine_tune": {"epochs": 0},
            "export": ["safetensors"],
            "benchmark": {"backend": "none"},
        }
    )


def run_child(order: JobOrder, env: dict[str, str]) -> tuple[dict[str, int], str]:
    """The peaks of the child in bytes, and its last message."""
    reading, writing = os.pipe()
    told = {"SECATEUR_CHILD_MESSAGES_FD": str(writing), "SECATEUR_CHILD_PARENT": str(os.getpid())}
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "workers.child"],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
        pass_fds=(writing,),
        env={**os.environ, **env, **told},
    )
    os.close(writing)
    os.set_blocking(reading, False)
    assert child.stdin is not None
    child.stdin.write(order.model_dump_json().encode() + b"\n")
    child.stdin.flush()
    peaks = {"unevictable": 0, "resident": 0}
    said = b""
    while child.poll() is None:
        status = _status(child.pid)
        peaks["unevictable"] = max(peaks["unevictable"], status.get("RssAnon", 0) + status.get("RssShmem", 0))
        peaks["resident"] = max(peaks["resident"], status.get("VmHWM", 0))
        said += _read(reading)
        time.sleep(EVERY_S)
    said += _read(reading)
    os.close(reading)
    return peaks, said.decode().strip().rpartition("\n")[2]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def measure(folder: Path, layers: int) -> float:
    """The larger share of the two allocations."""
    model = folder / "model"
    model.mkdir()
    subprocess.run([*BUILD, str(model), "--layers", str(layers)], check=True)
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    key = "bench-key"
    os.environ |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": key}
    server = start_seaweedfs(folder / "s3", key, key, [BUCKET])
    env = {
        "SECATEUR_S3_ENDPOINT_URL": server.url,
        "SECATEUR_BUCKET": BUCKET,
        "SECATEUR_CACHE_DIR": str(folder / "cache"),
        "TMPDIR": str(folder),
    }
    shares = []
    try:
        blobs = Blobs.connect(Settings(s3_endpoint_url=server.url, bucket=BUCKET))
        for path in model.iterdir():
            blobs.upload_file(path, f"big/{path.name}")
        for number, allocation in enumerate(("global", "uniform"), 1):
            order = JobOrder(
                id=f"job_{number}",
                tenant="bench",
                token=f"{number}:a",
                attempt=1,
                spec=spec_of(allocation),
                device="cpu",
                threads=1,
            )
            peaks, last = run_child(order, env)
            figures = {name: round(value / weights, 3) for name, value in peaks.items()}
            print(json.dumps({"allocation": allocation, "weights": weights, **figures, "end": last[:200]}))
            assert '"done"' in last, last
            shares.append(figures["unevictable"])
    finally:
        server.stop()
    return max(shares)


def main() -> None:
    """Build the model in a process of its own, run the two jobs, keep to the limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--build", type=Path)
    asked = parser.parse_args()
    if asked.build is not None:
        build(asked.build, asked.layers)
        return
    with tempfile.TemporaryDirectory(prefix="secateur-") as disk:
        share = measure(Path(disk), asked.layers)
    finish("job_memory_of_weights", share, LIMIT, at_least=False)


if __name__ == "__main__":
    main()
