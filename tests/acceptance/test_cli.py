"""The command line against the real service behind a real socket; a test plays the worker."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from schemas.event import EventType
from schemas.job import Progress, Status
from schemas.job_spec import EXAMPLE
from service.cli.main import main
from service.dev.process import Server, free_ports, start
from service.settings import Settings
from service.store.api_keys import ApiKeys
from service.store.blobs import Blobs
from service.store.jobs import EventDraft
from service.store.workers import Workers
from tests.api import PREFIXES, worker
from tests.forwarder import Forwarder
from tests.jobs import Desk, checkpoint_of, round_of
from tests.servers import S3
from tests.unit.report.sample import sample_report

WEIGHTS = b"\x00weights" * 1000
HTML = "<!doctype html><title>é</title>"
Spec = Callable[..., str]


@dataclass(frozen=True)
class Ran:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs commands in this process, as the console script does."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capsys = capsys

    def __call__(self, *args: str) -> Ran:
        self._capsys.readouterr()
        self._patch.setattr("sys.argv", ["secateur", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    def submit(self, spec: str) -> str:
        ran = self("submit", spec, "--json")
        assert ran.code == 0, ran.err
        return str(ran.json["id"])


@dataclass(frozen=True)
class Service:
    """A running API, and what it stands on."""

    url: str
    settings: Settings
    blobs: Blobs


@pytest.fixture(scope="module")
def service(s3: S3, valkey_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One API for the file, started as an operator starts it."""
    [port] = free_ports(1)
    settings = Settings(redis_url=valkey_server.url, s3_endpoint_url=s3.url, bucket="cli-tests")
    blobs = Blobs.connect(settings)
    blobs.client.create_bucket(Bucket=settings.bucket)
    names = {"REDIS_URL": settings.redis_url, "S3_ENDPOINT_URL": s3.url, "BUCKET": settings.bucket}
    url = f"http://127.0.0.1:{port}"
    server = start(
        "api",
        [sys.executable, "-m", "service.cli.main", "api", "--port", str(port)],
        folder=tmp_path_factory.mktemp("api"),
        url=url,
        ready=lambda: _answers(url),
        env={f"SECATEUR_{name}": value for name, value in names.items()},
    )
    yield Service(url, settings, blobs)
    server.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def url(service: Service, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> str:
    """The service, without jobs; its address and a key are in the environment."""
    desk.redis.flushall()
    key = ApiKeys(desk.redis).create("acme", name="test", prefixes=PREFIXES)
    monkeypatch.setenv("SECATEUR_REDIS_URL", service.settings.redis_url)
    monkeypatch.setenv("SECATEUR_API_KEY", key)
    monkeypatch.setenv("SECATEUR_URL", service.url)
    return service.url


@pytest.fixture
def blobs(service: Service) -> Blobs:
    return service.blobs


@pytest.fixture
def desk(service: Service) -> Desk:
    return Desk.on(service.settings.redis_url)


@pytest.fixture
def cli(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """Writes a spec with these top-level fields changed; answers its path."""

    def write(**changes: Any) -> str:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump({**EXAMPLE, **changes}))
        return str(path)

    return write


def finish(desk: Desk, blobs: Blobs, id: str) -> None:
    """Play the worker: run the job to its end, with files in S3."""
    claim = desk.claim()
    desk.store.report(claim, progress=Progress(percent=50, round=1, metric=0.9), lines=("one", "two"))
    desk.store.commit(claim, round_of(1), checkpoint_of(1))
    prefix = f"acme/jobs/{id}/artifacts/{claim.token}/"
    report = sample_report(job=id).model_dump_json().encode()
    files = {"model.safetensors": WEIGHTS, "report.html": HTML.encode(), "report.json": report}
    artifacts = []
    for name, content in files.items():
        blobs.put_bytes(prefix + name, content)
        sha256 = hashlib.sha256(content).hexdigest()
        artifacts.append({"name": name, "bytes": len(content), "sha256": sha256, "media_type": "x/y"})
    manifest = {"prefix": prefix, "artifacts": artifacts}
    desk.store.finish(claim, Status.succeeded, "Goal reached.", summary={"metric": 0.9}, manifest=manifest)


def later(action: Callable[[], object], seconds: float = 0.5) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_a_submitted_job_is_listed_and_shown(cli: Cli, spec: Spec):
    submitted = cli("submit", spec())
    id = submitted.out.split()[0]

    assert (submitted.code, submitted.out) == (0, f"{id} queued\n")
    assert id in cli("list").out
    shown = cli("show", id)
    assert "Waiting for a worker." in shown.out
    assert "s3://zoo/fashion-resnet/" in shown.out


def test_with_json_stdout_holds_json_and_nothing_else(cli: Cli, spec: Spec):
    id = cli.submit(spec())

    assert cli("list", "--json").json["data"][0]["id"] == id
    assert cli("show", id, "--json").json["object"] == "job"
    assert cli("validate", spec(), "--json").json["object"] == "estimate"
    assert cli("workers", "--json").json == {"object": "list", "data": [], "has_more": False, "last_id": None}
    assert len(cli("queues", "--json").json["data"]) == 4
    assert cli("artifacts", id, "--json").json["data"] == []
    assert cli("cancel", id, "--json").json["status"] == "cancelled"
    assert cli("retry", id, "--json").json["status"] == "queued"


def test_an_error_with_json_is_json_on_stderr(cli: Cli):
    ran = cli("show", "job_none", "--json")

    assert (ran.code, ran.out) == (3, "")
    error = json.loads(ran.err)
    assert (error["exit_code"], error["problem"]["code"]) == (3, "job_not_found")


def test_every_document_becomes_a_job_and_a_repeat_makes_none(cli: Cli, tmp_path: Path):
    path = tmp_path / "zoo.yaml"
    path.write_text(yaml.safe_dump_all([EXAMPLE, {**EXAMPLE, "tags": ["second"]}]))

    first = cli("submit", str(path), "--idempotency-key", "k", "--json").lines
    again = cli("submit", str(path), "--idempotency-key", "k", "--json").lines

    assert [one["id"] for one in first] == [one["id"] for one in again]
    assert len(cli("list", "--json").json["data"]) == 2


def test_a_document_that_is_refused_says_which_and_leaves_those_before_it(cli: Cli, tmp_path: Path):
    path = tmp_path / "zoo.yaml"
    path.write_text(yaml.safe_dump_all([EXAMPLE, {**EXAMPLE, "goal": {"sparsity": 2}}]))

    ran = cli("submit", str(path), "--json")

    assert ran.code == 2
    assert len(ran.lines) == 1
    error = json.loads(ran.err)
    assert error["what"] == "Spec 2 of 2 was not accepted."
    assert "before it were accepted" in error["remedy"]


def test_a_spec_from_stdin_with_overrides(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(EXAMPLE)))

    ran = cli("submit", "-", "--set", "goal.sparsity=0.9", "--set", "tags=[x]", "--json")

    assert (ran.json["spec"]["goal"]["sparsity"], ran.json["tags"]) == (0.9, ["x"])


