"""What the programs of ``in_process`` print, whichever stack they are on."""

SEEN = {
    "in_process/stdlib_http.py": [
        "hello", "200000", "1024", "echo", "UDP", "ConnectionRefusedError",
    ],
    "in_process/stdlib_mail_and_ftp.py": ["True", "40000"],
    "in_process/asyncio_all.py": ["2000000", "DATAGRAM", "child", "thread", "secret True"],
    "in_process/packages_web.py": [
        "httpx /async", "httpx /sync", "requests /there", "aiohttp 301000",
        "websockets HELLO", "websockets FROM A THREAD",
    ],
    "in_process/packages_redis_ssh.py": [
        "redis 100000 8", "redis.asyncio 8", "asyncssh hello world 3",
    ],
    "in_process/https_blocking.py": ["urllib 200000", "requests 200000", "httpx 200000"],
}  # fmt: skip
"""By program; some print in a last line whose sockets they had."""
NEEDS = {
    "in_process/packages_web.py": ("aiohttp", "requests", "httpx", "uvicorn", "websockets"),
    "in_process/packages_redis_ssh.py": ("redis", "asyncssh"),
    "in_process/https_blocking.py": ("requests", "httpx"),
}
"""Packages that a program imports."""
NEED_CERTIFICATE = ("in_process/asyncio_all.py", "in_process/https_blocking.py")
