"""A device's queue disciplines as rows of ``tc -s qdisc``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from ustack.core.qdisc import PRIO2BAND, MqQdisc, Qdisc
from ustack.daemon.messages import QdiscRow

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice

PFIFO_FAST = "bands 3 priomap " + " ".join(map(str, PRIO2BAND))


def qdisc_rows(device: NetDevice) -> Iterator[QdiscRow]:
    """Yield the root, then mq's leaves that are in use, the last one first as Linux has them.

    A root of its own is held by its device and its queue (refcnt 2); mq and its leaves are
    held once.
    """
    root = device.qdisc
    if root is None:
        if device.qdisc_name == "noqueue":
            yield QdiscRow("noqueue", device.name, "", 2, "")
        return
    if not isinstance(root, MqQdisc):
        yield _row(device, root, "pfifo_fast", "", 2, PFIFO_FAST)
        return
    yield _row(device, root, "mq", "", 1, "")
    for leaf in reversed(root.leaves[: device.real_num_tx_queues]):
        yield _row(device, leaf, "pfifo_fast", f":{leaf.queue + 1:x}", 1, PFIFO_FAST)


def _row(
    device: NetDevice, qdisc: Qdisc | MqQdisc, kind: str, parent: str, refcnt: int, options: str
) -> QdiscRow:
    return QdiscRow(
        kind,
        device.name,
        parent,
        refcnt,
        options,
        **asdict(qdisc.stats),
        backlog=qdisc.backlog_bytes,
        qlen=qdisc.qlen,
    )