def test_an_invalid_spec_is_told_field_by_field_without_a_traceback(cli: Cli, spec: Spec):
    ran = cli("validate", spec(goal={"sparsity": 1.5}, colour="red"))

    assert ran.code == 2
    assert "  goal.sparsity: Input should be less than or equal to 0.999" in ran.err
    assert "  colour: there is no such field" in ran.err
    assert "Traceback" not in ran.err


def test_a_forbidden_bucket_is_refused_with_what_is_allowed(cli: Cli, spec: Spec):
    ran = cli("submit", spec(model={"uri": "s3://secret/x/"}))

    assert ran.code == 4
    assert "s3://zoo/" in ran.err


def test_an_unknown_key_is_refused_with_the_remedy(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_API_KEY", "sct_wrong")

    ran = cli("list")

    assert ran.code == 4
    assert "secateur keys create" in ran.err


def test_a_service_that_is_not_there_is_told_with_its_address(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_URL", "http://127.0.0.1:9")

    ran = cli("list")

    assert ran.code == 5
    assert ran.err.startswith("No answer from http://127.0.0.1:9.\nConnection refused.")


def test_what_answers_but_is_not_the_service_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch, s3: Any):
    monkeypatch.setenv("SECATEUR_URL", s3.url)

    ran = cli("list")

    assert ran.code in (4, 5)
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "args", [["nonsense"], ["show"], ["list", "--status", "lost"], ["list", "--limit=0"]]
)
def test_wrong_usage_is_exit_code_two(cli: Cli, args: list[str]):
    assert cli(*args).code == 2


def test_a_verb_that_the_state_forbids_is_refused(cli: Cli, spec: Spec):
    ran = cli("retry", cli.submit(spec()))

    assert ran.code == 4
    assert "only a failed, cancelled or expired job can be retried" in ran.err


