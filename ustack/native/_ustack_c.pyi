"""Types of the compiled module. Written by tools/gen_stub.py; do not edit."""

from typing import Any

ffi: Any

class us_adv_rx_desc:
    read: us_adv_rx_read
    wb: us_adv_rx_wb

class us_adv_rx_read:
    pkt_addr: int
    hdr_addr: int

class us_adv_rx_wb:
    pkt_info: int
    hdr_info: int
    rss: int
    status_error: int
    length: int
    vlan: int

class us_adv_tx_ctxt:
    vlan_macip_lens: int
    seqnum_seed: int
    type_tucmd_mlhl: int
    mss_l4len_idx: int

class us_adv_tx_desc:
    read: us_adv_tx_read
    wb: us_adv_tx_wb
    ctxt: us_adv_tx_ctxt

class us_adv_tx_read:
    buffer_addr: int
    cmd_type_len: int
    olinfo_status: int

class us_adv_tx_wb:
    rsvd: int
    nxtseq_seed: int
    status: int

class us_bictcp:
    epoch_start_us: int
    last_jiffy: int
    last_cwnd: int
    ack_cnt: int
    delay_min_us: int
    last_max_cwnd: int
    bic_origin_point: int
    bic_k: int
    tcp_cwnd: int
    found: int
    round_start_us: int
    last_ack_us: int
    end_seq: int
    curr_rtt_us: int
    sample_cnt: int

class us_bind_share:
    count: int
    next: int
    port: int
    is_emptied: int

class us_bq:
    head: int
    tail: int
    len: int
    truesize: int

class us_flow_table: ...

class us_frag:
    addr: int
    len: int

class us_hh:
    confirmed_us: int
    usable: int
    header: Any

class us_igb_itr:
    setting: int
    itr_val: int
    rx_class: int
    tx_class: int
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int

class us_igb_poll:
    nic: us_nic
    rx: us_igb_rx_ring
    tx: us_igb_tx_ring
    rxq: us_igb_rxq_regs
    itr: us_igb_itr
    fast: us_tcp_fast
    mac: Any
    is_adaptive: int
    gro: int
    left: int
    now_us: int
    done: int
    flags: int
    consumed: int

class us_igb_regs:
    CTRL: int
    STATUS: int
    RCTL: int
    TCTL: int
    RLPML: int
    RXCSUM: int
    RAL: int
    RAH: int
    EICR: int
    EIMS: int
    EIAC: int
    EIAM: int
    IVAR: Any
    EITR: Any
    TIDV: int
    IMIR: Any
    IMIREXT: Any
    MRQC: int
    RETA: Any
    RSSRK: Any
    WIREERR: int
    SYSTIM: int
    ITRDUE: int
    rxq: Any
    txq: Any
    GPRC: int
    GORC: int
    BPRC: int
    MPRC: int
    RNBC: int
    MPC: int
    ROC: int
    RUC: int
    RXERRC: int
    XOFFTXC: int
    XONTXC: int
    GPTC: int
    GOTC: int
    BPTC: int
    MPTC: int
    TSCTC: int
    TNCRS: int
    TXERRC: int

class us_igb_rx_buffer:
    page: int

class us_igb_rx_frame:
    addr: int
    len: int
    gso_size: int
    gso_segs: int
    ip_summed: int
    rss: int
    large: us_igb_rx_buffer

class us_igb_rx_ring:
    mem: us_mem
    dma: int
    count: int
    buffer_bytes: int
    next_to_use: int
    next_to_clean: int
    packets: int
    bytes: int
    csum_err: int
    alloc_failed: int
    errors: int
    descriptors: int
    buffer_info: us_igb_rx_buffer
    nlinear: int
    linear: Any
    frames: Any

class us_igb_rxq_regs:
    RDBAL: int
    RDBAH: int
    RDLEN: int
    RDH: int
    RDT: int
    RXDCTL: int
    SRRCTL: int
    RQDPC: int

class us_igb_tx_buffer:
    page: int
    next_to_watch: int
    bytes: int
    owner: int

class us_igb_tx_ring:
    mem: us_mem
    dma: int
    count: int
    next_to_use: int
    next_to_clean: int
    stopped: int
    packets: int
    bytes: int
    restart: int
    busy: int
    descriptors: int
    buffer_info: us_igb_tx_buffer
    headers: Any
    frags: Any

class us_igb_txq_regs:
    TDBAL: int
    TDBAH: int
    TDLEN: int
    TDH: int
    TDT: int
    TXDCTL: int

class us_join_event:
    fd: int
    events: int
    is_closed: int
    error: int
    start: int
    end: int

class us_kmem_cache: ...

class us_mem: ...

class us_nic: ...

class us_pair:
    inode: int
    fd: int
    end: int

