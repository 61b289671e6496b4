/*
 * One turn of a device with one queue, all in one call: DMA, the interrupt if moderation lets
 * it through, and a NAPI poll whose frames TCP's fast path takes (us_nic_dma, igb_msix_ring,
 * igb_poll). Whatever it cannot finish it leaves as the steps in Python would find it.
 */

#include "igb_poll.h"
#include "wait.h"
#include "tcp_internal.h"

/* The transmit ring first, then what was received; what us_igb_poll returns of it. */
static uint64_t us_igb_poll_rings(struct us_igb_poll *poll)
{
	uint64_t done = 0;
	int count;

	us_igb_clean_tx_irq(poll->tx, US_IGB_TX_WORK);
	count = us_igb_clean_rx_irq(poll->rx, US_IGB_RX_BUDGET);
	poll->left = count ? us_tcp_fast_rx(poll->fast, poll->mac, poll->rx->frames, count) : 0;
	done += (uint64_t)(count - poll->left) << US_IGB_POLL_CONSUMED_SHIFT;
	if (poll->left)
		return done | US_IGB_POLL_LEFT;
	us_igb_alloc_rx_buffers(poll->rx, poll->rxq);
	return count == US_IGB_RX_BUDGET ? done | US_IGB_POLL_AGAIN : done;
}

/* Polling is over: moderation anew, and the interrupt on again (napi_complete). */
static uint32_t us_igb_poll_complete(struct us_igb_poll *poll)
{
	uint32_t delivered = 0;

	if (poll->is_adaptive) {
		const int itr = us_igb_set_itr(poll->itr, poll->rx, poll->tx);

		if (itr >= 0)
			delivered = us_nic_write_eitr(poll->nic, 0,
						      (uint32_t)itr | US_E1000_EITR_CNT_IGNR);
	}
	return delivered | us_nic_write_eims(poll->nic, 1);
}

/* Interrupts, and the polls that they cause, until none comes; what us_igb_poll returns of it. */
static uint64_t us_igb_poll_irqs(struct us_igb_poll *poll)
{
	uint32_t delivered = us_nic_deliver_irq(poll->nic);
	uint64_t done = 0;

	while (delivered & 1) {
		done += (uint64_t)1 << US_IGB_POLL_IRQS_SHIFT;
		if (poll->fast->nevents || poll->tx->stopped)
			return done | US_IGB_POLL_AGAIN;
		done += us_igb_poll_rings(poll);
		if (poll->fast->nevents || poll->fast->doorbell)
			done |= US_IGB_POLL_EVENTS;
		if (done & (US_IGB_POLL_LEFT | US_IGB_POLL_AGAIN))
			return done;
		delivered = us_igb_poll_complete(poll);
	}
	return delivered & US_NIC_IRQ_HELD ? done | US_IGB_POLL_HELD : done;
}

/* What every turn begins with: the present, and nothing left over. */
static void us_igb_poll_begin(struct us_igb_poll *poll, uint64_t now_us, uint32_t genid)
{
	poll->left = 0;
	poll->fast->now_us = now_us;
	poll->fast->genid = genid;
	poll->fast->gro = poll->gro;
	poll->fast->nevents = 0;
}

/* The turn behind a DMA step that has @taken so many frames; what us_igb_poll returns. */
static uint64_t us_igb_poll_end(struct us_igb_poll *poll, int taken)
{
	uint64_t done;

	if (taken < 0)
		return US_IGB_POLL_GONE;
	done = us_igb_poll_irqs(poll);
	if (taken >= US_IGB_POLL_DMA)
		done |= US_IGB_POLL_MORE;
	return us_tcp_timers_due(poll->fast, poll->fast->now_us) ? done | US_IGB_POLL_TIMERS : done;
}

/**
 * us_igb_poll - one turn of a device
 * @poll:   what belongs to it
 * @now_us: the present
 * @genid:  of the routing table
 *
 * To be called while nothing is scheduled for the device. fast->events says what Python has to
 * do for connections; it must be done before the next turn.
 *
 * Return: US_IGB_POLL_*, and above those two counts; 0: nothing has been done, nor is left.
 */
uint64_t us_igb_poll(struct us_igb_poll *poll, uint64_t now_us, uint32_t genid)
{
	us_igb_poll_begin(poll, now_us, genid);
	if (poll->tx->stopped || !poll->fast->on)
		return US_IGB_POLL_NOT_NOW;
	return us_igb_poll_end(poll, us_nic_dma(poll->nic, now_us, US_IGB_POLL_DMA, UINT32_MAX));
}

/**
 * us_igb_wait - look at the wire until a frame comes, and take its turn (sk_busy_loop)
 * @poll:   what belongs to the device
 * @looks:  how often at most; each is one system call
 * @wakefd: descriptor that ends it when it can be read, or -1
 * @genid:  of the routing table
 *
 * Between the frame and what is done with it there is neither poll(2) nor Python. @poll->now_us
 * says afterwards when it came.
 *
 * Context: the edge only: takes its time, without the GIL, and reads the clock, as us_wait does.
 * The stack is the caller's all the while. Otherwise as us_igb_poll.
 *
 * Return: as us_igb_poll; 0: nothing has come.
 */
