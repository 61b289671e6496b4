"""What two hosts put on their wire and counted, for tests that play a thing more than once."""

from __future__ import annotations

from kit.host import Host


class Trace:
    """What one run puts on the wire, from now on, and what its counters say."""

    def __init__(self, hosts: tuple[Host, Host]) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        """Time, sender, virtio header and frame."""
        self._hosts = hosts
        for index, host in enumerate(hosts):
            self._note(index, host)

    def _note(self, index: int, host: Host) -> None:
        wire = host.adapter.nic.wire
        send = wire.send_frame

        def send_and_note(unit: bytes) -> bool:
            self.frames.append((host.world.now_us, index, unit))
            return bool(send(unit))

        wire.send_frame = send_and_note

    @property
    def counters(self) -> list[dict[str, dict[str, int]]]:
        """Every counter of both."""
        return [host.stack.net.mib.snapshot() for host in self._hosts]

    @property
    def fast(self) -> int:
        """Frames that C took."""
        return sum(host.stack.tcp.fast.ptr.mib.fast_rx for host in self._hosts)


def assert_same_frames(one: Trace, other: Trace) -> None:
    """Require the same frames at the same times, and name the first that differs."""
    for number, (a, b) in enumerate(zip(one.frames, other.frames, strict=False)):
        assert a == b, f"frame {number}: {a} and {b}"
    counts = len(one.frames), len(other.frames)
    assert counts[0] == counts[1], f"{counts} frames"
