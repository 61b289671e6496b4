"""TCP as one object: its tables, its caches, its secrets (tcp_prot and tcp_hashinfo).

``stack.py`` makes one and registers ``tcp_v4_rcv`` and ``tcp_v4_err`` with IPv4. The tables
are looked through in the order established, TIME_WAIT, request, listener.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.trace import TracePoint
from ustack.native.lib import lib
from ustack.native.siphash import siphash_2u64
from ustack.native.slab import KmemCache
from ustack.tcp.cong.cubic import Cubic
from ustack.tcp.cong.registry import CongestionRegistry
from ustack.tcp.cong.reno import Reno
from ustack.tcp.diag import tcp_diag
from ustack.tcp.ehash import EstablishedHash
from ustack.tcp.fast import TcpFast
from ustack.tcp.fastopen import FastopenContext
from ustack.tcp.inbox import Inbox
from ustack.tcp.keepalive import tcp_keepalive_timer
from ustack.tcp.mem import MemoryPressure
from ustack.tcp.metrics import TcpMetrics
from ustack.tcp.offer import tcp_withdraw_all
from ustack.tcp.outbox import Outbox
from ustack.tcp.park import ParkingLot, tcp_unpark
from ustack.tcp.ports import BindBucket, bind_bucket_remove
from ustack.tcp.request_sock import RequestHash
from ustack.tcp.reuseport import inet_unhash
from ustack.tcp.sock import TcpSock
from ustack.tcp.transmit import TxScratch
from ustack.tcp.twhash import TimewaitHash

if TYPE_CHECKING:
    from ustack.config import StackConfig
    from ustack.core.net import Net
    from ustack.ipv4.protocol import Ipv4
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sockmap import SockMap

FlowKey = tuple[int, int, int, int]
"""Own address and port, the peer's address and port."""


