"""1 GiB from a local SeaweedFS: our pull, with its checks, against boto3's download_file with its defaults.

Both arms take turns; each download runs in a fresh process and lands in memory (tmpfs) where there is room,
so that neither the last run nor the disk decides. Run: python -m tests.benchmarks.download
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3

from service.dev.seaweedfs import start_seaweedfs
from service.settings import GiB, MiB, Settings
from service.store.blobs import Blobs
from tests.benchmarks.bar import finish
from workers.transfer import pull_folder

BYTES = GiB
ROUNDS = 5
LIMIT = 1.5
KEY = "zoo/model.safetensors"
ARMS = ("boto3", "secateur")


def download(arm: str, endpoint: str, bucket: str, folder: Path) -> None:
    """One arm, in this process: its seconds as a JSON line."""
    if arm == "boto3":
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        start, cpu = time.perf_counter(), time.process_time()
        client.download_file(bucket, KEY, str(folder / "model.safetensors"))
    else:
        blobs = Blobs.connect(Settings(s3_endpoint_url=endpoint, bucket=bucket))
        start, cpu = time.perf_counter(), time.process_time()
        uri = f"s3://{bucket}/zoo/"
        pull_folder(blobs, uri, folder, allow=["*.safetensors"], on_bytes=lambda done, total: None)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu}))


def run(arm: str, endpoint: str, bucket: str, scratch: Path) -> dict[str, float]:
    """One arm in a process of its own; the file is checked for its size and removed."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    command = [sys.executable, "-m", "tests.benchmarks.download", arm, endpoint, bucket, str(folder)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (folder / "model.safetensors").stat().st_size == BYTES
        found: dict[str, float] = json.loads(answer.stdout)
        return found
    finally:
        shutil.rmtree(folder)


def scratch_folder() -> str | None:
    """Where downloads land: memory if it holds two of them, else the temporary folder."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * BYTES + GiB
    return str(memory) if roomy else None


def fill(endpoint: str, bucket: str, folder: Path) -> None:
    """Put 1 GiB of random bytes into S3 with boto3's defaults."""
    path = folder / "source"
    with path.open("wb") as file:
        for _ in range(BYTES // (64 * MiB)):
            file.write(os.urandom(64 * MiB))
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").upload_file(str(path), bucket, KEY)
    path.unlink()


def compare(endpoint: str, bucket: str, scratch: Path) -> float:
    """Interleaved rounds after one that is not counted; prints the medians, answers the median ratio.

    Each round gives one ratio: what else the machine does drifts, and both arms of a round share it.
    """
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    cpu: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(ROUNDS + 1):
        for arm in ARMS if number % 2 else reversed(ARMS):
            one = run(arm, endpoint, bucket, scratch)
            if number:
                seconds[arm].append(one["seconds"])
                cpu[arm].append(one["cpu"])
    for arm in ARMS:
        median = statistics.median(seconds[arm])
        spread = " ".join(f"{value:.2f}" for value in sorted(seconds[arm]))
        cpu_s = statistics.median(cpu[arm])
        print(f"{arm:9} {median:5.2f} s  {BYTES / MiB / median:5.0f} MiB/s  {cpu_s:4.2f} CPU-s  [{spread}]")
    ratios = [theirs / ours for theirs, ours in zip(seconds["boto3"], seconds["secateur"], strict=True)]
    return statistics.median(ratios)


def main() -> None:
    """Start the server, fill it, compare."""
    key, secret, bucket = "bench-key", "bench-secret", "bench"
    os.environ |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        server = start_seaweedfs(Path(disk) / "s3", key, secret, [bucket])
        try:
            fill(server.url, bucket, Path(disk))
            print(f"1 GiB over http from SeaweedFS, to {scratch}, median of {ROUNDS}")
            ratio = compare(server.url, bucket, Path(scratch))
        finally:
            server.stop()
    finish("download_speed_vs_boto3", ratio, LIMIT, at_least=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        download(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