class us_request_sock:
    loc_addr: int
    rmt_addr: int
    loc_port: int
    rmt_port: int
    rcv_isn: int
    snt_isn: int
    rcv_nxt: int
    snt_tsval_first: int
    snt_tsval_last: int
    ts_recent: int
    rcv_wnd: int
    mss: int
    snd_wscale: int
    rcv_wscale: int
    tstamp_ok: int
    sack_ok: int
    wscale_ok: int
    ecn_ok: int
    num_retrans: int
    num_timeout: int
    syn_tos: int
    acked: int
    in_table: int
    tsoffset: int
    generation: int
    snt_synack_us: int
    expires_us: int
    last_oow_ack_us: int
    timer: us_timer
    hash_next: Any
    listen: us_tcp_listen

class us_slabinfo:
    active_objs: int
    num_objs: int
    objsize: int
    objperslab: int
    pagesperslab: int
    active_slabs: int
    num_slabs: int

class us_tcp_accepted:
    handle: int
    saddr: int
    daddr: int
    sport: int
    dport: int
    is_left: int

class us_tcp_dst:
    queue: us_xmit_queue
    hh: us_hh
    genid: int
    mtu: int
    gso_max_size: int
    saddr: int
    daddr: int
    ttl: int
    refs: int
    metrics: us_tcp_metrics
    is_linked: int
    next: us_tcp_dst

class us_tcp_event:
    handle: int
    what: int
    pkts_acked: int
    prior_packets: int
    rtt_us: int

class us_tcp_fast:
    mem: us_mem
    ehash: us_flow_table
    wheel: us_timer_wheel
    tcp_cache: us_kmem_cache
    bictcp_cache: us_kmem_cache
    tw_cache: us_kmem_cache
    timewaits: us_flow_table
    tw_timers: us_timer_wheel
    request_cache: us_kmem_cache
    requests: us_flow_table
    reqsk_timers: us_timer_wheel
    shares: us_bind_share
    nshares: int
    free_shares: int
    emptied_shares: int
    now_us: int
    on: int
    may_xmit: int
    early_retrans: int
    pacing_ss_ratio: int
    pacing_ca_ratio: int
    tso_rtt_log: int
    min_tso_segs: int
    tso_win_divisor: int
    notsent_lowat: int
    limit_output_bytes: int
    wmem_max: int
    moderate_rcvbuf: int
    rmem_max: int
    pingpong_thresh: int
    slow_start_after_idle: int
    timestamps: int
    sack: int
    window_scaling: int
    syncookies: int
    max_syn_backlog: int
    min_snd_mss: int
    app_win: int
    reordering: int
    init_cwnd: int
    mem_limits: Any
    memory_pressure: int
    ofo_pages: int
    min_rtt_wlen_us: int
    orphans: int
    max_orphans: int
    max_tw_buckets: int
    fin_timeout_us: int
    no_metrics_save: int
    no_ssthresh_metrics_save: int
    genid: int
    generation: int
    gro: int
    hold: int
    doorbell: int
    batch: int
    tw_punt_batch: int
    nevents: int
    events: Any
    inbox: Any
    inbox_size: int
    nletters: int
    letters: Any
    joins: us_tcp_joins
    mib: us_tcp_mib
    secret: Any
    dsts: Any
    offers: Any

class us_tcp_join:
    handle: int
    is_full: int
    is_offered: int
    is_ended: int

class us_tcp_joins:
    fast: us_tcp_fast
    epoll: int
    njoins: int
    joins: us_tcp_join
    fds: Any
    scratch: Any
    scratch_size: int
    copied: int
    left: Any

class us_tcp_letter:
    generation: int
    start: int
    end: int
    is_last: int

class us_tcp_listen:
    tp: us_tcp_sock
    max_ack_backlog: int
    qlen: int
    young: int
    accept_len: int
    ahead: int
    accept_head: int
    accept_size: int
    accept_queue: Any
    punt_batch: int

class us_tcp_metrics:
    stamp_us: int
    saddr: int
    daddr: int
    rtt: int
    rttvar: int
    ssthresh: int
    cwnd: int
    reordering: int
    forgotten: int

class us_tcp_mib:
    InReceives: int
    InOctets: int
    InDelivers: int
    OutRequests: int
    OutTransmits: int
    OutOctets: int
    InSegs: int
    OutSegs: int
    TCPHPHits: int
    TCPHPAcks: int
    TCPPureAcks: int
    TCPDelivered: int
    TCPOrigDataSent: int
    TCPWantZeroWindowAdv: int
    TCPToZeroWindowAdv: int
    TCPFromZeroWindowAdv: int
    DelayedACKs: int
    BusyPollRxPackets: int
    TW: int
    TWKilled: int
    TCPTimeWaitOverflow: int
    PassiveOpens: int
    CurrEstab: int
    fast_rx: int
    punted: int
    fast_tx: int

class us_tcp_offer:
    child: us_tcp_sock
    listen: us_tcp_listen
    next: us_tcp_offer

