"""``ustack ip tcp_metrics``: what TCP remembers of its peers, in iproute2's words."""

from __future__ import annotations

from collections.abc import Iterator

from ustack.cli.client import Client, ClientError
from ustack.daemon.messages import TcpMetricsDelete, TcpMetricsRequest, TcpMetricsRow
from ustack.lib.addresses import format_ipv4, parse_ipv4

VERBS = ("show", "list", "lst", "delete", "flush")


def run_tcp_metrics(client: Client, words: list[str]) -> Iterator[str]:
    """Do ``show|flush [[address] ADDR]`` or ``delete [address] ADDR``; yield what to print.

    Raises:
        ClientError: another word, no address, or no such peer, in rtnetlink's words.
    """
    rest = list(words)
    verb = "show"
    if rest and (found := next((v for v in VERBS if v.startswith(rest[0])), None)):
        verb = found
        rest.pop(0)
    address = _address(rest)
    if verb == "delete" and not address:
        raise ClientError("Error: a specific IP address is required.")
    if verb in ("delete", "flush"):
        _forget(client, address, missing_ok=verb == "flush")
        return
    for row in client.rows(TcpMetricsRequest(), TcpMetricsRow):
        if address in ("", row.address):
            yield format_metrics(row)


def _address(words: list[str]) -> str:
    rest = words[1:] if words[:1] == ["address"] else words
    if len(rest) > 1:
        raise ClientError(f'ip tcp_metrics: "{rest[1]}" is not supported')
    if not rest or rest[0] in ("all", "any"):
        return ""
    try:
        return format_ipv4(parse_ipv4(rest[0]))
    except ValueError as error:
        raise ClientError(f"ip tcp_metrics: {error}") from None


def _forget(client: Client, address: str, *, missing_ok: bool) -> None:
    try:
        client.ask(TcpMetricsDelete(address))
    except ClientError as error:
        if not missing_ok:
            raise ClientError(f"RTNETLINK answers: {error}") from None


def format_metrics(row: TcpMetricsRow) -> str:
    """Write ``10.0.0.1 age 0.104sec cwnd 15 rtt 48us rttvar 48us source 10.0.0.2``."""
    words = [row.address, f"age {row.age_us / 1e6:.3f}sec"]
    words += [f"{name} {value}" for name, value in (
        ("ssthresh", row.ssthresh), ("cwnd", row.cwnd), ("reordering", row.reordering)
    ) if value]  # fmt: skip
    words += [
        f"{name} {us}us" for name, us in (("rtt", row.rtt_us), ("rttvar", row.rttvar_us)) if us
    ]
    if row.fo_mss:
        words.append(f"fo_mss {row.fo_mss}")
    if row.fo_syn_drops:
        words.append(f"fo_syn_drops {row.fo_syn_drops}/{row.fo_syn_drop_age_us / 1e6:.3f}sec ago")
    if row.fo_cookie:
        words.append(f"fo_cookie {row.fo_cookie}")
    return " ".join([*words, f"source {row.source}"])
