"""A page of the voting application: it answers every request with what its one SQL statement says.

page.py DATABASE STATEMENT: the body of a request is :'said' in the statement.
"""

import http.server
import socket
import subprocess
import sys

DATABASE, STATEMENT = sys.argv[1:]
PSQL = ["psql", "-XAtq", "-h", DATABASE, "-U", "voting", "-d", "dbname=postgres connect_timeout=10"]


class Page(http.server.BaseHTTPRequestHandler):
    def answer(self):
        said = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        done = subprocess.run(PSQL + ["-v", "said=" + said], input=STATEMENT, capture_output=True, text=True)
        answered = done.returncode == 0 and not done.stderr
        body = (done.stdout if answered else done.stderr).encode()
        self.send_response(200 if answered else 502)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer


class Server(http.server.ThreadingHTTPServer):
    # Both families by one socket (RFC 3493, section 3.7).
    address_family = socket.AF_INET6


Server(("::", 80), Page).serve_forever()
