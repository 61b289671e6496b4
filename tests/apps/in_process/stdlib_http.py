"""http.server, socketserver, urllib and xmlrpc, server and client in one program."""

import http.server
import socketserver
import threading
import urllib.error
import urllib.request
import xmlrpc.client
import xmlrpc.server


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"x" * 200_000 if self.path == "/large" else b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


class Upper(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data.upper(), self.client_address)


def serve(server: socketserver.BaseServer) -> tuple[str, int]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    SERVERS.append(server)
    return server.server_address


SERVERS: list[socketserver.BaseServer] = []
host, port = serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello))
print(urllib.request.urlopen(f"http://localhost:{port}/").read().decode())
print(len(urllib.request.urlopen(f"http://127.0.0.1:{port}/large").read()))
calc = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
calc.register_function(pow)
host, port = serve(calc)
print(xmlrpc.client.ServerProxy(f"http://127.0.0.1:{port}").pow(2, 10))
import socket  # noqa: E402

echo = serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo))
with socket.create_connection(echo) as sock, sock.makefile("rwb") as file:
    file.write(b"echo\n")
    file.flush()
    print(file.readline().decode().strip())
upper = serve(socketserver.UDPServer(("127.0.0.1", 0), Upper))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"udp", upper)
    print(sock.recv(100).decode())
for server in SERVERS:
    server.shutdown()
    server.server_close()
try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/")
except urllib.error.URLError as error:
    print(type(error.reason).__name__)
print(socket.socket.__module__)
