"""Limits of open files (features: EMFILE per process, ENFILE in total, root's exemption)."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from pathlib import Path

import pytest

from kit.calls_daemon import connected
from ustack import socket
from ustack.config import CoreConfig, FsConfig, StackConfig
from ustack.daemon.limits import FileLimits, Rlimit
from ustack.stack import Stack

USER = 1000


def stack(file_max: int = 1000, nr_open: int = 500) -> Stack:
    config = StackConfig(
        core=CoreConfig(arena_bytes=4 << 20), fs=FsConfig(file_max=file_max, nr_open=nr_open)
    )
    return Stack(config, rng=random.Random(1))


@pytest.mark.linux("alloc_fd, expand_files, get_empty_filp")
@pytest.mark.parametrize(
    ("uid", "own", "total", "soft", "file_max", "error"),
    [
        (USER, 99, 99, 100, 1000, 0),
        (USER, 100, 100, 100, 1000, errno.EMFILE),
        (0, 100, 100, 100, 1000, errno.EMFILE),
        (USER, 499, 499, 500, 1000, 0),
        (USER, 1, 1000, 100, 1000, errno.ENFILE),
        (0, 1, 1000, 100, 1000, 0),  # root
        (USER, 100, 1000, 100, 1000, errno.EMFILE),  # the number comes first
        (0, 1, 2000, 100, 1000, errno.ENFILE),  # no descriptors are left to anybody
    ],
)
def test_which_limit_holds(uid, own, total, soft, file_max, error):
    limits = FileLimits(stack(file_max), client_sockets=soft, capacity=2000)
    owner = limits.owner(42, uid, uid)
    owner.sockets, limits.nr_files = own, total
    assert limits.reason_against(owner) == error


def test_the_system_wide_limit_is_logged_when_it_is_reached_by_more_than_before():
    said: list[str] = []
    limits = FileLimits(stack(file_max=10), log=said.append)
    owner = limits.owner(42, USER, USER)
    for total in (10, 10, 9, 10, 11):
        limits.nr_files = total
        limits.reason_against(owner)
    assert said == ["VFS: file-max limit 10 reached"] * 2


def test_nr_open_holds_though_it_was_lowered_below_a_limit_that_is_set():
    limits = FileLimits(own := stack(nr_open=500))
    owner = limits.owner(42, USER, USER)
    owner.sockets = 100
    assert limits.reason_against(owner) == 0
    own.set_config(replace(own.config, fs=replace(own.config.fs, nr_open=100)))
    assert limits.rlimit(0).soft == 500
    assert limits.reason_against(owner) == errno.EMFILE


@pytest.mark.linux("do_prlimit")
def test_limits_are_set_as_setrlimit_does():
    limits = FileLimits(stack(nr_open=500), client_sockets=400)
    limits.set_rlimit(0, 100, None)
    assert limits.rlimit(0) == Rlimit(100, 400)
    for soft, hard, message in (
        (401, None, "Invalid argument"),
        (None, 99, "Invalid argument"),
        (None, 501, "Operation not permitted"),
    ):
        with pytest.raises(LookupError, match=message):
            limits.set_rlimit(0, soft, hard)
    with pytest.raises(LookupError, match="No such process"):
        limits.set_rlimit(42, 1, 1)
    owner = limits.owner(42, USER, USER)
    owner.sockets = 7
    limits.set_rlimit(42, 7, 7)
    assert limits.reason_against(owner) == errno.EMFILE
    assert limits.rlimit(42) == Rlimit(7, 7) and limits.rlimit(0) == Rlimit(100, 400)


@pytest.mark.linux("files_maxfiles_init")
def test_file_max_is_a_tenth_of_the_memory_and_can_be_set():
    assert Stack(StackConfig(), rng=random.Random(1)).config.fs.file_max == max(
        CoreConfig().arena_bytes // 10240, 8192
    )
    small = stack(file_max=0)
    assert small.config.fs.file_max == 8192
    small.set_config(replace(small.config, fs=FsConfig(file_max=5)))
    assert FileLimits(small).file_nr() == "0\t0\t5"


def test_with_a_limit_of_100_the_101st_socket_is_too_many(tmp_path: Path):
    with connected(tmp_path / "u.sock") as daemon:
        daemon.hub.limits.set_rlimit(0, 100, 100)
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        held = [socket.socket(socket.AF_INET, kinds[i % 2]) for i in range(100)]
        with pytest.raises(OSError, match="Too many open files") as caught:
            socket.socket()
        assert caught.value.errno == errno.EMFILE
        assert daemon.hub.limits.file_nr().split("\t")[:2] == ["100", "0"]
        for sock in held:
            sock.close()
        socket.socket().close()
