"""The counters of /proc/net/snmp and /proc/net/netstat, in the order of Linux 6.18.

Each row: its title, the table of ``NetMib`` that has the values, the kernel's names. Left
out are rows of protocols that the stack does not have (UDP-Lite, MPTCP) and IcmpMsg.
"""

from __future__ import annotations

SNMP_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = tuple(
    (title, attribute, tuple(names.split()))
    for title, attribute, names in (
        (
            "Ip",
            "ip",
            """
            Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams
            InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes
            ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates
            OutTransmits
            """,
        ),
        (
            "Icmp",
            "icmp",
            """
            InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs
            InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks
            InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost
            OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos
            OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps
            """,
        ),
        (
            "Tcp",
            "tcp",
            """
            RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails
            EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors
            """,
        ),
        (
            "Udp",
            "udp",
            """
            InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors
            IgnoredMulti MemErrors
            """,
        ),
    )
)
NETSTAT_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = tuple(
    (title, attribute, tuple(names.split()))
    for title, attribute, names in (
        (
            "TcpExt",
            "tcp_ext",
            """
            SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled
            RcvPruned OfoPruned OutOfWindowIcmps LockDroppedIcmps ArpFilter TW TWRecycled
            TWKilled PAWSActive PAWSEstab BeyondWindow TSEcrRejected PAWSOldAck PAWSTimewait
            DelayedACKs DelayedACKLocked DelayedACKLost ListenOverflows ListenDrops
            TCPHPHits TCPPureAcks TCPHPAcks TCPRenoRecovery TCPSackRecovery TCPSACKReneging
            TCPSACKReorder TCPRenoReorder TCPTSReorder TCPFullUndo TCPPartialUndo
            TCPDSACKUndo TCPLossUndo TCPLostRetransmit TCPRenoFailures TCPSackFailures
            TCPLossFailures TCPFastRetrans TCPSlowStartRetrans TCPTimeouts TCPLossProbes
            TCPLossProbeRecovery TCPRenoRecoveryFail TCPSackRecoveryFail TCPRcvCollapsed
            TCPBacklogCoalesce TCPDSACKOldSent TCPDSACKOfoSent TCPDSACKRecv TCPDSACKOfoRecv
            TCPAbortOnData TCPAbortOnClose TCPAbortOnMemory TCPAbortOnTimeout
            TCPAbortOnLinger TCPAbortFailed TCPMemoryPressures TCPMemoryPressuresChrono
            TCPSACKDiscard TCPDSACKIgnoredOld TCPDSACKIgnoredNoUndo TCPSpuriousRTOs
            TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPSackShifted TCPSackMerged
            TCPSackShiftFallback TCPBacklogDrop PFMemallocDrop TCPMinTTLDrop
            TCPDeferAcceptDrop IPReversePathFilter TCPTimeWaitOverflow TCPReqQFullDoCookies
            TCPReqQFullDrop TCPRetransFail TCPRcvCoalesce TCPOFOQueue TCPOFODrop TCPOFOMerge
            TCPChallengeACK TCPSYNChallenge TCPFastOpenActive TCPFastOpenActiveFail
            TCPFastOpenPassive TCPFastOpenPassiveFail TCPFastOpenListenOverflow
            TCPFastOpenCookieReqd TCPFastOpenBlackhole TCPSpuriousRtxHostQueues
            BusyPollRxPackets TCPAutoCorking TCPFromZeroWindowAdv TCPToZeroWindowAdv
            TCPWantZeroWindowAdv TCPSynRetrans TCPOrigDataSent TCPHystartTrainDetect
            TCPHystartTrainCwnd TCPHystartDelayDetect TCPHystartDelayCwnd
            TCPACKSkippedSynRecv TCPACKSkippedPAWS TCPACKSkippedSeq TCPACKSkippedFinWait2
            TCPACKSkippedTimeWait TCPACKSkippedChallenge TCPWinProbe TCPKeepAlive
            TCPMTUPFail TCPMTUPSuccess TCPDelivered TCPDeliveredCE TCPAckCompressed
            TCPZeroWindowDrop TCPRcvQDrop TCPWqueueTooBig TCPFastOpenPassiveAltKey
            TcpTimeoutRehash TcpDuplicateDataRehash TCPDSACKRecvSegs TCPDSACKIgnoredDubious
            TCPMigrateReqSuccess TCPMigrateReqFailure TCPPLBRehash TCPAORequired TCPAOBad
            TCPAOKeyNotFound TCPAOGood TCPAODroppedIcmps
            """,
        ),
        (
            "IpExt",
            "ip_ext",
            """
            InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts
            InOctets OutOctets InMcastOctets OutMcastOctets InBcastOctets OutBcastOctets
            InCsumErrors InNoECTPkts InECT1Pkts InECT0Pkts InCEPkts ReasmOverlaps
            """,
        ),
    )
)
