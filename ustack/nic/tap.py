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

    Without ``vnet_hdr`` frames are bare and no offload is possible.

    Raises:
        OSError: The kernel's errno: EPERM without CAP_NET_ADMIN, EBUSY if another process
            has the TAP, EINVAL if the name belongs to some other device.
    """

    def __init__(self, name: str, *, vnet_hdr: bool = True) -> None:
        flags = pytun.IFF_TAP | pytun.IFF_NO_PI
        if vnet_hdr:
            flags |= pytun.IFF_VNET_HDR
        self._tap = pytun.TunTapDevice(name=name, flags=flags)
        self.vnet_hdr = vnet_hdr
        self.features = VNET_CSUM | VNET_TSO4 if vnet_hdr else 0
        self.dma_fd = self._tap.fileno()
        fcntl.fcntl(self.dma_fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self.name: str = self._tap.name
        status = fcntl.fcntl(self.dma_fd, fcntl.F_GETFL)
        fcntl.fcntl(self.dma_fd, fcntl.F_SETFL, status | O_NONBLOCK)
        self.tx_lost = 0
        """Units that the kernel refused for good in ``send_frame``."""
        self.set_offloads(False, False)

    def fileno(self) -> int:
        """Return the TAP's descriptor, -1 once closed."""
        return self.dma_fd

    def set_offloads(self, rx_csum: bool, lro: bool) -> None:
        """Tell the kernel what it need not finish for us.

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
        """Read one unit, for a wire that is wrapped around this one.

        Raises:
            OSError: EBADFD, the TAP was deleted.
        """
        if self.dma_fd < 0:
            return None
        try:
            unit: bytes = self._tap.read(MAX_UNIT_BYTES)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return None
            raise
        return unit if self.vnet_hdr else VNET_HDR_NONE + unit

    def send_frame(self, unit: bytes) -> bool:
        """Write one unit, for a wire that is wrapped around this one.

        What the kernel will never take is lost and counted: the TAP is down (EIO) or gone, or
        the virtio header makes no sense (EINVAL).
        """
        if self.dma_fd < 0:
            return True
        try:
            self._tap.write(unit if self.vnet_hdr else unit[VNET_HDR_LEN:])
        except OSError as error:
            if error.errno in _NOT_NOW:
                return False
            self.tx_lost += 1
        return True

    def close(self) -> None:
        """Close the descriptor; a TAP that is not persistent disappears."""
        if self.dma_fd >= 0:
            self.dma_fd = -1
            self._tap.close()
