"""The credentials of the embedded S3 server."""

from pathlib import Path

from service.dev.credentials import keep_credentials, kept_credentials


def test_credentials_are_kept_across_restarts(tmp_path: Path):
    path = tmp_path / "s3.env"
    first = kept_credentials(path)

    keep_credentials(path, first, "http://127.0.0.1:1")

    assert kept_credentials(path) == first


def test_two_installations_have_different_ones(tmp_path: Path):
    assert kept_credentials(tmp_path / "a") != kept_credentials(tmp_path / "b")


def test_nobody_else_can_read_them(tmp_path: Path):
    path = tmp_path / "s3.env"

    keep_credentials(path, kept_credentials(path), "http://127.0.0.1:1")

    assert path.stat().st_mode & 0o777 == 0o600


def test_the_file_tells_other_s3_clients_the_endpoint(tmp_path: Path):
    path = tmp_path / "s3.env"

    keep_credentials(path, kept_credentials(path), "http://127.0.0.1:1")

    assert "AWS_ENDPOINT_URL_S3=http://127.0.0.1:1\n" in path.read_text()


def test_a_session_token_of_the_user_is_switched_off_for_our_server(tmp_path: Path):
    assert kept_credentials(tmp_path / "a").env()["AWS_SESSION_TOKEN"] == ""


def test_the_secret_does_not_show_when_printed(tmp_path: Path):
    credentials = kept_credentials(tmp_path / "a")

    assert credentials.secret_key not in repr(credentials)
