"""What a stack can be told: one tree of frozen dataclasses, built once, passed down.

Each layer gets only its own part. Defaults are Linux 6's; a field that Linux has as a
sysctl names it. Later changes go through the sysctl interface, which replaces the object.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LINUX_6 = "linux-6"
LINUX_310 = "linux-3.10"
PROFILES = (LINUX_6, LINUX_310)

PortSet = frozenset[int]
NO_PORTS: PortSet = frozenset()


@dataclass(frozen=True)
class UstackConfig:
    """What Linux has no knob for (net.ustack.*)."""

    profile: str = LINUX_6
    """net.ustack.profile: the kernel whose rules hold where Linux has changed them, ``linux-6``
    or ``linux-3.10``. Setting it also sets the defaults that have changed, where they stand."""
    tcp_fastpath: bool = True
    """net.ustack.tcp_fastpath: predicted segments are handled in C; 0 takes all through Python,
    and C has only what decides nothing: rings, checksums, byte queues, slabs, hash tables, the
    timer wheel, and the headers of what Python has decided to send (unless somebody taps)."""
    tcp_live_socks: int = 1024
    """net.ustack.tcp_live_socks: sockets whose Python objects stay, however long they idle; of
    other idle connections only the C control block does."""


@dataclass(frozen=True)
class NicConfig:
    """The emulated igb and what the wire may do for it."""

    queues: int = 1
    """ethtool -L combined: queue pairs, each with a vector of its own, 1 to 8."""
    rx_ring: int = 256
    """Receive descriptors of each queue, 64 to 4096; one stays unused (igb default 256)."""
    tx_ring: int = 256
    """Transmit descriptors of each queue, 64 to 4096 (igb default 256)."""
    rx_usecs: int = 3
    """ethtool -C rx-usecs: 0 interrupts at once, 1 and 3 adapt (3, igb's default, without the
    class of lowest latency), 10 to 10000: microseconds between two interrupts of a vector."""
    rx_checksum: bool = True
    """ethtool -K rx: the device verifies TCP and UDP checksums."""
    tx_checksum: bool = True
    """ethtool -K tx: the device completes TCP and UDP checksums."""
    tso: bool = True
    """ethtool -K tso: the device cuts super-frames of up to 64 KiB."""
    large_receive: bool = True
    """ethtool -K lro: the wire may hand over super-frames (vnet_hdr; real igb has none)."""
    pause: bool = True
    """ethtool -A rx: at a full ring leave frames on the wire instead of dropping them."""
    busy_poll: bool = False
    """No interrupts: each poll of the stack looks into the rings itself (see ustackd --poll)."""
    mtu: int = 1500
    """Bytes of IP packet per frame, 68 to 65535."""


@dataclass(frozen=True)
class CoreConfig:
    """The softirq and what stands before the protocols (net.core.*)."""

    nr_cpus: int = 1
    """Softnet contexts; the one thread runs them in turn."""
    netdev_budget: int = 300
    """net.core.netdev_budget: packets one net_rx_action may take."""
    netdev_budget_usecs: int = 8000
    """net.core.netdev_budget_usecs: how long one net_rx_action may take, in microseconds (two
    jiffies: 8000 at HZ=250, 2000 at HZ=1000). linux-3.10: two jiffies, without a knob."""
    dev_weight: int = 64
    """net.core.dev_weight: packets one poll of the backlog or one qdisc_run may take."""
    netdev_max_backlog: int = 1000
    """net.core.netdev_max_backlog: packets waiting in input_pkt_queue."""
    rmem_default: int = 212_992
    """net.core.rmem_default: SO_RCVBUF of a new datagram socket, in bytes."""
    rmem_max: int = 4_194_304
    """net.core.rmem_max: what SO_RCVBUF may ask for, in bytes."""
    wmem_default: int = 212_992
    """net.core.wmem_default: SO_SNDBUF of a new datagram socket, in bytes."""
    wmem_max: int = 4_194_304
    """net.core.wmem_max: what SO_SNDBUF may ask for, in bytes."""
    somaxconn: int = 4096
    """net.core.somaxconn: upper limit of listen()'s backlog."""
    arena_bytes: int = 256 << 20
    """Memory for rings, objects and socket buffers, in bytes."""


