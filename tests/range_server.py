"""A small web server on this machine that serves ranges, counts bytes and fails on demand."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What a server did; `failures` maps a request's number (of GETs, from 0) to a status."""

    url: str
    sent: int = 0
    gets: int = 0
    refused: list[tuple[str, int]] = field(default_factory=list)
    """File and status of each request that was not served."""

    paths: set[str] = field(default_factory=set)
    failures: dict[int, int] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.lock = threading.Lock()
        self.traffic = Traffic(url=f"http://127.0.0.1:{self.server_address[1]}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def _answer(self, *, send: bool) -> None:
        path, traffic = self.server.folder / self.path.lstrip("/"), self.server.traffic
        time.sleep(3 if path.name.startswith("slow_") else 0)
        with self.server.lock:
            traffic.paths.add(path.name)
            status = self._status(path, traffic.gets if send else -1)
            traffic.gets += send
            if status != 200:
                traffic.refused.append((path.name, status))
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._range(path.read_bytes(), send=send)

    def _status(self, path: Path, number: int) -> int:
        if path.name[:3].isdecimal():
            return int(path.name[:3])
        return self.server.traffic.failures.get(number, 200 if path.is_file() else 404)

    def _range(self, data: bytes, *, send: bool) -> None:
        first, last = 0, len(data) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first = int(asked[1])
            last = min(int(asked[2] or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if send:
            self.wfile.write(data[first : last + 1])
            with self.server.lock:
                self.server.traffic.sent += last - first + 1


@contextmanager
def range_server(folder: Path) -> Iterator[Traffic]:
    """Serve the files of a folder; 403_x.tif is answered with 403, slow_x.tif after 3 seconds."""
    server = _Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.traffic
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