def test_a_list_can_be_filtered_and_fetched_whole(cli: Cli, spec: Spec):
    ids = [cli.submit(spec(tags=[tag])) for tag in ("a", "b", "a")]
    cli("cancel", ids[0])

    assert [one["id"] for one in cli("list", "--tag", "a", "--json").json["data"]] == [ids[2], ids[0]]
    cancelled = cli("list", "--status", "cancelled", "--json").json["data"]
    assert [one["id"] for one in cancelled] == [ids[0]]
    part = cli("list", "--limit", "2")
    assert "There are more" in part.err
    assert len(cli("list", "--all", "--limit", "1", "--json").json["data"]) == 3


def test_watch_prints_a_line_an_event_and_ends_with_the_result(
    cli: Cli, spec: Spec, desk: Desk, blobs: Blobs
):
    id = cli.submit(spec())
    later(lambda: finish(desk, blobs, id))

    ran = cli("watch", id)

    lines = ran.out.splitlines()
    assert ran.code == 0
    assert [line.split()[2] for line in lines[:4]] == ["state", "state", "round", "state"]
    assert lines[4] == f"{id} succeeded: Goal reached."


def test_watch_as_json_gives_each_event_once_and_the_job_last(cli: Cli, spec: Spec, desk: Desk, blobs: Blobs):
    id = cli.submit(spec())
    later(lambda: finish(desk, blobs, id))

    lines = cli("watch", id, "--json").lines

    assert [line["object"] for line in lines] == ["event"] * 4 + ["job"]
    assert len({line["id"] for line in lines}) == 5


def test_submit_with_watch_ends_with_the_code_of_the_job(cli: Cli, spec: Spec, desk: Desk):
    def fail() -> None:
        desk.store.finish(desk.claim(), Status.failed, "No such column.")

    later(fail)

    ran = cli("submit", spec(), "--watch")

    assert ran.code == 1
    assert "failed: No such column." in ran.out


def test_watching_several_jobs_needs_all_to_succeed(cli: Cli, spec: Spec, desk: Desk, blobs: Blobs):
    good = cli.submit(spec())
    finish(desk, blobs, good)
    bad = cli.submit(spec())
    cli("cancel", bad)

    ran = cli("watch", good, bad)

    assert ran.code == 1
    assert f"{good} succeeded" in ran.out
    assert f"{bad} cancelled" in ran.out


def test_watch_joins_a_broken_stream_again_without_a_gap_or_a_repeat(
    cli: Cli, spec: Spec, desk: Desk, blobs: Blobs, url: str, monkeypatch: pytest.MonkeyPatch
):
    id = cli.submit(spec())
    claim = desk.claim()
    drafts = tuple(EventDraft(EventType.message, f"message {number} " + "x" * 200) for number in range(50))
    desk.store.report(claim, events=drafts)
    later(lambda: desk.store.finish(claim, Status.succeeded, "Done."), 2.0)
    with Forwarder(url, breaks=2, cut_after=6000).running() as forwarder:
        monkeypatch.setenv("SECATEUR_URL", f"http://127.0.0.1:{forwarder.port}")

        lines = cli("watch", id, "--json").lines

    messages = [line["message"] for line in lines if line["object"] == "event" and line["type"] == "message"]
    assert messages == [draft.message for draft in drafts]
    assert lines[-1]["status"] == "succeeded"


def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_it(cli: Cli, spec: Spec):
    id = cli.submit(spec())
    command = [sys.executable, "-m", "service.cli.main", "watch", id]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it follows now

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert f"secateur watch {id}" in err
    assert "Traceback" not in err
    assert cli("show", id, "--json").json["status"] == "queued"


def test_logs_are_printed_and_followed_to_the_end(cli: Cli, spec: Spec, desk: Desk, blobs: Blobs):
    id = cli.submit(spec())
    assert cli("logs", id).out == ""
    later(lambda: finish(desk, blobs, id))

    ran = cli("logs", id, "-f")

    assert ran.out == "one\ntwo\n"


def test_downloads_are_checked_and_leave_no_part_behind(
    cli: Cli, spec: Spec, desk: Desk, blobs: Blobs, tmp_path: Path
):
    id = cli.submit(spec())
    finish(desk, blobs, id)

    ran = cli("download", id, "--to", "out/deep")

    assert ran.code == 0
    assert (tmp_path / "out/deep/model.safetensors").read_bytes() == WEIGHTS
    assert sorted(os.listdir(tmp_path / "out/deep")) == ["model.safetensors", "report.html", "report.json"]


def test_a_file_that_is_not_what_the_list_says_is_not_kept(
    cli: Cli, spec: Spec, desk: Desk, blobs: Blobs, tmp_path: Path
):
    id = cli.submit(spec())
    finish(desk, blobs, id)
    manifest = desk.records.manifest("acme", id)
    assert manifest is not None
    blobs.put_bytes(manifest["prefix"] + "model.safetensors", b"other")

    ran = cli("download", id, "model.safetensors", "--to", "out")

    assert ran.code == 5
    assert "SHA-256" in ran.err
    assert os.listdir(tmp_path / "out") == []