@dataclass(frozen=True)
class NeighConfig:
    """The neighbour table (net.ipv4.neigh.default.*), times in microseconds."""

    base_reachable_time_us: int = 30_000_000
    """How long a neighbour counts as reachable, half as much to one and a half as much."""
    retrans_time_us: int = 1_000_000
    """Between two requests for an address."""
    delay_first_probe_time_us: int = 5_000_000
    """How long a stale neighbour is used before it is asked."""
    mcast_solicit: int = 3
    """Broadcast requests before an unknown neighbour counts as not there."""
    ucast_solicit: int = 3
    """Requests to a known neighbour's MAC before it counts as gone."""
    gc_stale_time_us: int = 60_000_000
    """An entry that nobody has used for so long may be forgotten."""
    unres_qlen_bytes: int = 212_992
    """Bytes of packets that wait for a neighbour's address."""
    gc_thresh1: int = 128
    """With fewer entries than this nothing is forgotten."""
    gc_thresh2: int = 512
    """From here on new entries cost old ones, at most every five seconds."""
    gc_thresh3: int = 1024
    """Entries at most; permanent ones do not count."""


@dataclass(frozen=True)
class IpConfig:
    """IPv4 and ICMP (net.ipv4.*)."""

    ip_default_ttl: int = 64
    """net.ipv4.ip_default_ttl (RFC 1700)."""
    icmp_ratelimit_us: int = 1_000_000
    """net.ipv4.icmp_ratelimit: least time between two errors to one host."""
    icmp_msgs_per_sec: int = 1000
    """net.ipv4.icmp_msgs_per_sec: errors sent in all."""
    ping_group_range: tuple[int, int] = (1, 0)
    """net.ipv4.ping_group_range: the groups whose processes may have ping sockets; none."""
    icmp_echo_ignore_all: bool = False
    """net.ipv4.icmp_echo_ignore_all."""
    promote_secondaries: bool = False
    """net.ipv4.conf.*.promote_secondaries: the next address takes a deleted primary's place;
    without it a network's secondary addresses go with its primary one."""
    ipfrag_high_thresh: int = 4 << 20
    """net.ipv4.ipfrag_high_thresh: bytes of fragments at which further ones are refused."""
    ipfrag_low_thresh: int = 3 << 20
    """net.ipv4.ipfrag_low_thresh: what ``ipfrag_evict`` makes room down to."""
    ipfrag_evict: bool = False
    """Above the high mark drop the oldest packets instead of refusing new fragments, as Linux
    did before 4.17: then a flood costs others their packets, not their turn."""
    ipfrag_time_us: int = 30_000_000
    """net.ipv4.ipfrag_time: how long the fragments of a packet are kept."""
    ipfrag_max_dist: int = 64
    """net.ipv4.ipfrag_max_dist: fragments of other packets from the same host between two of
    one packet; beyond it the identification is taken for a reused one. 0: no limit."""
    ip_no_pmtu_disc: bool = False
    """net.ipv4.ip_no_pmtu_disc: packets may be fragmented, unless IP_MTU_DISCOVER forbids it."""
    ip_nonlocal_bind: bool = False
    """net.ipv4.ip_nonlocal_bind: bind() takes addresses that are not ours."""
    min_pmtu: int = 552
    """net.ipv4.route.min_pmtu: a smaller next-hop MTU is not believed."""
    mtu_expires_us: int = 600_000_000
    """net.ipv4.route.mtu_expires: how long a learnt path MTU holds."""
    neigh: NeighConfig = field(default_factory=NeighConfig)


