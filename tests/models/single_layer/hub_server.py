"""A hub on this machine with one repository, which counts what it sends."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

REPOSITORY, COMMIT = "someone/some-model", "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves the files of `folder`; as a context it is there, and gone after."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has_ranges = True
        self.gated_file = ""
        """The start of the names of files that only the admitted get."""

        self.breaks = 0
        """How many more answers break off half-way."""

        self.sent: dict[str, int] = {}
        """Bytes of each file, parts and whole."""

        self.ranges: list[tuple[str, int, int]] = []
        self.tokens: list[str | None] = []
        """What came as authorisation, one a request for a file."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{REPOSITORY}"):
                paths = sorted(hub.folder.iterdir())
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name}
                        for p in paths
                    ]
                    return self.answer(200, json.dumps(tree).encode())
                files = [{"rfilename": p.name} for p in paths]
                about = {"id": REPOSITORY, "sha": COMMIT, "siblings": files, "tags": []}
                return self.answer(200, json.dumps(about).encode())
            found = re.fullmatch(rf"/(moved/)?{REPOSITORY}/resolve/{COMMIT}/(.+)", path)
            if found is None:
                return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            is_moved, file = found.groups()
            if hub.gated_file and file.startswith(hub.gated_file):
                return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            if not (hub.folder / file).is_file():
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            if "Range" in self.headers and not is_moved:
                # As the hub sends readers of weights to where they are stored.
                hub.tokens.append(self.headers.get("Authorization"))
                return self.answer(302, b"", {"Location": f"/moved{self.path}"})
            return self.send_file(file)

        def send_file(self, file: str) -> None:
            content = (hub.folder / file).read_bytes()
            # Any name for the content will do; here it is the file's own, and its size.
            headers = {"ETag": f'"{file}-{len(content)}"', "X-Repo-Commit": COMMIT}
            wanted = self.headers.get("Range")
            if wanted is None or not hub.has_ranges:
                return self.answer(200, content, headers, file)
            start, stop = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
            if start >= len(content):
                return self.answer(416, b"")
            hub.ranges.append((file, start, stop + 1))
            part = content[start : stop + 1]
            place = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
            return self.answer(206, part, {**headers, "Content-Range": place}, file)

        def answer(
            self, status: int, content: bytes, headers: dict[str, str] | None = None, file: str = ""
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if status == 206 and len(content) > 100 and hub.breaks:
                hub.breaks -= 1
                content = content[: len(content) // 2]
                self.close_connection = True
            hub.sent[file] = hub.sent.get(file, 0) + len(content)
            try:
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                # Who finds that ranges are ignored does not wait for the whole file.
                self.close_connection = True

    return Handler
