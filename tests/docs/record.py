"""Records the next webhook: usage record.py FOLDER; FOLDER/port says where it listens.

It writes the three headers of Standard Webhooks, a line each, to FOLDER/headers, and the body to FOLDER/body.
"""

import http.server
import pathlib
import sys

FOLDER = pathlib.Path(sys.argv[1])


class Recorder(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        names = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        (FOLDER / "body").write_bytes(body)
        (FOLDER / "headers").write_text("".join(self.headers[name] + "\n" for name in names))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Recorder)
(FOLDER / "port.new").write_text(str(server.server_port))
(FOLDER / "port.new").rename(FOLDER / "port")
server.timeout = 60
server.handle_request()
