"""The SNMP and Linux counters of one stack, under the kernel's exact names.

``/proc/net/snmp`` and ``/proc/net/netstat`` (net/ipv4/proc.c) are the reference: whoever
knows ``netstat -s`` or ``nstat`` can read them. A counter is a plain attribute, so that
code writes ``mib.tcp.InSegs += 1``. A counter stands here only once something counts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class IpMib:
    """The Ip: row of /proc/net/snmp (RFC 4293)."""

    Forwarding: int = 2
    DefaultTTL: int = 64
    InReceives: int = 0
    InHdrErrors: int = 0
    InAddrErrors: int = 0
    ForwDatagrams: int = 0
    InUnknownProtos: int = 0
    InDiscards: int = 0
    InDelivers: int = 0
    OutRequests: int = 0
    OutDiscards: int = 0
    OutNoRoutes: int = 0
    ReasmTimeout: int = 0
    ReasmReqds: int = 0
    ReasmOKs: int = 0
    ReasmFails: int = 0
    FragOKs: int = 0
    FragFails: int = 0
    FragCreates: int = 0
    OutTransmits: int = 0


@dataclass(slots=True)
class IpExtMib:
    """The IpExt: row of /proc/net/netstat."""

    InTruncatedPkts: int = 0
    InMcastPkts: int = 0
    OutMcastPkts: int = 0
    InBcastPkts: int = 0
    OutBcastPkts: int = 0
    InOctets: int = 0
    OutOctets: int = 0
    InMcastOctets: int = 0
    OutMcastOctets: int = 0
    InBcastOctets: int = 0
    OutBcastOctets: int = 0
    InCsumErrors: int = 0
    ReasmOverlaps: int = 0


@dataclass(slots=True)
class IcmpMib:
    """The Icmp: row of /proc/net/snmp (RFC 4293)."""

    InMsgs: int = 0
    InErrors: int = 0
    InCsumErrors: int = 0
    InDestUnreachs: int = 0
    InTimeExcds: int = 0
    InParmProbs: int = 0
    InSrcQuenchs: int = 0
    InRedirects: int = 0
    InEchos: int = 0
    InEchoReps: int = 0
    InTimestamps: int = 0
    InTimestampReps: int = 0
    InAddrMasks: int = 0
    InAddrMaskReps: int = 0
    OutMsgs: int = 0
    OutErrors: int = 0
    OutRateLimitGlobal: int = 0
    OutRateLimitHost: int = 0
    OutDestUnreachs: int = 0
    OutTimeExcds: int = 0
    OutParmProbs: int = 0
    OutEchos: int = 0
    OutEchoReps: int = 0
    OutTimestampReps: int = 0


@dataclass(slots=True)
class UdpMib:
    """The Udp: row of /proc/net/snmp (RFC 4113)."""

    InDatagrams: int = 0
    NoPorts: int = 0
    InErrors: int = 0
    OutDatagrams: int = 0
    RcvbufErrors: int = 0
    SndbufErrors: int = 0
    InCsumErrors: int = 0
    IgnoredMulti: int = 0
    MemErrors: int = 0


@dataclass(slots=True)
class TcpMib:
    """The Tcp: row of /proc/net/snmp (RFC 4022)."""

    RtoAlgorithm: int = 1
    RtoMin: int = 200
    RtoMax: int = 120000
    MaxConn: int = -1
    ActiveOpens: int = 0
    PassiveOpens: int = 0
    AttemptFails: int = 0
    EstabResets: int = 0
    CurrEstab: int = 0
    InSegs: int = 0
    OutSegs: int = 0
    RetransSegs: int = 0
    InErrs: int = 0
    OutRsts: int = 0
    InCsumErrors: int = 0


@dataclass(slots=True)
class TcpExtMib:
    """The TcpExt: row of /proc/net/netstat (include/uapi/linux/snmp.h, LINUX_MIB_*)."""

    SyncookiesSent: int = 0
    SyncookiesRecv: int = 0
    SyncookiesFailed: int = 0
    EmbryonicRsts: int = 0
    PruneCalled: int = 0
    RcvPruned: int = 0
    OfoPruned: int = 0
    TW: int = 0
    TWRecycled: int = 0
    TWKilled: int = 0
    PAWSActive: int = 0
    PAWSEstab: int = 0
    TSEcrRejected: int = 0
    PAWSTimewait: int = 0
    PAWSOldAck: int = 0
    DelayedACKs: int = 0
    DelayedACKLost: int = 0
    ListenOverflows: int = 0
    ListenDrops: int = 0
    TCPHPHits: int = 0
    TCPRenoRecovery: int = 0
    TCPSackRecovery: int = 0
    TCPSACKReneging: int = 0
    TCPSACKReorder: int = 0
    TCPRenoReorder: int = 0
    TCPTSReorder: int = 0
    TCPFullUndo: int = 0
    TCPPartialUndo: int = 0
    TCPDSACKUndo: int = 0
    TCPLossUndo: int = 0
    TCPLostRetransmit: int = 0
    TCPRenoFailures: int = 0
    TCPSackFailures: int = 0
    TCPLossFailures: int = 0
    TCPFastRetrans: int = 0
    TCPSlowStartRetrans: int = 0
    TCPTimeouts: int = 0
    TCPLossProbes: int = 0
    TCPLossProbeRecovery: int = 0
    TCPRenoRecoveryFail: int = 0
    TCPSackRecoveryFail: int = 0
    TCPRcvCollapsed: int = 0
    TCPDSACKOldSent: int = 0
    TCPDSACKOfoSent: int = 0
    TCPDSACKRecv: int = 0
    TCPDSACKOfoRecv: int = 0
    TCPAbortOnData: int = 0
    TCPAbortOnClose: int = 0
    TCPAbortOnMemory: int = 0
    TCPAbortOnTimeout: int = 0
    TCPSACKDiscard: int = 0
    TCPDSACKIgnoredOld: int = 0
    TCPDSACKIgnoredNoUndo: int = 0
    TCPSpuriousRTOs: int = 0
    TCPMD5NotFound: int = 0
    TCPMD5Unexpected: int = 0
    TCPMD5Failure: int = 0
    TCPSackMerged: int = 0
    TCPAbortOnLinger: int = 0
    TCPMemoryPressures: int = 0
    TCPMemoryPressuresChrono: int = 0
    TCPFastOpenActive: int = 0
    TCPFastOpenActiveFail: int = 0
    TCPTimeWaitOverflow: int = 0
    TCPDeferAcceptDrop: int = 0
    TCPReqQFullDoCookies: int = 0
    TCPReqQFullDrop: int = 0
    BusyPollRxPackets: int = 0
    TCPRcvQDrop: int = 0
    TCPOFOQueue: int = 0
    TCPOFODrop: int = 0
    TCPOFOMerge: int = 0
    TCPChallengeACK: int = 0
    TCPSYNChallenge: int = 0
    TCPFromZeroWindowAdv: int = 0
    TCPToZeroWindowAdv: int = 0
    TCPWantZeroWindowAdv: int = 0
    TCPFastOpenPassive: int = 0
    TCPFastOpenPassiveFail: int = 0
    TCPFastOpenListenOverflow: int = 0
    TCPFastOpenCookieReqd: int = 0
    TCPFastOpenBlackhole: int = 0
    TCPSynRetrans: int = 0
    TCPOrigDataSent: int = 0
    TCPAutoCorking: int = 0
    TCPHystartTrainDetect: int = 0
    TCPHystartTrainCwnd: int = 0
    TCPHystartDelayDetect: int = 0
    TCPHystartDelayCwnd: int = 0
    TCPACKSkippedSynRecv: int = 0
    TCPACKSkippedPAWS: int = 0
    TCPACKSkippedSeq: int = 0
    TCPACKSkippedFinWait2: int = 0
    TCPACKSkippedTimeWait: int = 0
    TCPACKSkippedChallenge: int = 0
    TCPKeepAlive: int = 0
    TCPWinProbe: int = 0
    TCPMTUPFail: int = 0
    TCPMTUPSuccess: int = 0
    TCPDelivered: int = 0
    TCPDSACKRecvSegs: int = 0
    TCPDSACKIgnoredDubious: int = 0
    TCPZeroWindowDrop: int = 0
    TCPFastOpenPassiveAltKey: int = 0
    TCPAckCompressed: int = 0
    BeyondWindow: int = 0


@dataclass(slots=True)
class UstackMib:
    """What Linux 6 does not count; ``ustack nstat`` knows it by the bare name."""

    PAWSPassive: int = 0
    """SYNs that linux-3.10 has refused for their timestamp (tcp_tw_recycle)."""

    ConnectPortProbes: int = 0
    """Local ports that connect() has looked at (the loop of __inet_hash_connect)."""
    SockmapRedirects: int = 0
    """Times that one local socket's bytes were put into its peer's receive queue directly."""
    SockmapBytes: int = 0
    """... and how many bytes that were."""


@dataclass(slots=True)
class NetMib:
    """Every counter table of one network namespace."""

    ip: IpMib = field(default_factory=IpMib)
    ip_ext: IpExtMib = field(default_factory=IpExtMib)
    icmp: IcmpMib = field(default_factory=IcmpMib)
    udp: UdpMib = field(default_factory=UdpMib)
    tcp: TcpMib = field(default_factory=TcpMib)
    tcp_ext: TcpExtMib = field(default_factory=TcpExtMib)
    ustack: UstackMib = field(default_factory=UstackMib)

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Return all tables by the kernel's row name ("Ip", "TcpExt", ...)."""
        rows: dict[str, Any] = {
            "Ip": self.ip,
            "Icmp": self.icmp,
            "Tcp": self.tcp,
            "Udp": self.udp,
            "TcpExt": self.tcp_ext,
            "IpExt": self.ip_ext,
        }
        return {
            name: {f.name: getattr(table, f.name) for f in fields(table)}
            for name, table in rows.items()
        }