class us_tcp_sock:
    rcv_nxt: int
    rcv_wnd: int
    rcv_wup: int
    snd_una: int
    snd_nxt: int
    snd_wnd: int
    snd_wl1: int
    ts_recent: int
    ts_recent_stamp_us: int
    state: int
    tstamp_ok: int
    sack_ok: int
    wscale_ok: int
    rcv_wscale: int
    snd_wscale: int
    rcv_shutdown: int
    snd_shutdown: int
    copied_seq: int
    last_ack_sent: int
    saddr: int
    daddr: int
    sport: int
    dport: int
    generation: int
    write_seq: int
    snd_cwnd: int
    snd_cwnd_cnt: int
    snd_ssthresh: int
    snd_sml: int
    max_window: int
    prior_ssthresh: int
    high_seq: int
    pushed_seq: int
    packets_out: int
    sacked_out: int
    lost_out: int
    retrans_out: int
    delivered: int
    lost: int
    max_in_flight: int
    cwnd_usage_seq: int
    ca_cnt: int
    prior_cwnd: int
    snd_cwnd_used: int
    ca_state: int
    is_cwnd_limited: int
    nonagle: int
    fin_queued: int
    retransmits: int
    backoff: int
    probes_out: int
    rcvbuf_locked: int
    sndbuf_locked: int
    nospace: int
    inbox: int
    joined: int
    ca_kind: int
    syn_fastopen: int
    srtt_us: int
    mdev_us: int
    mdev_max_us: int
    rttvar_us: int
    rtt_seq: int
    rto_us: int
    rtt_min_us: int
    rack_rtt_us: int
    icsk_rto_min_us: int
    tsoffset: int
    rcv_ooopack: int
    rtt_min_stamp_us: int
    txlog: us_txlog
    ecn_flags: int
    ack_pending: int
    ack_quick: int
    ack_pingpong: int
    scaling_ratio: int
    icsk_pending: int
    slow: int
    ack_ato_us: int
    notsent_lowat: int
    ack_lrcvtime_us: int
    lsndtime_us: int
    snd_cwnd_stamp_us: int
    sk_pacing_rate: int
    rcv_tstamp_us: int
    last_oow_ack_us: int
    retrans_stamp_us: int
    ack_rcv_mss: int
    ack_last_seg_size: int
    advmss: int
    rx_opt_mss: int
    pmtu_mss: int
    user_mss: int
    punt_batch: int
    mss_cache: int
    inet_id: int
    sockopts: int
    tos: int
    ttl: int
    is_hashed: int
    done: int
    dead: int
    ends_plainly: int
    told: int
    event: int
    icsk_rto_max_us: int
    receive_queue: us_bq
    write_queue: us_bq
    sk_rcvbuf: int
    sk_sndbuf: int
    rcv_ssthresh: int
    window_clamp: int
    rcvq_space: int
    rcvq_space_seq: int
    rcv_rtt_us: int
    rcv_rtt_seq: int
    rcv_rtt_last_tsecr: int
    iss: int
    irs: int
    icsk_probes_tstamp_ms: int
    total_retrans: int
    rcvq_space_time_us: int
    rcv_rtt_time_us: int
    timer: us_timer
    icsk_timeout_us: int
    icsk_ack_timeout_us: int
    hash_next: Any
    dst: us_tcp_dst
    bictcp: us_bictcp
    bind_share: int
    place: int
    segs_in: int
    segs_out: int
    data_segs_in: int
    data_segs_out: int
    bytes_retrans: int
    bytes_received: int
    bytes_acked: int
    bytes_sent: int

class us_tcp_xmit:
    seq: int
    len: int
    gso_size: int
    window: int
    flags: int

class us_timer:
    next: us_timer
    pprev: Any
    expires_us: int

class us_timer_wheel: ...

class us_timewait_sock:
    hash_next: Any
    timer: us_timer
    dst: us_tcp_dst
    ts_recent_stamp_us: int
    saddr: int
    daddr: int
    sport: int
    dport: int
    rcv_nxt: int
    snd_nxt: int
    rcv_wnd: int
    ts_recent: int
    tsoffset: int
    bind_share: int
    entry_ms: int
    last_oow_ack_ms: int
    substate: int
    tstamp_ok: int
    has_key: int
    rcv_wscale: int
    tos: int

class us_tx_acked:
    first_us: int
    last_us: int
    pkts: int
    end_seq: int
    ambiguous: int
    whole: int

class us_tx_rec:
    end_seq: int
    pcount: int
    mss: int
    sent_us: int

class us_txlog:
    ring: int
    head: int
    room: int
    len: int
    first_end: int
    first_us: int
    first_pcount: int
    first_mss: int
    last_end: int

