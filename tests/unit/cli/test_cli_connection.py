"""Which service, and which key."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from service.cli.connection import (
    CLIENT_FILE,
    Connection,
    find_connection,
    read_client_file,
    write_client_file,
)
from service.cli.errors import CliError, ExitCode
from service.cli.settings import ClientSettings

HERE = Connection("http://127.0.0.1:8080", "sct_file")


def settings(url: str | None = None, key: str | None = None) -> ClientSettings:
    return ClientSettings(url=url, api_key=SecretStr(key) if key else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder two levels below the one with the client file."""
    write_client_file(tmp_path / CLIENT_FILE, HERE)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    return inner


def test_the_client_file_of_a_parent_folder_is_found(folder: Path):
    assert find_connection(settings(), folder) == HERE


def test_the_environment_goes_before_the_file(folder: Path):
    found = find_connection(settings("https://prod.example/", "sct_env"), folder)

    assert found == Connection("https://prod.example", "sct_env")


def test_the_key_in_the_file_is_not_sent_to_another_service(folder: Path):
    assert find_connection(settings("https://prod.example"), folder).key is None


def test_the_key_in_the_file_goes_to_its_own_service_however_that_is_named(folder: Path):
    assert find_connection(settings("http://127.0.0.1:8080/"), folder).key == "sct_file"


def test_a_key_alone_goes_to_the_service_of_the_file(folder: Path):
    assert find_connection(settings(key="sct_env"), folder) == Connection(HERE.url, "sct_env")


def test_without_any_hint_the_error_names_both_ways(tmp_path: Path):
    with pytest.raises(CliError, match=r"secateur dev.*SECATEUR_URL") as caught:
        find_connection(settings(), tmp_path)

    assert caught.value.code is ExitCode.usage


@pytest.mark.parametrize("url", ["prod.example", "ftp://prod.example", ""])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str):
    with pytest.raises(CliError, match=r"not the address"):
        find_connection(settings(url), tmp_path)


def test_nobody_else_can_read_the_client_file(folder: Path):
    path = folder.parents[1] / CLIENT_FILE

    write_client_file(path, HERE)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["", "[]", '{"url": "http://x"}', '{"url": 3, "key": "k"}'])
def test_a_broken_client_file_is_named_with_the_remedy(tmp_path: Path, content: str):
    path = tmp_path / "client.json"
    path.write_text(content)

    with pytest.raises(CliError, match=r"client\.json cannot be read.*secateur dev"):
        read_client_file(path)


def test_the_key_does_not_show_in_a_printed_connection():
    assert "sct_file" not in repr(HERE)
