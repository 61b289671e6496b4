"""Bytes between two sockets of one stack, handed over without it (a sockmap's redirect).

With BPF's sockmap Linux lets a program move what one local socket sends into its peer's
receive queue (net/core/skmsg.c, BPF_F_INGRESS). Here all connections over lo do so while it
is switched on: ``tcp_write_xmit`` asks ``redirect`` first, ``tcp_recvmsg`` tells ``data_read``.
Both ends move their sequence numbers as if a segment had been sent, taken and acknowledged in
no time, so that the stack can go on where this stops: handshake, FIN, reset and all that finds
something in flight are the stack's, and the order of bytes cannot change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.pieces import Pieces
from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import ffi, lib
from ustack.sock.sock import RCV_SHUTDOWN
from ustack.tcp.cong.ops import TCP_CA_OPEN
from ustack.tcp.data import tcp_data_ready, tcp_queue_rcv
from ustack.tcp.output import tcp_push_pending_frames
from ustack.tcp.sndbuf import tcp_check_space
from ustack.tcp.sock import ICSK_TIME_PROBE0
from ustack.tcp.states import (
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
)
from ustack.tcp.timer import tcp_clear_retransmit
from ustack.tcp.transmit import MAX_FRAGS
from ustack.tcp.urgent import tcp_urg_mode
from ustack.tcp.window import tcp_receive_window, tcp_select_window

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

CHUNK_BYTES = 64 * 1024
_SENDS = (TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_FIN_WAIT1, TCP_CLOSING, TCP_LAST_ACK)
_RECEIVES = (TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2)


class SockMap:
    """The shortcut of one stack; it exists while it is switched on."""

    def __init__(self, prot: TcpProt) -> None:
        self._prot = prot

    def redirect(self, sk: TcpSock) -> bool:
        """Hand over what ``sk`` has to send, as much as its peer's window takes.

        Returns:
            Whether that was all there is to do now; if not, the stack sends what is left: a
            FIN, or everything, because the peer is not here or something is in flight.
        """
        peer = self._receiver(sk)
        if peer is None:
            return False
        moved = 0
        while waits := _unsent(sk):
            n = min(waits, _window(sk, peer, waits), CHUNK_BYTES)
            took = _move(sk, peer, n) if n else 0
            moved += took
            if took < n and not moved:
                return False  # no memory: TCP's timers try again
            if took < n or not n:
                break
        if moved:
            self._moved(sk, peer, moved)
        return bool(_unsent(sk)) or not sk.tp.fin_queued

    def data_read(self, sk: TcpSock) -> None:
        """``sk``'s reader has made room: its peer learns it without an ACK, and goes on."""
        if 2 * tcp_receive_window(sk) > sk.tp.window_clamp:
            return  # as in tcp_cleanup_rbuf: not worth it
        writer = self._peer(sk)
        if writer is not None and self._receiver(writer) is sk:
            _offer(writer, sk)
            if writer.tp.snd_nxt != writer.tp.write_seq:
                tcp_push_pending_frames(writer)

    def stop(self) -> None:
        """Switch off: what waits for a reader goes over the stack, or has its window probed."""
        self._prot.sockmap = None
        self._prot.fast.update_xmit()
        for sk in list(self._prot.ehash.values()):
            tcp_push_pending_frames(sk)

    def _peer(self, sk: TcpSock) -> TcpSock | None:
        tp = sk.tp
        return self._prot.ehash.get((tp.daddr, tp.dport, tp.saddr, tp.sport))

    def _receiver(self, sk: TcpSock) -> TcpSock | None:
        """Return ``sk``'s peer if it is here, open for data, and has all that was sent.

        One that is closed or shut for reading gets its data by the stack, and its answer.
        """
        tp = sk.tp
        if tp.snd_una != tp.snd_nxt or tp.state not in _SENDS or tp.ca_state != TCP_CA_OPEN:
            return None
        peer = self._peer(sk)
        if peer is None or peer is sk or peer.ofo is not None:
            return None
        if peer.tp.rcv_nxt != tp.snd_nxt or peer.tp.state not in _RECEIVES:
            return None
        if peer.tp.rcv_shutdown & RCV_SHUTDOWN or sk.pacing is not None or tcp_urg_mode(sk):
            return None
        return peer

    def _moved(self, sk: TcpSock, peer: TcpSock, moved: int) -> None:
        """Count, and wake who waits for data or for room."""
        mib = self._prot.mib_ustack
        mib.SockmapRedirects += 1
        mib.SockmapBytes += moved
        sk.tp.lsndtime_us = peer.tp.ack_lrcvtime_us = self._prot.clock.now_us
        sk.tp.snd_wnd = tcp_receive_window(peer)
        if sk.tp.icsk_pending == ICSK_TIME_PROBE0 and not _unsent(sk):
            sk.tp.probes_out = sk.tp.backoff = 0
            tcp_clear_retransmit(sk)
        tcp_data_ready(peer)
        if sk.nospace:
            tcp_check_space(sk)


def _unsent(sk: TcpSock) -> int:
    """Bytes that wait to be sent, without a FIN."""
    tp = sk.tp
    return int((tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued)


def _window(sk: TcpSock, peer: TcpSock, wanted: int) -> int:
    """Return how much ``peer`` takes, asking for more than it has offered only if needed."""
    window = tcp_receive_window(peer)
    return window if window >= wanted else _offer(sk, peer)


def _offer(sk: TcpSock, peer: TcpSock) -> int:
    """Let ``sk`` know ``peer``'s window anew, as an ACK would; return it."""
    tp = sk.tp
    tcp_select_window(peer)
    peer.tp.last_ack_sent = peer.tp.rcv_nxt
    window = tp.snd_wnd = tcp_receive_window(peer)
    if window > tp.max_window:
        tp.max_window = window
    return window


def _move(sk: TcpSock, peer: TcpSock, n: int) -> int:
    """Copy ``n`` bytes from send queue to receive queue; return how many there was room for."""
    tp, mem = sk.tp, sk.prot.mem
    before, pending = peer.tp.rcv_nxt, peer.tp.ack_pending
    frags = sk.prot.scratch.frags
    count = lib.us_bq_frags(mem.ptr, sk.sndq, 0, n, frags, MAX_FRAGS)
    if count < 0:  # in too many pieces
        linear = ffi.new("uint8_t[]", n)
        lib.us_bq_peek(mem.ptr, sk.sndq, 0, linear, n)
        tcp_queue_rcv(peer, memoryview(ffi.buffer(linear)))
    else:
        runs = [(frags[i].addr, frags[i].len) for i in range(count)]
        tcp_queue_rcv(peer, Pieces([mem.read_at(addr, length) for addr, length in runs]))
        for addr, _ in runs:
            mem.put_page(addr)
    peer.tp.ack_pending = pending  # nobody waits for an ACK of these
    took = peer.tp.rcv_nxt - before & SEQ_MASK
    lib.us_bq_drop(mem.ptr, sk.sndq, took)
    tp.snd_una = tp.snd_nxt = tp.snd_nxt + took & SEQ_MASK
    tp.bytes_sent += took
    return int(took)
