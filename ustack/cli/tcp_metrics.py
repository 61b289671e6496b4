"""``ustack ip tcp_metrics``: what TCP remembers of its peers, in iproute2's words."""

from __future__ import annotations

from collections.abc import Iterator

from ustack.cli.client import Client, ClientError
from ustack.cli.iproute2 import RTNETLINK_REFUSED, USAGE, rtnetlink_answers
from ustack.daemon.messages import TcpMetricsDelete, TcpMetricsRequest, TcpMetricsRow
from ustack.lib.addresses import format_ipv4, parse_ipv4

VERBS = ("show", "list", "lst", "delete", "flush")


def run_tcp_metrics(client: Client, words: list[str]) -> Iterator[str]:
    """Do ``show|flush [[address] ADDR]`` or ``delete [address] ADDR``; yield what to print.

    Raises:
        ClientError: another word, no address, or no such peer, with iproute2's words and status.
    """
    verb, rest = words[0] if words else "show", words[1:]
    found = next((known for known in VERBS if known.startswith(verb)), None)
    if found is None:
        raise ClientError(f'Command "{verb}" is unknown, try "ip tcp_metrics help".', USAGE)
    address = _address(rest, specific=found == "delete")
    if found == "delete" or (found == "flush" and address):
        with rtnetlink_answers():
            client.ask(TcpMetricsDelete(address))
    elif found == "flush":
        client.ask(TcpMetricsDelete(address))
    else:
        rows = client.rows(TcpMetricsRequest(), TcpMetricsRow)
        chosen = [row for row in rows if address in ("", row.address)]
        if address and not chosen:
            raise ClientError("RTNETLINK answers: No such process", RTNETLINK_REFUSED)
        yield from map(format_metrics, chosen)


def _address(rest: list[str], *, specific: bool) -> str:
    """Return the address that ``rest`` names, "" for all of them."""
    names = rest[1:] if rest[:1] == ["address"] else rest
    if len(names) > 1:
        raise ClientError(f'ip tcp_metrics: "{names[1]}" is not supported')
    if specific and not names:
        raise ClientError('Error: argument "address" is required', USAGE)
    if specific and names[0] in ("all", "any"):
        raise ClientError(f'Error: a specific IP address is expected rather than "{names[0]}"')
    if not names or names[0] in ("all", "any"):
        return ""
    try:
        return format_ipv4(parse_ipv4(names[0]))
    except ValueError:
        text = f'Error: any valid prefix is expected rather than "{names[0]}".'
        raise ClientError(text) from None


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