@dataclass(frozen=True)
class TcpConfig:
    """TCP (net.ipv4.tcp_*), times in microseconds."""

    tcp_syn_retries: int = 6
    """Repetitions of a SYN before connect() gives up."""
    tcp_synack_retries: int = 5
    """Repetitions of a SYN-ACK before the request is forgotten."""
    tcp_syn_linear_timeouts: int = 4
    """linux-6: SYNs repeated at a constant second before the back-off begins."""
    tcp_retries1: int = 3
    """Timeouts of the same data after which the route is looked up again (RFC 9293 R1)."""
    tcp_retries2: int = 15
    """Timeouts, in back-off from the least RTO, after which it is given up (RFC 9293 R2)."""
    tcp_orphan_retries: int = 0
    """0 means 8, as in Linux."""
    tcp_keepalive_time_us: int = 7_200_000_000
    """How long a connection is idle before it is probed (SO_KEEPALIVE)."""
    tcp_keepalive_intvl_us: int = 75_000_000
    """Between two probes."""
    tcp_keepalive_probes: int = 9
    """Probes without an answer that end it."""
    tcp_fin_timeout_us: int = 60_000_000
    """How long an orphan waits for the peer's FIN."""
    tcp_tw_reuse: int = 2
    """connect() may take the place of a TIME_WAIT: 0 never, 1 anywhere, 2 on loopback."""
    tcp_tw_reuse_delay_us: int = 1_000_000
    """net.ipv4.tcp_tw_reuse_delay: how old the TIME_WAIT must be for that."""
    tcp_tw_recycle: bool = False
    """linux-3.10: TIME_WAIT lasts 3.5 RTOs where timestamps are on, see ``tcp/tw_recycle.py``."""
    tcp_rfc1337: bool = False
    """A reset does not end a TIME_WAIT."""
    tcp_max_syn_backlog: int = 2048
    """Without SYN cookies the last quarter of so many requests is for peers known to live; in
    linux-3.10 it also bounds the SYN queue."""
    tcp_max_tw_buckets: int = 131_072
    """Connections in TIME_WAIT; beyond it they end at once."""
    tcp_max_orphans: int = 131_072
    """Connections that no application holds any more; beyond it they are reset."""
    tcp_abort_on_overflow: bool = False
    """A third ACK that finds the accept queue full is answered with a reset, not ignored."""
    tcp_syncookies: int = 1
    """0: none, 1: when a SYN queue is full, 2: for every SYN."""
    tcp_no_metrics_save: bool = False
    """Nothing is remembered of a connection that ends."""
    tcp_no_ssthresh_metrics_save: bool = True
    """... or not its ssthresh."""
    tcp_fastopen: int = 1
    """Bits of RFC 7413: 1 client, 2 server, 4 client without a cookie, 0x200 server without
    one, 0x400 every listener without TCP_FASTOPEN."""
    tcp_fastopen_key: str = "00000000-00000000-00000000-00000000"
    """Key of the server's cookies; all zero: a random one."""
    tcp_fastopen_blackhole_timeout_us: int = 0
    """net.ipv4.tcp_fastopen_blackhole_timeout_sec: how long clients do without Fast Open after
    something on the way has swallowed theirs, each time twice as long; 0: no such pause."""
    tcp_window_scaling: bool = True
    """Windows beyond 64 KiB (RFC 7323 §2)."""
    tcp_timestamps: int = 1
    """0: off; 1: the clock starts elsewhere for each pair of addresses; 2: it does not."""
    tcp_sack: bool = True
    """Selective acknowledgments (RFC 2018)."""
    tcp_recovery: int = 1
    """Bits: 1 RACK finds losses (else RFC 6675), 2 its reordering window stays as it is, 4 three
    duplicates are no reason to hurry."""
    tcp_reordering: int = 3
    """Segments by which one may be overtaken without being lost, at first."""
    tcp_max_reordering: int = 300
    """The same, as far as it is learnt."""
    tcp_early_retrans: int = 3
    """3: tail loss probes; 0: none (1 and 2 in linux-3.10: early retransmit alone)."""
    tcp_retrans_collapse: bool = True
    """Small segments, or a FIN, join the one before them when that is repeated."""
    tcp_frto: int = 2
    """Spurious timeouts are looked for (RFC 5682): 0 not."""
    tcp_min_rtt_wlen_us: int = 300_000_000
    """net.ipv4.tcp_min_rtt_wlen: for how long the least RTT counts."""
    tcp_dsack: bool = True
    """Report what came twice (RFC 2883)."""
    tcp_comp_sack_nr: int = 44
    """Duplicate ACKs that one may stand for; 0: none is held back."""
    tcp_comp_sack_delay_ns: int = 1_000_000
    """Nanoseconds: duplicate ACKs are held back 5 % of an RTT, this long at most."""
    tcp_invalid_ratelimit_us: int = 500_000
    """Least time between two answers to invalid segments of one connection."""
    tcp_challenge_ack_limit: int = 2**31 - 1
    """Challenge ACKs per second of the whole stack (RFC 5961 §7); INT_MAX: no limit."""
    tcp_pingpong_thresh: int = 1
    """Answers in a row that make a connection interactive: its ACKs wait for data."""
    tcp_moderate_rcvbuf: bool = True
    """Receive buffers grow with what the application reads per round trip."""
    tcp_adv_win_scale: int = 1
    """linux-3.10: part of a buffer that is window, 1 - 2**-n, or 2**n if negative; else unused."""
    tcp_app_win: int = 31
    """Part of the window, 2**-n, that is kept back for the application."""
    tcp_shrink_window: bool = False
    """A scaled window may be taken back when memory is short."""
    tcp_workaround_signed_windows: bool = False
    """Never offer more than 32767 bytes unscaled."""
    tcp_stdurg: bool = False
    """The urgent pointer is the last urgent byte (RFC 9293), not the one behind it (BSD)."""
    tcp_low_latency: int = 0
    """Accepted without effect: there is no prequeue to switch off, as in Linux since 4.14."""
    tcp_rmem: tuple[int, int, int] = (4096, 131_072, 6_291_456)
    """Receive buffer in bytes: least, first, largest by autotuning. Since 6.16 Linux has 32 MiB,
    which would be a good part of an arena."""
    tcp_wmem: tuple[int, int, int] = (4096, 16_384, 4_194_304)
    """Send buffer in bytes: least, first, largest by autotuning."""
    tcp_mem: tuple[int, int, int] = (0, 0, 0)
    """Pages of all connections' data: below the first no pressure, above the second pressure,
    above the third no more. All 0: by the size of the arena (``tcp_init_mem``)."""
    ip_local_port_range: tuple[int, int] = (32_768, 60_999)
    """Ports for those who name none, first and last."""
    ip_local_reserved_ports: PortSet = NO_PORTS
    """Ports of that range which are only for those who name them."""
    ip_unprivileged_port_start: int = 1024
    """net.ipv4.ip_unprivileged_port_start: ports below are for the daemon's privileged clients."""
    ip_autobind_reuse: bool = False
    """bind() without a port may share one, with SO_REUSEADDR, when none is left."""
    tcp_congestion_control: str = "cubic"
    """The congestion control of new sockets; TCP_CONGESTION chooses another."""
    tcp_available_congestion_control: str = "reno cubic"
    """What is registered: read only, see ``Stack.register_congestion_control``."""
    tcp_allowed_congestion_control: str = "reno cubic"
    """What TCP_CONGESTION may choose; the default is always allowed."""
    tcp_notsent_lowat: int = 0xFFFFFFFF
    """Bytes that may wait unsent before a write waits (TCP_NOTSENT_LOWAT of all sockets)."""
    tcp_limit_output_bytes: int = 4_194_304
    """Bytes that may wait for the device, whatever the pacing rate (TCP Small Queues)."""
    tcp_autocorking: bool = True
    """Small writes are put together while the device is busy with earlier ones."""
    tcp_reflect_tos: bool = False
    """A SYN-ACK and its connection have the type of service of the SYN."""
    tcp_ecn: int = 2
    """ECN (RFC 3168): 0 never, 1 ask for it and accept it, 2 accept it."""
    tcp_ecn_fallback: bool = True
    """A SYN that is repeated does not ask for ECN."""
    tcp_slow_start_after_idle: bool = True
    """cwnd shrinks while nothing, or less than it allows, is sent (RFC 2861)."""
    tcp_mtu_probing: int = 0
    """The path MTU is searched for by probes (RFC 4821): 0 no, 1 after timeouts, 2 always."""
    tcp_base_mss: int = 1024
    """Segments that such a search begins with, in bytes."""
    tcp_mtu_probe_floor: int = 48
    """It goes no lower after further timeouts."""
    tcp_probe_interval_us: int = 600_000_000
    """After which time a search that has ended begins anew."""
    tcp_probe_threshold: int = 8
    """It ends when so few bytes are between what works and what does not."""
    tcp_min_snd_mss: int = 48
    """Bytes of a full segment, options among them, however small an MSS the peer asks for."""
    tcp_min_tso_segs: int = 2
    """Segments of a super-frame at least, if there is that much to send."""
    tcp_rto_max_us: int = 120_000_000
    """net.ipv4.tcp_rto_max_ms: largest RTO of new sockets (TCP_RTO_MAX_MS)."""
    tcp_rto_min_us: int = 200_000
    """Least variance that counts in the RTO of new sockets, in microseconds (TCP_RTO_MIN_US)."""
    tcp_thin_linear_timeouts: int = 0
    """With less than four segments out the RTO does not double the first six times."""
    tcp_tso_rtt_log: int = 9
    """Each time that the least RTT is so many powers of two, in microseconds, what nearness adds
    to a super-frame is halved."""
    tcp_tso_win_divisor: int = 3
    """A super-frame that is at least this part of the window does not wait for an ACK; 0: one of
    more than three segments does not."""
    tcp_pacing_ss_ratio: int = 200
    """Percent of cwnd per RTT that the pacing rate is in slow start."""
    tcp_pacing_ca_ratio: int = 120
    """The same in congestion avoidance."""
    init_cwnd: int = 10
    """Initial congestion window in segments (RFC 6928)."""


