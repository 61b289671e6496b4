"""``ustack run``: Python programs that know nothing of ustack, with Linux peers across the TAP."""

from __future__ import annotations

import shutil
import sys

import pytest

from kit.lab import Namespace, wait_for

RUN = (sys.executable, "-m", "ustack.cli.main", "run", "--tap", "tap9",
       "--address", "10.0.9.2/24", "--host-address", "10.0.9.1/24")  # fmt: skip
REDIS = """
import redis, socket
with redis.Redis("10.0.9.1") as client:
    client.set("key", b"v" * 1_000_000)
    with client.pipeline() as pipe:
        for _ in range(1000):
            pipe.incr("count")
        print(len(client.get("key")), pipe.execute()[-1], socket.socket.__module__)
"""


def test_pythons_http_server_serves_curl(ns: Namespace):
    (ns.folder / "file").write_bytes(bytes(2_000_000))
    server = ns.start(*RUN, "-m", "http.server", "8000", "--directory", str(ns.folder))
    get = ("curl", "-s", "-m", "60", "-o", str(ns.folder / "got"), "http://10.0.9.2:8000/file")
    wait_for(lambda: not ns.run(*get).returncode, "http.server on the stack")
    assert (ns.folder / "got").read_bytes() == bytes(2_000_000)
    server.terminate()
    server.wait(60)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")
def test_redis_py_talks_to_redis_server(ns: Namespace):
    pytest.importorskip("redis")
    ns.start("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")
    (ns.folder / "client.py").write_text(REDIS)
    wait_for(lambda: ":6379" in ns.output("ss", "-ltn"), "redis-server")
    answer = ns.output(*RUN, str(ns.folder / "client.py"))
    assert answer.split() == ["1000000", "1000", "ustack.socket"]
