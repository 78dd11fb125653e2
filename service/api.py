"""`secateur api`: the application on uvicorn."""

import uvicorn

from service.app import create_app
from service.logs import configure_logs
from service.settings import Settings


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; open requests get ten seconds to end."""
    configure_logs(settings.log_level, settings.log_format)
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,  # our own log format
        access_log=False,  # service/middleware.py writes one line a request, with its id
        server_header=False,
        timeout_graceful_shutdown=10,
    )
