"""Settings: what the environment may say, and how Redis URLs are read."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, get_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("REDIS_URL", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in (
        "SECATEUR_REDIS_URL",
        "SECATEUR_BROKER_URL",
        "SECATEUR_S3_ENDPOINT_URL",
        "SECATEUR_CACHE_DIR",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("redis://host:1/0", "redis://host:1/1"),
        ("redis://:secret@host", "redis://:secret@host/1"),
        ("redis://host?db=4", "redis://host/5"),
        ("rediss://host/3?ssl_cert_reqs=required", "rediss://host/4?ssl_cert_reqs=required"),
        ("unix:///run/valkey.sock", "redis+socket:///run/valkey.sock?virtual_host=1"),
        ("unix:///run/valkey.sock?db=2", "redis+socket:///run/valkey.sock?virtual_host=3"),
    ],
)
def test_the_broker_is_the_next_database_of_the_same_server(redis_url: str, broker_url: str):
    assert Settings(redis_url=redis_url).broker_url == broker_url


def test_a_broker_on_a_socket_is_spelled_as_celery_wants_it():
    settings = Settings(broker_url="unix:///run/other.sock?db=7")

    assert settings.broker_url == "redis+socket:///run/other.sock?virtual_host=7"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://host", "starts with redis://"),
        ("redis://host/abc", "'abc' in the Redis URL is not a database"),
    ],
)
def test_a_wrong_redis_url_is_refused_with_a_sentence(url: str, sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        Settings(redis_url=url)


def test_our_own_variable_goes_before_the_plain_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REDIS_URL", "redis://plain/0")
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://plain")

    assert Settings().redis_url == "redis://plain/0"
    monkeypatch.setenv("SECATEUR_REDIS_URL", "redis://ours/0")
    monkeypatch.setenv("SECATEUR_S3_ENDPOINT_URL", "http://ours")
    assert Settings().redis_url == "redis://ours/0"
    assert Settings().s3_endpoint_url == "http://ours"


def test_passwords_in_urls_are_not_shown():
    assert "secret" not in repr(Settings(redis_url="redis://:secret@host/0"))


def test_the_cache_folder_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_CACHE_DIR", "~/models")

    assert Settings().cache_dir == Path.home() / "models"


def test_every_setting_says_what_it_is_for():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_process_reads_its_settings_once():
    assert get_settings() is get_settings()
