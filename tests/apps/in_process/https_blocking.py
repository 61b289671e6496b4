"""Blocking TLS, ``SSLContext.wrap_socket``: a server's listener, urllib, requests, httpx."""

import http.server
import ssl
import sys
import threading
import urllib.request

import httpx
import requests

certificate = sys.argv[1]


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"s" * 200_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Hello)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
url = "https://localhost:8443/"
trusting = ssl.create_default_context(cafile=certificate)
print("urllib", len(urllib.request.urlopen(url, context=trusting).read()))
print("requests", len(requests.get(url, verify=certificate).content))
print("httpx", len(httpx.get(url, verify=trusting).content))
server.shutdown()
server.server_close()
