"""The port on which a worker or a steward shows its metrics."""

from prometheus_client import start_http_server


def serve_metrics(port: int, host: str, variable: str) -> None:
    """Serve `/metrics` from a thread; port 0: not at all. Exits with a sentence when the port is taken."""
    if port == 0:
        return
    try:
        start_http_server(port, host)
    except OSError as error:
        raise SystemExit(
            f"cannot show metrics on {host}:{port} ({error}): set {variable} to a free port, or 0"
        ) from None