uint64_t us_igb_wait(struct us_igb_poll *poll, uint32_t looks, int wakefd, uint32_t genid)
{
	int taken = 0;

	us_igb_poll_begin(poll, us_monotonic_us(), genid);
	if (poll->tx->stopped || !poll->fast->on)
		return US_IGB_POLL_NOT_NOW;
	for (uint32_t i = 0; i < looks && !taken; i++) {
		if (i)
			poll->fast->now_us = us_monotonic_us();
		taken = us_nic_dma(poll->nic, poll->fast->now_us, US_IGB_POLL_DMA, UINT32_MAX);
		if (!taken && wakefd >= 0 && i % US_IGB_WAKE_LOOKS == 0 && us_wait(wakefd, -1, 0, 0))
			break;
	}
	poll->now_us = poll->fast->now_us;
	return taken ? us_igb_poll_end(poll, taken) : 0;
}

/* Whether nothing is left to do but to tell one connection's readers. */
static bool us_igb_is_for_reader(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	const struct us_tcp_event *event = &fast->events[0];

	return !fast->nevents || (fast->nevents == 1 && event->what == US_TCP_EV_READABLE &&
				  event->handle == us_tcp_handle(tp));
}

/* Look at wire and rings though nobody has interrupted, for about @bytes (napi_busy_loop). */
static uint64_t us_igb_busy_poll(struct us_igb_poll *poll, uint32_t bytes)
{
	poll->fast->nevents = 0;
	if (us_nic_dma(poll->nic, poll->fast->now_us, US_IGB_POLL_DMA, bytes) < 0)
		return US_IGB_POLL_GONE;
	return us_igb_poll_rings(poll);
}

/**
 * us_igb_recvmsg - recv() that polls the device while that fills @buffer (sk_busy_loop)
 * @poll:   what belongs to the device; its flags say afterwards what is left to do for it
 * @tp:     connection
 * @buffer: room for @len bytes, for a super-frame at least
 * @len:    how many at most
 * @now_us: the present
 * @genid:  of the routing table
 *
 * What comes is copied while it is in the cache, and Python is crossed once for it all. A poll
 * that brings anything else, or little, is the last.
 *
 * Return: as us_tcp_recvmsg, fast->events too.
 */
int64_t us_igb_recvmsg(struct us_igb_poll *poll, struct us_tcp_sock *tp, void *buffer,
		       uint32_t len, uint64_t now_us, uint32_t genid)
{
	const uint64_t packets = poll->rx->packets;
	struct us_tcp_fast *fast = poll->fast;
	uint32_t done, got;
	bool is_readable = false;

	us_tcp_begin_call(fast, now_us, genid);
	fast->gro = poll->gro;
	poll->flags = 0;
	poll->consumed = 0;
	done = us_tcp_copy_text(fast, tp, buffer, len);
	got = done ? done : US_LARGE_BYTES;
	for (int turns = 0; turns < US_IGB_RECV_TURNS && got >= US_LARGE_BYTES / 2; turns++) {
		uint64_t polled;

		if (len - done < US_LARGE_BYTES || poll->tx->stopped || poll->flags ||
		    !us_igb_is_for_reader(fast, tp))
			break;
		is_readable = is_readable || fast->nevents;
		polled = us_igb_busy_poll(poll, us_min32(len - done, US_IGB_RECV_BYTES));
		poll->flags = polled & UINT16_MAX;
		poll->consumed += (uint32_t)(polled >> US_IGB_POLL_CONSUMED_SHIFT);
		got = us_tcp_copy_text(fast, tp, (uint8_t *)buffer + done, len - done);
		done += got;
	}
	if (is_readable)
		us_tcp_wake_reader(fast, tp, US_TCP_EV_READABLE);
	if (done)
		us_tcp_cleanup_rbuf(fast, tp);
	fast->mib.BusyPollRxPackets += poll->rx->packets - packets;
	return done;
}

/**
 * us_igb_recv_wait - recv() that looks at the wire until text of its connection comes
 * @poll:   what belongs to the device; its @done is what us_igb_wait returns of the turn
 * @tp:     connection
 * @buffer: room for @len bytes
 * @len:    how many at most
 * @looks:  as for us_igb_wait; 0: it takes what is there
 * @wakefd: as for us_igb_wait
 * @genid:  of the routing table
 *
 * Context: as us_igb_wait.
 *
 * Return: bytes read; 0: none, or the way is through Python.
 */
uint32_t us_igb_recv_wait(struct us_igb_poll *poll, struct us_tcp_sock *tp, void *buffer,
			  uint32_t len, uint32_t looks, int wakefd, uint32_t genid)
{
	struct us_tcp_fast *fast = poll->fast;
	uint32_t got;

	poll->done = 0;
	us_tcp_begin_call(fast, us_monotonic_us(), genid);
	got = us_tcp_copy_text(fast, tp, buffer, len);
	if (!got && looks) {
		poll->done = us_igb_wait(poll, looks, wakefd, genid);
		if (poll->done && us_igb_is_for_reader(fast, tp))
			got = us_tcp_copy_text(fast, tp, buffer, len);
	}
	poll->now_us = fast->now_us;
	if (!got)
		return 0;
	if (!tp->receive_queue.len)
		fast->nevents = 0;
	us_tcp_cleanup_rbuf(fast, tp);
	if (fast->nevents || fast->doorbell)
		poll->done |= US_IGB_POLL_EVENTS;
	else
		poll->done &= ~(uint64_t)US_IGB_POLL_EVENTS;
	return got;
}