@dataclass(frozen=True)
class UdpConfig:
    """UDP (net.ipv4.*)."""

    udp_mem: tuple[int, int, int] = (0, 0, 0)
    """Pages of all sockets' unread datagrams: above the first a socket is refused more than
    udp_rmem_min, above the third anything. All 0: by the size of the arena (``udp_init_mem``)."""
    udp_rmem_min: int = 4096
    """Bytes that a socket may hold when udp_mem is short."""
    udp_wmem_min: int = 4096
    """Accepted without effect, as in Linux: what is sent counts against SO_SNDBUF alone."""


@dataclass(frozen=True)
class FsConfig:
    """Open files: the sockets that ustackd's clients hold (fs.*)."""

    file_max: int = 0
    """fs.file-max: all of them; root may have more. 0: by the size of the arena."""
    nr_open: int = 1_048_576
    """fs.nr_open: those of one process, whatever its RLIMIT_NOFILE."""


@dataclass(frozen=True)
class StackConfig:
    """Everything that a stack is built from."""

    nic: NicConfig = field(default_factory=NicConfig)
    core: CoreConfig = field(default_factory=CoreConfig)
    ip: IpConfig = field(default_factory=IpConfig)
    tcp: TcpConfig = field(default_factory=TcpConfig)
    udp: UdpConfig = field(default_factory=UdpConfig)
    fs: FsConfig = field(default_factory=FsConfig)
    ustack: UstackConfig = field(default_factory=UstackConfig)
