"""Waiting in C: which descriptor woke us, and that nothing else does."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

from ustack.native.lib import lib


@pytest.fixture
def pipes():
    wire, wake = os.pipe(), os.pipe()
    yield wire, wake
    for descriptor in (*wire, *wake):
        os.close(descriptor)


@pytest.mark.parametrize("spin", [0, 3])
def test_the_readable_descriptors_are_told(pipes, spin):
    (wire, wire_in), (wake, wake_in) = pipes
    assert lib.us_wait(wire, wake, spin, 0) == 0
    os.write(wake_in, b"x")
    assert lib.us_wait(wire, wake, spin, -1) == lib.US_WAIT_WAKEFD
    os.write(wire_in, b"x")
    assert lib.us_wait(wire, wake, spin, -1) == lib.US_WAIT_FD | lib.US_WAIT_WAKEFD
    assert lib.us_wait(wire, -1, spin, -1) == lib.US_WAIT_FD


def test_without_descriptors_only_time_passes():
    assert lib.us_wait(-1, -1, 0, 50) == 0


def test_a_closed_descriptor_is_an_error():
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    assert lib.us_wait(read, -1, 0, 0) == -errno.EBADF


def test_another_thread_runs_meanwhile_and_can_wake_the_waiter(pipes):
    (wire, _), (wake, wake_in) = pipes
    writer = threading.Thread(target=os.write, args=(wake_in, b"x"))
    writer.start()
    assert lib.us_wait(wire, wake, 0, 60_000_000) == lib.US_WAIT_WAKEFD
    writer.join()


def test_a_signal_ends_the_sleep(pipes):
    (wire, _), (wake, _) = pipes
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    # Again and again, in case that one comes before the wait has begun.
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        assert lib.us_wait(wire, wake, 0, 60_000_000) == -errno.EINTR
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
