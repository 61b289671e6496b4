"""F-RTO: spurious timeouts (RFC 5682; tcp_process_loss)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import TcpConfig
from ustack.tcp.cong.ops import TCP_CA_LOSS, TCP_CA_OPEN

NO_PROBES = TcpConfig(tcp_early_retrans=0)


@pytest.fixture(params=[False, True], ids=["reno", "sack"])
def f(request) -> Flight:
    return timed_out(Flight(host(tcp=NO_PROBES), sack=request.param))


def timed_out(f: Flight) -> Flight:
    """The timeout has repeated segment 0; two segments wait to be sent."""
    f.write(4)
    f.wait(250_000)
    assert f.segs() == [0]
    assert f.tp.ca_state == TCP_CA_LOSS
    return f


@pytest.mark.rfc("5682", "2.1")
def test_the_first_ack_after_it_sends_new_data(f):
    f.ack(1)
    assert f.segs() == [10, 11]


@pytest.mark.rfc("5682", "2.1")
def test_a_second_advance_proves_it_spurious(f):
    f.ack(1)
    f.segs()
    f.ack(2)
    assert f.mib.TCPSpuriousRTOs == f.mib.TCPLossUndo == 1
    assert f.tp.snd_cwnd >= 10
    assert f.tp.ca_state == TCP_CA_OPEN
    assert f.tp.lost_out == f.tp.retransmits == 0


@pytest.mark.rfc("5682", "2.1")
def test_after_it_nothing_more_is_repeated(f):
    f.ack(1)
    f.ack(2)
    f.segs()
    f.ack(10)
    f.ack(14)
    f.wait(5_000_000)
    assert f.mib.RetransSegs == 1


@pytest.mark.rfc("5682", "2.1")
def test_a_duplicate_instead_proves_the_loss(f):
    f.ack(1)
    f.segs()
    if f.tp.sack_ok:
        f.ack(1, (10, 11))
    else:
        f.dup(segments=1)
    assert f.segs()[0] == 1
    assert f.mib.TCPSpuriousRTOs == 0
    assert not f.recovery.frto


@pytest.mark.linux("net.ipv4.tcp_frto")
def test_tcp_frto_0_repeats_at_once():
    f = timed_out(Flight(host(tcp=TcpConfig(tcp_early_retrans=0, tcp_frto=0)), sack=False))
    f.ack(1)
    assert f.segs() == [1, 2]


def test_without_new_data_it_repeats_at_once():
    f = Flight(host(tcp=NO_PROBES), sack=False)
    f.wait(250_000)
    f.segs()
    f.ack(1)
    assert f.segs() == [1, 2]


@pytest.mark.rfc("5682", "3.1")
def test_with_sack_one_original_that_arrives_is_enough():
    f = timed_out(Flight(host(tcp=NO_PROBES)))
    f.ack(0, (4, 5))
    assert f.mib.TCPSpuriousRTOs == 1
    assert f.tp.snd_cwnd >= 10
    assert f.tp.retransmits == 0


def test_ssthresh_is_restored_too():
    f = timed_out(Flight(host(tcp=NO_PROBES)))
    assert f.tp.snd_ssthresh == 5
    f.ack(0, (4, 5))
    assert f.tp.snd_ssthresh > 1000


def test_an_ack_of_everything_at_once_is_no_proof():
    """It may be the repetition that filled the only hole."""
    f = Flight(host(tcp=NO_PROBES), 1, sack=False)
    f.wait(250_000)
    f.segs()
    f.ack(1)
    assert f.mib.TCPSpuriousRTOs == 0
    assert f.tp.snd_ssthresh < 1000


def test_a_timeout_in_the_middle_of_recovery_is_not_doubted():
    f = Flight(host(tcp=NO_PROBES))
    f.write(5)
    f.ack(0, (1, 4))
    f.wait(400_000)
    assert f.mib.TCPTimeouts == 1
    assert f.tp.ca_state == TCP_CA_LOSS
    assert not f.recovery.frto


@pytest.mark.linux("tcp_process_loss")
def test_duplicates_of_what_was_out_at_the_timeout_count_for_nothing():
    f = timed_out(Flight(host(tcp=NO_PROBES), sack=False))
    f.dup(3)
    assert f.tp.sacked_out == 0
    assert f.segs() == []


@pytest.mark.linux("tcp_process_loss")
def test_text_of_the_peer_leaves_the_count_of_duplicates():
    f = timed_out(Flight(host(tcp=NO_PROBES), sack=False))
    f.ack(1)
    f.dup(2, segments=1)
    f.peer.send("P. 1:11(10) ack 1001")
    assert f.tp.sacked_out == 2


@pytest.mark.linux("tcp_process_loss")
def test_a_partial_ack_forgets_the_duplicates_of_new_data():
    f = timed_out(Flight(host(tcp=NO_PROBES), sack=False))
    f.ack(1)
    f.dup(2, segments=1)
    assert f.tp.sacked_out == 2
    f.ack(2)
    assert f.tp.sacked_out == 0


@pytest.mark.linux("tcp_process_loss: FLAG_SND_UNA_ADVANCED")
def test_a_d_sack_that_acknowledges_nothing_new_takes_no_timeout_back_yet():
    f = timed_out(Flight(host(tcp=NO_PROBES)))
    f.ack(1)
    f.ack(1, (0, 1))
    assert f.recovery.undo_retrans == 0
    assert (f.mib.TCPLossUndo, f.tp.ca_state) == (0, TCP_CA_LOSS)
    f.ack(2)
    assert (f.mib.TCPLossUndo, f.tp.ca_state) == (1, TCP_CA_OPEN)


@pytest.mark.linux("tcp_process_loss")
def test_a_new_window_leaves_the_count_of_duplicates():
    f = timed_out(Flight(host(tcp=NO_PROBES), sack=False))
    f.ack(1)
    f.dup(2, segments=1)
    f.peer.send("P. 1:11(10) ack 1001 win 60000")
    assert f.tp.sacked_out == 2


@pytest.mark.linux("tcp_process_loss: FLAG_SND_UNA_ADVANCED && !recovered")
def test_an_ack_of_all_that_was_out_ends_it_though_there_is_new_data():
    f = Flight(host(tcp=NO_PROBES), 1)
    f.tp.snd_cwnd = 1
    f.write(3)
    f.wait(250_000)
    assert f.segs() == [0]
    f.ack(1)
    assert f.tp.ca_state == TCP_CA_OPEN