def test_a_report_is_printed_and_its_page_saved(
    cli: Cli, spec: Spec, desk: Desk, blobs: Blobs, tmp_path: Path
):
    id = cli.submit(spec())
    finish(desk, blobs, id)

    ran = cli("report", id, "--html", "pages/r.html")

    assert ran.out.splitlines()[0] == sample_report().verdict
    assert "accuracy 0.9152 0.9116 (floor 0.9052)" in " ".join(ran.out.split())
    assert (tmp_path / "pages/r.html").read_text() == HTML
    assert cli("report", id, "--json").json["job"] == id


def test_a_job_without_a_report_says_when_it_has_one(cli: Cli, spec: Spec):
    ran = cli("report", cli.submit(spec()))

    assert ran.code == 3
    assert "a job has a report when it has succeeded" in ran.err


def test_artifacts_are_listed_with_their_checksums(cli: Cli, spec: Spec, desk: Desk, blobs: Blobs):
    id = cli.submit(spec())
    assert "No artifacts yet" in cli("artifacts", id).out
    finish(desk, blobs, id)

    assert hashlib.sha256(WEIGHTS).hexdigest() in cli("artifacts", id).out


def test_workers_and_queues_are_shown(cli: Cli, spec: Spec, desk: Desk):
    assert "secateur worker" in cli("workers").out
    Workers(desk.redis).announce(worker())
    cli.submit(spec())

    assert "w1" in cli("workers").out
    queues = cli("queues").out
    assert "cuda" in queues
    assert "1 slots are free" in queues


def test_keys_are_created_listed_used_and_revoked(cli: Cli, spec: Spec, monkeypatch: pytest.MonkeyPatch):
    created = cli("keys", "create", "--tenant", "new", "--name", "ci", "--allow", "s3://zoo", "--json").json
    monkeypatch.setenv("SECATEUR_API_KEY", created["key"])
    listed = {one["tenant"]: one for one in cli("keys", "list", "--json").json["data"]}

    assert cli("list").code == 0
    assert listed["new"]["prefixes"] == ["s3://zoo/"]
    assert created["key"] not in cli("keys", "list").out
    assert cli("keys", "revoke", listed["new"]["id"]).code == 0
    assert cli("keys", "revoke", listed["new"]["id"]).code == 3


@pytest.mark.parametrize(
    "args", [["--tenant", "a/b"], ["--tenant", ".."], ["--tenant", "a", "--allow", "zoo"]]
)
def test_a_key_for_a_wrong_tenant_or_prefix_is_refused(cli: Cli, args: list[str]):
    assert cli("keys", "create", *args).code == 2


def test_without_redis_the_keys_commands_say_so(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_REDIS_URL", "redis://127.0.0.1:9/0")

    ran = cli("keys", "list")

    assert ran.code == 5
    assert "SECATEUR_REDIS_URL" in ran.err


def test_a_wrong_setting_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_REDIS_URL", "nonsense")

    ran = cli("steward")

    assert ran.code == 2
    assert "SECATEUR_REDIS_URL: a Redis URL starts with" in ran.err


def test_a_fault_of_our_own_is_told_without_a_traceback_and_kept_in_a_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.stdin", None)

    ran = cli("submit", "-")

    assert ran.code == 5
    assert "Traceback" not in ran.err
    (log,) = tmp_path.glob("secateur-*.log")
    assert "Traceback" in log.read_text()


def test_the_help_lists_the_exit_codes(cli: Cli):
    assert "130 interrupted" in " ".join(cli("--help").out.split())


@pytest.mark.parametrize(
    ("name", "started"),
    [("api", "startup complete"), ("steward", "steward_started"), ("worker", "worker_started")],
)
def test_each_process_of_the_service_starts_and_ends_by_sigterm(
    url: str, name: str, started: str, tmp_path: Path
):
    log = tmp_path / "log"
    port = "--port" if name == "api" else "--metrics-port"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli.main", name, port, "0", "--json"],
            stdout=subprocess.DEVNULL,
            stderr=output,
            env={**os.environ, "SECATEUR_LOG_FORMAT": "console", "SECATEUR_CACHE_DIR": str(tmp_path)},
        )
    deadline = time.monotonic() + 60
    while started not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)

    process.terminate()

    assert process.wait(15) in (0, -signal.SIGTERM)
    assert all(json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
