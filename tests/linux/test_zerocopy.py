"""A hundred megabytes to a Linux receiver without a copy at the socket layer."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

from kit.lab import Namespace, wait_for

PROGRAM = Path(__file__).with_name("zerocopy_client.py")
SIZE = 100_000_000
SINK = """
import hashlib, socket
with socket.create_server(("10.0.6.1", 9000)) as lsk:
    for _ in range(2):
        sk, _ = lsk.accept()
        digest, total = hashlib.sha256(), 0
        while data := sk.recv(1 << 20):
            digest.update(data)
            total += len(data)
        print(total, digest.hexdigest(), flush=True)
"""


def test_a_file_by_sendfile_and_a_buffer_by_send_ref(ns: Namespace):
    data = random.Random(7).randbytes(1 << 20) * (SIZE >> 20) + b"end"
    path = ns.folder / "file"
    path.write_bytes(data)
    # The address is the TAP's, which comes with the client.
    ns.sysctl("net.ipv4.ip_nonlocal_bind", 1)
    sink = ns.python(SINK)
    wait_for(lambda: ":9000" in ns.output("ss", "-ltn"), "the sink")
    answer = ns.output(sys.executable, str(PROGRAM), "tap6", "9000", str(path), timeout_s=280)
    by_file, by_ref = answer.splitlines()
    assert by_file == f"sendfile 0 {len(data)} True"
    way, copied, referenced, done = by_ref.split()
    assert (way, done) == ("send_ref", "True")
    assert int(copied) < 4096  # the rest that the last wait for room leaves may be less than a page
    assert int(copied) + int(referenced) == len(data)
    out, _ = sink.communicate(timeout=60)
    assert out.decode().split() == [str(len(data)), hashlib.sha256(data).hexdigest()] * 2
