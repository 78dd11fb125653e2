"""A TCP forwarder in front of a server: it can break connections, count bytes, and speak TLS."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

Address = tuple[str, int]


class Forwarder:
    """Passes bytes on. The first `breaks` connections are cut after `cut_after` bytes of answers."""

    def __init__(
        self, target: str, *, breaks: int = 0, cut_after: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._left = breaks
        self._cut_after = cut_after
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.answered = 0

    @contextmanager
    def running(self) -> Iterator["Forwarder"]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with suppress(OSError), near:
            wrapped = self._tls.wrap_socket(near, server_side=True) if self._tls else near
            with wrapped, socket.create_connection(self._target) as far:
                threading.Thread(target=self._pump, args=(wrapped, far), daemon=True).start()
                self._answer(far, wrapped)

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        passed = 0
        while data := far.recv(65_536):
            near.sendall(data)
            passed += len(data)
            self.answered += len(data)
            if passed > self._cut_after > 0 and self._left > 0:
                self._left -= 1
                near.shutdown(socket.SHUT_RDWR)
                return

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1, and a server's context with it."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*request.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context
