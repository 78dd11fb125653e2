"""Requests a second of `POST /v1/jobs` against a bare FastAPI route that validates and stores the same spec.

`python -m tests.benchmarks.submit`: both under uvicorn, one process each, on a real Valkey and SeaweedFS;
they take turns under the same load (8 connections from a process of its own). Ours also authenticates, looks
an idempotency key up, queues the job in Redis, logs and counts.
"""

import argparse
import http.client
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI

from schemas.job_spec import EXAMPLE, JobSpec
from service.api import run
from service.dev.process import free_ports
from service.dev.seaweedfs import start_seaweedfs
from service.dev.valkey import start_valkey
from service.settings import Settings
from service.store.api_keys import ApiKeys
from service.store.blobs import Blobs
from service.store.connect import connect
from tests.benchmarks.bar import finish

MIN_RATIO = 0.6
CONNECTIONS = 8
BODY = json.dumps(EXAMPLE).encode()
ARMS = ("ours", "bare")


def bare_app(settings: Settings) -> FastAPI:
    """What a route cannot do without: it validates the body and makes the PUT, in a thread."""
    app = FastAPI()
    blobs = Blobs.connect(settings)

    @app.post("/v1/jobs", status_code=201)
    def create(spec: JobSpec) -> dict[str, str]:
        id = secrets.token_hex(10)
        blobs.client.put_object(
            Bucket=blobs.bucket,
            Key=f"bare/jobs/{id}/spec.json",
            Body=spec.model_dump_json().encode(),
            ContentType="application/json",
        )
        return {"id": id}

    return app


def serve(arm: str, port: int) -> None:
    """Run one arm; its settings are in the environment."""
    settings = Settings(api_port=port)
    if arm == "ours":
        run(settings)
    else:
        uvicorn.run(bare_app(settings), port=port, log_level="warning", access_log=False)


def load(url: str, key: str, requests: int) -> None:
    """Send so many requests over 8 connections; print all seconds as JSON, the whole first."""
    host = urlsplit(url).netloc
    shares = [requests // CONNECTIONS] * CONNECTIONS
    taken: list[float] = []
    threads = [threading.Thread(target=_send, args=(host, key, share, taken)) for share in shares]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([time.perf_counter() - begin, *taken]))


def _send(host: str, key: str, count: int, taken: list[float]) -> None:
    connection = http.client.HTTPConnection(host, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    for _ in range(count):
        begin = time.perf_counter()
        connection.request("POST", "/v1/jobs", BODY, {**headers, "Idempotency-Key": secrets.token_hex(8)})
        response = connection.getresponse()
        response.read()
        taken.append(time.perf_counter() - begin)
        assert response.status == 201, response.status


def measure(url: str, key: str, requests: int) -> tuple[float, list[float]]:
    """Requests a second, and the seconds of each, of one round."""
    command = [sys.executable, "-m", "tests.benchmarks.submit", "--load", url, key, str(requests)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    whole, *taken = json.loads(answer.stdout)
    return len(taken) / whole, taken


def compare(urls: dict[str, str], key: str, rounds: int, requests: int) -> float:
    """The median over the rounds of ours / bare; prints what each arm reached."""
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(-1, rounds):
        for arm in ARMS if number % 2 else reversed(ARMS):
            rate, taken = measure(urls[arm], key, requests)
            if number >= 0:  # the first round warms up
                rates[arm].append(rate)
                seconds[arm] += taken
    for arm in ARMS:
        p50, p99 = (1000 * _quantile(seconds[arm], share) for share in (0.5, 0.99))
        rate = statistics.median(rates[arm])
        print(
            f"{arm}: {rate:.0f} requests/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(seconds[arm])} requests"
        )
    ratios = [ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True)]
    print("ratios of the rounds: " + " ".join(f"{ratio:.2f}" for ratio in sorted(ratios)))
    return statistics.median(ratios)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def benchmark(rounds: int, requests: int) -> float:
    """Start everything, compare, stop everything."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        access, secret = secrets.token_hex(8), secrets.token_hex(16)
        redis = start_valkey(folder / "valkey")
        stack.callback(redis.stop)
        s3 = start_seaweedfs(folder / "s3", access, secret, ["secateur"])
        stack.callback(s3.stop)
        env = {
            **os.environ,
            "SECATEUR_REDIS_URL": redis.url,
            "SECATEUR_S3_ENDPOINT_URL": s3.url,
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
        }
        uris = ("s3://zoo/", "s3://data/")
        key = ApiKeys(connect(redis.url)).create("bench", name="bench", prefixes=uris)
        ports = zip(ARMS, free_ports(2), strict=True)
        urls = {arm: _start(arm, port, env, folder / f"{arm}.log", stack) for arm, port in ports}
        return compare(urls, key, rounds, requests)


def _start(arm: str, port: int, env: dict[str, str], log: Path, stack: ExitStack) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.submit", "--serve", arm, str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{url}/openapi.json", timeout=5)
            return url
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{arm} did not start:\n{log.read_text()}") from None
            time.sleep(0.05)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=400, help="of one arm in one round")
    parser.add_argument("--serve", nargs=2, metavar=("ARM", "PORT"), help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=3, metavar=("URL", "KEY", "REQUESTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
    elif options.load:
        load(options.load[0], options.load[1], int(options.load[2]))
    else:
        finish("submit", benchmark(options.rounds, options.requests), MIN_RATIO, at_least=True)


if __name__ == "__main__":
    main()