class TcpProt:
    """All of TCP in one stack."""

    def __init__(self, net: Net, ip: Ipv4) -> None:
        self.net = net
        self.ip = ip
        self.mem = net.mem
        self.clock = net.clock
        self.rng = net.rng
        self.timers = net.timers
        self.config = net.config.tcp
        self.somaxconn = net.config.core.somaxconn
        self.profile = net.config.ustack.profile
        """LINUX_6 or LINUX_310: whose rules hold where they differ."""
        self.fastopen = FastopenContext(net.config.tcp.tcp_fastopen_key, net.rng)
        self.mib = net.mib.tcp
        self.mib_ext = net.mib.tcp_ext
        self.mib_ustack = net.mib.ustack
        self.tcp_cache = KmemCache(net.mem, "TCP", "struct us_tcp_sock")
        self.bictcp_cache = KmemCache(net.mem, "tcp_bictcp", "struct us_bictcp")
        self.request_cache = KmemCache(net.mem, "request_sock_TCP", "struct us_request_sock")
        self.tw_cache = KmemCache(net.mem, "tw_sock_TCP", "struct us_timewait_sock")
        self.caches = (self.tcp_cache, self.bictcp_cache, self.request_cache, self.tw_cache)
        self.socks: dict[int, TcpSock] = {}
        """The sockets that have a Python object, by handle."""
        self.live_socks = net.config.ustack.tcp_live_socks
        self.parking = ParkingLot(self)
        self.ehash = EstablishedHash(self)
        self.twhash = TimewaitHash(self)
        self.reqsk_hash = RequestHash(self)
        """Requests of all listeners; those of linux-3.10 stand in the listener's table alone."""
        self.fastopen_rsk: dict[TcpSock, RequestSock] = {}
        """Fast Open connections whose handshake is not over, and their requests."""
        self.listening_hash: dict[tuple[int, int], list[TcpSock]] = {}
        """Listeners by (address or 0, port): one, or those that share it by SO_REUSEPORT."""
        self.bhash: dict[int, BindBucket] = {}
        self.secret = net.rng.getrandbits(128).to_bytes(16, "little")
        self.port_hint = 0
        """Where linux-3.10 goes on looking for a port to connect() from."""
        self.metrics = TcpMetrics(net.clock)
        self.tfo_active_disable_times = 0
        """Black holes in a row that Fast Open's clients have met, and when the last was."""
        self.tfo_active_disable_stamp_us = 0
        self.table_perturb: dict[int, int] = {}
        """The same since 5.12, by a hash of the addresses: 65536 at most."""
        self._syncookie_secret = b""
        self.tsq: dict[TcpSock, None] = {}
        """Sockets with data that wait until the device has room (TCP small queues)."""
        self.sockmap: SockMap | None = None
        """The shortcut between local sockets, while it is switched on."""
        self.md5_needed = False
        """Some socket has had a key: every segment is asked for its signature."""
        self.pressure = MemoryPressure(self)
        self.challenge_second = -1
        self.challenge_count = 0
        """Challenge ACKs that are left in this second, see ``challenge.py``."""
        self.congestion = CongestionRegistry(Reno(), Cubic())
        self.congestion.configure(self.config)
        self.keepalive_timer = tcp_keepalive_timer
        self.scratch = TxScratch()
        self.trace_set_state = TracePoint("tcp_set_state", lambda: self.fast.update())
        self.trace_handshake = TracePoint("handshake", lambda: self.fast.update())
        """A handshake is over: the connection, and when its first SYN went or came."""
        self.trace_connect = TracePoint("connect")
        """connect() has sent a SYN, or found no port: the microseconds that it took."""
        self.fast = TcpFast(self)
        self.outbox = Outbox(self.fast)
        self.inbox = Inbox(self.fast, self.outbox)
        self.copied_bytes = 0
        """Bytes that senders had copied into send queues (CopiedBytes)."""
        self.ref_bytes = 0
        """... and that went in by reference (RefBytes)."""

    @property
    def orphan_count(self) -> int:
        """Connections that no application holds any more."""
        return self.fast.ptr.orphans

    @orphan_count.setter
    def orphan_count(self, count: int) -> None:
        self.fast.ptr.orphans = count

    def create(self) -> TcpSock:
        """Make an unconnected socket (tcp_v4_init_sock).

        Raises:
            MemoryError: the arena is full.
        """
        return TcpSock(self, self.congestion.default)

    def sock_of(self, handle: int) -> TcpSock:
        """Return the socket with this handle; its object is made if it idled.

        Raises:
            KeyError: it is over.
        """
        return self.socks.get(handle) or tcp_unpark(self, handle)

    def sock_of_event(self, handle: int) -> TcpSock | None:
        """Make the object that C has left something to do for; None: it is over by now."""
        return tcp_unpark(self, handle) if lib.us_tcp_sock_at(self.fast.ptr, handle) else None

    def set_config(self, config: StackConfig) -> None:
        """Let ``config`` hold from now on.

        Raises:
            ValueError: it names a congestion control that there is not; nothing has changed.
        """
        self.congestion.configure(config.tcp)
        if config.tcp.tcp_fastopen_key != self.config.tcp_fastopen_key:
            self.fastopen = FastopenContext(config.tcp.tcp_fastopen_key, self.rng)
        if (
            config.tcp.tcp_fastopen_blackhole_timeout_us
            != self.config.tcp_fastopen_blackhole_timeout_us
        ):
            self.tfo_active_disable_times = 0
        self.config = config.tcp
        self.somaxconn = config.core.somaxconn
        self.profile = config.ustack.profile
        self.live_socks = config.ustack.tcp_live_socks
        self.fast.configure(config)
        tcp_withdraw_all(self)

    def diag(self) -> list[dict[str, Any]]:
        """Return what ``ss`` shows; see ``tcp_diag``."""
        return list(tcp_diag(self))

    def next_generation(self) -> int:
        """Return a number that tells this use of a slab object from the earlier ones."""
        ptr = self.fast.ptr
        ptr.generation = (ptr.generation + 1) & SEQ_MASK
        return int(ptr.generation)

    def unhash(self, sk: TcpSock) -> None:
        """Take ``sk`` out of every table; a port that bind() named stays its own (tcp_unhash)."""
        self.ehash.remove(sk)
        if sk.listen is not None:
            inet_unhash(sk)
        if not sk.port_locked:
            self.put_port(sk)

    def put_port(self, sk: TcpSock) -> None:
        """Give ``sk``'s local port back (inet_put_port); nothing happens if it has none."""
        if sk.bind_bucket is not None:
            bind_bucket_remove(self, sk, sk.tp, sk.bind_bucket)
            sk.bind_bucket = None
            sk.by_connect = False

    @property
    def syncookie_secret(self) -> bytes:
        """The key of SYN cookies, drawn when the first is made."""
        if not self._syncookie_secret:
            self._syncookie_secret = self.rng.getrandbits(128).to_bytes(16, "little")
        return self._syncookie_secret

    def secure_tcp_seq(self, saddr: int, daddr: int, sport: int, dport: int) -> int:
        """Return an initial sequence number: RFC 6528 §3, F(four-tuple, secret) + clock/64 ns."""
        digest = siphash_2u64(self.secret, saddr << 32 | daddr, sport << 16 | dport)
        return (digest + (self.clock.now_us * 1000 >> 6)) & SEQ_MASK

    def secure_ip_id(self, tp: Any) -> int:
        """Return the first identification of a connection's packets, which nobody can guess."""
        digest = siphash_2u64(
            self.secret, tp.saddr << 32 | tp.daddr, tp.iss << 32 | tp.sport << 16 | tp.dport
        )
        return digest & 0xFFFF

    def secure_ts_offset(self, saddr: int, daddr: int) -> int:
        """Return what is added to this pair's timestamp clock (RFC 7323 §5.4).

        Nothing with tcp_timestamps 2, for those who like to read captures.
        """
        if self.config.tcp_timestamps != 1:
            return 0
        return siphash_2u64(self.secret, daddr << 32 | saddr, 1 << 32) & SEQ_MASK

    def tcp_time_stamp(self) -> int:
        """Return the timestamp clock, in milliseconds (TCP_TS_HZ 1000)."""
        return self.clock.now_us // 1000 & SEQ_MASK