class us_xmit_queue:
    ring: us_igb_tx_ring
    nic: us_nic
    txq: us_igb_txq_regs
    index: int
    can_sum: int
    can_cut: int
    gso: int
    qlen: int
    doorbell: int
    packets: int
    bytes: int

class Lib:
    US_BQ_HEADER: int
    US_DMA_MAPPED: int
    US_E1000_ADVTXD_DCMD_DEXT: int
    US_E1000_ADVTXD_DCMD_EOP: int
    US_E1000_ADVTXD_DCMD_IFCS: int
    US_E1000_ADVTXD_DCMD_RS: int
    US_E1000_ADVTXD_DCMD_TSE: int
    US_E1000_ADVTXD_DTALEN_MASK: int
    US_E1000_ADVTXD_DTYP_CTXT: int
    US_E1000_ADVTXD_DTYP_DATA: int
    US_E1000_ADVTXD_DTYP_MASK: int
    US_E1000_ADVTXD_IPLEN_MASK: int
    US_E1000_ADVTXD_L4LEN_SHIFT: int
    US_E1000_ADVTXD_MACLEN_MASK: int
    US_E1000_ADVTXD_MACLEN_SHIFT: int
    US_E1000_ADVTXD_MSS_SHIFT: int
    US_E1000_ADVTXD_PAYLEN_SHIFT: int
    US_E1000_ADVTXD_TUCMD_IPV4: int
    US_E1000_ADVTXD_TUCMD_L4T_TCP: int
    US_E1000_CTRL_RFCE: int
    US_E1000_CTRL_RST: int
    US_E1000_EITR_CNT_IGNR: int
    US_E1000_EITR_MASK: int
    US_E1000_IMIREXT_CTRL_ACK: int
    US_E1000_IMIREXT_CTRL_BP: int
    US_E1000_IMIREXT_CTRL_FIN: int
    US_E1000_IMIREXT_CTRL_PSH: int
    US_E1000_IMIREXT_CTRL_RST: int
    US_E1000_IMIREXT_CTRL_SYN: int
    US_E1000_IMIREXT_CTRL_URG: int
    US_E1000_IMIREXT_SIZE_BP: int
    US_E1000_IMIREXT_SIZE_MASK: int
    US_E1000_IMIR_PORT_IM_EN: int
    US_E1000_MRQC_ENABLE_RSS: int
    US_E1000_MRQC_RSS_FIELD_IPV4: int
    US_E1000_MRQC_RSS_FIELD_IPV4_TCP: int
    US_E1000_MRQC_RSS_FIELD_IPV4_UDP: int
    US_E1000_RCTL_EN: int
    US_E1000_RXCSUM_IPOFL: int
    US_E1000_RXCSUM_TUOFL: int
    US_E1000_RXDADV_PKTTYPE_IPV4: int
    US_E1000_RXDADV_PKTTYPE_TCP: int
    US_E1000_RXDADV_PKTTYPE_UDP: int
    US_E1000_RXDADV_RSSTYPE_IPV4: int
    US_E1000_RXDADV_RSSTYPE_IPV4_TCP: int
    US_E1000_RXDADV_RSSTYPE_IPV4_UDP: int
    US_E1000_RXDADV_RSSTYPE_MASK: int
    US_E1000_RXDCTL_QUEUE_ENABLE: int
    US_E1000_RXDEXT_STATERR_IPE: int
    US_E1000_RXDEXT_STATERR_L4E: int
    US_E1000_RXDEXT_STATERR_RXE: int
    US_E1000_RXD_STAT_DD: int
    US_E1000_RXD_STAT_EOP: int
    US_E1000_RXD_STAT_IPCS: int
    US_E1000_RXD_STAT_TCPCS: int
    US_E1000_RXD_STAT_UDPCS: int
    US_E1000_STATUS_LU: int
    US_E1000_TCTL_EN: int
    US_E1000_TXDCTL_QUEUE_ENABLE: int
    US_E1000_TXD_POPTS_IXSM: int
    US_E1000_TXD_POPTS_TXSM: int
    US_E1000_TXD_STAT_DD: int
    US_IGB_20K_ITR: int
    US_IGB_4K_ITR: int
    US_IGB_70K_ITR: int
    US_IGB_BULK_LATENCY: int
    US_IGB_DESC_NEEDED: int
    US_IGB_LOWEST_LATENCY: int
    US_IGB_LOW_LATENCY: int
    US_IGB_MAX_DATA_PER_TXD: int
    US_IGB_MAX_QUEUES: int
    US_IGB_POLL_AGAIN: int
    US_IGB_POLL_CONSUMED_SHIFT: int
    US_IGB_POLL_DMA: int
    US_IGB_POLL_EVENTS: int
    US_IGB_POLL_GONE: int
    US_IGB_POLL_HELD: int
    US_IGB_POLL_IRQS_SHIFT: int
    US_IGB_POLL_LEFT: int
    US_IGB_POLL_MORE: int
    US_IGB_POLL_NOT_NOW: int
    US_IGB_POLL_TIMERS: int
    US_IGB_RECV_BYTES: int
    US_IGB_RECV_TURNS: int
    US_IGB_RETA_SIZE: int
    US_IGB_RSSRK_SIZE: int
    US_IGB_RXBUFFER_2048: int
    US_IGB_RXBUFFER_LARGE: int
    US_IGB_RX_BUDGET: int
    US_IGB_RX_BUFFER_WRITE: int
    US_IGB_START_ITR: int
    US_IGB_TX_HEADER_BYTES: int
    US_IGB_TX_QUEUE_WAKE: int
    US_IGB_TX_WORK: int
    US_IGB_WAKE_LOOKS: int
    US_JOINS_AT_ONCE: int
    US_JOINS_LEFT_SHIFT: int
    US_JOINS_MORE: int
    US_JOINS_SENT: int
    US_MAX_FRAME: int
    US_MAX_ORDER: int
    US_MAX_SKB_FRAGS: int
    US_NIC_IRQ_HELD: int
    US_NO_PAGE: int
    US_PAGE_SHIFT: int
    US_PAGE_SIZE: int
    US_SPLICE_MAX_FRAGS: int
    US_TCP_CALL_MORE: int
    US_TCP_CA_CUBIC: int
    US_TCP_CA_PYTHON: int
    US_TCP_CA_RENO: int
    US_TCP_DST_BUCKETS: int
    US_TCP_EV_ACCEPT: int
    US_TCP_EV_ACK: int
    US_TCP_EV_ACKED: int
    US_TCP_EV_DELACK_TIMER: int
    US_TCP_EV_FIN: int
    US_TCP_EV_READABLE: int
    US_TCP_EV_SPACE: int
    US_TCP_EV_WRITE_TIMER: int
    US_TCP_EV_XMIT: int
    US_TCP_LETTERS: int
    US_TCP_OFFER_BUCKETS: int
    US_TCP_SEND_LETTERS: int
    US_TCP_SLOW_CA: int
    US_TCP_SLOW_ERR: int
    US_TCP_SLOW_MTUP: int
    US_TCP_SLOW_OFO: int
    US_TCP_SLOW_OPTION: int
    US_TCP_SLOW_PACING: int
    US_TCP_SLOW_PARKED: int
    US_TCP_SLOW_RETRACTED: int
    US_TCP_SLOW_TLP: int
    US_TCP_SLOW_URG: int
    US_TIMER_NEVER: int
    US_TX_PSH: int
    US_VIRTIO_NET_HDR_F_DATA_VALID: int
    US_VIRTIO_NET_HDR_F_NEEDS_CSUM: int
    US_VIRTIO_NET_HDR_GSO_ECN: int
    US_VIRTIO_NET_HDR_GSO_NONE: int
    US_VIRTIO_NET_HDR_GSO_TCPV4: int
    US_VNET_HDR_LEN: int
    US_WAIT_FD: int
    US_WAIT_WAKEFD: int
    def us_acceptq_add(self, listen: Any, handle: int, /) -> int: ...
    def us_acceptq_at(self, listen: Any, index: int, /) -> int: ...
    def us_acceptq_remove(self, listen: Any, /) -> int: ...
    def us_alloc_pages(self, mem: Any, order: int, /) -> int: ...
    def us_bind_share_alloc(self, fast: Any, port: int, /) -> int: ...
    def us_bind_share_emptied(self, fast: Any, /) -> int: ...
    def us_bind_share_free(self, fast: Any, index: int, /) -> None: ...
    def us_bind_share_get(self, fast: Any, index: int, /) -> None: ...
    def us_bind_share_put(self, fast: Any, index: int, /) -> None: ...
    def us_bq_alloc_chunk(self, mem: Any, want: int, room: Any, /) -> int: ...
    def us_bq_append(self, mem: Any, bq: Any, src: Any, len: int, /) -> int: ...
    def us_bq_append_block(self, mem: Any, bq: Any, block: int, skip: int, len: int, /) -> int: ...
    def us_bq_append_chunk(self, mem: Any, bq: Any, addr: int, len: int, /) -> int: ...
    def us_bq_append_forced(self, mem: Any, bq: Any, src: Any, len: int, left: int, /) -> int: ...
    def us_bq_append_ref(self, mem: Any, bq: Any, addr: int, len: int, /) -> int: ...
    def us_bq_drop(self, mem: Any, bq: Any, len: int, /) -> int: ...
    def us_bq_frags(self, mem: Any, bq: Any, off: int, len: int, frags: Any, max: int, /) -> int: ...
    def us_bq_lent(self, mem: Any, bq: Any, /) -> int: ...
    def us_bq_peek(self, mem: Any, bq: Any, off: int, dst: Any, len: int, /) -> int: ...
    def us_bq_purge(self, mem: Any, bq: Any, /) -> None: ...
    def us_bq_read(self, mem: Any, bq: Any, dst: Any, len: int, /) -> int: ...
    def us_bq_room(self, mem: Any, bq: Any, /) -> int: ...
    def us_bq_splice_in(self, mem: Any, bq: Any, fd: int, scratch: Any, len: int, taken: Any, /) -> int: ...
    def us_bq_splice_out(self, mem: Any, bq: Any, fd: int, len: int, /) -> int: ...
    def us_client_accept(self, fd: int, priority: int, message: Any, size: int, /) -> int: ...
    def us_client_has_hung_up(self, fd: int, /) -> int: ...
    def us_csum_block_add(self, sum: int, part: int, offset: int, /) -> int: ...
    def us_csum_fold(self, sum: int, /) -> int: ...
    def us_csum_partial(self, buf: Any, len: int, sum: int, /) -> int: ...
    def us_csum_tcpudp_magic(self, saddr: int, daddr: int, len: int, proto: int, sum: int, /) -> int: ...
    def us_csum_tcpudp_nofold(self, saddr: int, daddr: int, len: int, proto: int, sum: int, /) -> int: ...
    def us_del_timer(self, wheel: Any, timer: Any, /) -> None: ...
    def us_dma_map(self, mem: Any, bytes: Any, len: int, /) -> int: ...
    def us_dma_unmapped(self, mem: Any, /) -> int: ...
    def us_get_page(self, mem: Any, addr: int, /) -> int: ...
    def us_igb_alloc_rx_buffers(self, ring: Any, regs: Any, /) -> int: ...
    def us_igb_clean_rx_irq(self, ring: Any, budget: int, /) -> int: ...
    def us_igb_clean_tx_irq(self, ring: Any, budget: int, /) -> int: ...
    def us_igb_free_rx_resources(self, ring: Any, /) -> None: ...
    def us_igb_free_tx_resources(self, ring: Any, /) -> None: ...
    def us_igb_poll(self, poll: Any, now_us: int, genid: int, /) -> int: ...
    def us_igb_recv_wait(self, poll: Any, tp: Any, buffer: Any, len: int, looks: int, wakefd: int, genid: int, /) -> int: ...
    def us_igb_recvmsg(self, poll: Any, tp: Any, buffer: Any, len: int, now_us: int, genid: int, /) -> int: ...
    def us_igb_set_itr(self, itr: Any, rx: Any, tx: Any, /) -> int: ...
    def us_igb_setup_rx_resources(self, mem: Any, count: int, buffer_bytes: int, /) -> us_igb_rx_ring: ...
    def us_igb_setup_tx_resources(self, mem: Any, count: int, /) -> us_igb_tx_ring: ...
    def us_igb_tx_is_above(self, ring: Any, txq: Any, owner: int, limit: int, /) -> int: ...
    def us_igb_tx_room(self, ring: Any, /) -> int: ...
    def us_igb_wait(self, poll: Any, looks: int, wakefd: int, genid: int, /) -> int: ...
    def us_igb_xmit_frame(self, ring: Any, data: Any, len: int, nfrags: int, csum_start: int, csum_offset: int, gso_size: int, owner: int, /) -> int: ...
    def us_ip_fast_csum(self, iph: Any, bytes: int, /) -> int: ...
    def us_kmem_cache_create(self, mem: Any, name: Any, objsize: int, /) -> us_kmem_cache: ...
    def us_kmem_cache_destroy(self, cache: Any, /) -> int: ...
    def us_kmem_cache_free(self, cache: Any, obj: Any, /) -> int: ...
    def us_kmem_cache_info(self, cache: Any, out: Any, /) -> None: ...
    def us_kmem_cache_shrink(self, cache: Any, /) -> int: ...
    def us_kmem_cache_zalloc(self, cache: Any, /) -> Any: ...
    def us_mem_base(self, mem: Any, /) -> Any: ...
    def us_mem_buddyinfo(self, mem: Any, free_count: Any, /) -> None: ...
    def us_mem_create(self, bytes: int, /) -> us_mem: ...
    def us_mem_destroy(self, mem: Any, /) -> None: ...
    def us_mem_fail_alloc(self, mem: Any, count: int, /) -> None: ...
    def us_mem_fail_alloc_left(self, mem: Any, /) -> int: ...
    def us_mem_free_pages(self, mem: Any, /) -> int: ...
    def us_mem_min_free(self, mem: Any, /) -> int: ...
    def us_mem_queue_pages(self, mem: Any, /) -> int: ...
    def us_mem_set_min_free(self, mem: Any, pages: int, /) -> None: ...
    def us_mem_size(self, mem: Any, /) -> int: ...
    def us_mod_timer(self, wheel: Any, timer: Any, expires_us: int, /) -> None: ...
    def us_monotonic_us(self, /) -> int: ...
    def us_nic_attach(self, nic: Any, fd: int, vnet_hdr_len: int, /) -> None: ...
    def us_nic_attach_queue(self, nic: Any, fd: int, /) -> int: ...
    def us_nic_create(self, mem: Any, /) -> us_nic: ...
    def us_nic_deliver_irq(self, nic: Any, /) -> int: ...
    def us_nic_destroy(self, nic: Any, /) -> None: ...
    def us_nic_dma(self, nic: Any, now_us: int, limit: int, bytes: int, /) -> int: ...
    def us_nic_dma_rx(self, nic: Any, limit: int, /) -> int: ...
    def us_nic_dma_tx(self, nic: Any, queue: int, /) -> int: ...
    def us_nic_regs(self, nic: Any, /) -> us_igb_regs: ...
    def us_nic_reset(self, nic: Any, /) -> None: ...
    def us_nic_rx_frame(self, nic: Any, frame: Any, len: int, /) -> int: ...
    def us_nic_rx_ready(self, nic: Any, /) -> int: ...
    def us_nic_tx_done(self, nic: Any, queue: int, /) -> int: ...
    def us_nic_tx_frame(self, nic: Any, queue: int, out: Any, size: int, /) -> int: ...
    def us_nic_tx_pending(self, nic: Any, /) -> int: ...
    def us_nic_write_eics(self, nic: Any, vectors: int, /) -> int: ...
    def us_nic_write_eimc(self, nic: Any, vectors: int, /) -> None: ...
    def us_nic_write_eims(self, nic: Any, vectors: int, /) -> int: ...
    def us_nic_write_eitr(self, nic: Any, vector: int, value: int, /) -> int: ...
    def us_nic_write_tdt(self, nic: Any, queue: int, tail: int, /) -> int: ...
    def us_page_refcount(self, mem: Any, addr: int, /) -> int: ...
    def us_pair_end_stream(self, fd: int, /) -> int: ...
    def us_pair_hand_over(self, listener: int, end: int, message: Any, size: int, /) -> int: ...
    def us_pair_is_taken(self, fd: int, /) -> int: ...
    def us_pair_open(self, pair: Any, type: int, number: int, epoll: int, events: int, /) -> int: ...
    def us_put_page(self, mem: Any, addr: int, /) -> int: ...
    def us_reqsk_expired(self, fast: Any, /) -> us_request_sock: ...
    def us_reqsk_list(self, fast: Any, listen: Any, out: Any, max: int, /) -> int: ...
    def us_reqsk_lookup(self, fast: Any, saddr: int, sport: int, daddr: int, dport: int, /) -> us_request_sock: ...
    def us_reqsk_queue_add(self, fast: Any, listen: Any, req: Any, /) -> None: ...
    def us_reqsk_queue_remove(self, fast: Any, req: Any, /) -> None: ...
    def us_reqsk_rearm(self, fast: Any, req: Any, /) -> None: ...
    def us_siphash(self, key16: Any, data: Any, len: int, /) -> int: ...
    def us_siphash_2u64(self, key16: Any, a: int, b: int, /) -> int: ...
    def us_tcp_accept(self, fast: Any, listen: Any, out: Any, max: int, letters: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_can_transmit(self, fast: Any, tp: Any, /) -> int: ...
    def us_tcp_clear_xmit_timer(self, tp: Any, /) -> None: ...
    def us_tcp_close(self, fast: Any, tp: Any, now_us: int, genid: int, sockopts: int, /) -> int: ...
    def us_tcp_close_at(self, fast: Any, handle: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_dst_link(self, fast: Any, dst: Any, /) -> None: ...
    def us_tcp_dst_lookup(self, fast: Any, saddr: int, daddr: int, /) -> us_tcp_dst: ...
    def us_tcp_dst_unlink(self, fast: Any, dst: Any, /) -> None: ...
    def us_tcp_fast_create(self, mem: Any, key16: Any, /) -> us_tcp_fast: ...
    def us_tcp_fast_destroy(self, fast: Any, /) -> None: ...
    def us_tcp_fast_rx(self, fast: Any, mac: Any, frames: Any, count: int, /) -> int: ...
    def us_tcp_forget_timers(self, fast: Any, tp: Any, /) -> None: ...
    def us_tcp_handle(self, tp: Any, /) -> int: ...
    def us_tcp_hash(self, fast: Any, tp: Any, /) -> None: ...
    def us_tcp_hashed(self, fast: Any, /) -> int: ...
    def us_tcp_join(self, joins: Any, handle: int, fd: int, is_offered: int, /) -> int: ...
    def us_tcp_join_set_full(self, joins: Any, fd: int, is_full: int, /) -> None: ...
    def us_tcp_joins_create(self, fast: Any, epoll: int, scratch_size: int, /) -> us_tcp_joins: ...
    def us_tcp_joins_destroy(self, joins: Any, /) -> None: ...
    def us_tcp_joins_poll(self, joins: Any, now_us: int, genid: int, /) -> int: ...
    def us_tcp_list(self, fast: Any, handles: Any, max: int, /) -> int: ...
    def us_tcp_listen_create(self, tp: Any, /) -> us_tcp_listen: ...
    def us_tcp_listen_destroy(self, listen: Any, /) -> None: ...
    def us_tcp_lookup(self, fast: Any, saddr: int, sport: int, daddr: int, dport: int, /) -> int: ...
    def us_tcp_memory_allocated(self, fast: Any, /) -> int: ...
    def us_tcp_memory_is_low(self, fast: Any, more: int, /) -> int: ...
    def us_tcp_next_timer_us(self, fast: Any, /) -> int: ...
    def us_tcp_offer_add(self, fast: Any, offer: Any, /) -> None: ...
    def us_tcp_offer_lookup(self, fast: Any, saddr: int, sport: int, /) -> us_tcp_offer: ...
    def us_tcp_offer_remove(self, fast: Any, offer: Any, /) -> None: ...
    def us_tcp_place(self, fast: Any, tp: Any, /) -> int: ...
    def us_tcp_poll(self, fast: Any, tp: Any, /) -> int: ...
    def us_tcp_receive_queue(self, tp: Any, /) -> us_bq: ...
    def us_tcp_recvmsg(self, fast: Any, tp: Any, buffer: Any, len: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_reset_delack(self, fast: Any, tp: Any, expires_us: int, /) -> None: ...
    def us_tcp_reset_xmit_timer(self, fast: Any, tp: Any, what: int, expires_us: int, /) -> None: ...
    def us_tcp_send_letters(self, fast: Any, letters: Any, count: int, texts: Any, len: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_sendmsg(self, fast: Any, tp: Any, data: Any, len: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_sendmsg_at(self, fast: Any, handle: int, data: Any, len: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_sendmsg_ref(self, fast: Any, tp: Any, addr: int, len: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_sock_at(self, fast: Any, handle: int, /) -> us_tcp_sock: ...
    def us_tcp_splice_read(self, fast: Any, tp: Any, fd: int, now_us: int, genid: int, /) -> int: ...
    def us_tcp_splice_write(self, fast: Any, tp: Any, fd: int, scratch: Any, size: int, now_us: int, genid: int, taken: Any, /) -> int: ...
    def us_tcp_timer_expired(self, fast: Any, event: Any, /) -> int: ...
    def us_tcp_timers_due(self, fast: Any, now_us: int, /) -> int: ...
    def us_tcp_transmit(self, fast: Any, tp: Any, xmit: Any, /) -> int: ...
    def us_tcp_tx_ack(self, mem: Any, tp: Any, una: int, ack: int, out: Any, /) -> int: ...
    def us_tcp_tx_copy(self, mem: Any, tp: Any, dst: Any, max: int, /) -> int: ...
    def us_tcp_tx_purge(self, mem: Any, tp: Any, /) -> None: ...
    def us_tcp_tx_push(self, mem: Any, tp: Any, end_seq: int, pcount: int, mss: int, now_us: int, /) -> int: ...
    def us_tcp_unhash(self, fast: Any, tp: Any, /) -> None: ...
    def us_tcp_unjoin(self, joins: Any, fd: int, /) -> int: ...
    def us_tcp_write_queue(self, tp: Any, /) -> us_bq: ...
    def us_timer_expired(self, wheel: Any, now_us: int, /) -> us_timer: ...
    def us_timer_first(self, wheel: Any, /) -> us_timer: ...
    def us_timer_next_us(self, wheel: Any, /) -> int: ...
    def us_timer_wheel_create(self, now_us: int, /) -> us_timer_wheel: ...
    def us_timer_wheel_destroy(self, wheel: Any, /) -> None: ...
    def us_timers_armed(self, wheel: Any, /) -> int: ...
    def us_toeplitz(self, key: Any, data: Any, len: int, /) -> int: ...
    def us_twsk_alloc(self, fast: Any, saddr: int, sport: int, daddr: int, dport: int, /) -> us_timewait_sock: ...
    def us_twsk_count(self, fast: Any, /) -> int: ...
    def us_twsk_expire(self, fast: Any, max: int, /) -> int: ...
    def us_twsk_kill(self, fast: Any, tw: Any, /) -> None: ...
    def us_twsk_list(self, fast: Any, out: Any, max: int, /) -> int: ...
    def us_twsk_lookup(self, fast: Any, saddr: int, sport: int, daddr: int, dport: int, /) -> us_timewait_sock: ...
    def us_twsk_schedule(self, fast: Any, tw: Any, expires_us: int, /) -> None: ...
    def us_wait(self, fd: int, wakefd: int, spin: int, timeout_us: int, /) -> int: ...

lib: Lib
