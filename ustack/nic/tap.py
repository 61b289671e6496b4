"""A TAP device as a wire: the kernel is the other end.

Opened through python-pytun with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR. ``set_offloads`` is
TUNSETOFFLOAD (drivers/net/tun.c, set_offload): it makes the kernel hand over packets with
partial checksums and TCP super-frames of up to 64 KiB. The NIC reads and writes ``dma_fd``.
"""

from __future__ import annotations

import errno
import fcntl

import pytun

from ustack.nic.wire import VNET_CSUM, VNET_HDR_LEN, VNET_HDR_NONE, VNET_TSO4, Wire

TUNSETOFFLOAD = 0x400454D0
"""_IOW('T', 208, unsigned int); pytun has no call for it."""
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
O_NONBLOCK = 0x800
"""Linux, on all but alpha, mips, parisc and sparc."""
_NOT_NOW = (errno.EAGAIN, errno.EINTR, errno.ENOBUFS)
MAX_UNIT_BYTES = VNET_HDR_LEN + 14 + 65535
"""Nothing longer comes out of a TAP: virtio header, Ethernet header, IPv4 packet."""


class TapWire(Wire):
    """An attachment to the TAP ``name``, which is made if it does not exist.

    Args:
        name: The TAP's name.
        vnet_hdr: Without it frames are bare and no offload is possible.
        queues: Beyond 1 the TAP has so many queues (IFF_MULTI_QUEUE), each a descriptor. The
            kernel spreads flows over them, and sends a flow's packets to the queue that wrote
            its last one. Anybody who may can then attach a further queue: there is no EBUSY.

    Raises:
        OSError: The kernel's errno: EPERM without CAP_NET_ADMIN, EBUSY if another process
            has the TAP, EINVAL if the name belongs to some other device.
    """

    def __init__(self, name: str, *, vnet_hdr: bool = True, queues: int = 1) -> None:
        flags = pytun.IFF_TAP | pytun.IFF_NO_PI
        if vnet_hdr:
            flags |= pytun.IFF_VNET_HDR
        if queues > 1:
            flags |= pytun.IFF_MULTI_QUEUE
        self.vnet_hdr = vnet_hdr
        self.features = VNET_CSUM | VNET_TSO4 if vnet_hdr else 0
        self._taps: list[pytun.TunTapDevice] = []
        self.name = name
        try:
            for _ in range(queues):
                tap = pytun.TunTapDevice(name=self.name, flags=flags)
                self._taps.append(tap)
                self.name = tap.name
        except (OSError, pytun.Error):
            self._close_taps()
            raise
        fds = [_prepared(tap.fileno()) for tap in self._taps]
        self.dma_fd, self.more_fds = fds[0], tuple(fds[1:])
        self._first = 0
        self.tx_lost = 0
        self.set_offloads(False, False)

    def fileno(self) -> int:
        """Return the first queue's descriptor, -1 once closed."""
        return self.dma_fd

    def set_offloads(self, rx_csum: bool, lro: bool) -> None:
        """Tell the kernel what it need not finish for us, on any queue.

        Raises:
            OSError: The TAP is gone.
        """
        if not self.vnet_hdr or self.dma_fd < 0:
            return
        flags = 0
        if rx_csum:
            flags = TUN_F_CSUM | TUN_F_TSO4 if lro else TUN_F_CSUM
        fcntl.ioctl(self.dma_fd, TUNSETOFFLOAD, flags)

    def recv_frame(self) -> bytes | None:
        """Read one unit, for a wire that is wrapped around this one; queues take turns.

        Raises:
            OSError: EBADFD, the TAP was deleted.
        """
        for _ in self._taps:
            tap = self._taps[self._first]
            self._first = (self._first + 1) % len(self._taps)
            try:
                unit: bytes = tap.read(MAX_UNIT_BYTES)
            except OSError as error:
                if error.errno in _NOT_NOW:
                    continue
                raise
            return unit if self.vnet_hdr else VNET_HDR_NONE + unit
        return None

    def send_frame(self, unit: bytes) -> bool:
        """Write one unit by the first queue, for a wire that is wrapped around this one.

        What the kernel will never take is lost and counted: the TAP is down (EIO) or gone, or
        the virtio header makes no sense (EINVAL).
        """
        if self.dma_fd < 0:
            self.tx_lost += 1
            return True
        try:
            self._taps[0].write(unit if self.vnet_hdr else unit[VNET_HDR_LEN:])
        except OSError as error:
            if error.errno in _NOT_NOW:
                return False
            self.tx_lost += 1
        return True

    def close(self) -> None:
        """Close the descriptors; a TAP that is not persistent disappears."""
        self.dma_fd, self.more_fds = -1, ()
        self._close_taps()

    def _close_taps(self) -> None:
        while self._taps:
            self._taps.pop().close()


def _prepared(fd: int) -> int:
    """Make a descriptor close-on-exec, which pytun does not, and non-blocking."""
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | O_NONBLOCK)
    return fd
