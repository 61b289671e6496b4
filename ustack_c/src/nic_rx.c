/* Receive DMA: frames from the wire into the buffers of free descriptors. */

#include <errno.h>
#include <string.h>

#include "nic_dev.h"

/* RCTL.RDMTS: with so small a part of the ring free, the interrupt does not wait for EITR. */
#define US_RX_THRESHOLD 8

/* The ring as the registers describe it, checked; count 0: the queue is off. */
struct us_rx_view {
	struct us_igb_rxq_regs *regs;
	union us_adv_rx_desc *desc;
	uint32_t count;
	uint32_t free;		/* descriptors that the device may fill */
};

/* All rings that frames may land in: queue 0 alone without receive side scaling. */
struct us_rx_rings {
	struct us_rx_view view[US_IGB_MAX_QUEUES];
	uint32_t n;
};

static struct us_rx_view us_rx_view_of(struct us_nic *nic, uint32_t queue)
{
	struct us_rx_view view = {0};
	struct us_igb_rxq_regs *regs;

	if (queue >= US_IGB_MAX_QUEUES || !(nic->regs.RCTL & US_E1000_RCTL_EN))
		return view;
	regs = &nic->regs.rxq[queue];
	view.regs = regs;
	view.desc = (void *)us_mem_at(nic->mem, (us_dma_addr_t)regs->RDBAH << 32 | regs->RDBAL,
				      regs->RDLEN);
	if (!view.desc || (regs->RDBAL & 15U) || !(regs->RXDCTL & US_E1000_RXDCTL_QUEUE_ENABLE))
		return view;
	if (regs->SRRCTL < US_IGB_RXBUFFER_2048 || (regs->SRRCTL & 1U))
		return view;
	if (regs->RDH >= regs->RDLEN / 16 || regs->RDT >= regs->RDLEN / 16)
		return view;
	view.count = regs->RDLEN / 16;
	view.free = (regs->RDT + view.count - regs->RDH) % view.count;
	return view;
}

static void us_rx_rings_of(struct us_nic *nic, struct us_rx_rings *rings)
{
	rings->n = nic->regs.MRQC & US_E1000_MRQC_ENABLE_RSS ? US_IGB_MAX_QUEUES : 1;
	for (uint32_t q = 0; q < rings->n; q++)
		rings->view[q] = us_rx_view_of(nic, q);
}

/* What the parser found in a frame before it is stored. */
struct us_rx_verdict {
	uint32_t queue;
	uint32_t rss;
	uint32_t rss_type;
};

/* Which ring a frame belongs in: the hash picks an entry of the indirection table. */
static struct us_rx_verdict us_rx_classify(const struct us_nic *nic,
					   const struct us_rx_rings *rings, const uint8_t *frame,
					   uint32_t len)
{
	struct us_rx_verdict verdict = {0};
	uint32_t queue;

	if (rings->n == 1)
		return verdict;
	verdict.rss = us_nic_rss(nic, frame, len, &verdict.rss_type);
	if (!verdict.rss_type)
		return verdict;
	queue = nic->regs.RETA[verdict.rss % US_IGB_RETA_SIZE] % US_IGB_MAX_QUEUES;
	verdict.queue = rings->view[queue].count ? queue : 0;
	return verdict;
}

/*
 * Lay @len bytes over the next free descriptors' buffers. Returns the number of
 * pieces, 0 if there are too few descriptors, -EFAULT if one points outside memory.
 */
static int us_rx_pieces(const struct us_nic *nic, const struct us_rx_view *view, uint32_t len,
			struct iovec *pieces)
{
	const uint32_t size = view->regs->SRRCTL;
	uint32_t i = view->regs->RDH;
	int n = 0;

	while (len) {
		const uint32_t part = len < size ? len : size;
		uint8_t *buffer;

		if ((uint32_t)n == view->free || n == US_RX_PIECES)
			return 0;
		buffer = us_mem_at(nic->mem, view->desc[i].read.pkt_addr, part);
		if (!buffer)
			return -EFAULT;
		pieces[n].iov_base = buffer;
		pieces[n].iov_len = part;
		n++;
		len -= part;
		i = i + 1 == view->count ? 0 : i + 1;
	}
	return n;
}

static void us_rx_count(struct us_nic *nic, const uint8_t *mac, uint32_t len)
{
	nic->regs.GPRC++;
	nic->regs.GORC += len;
	if (us_is_broadcast(mac))
		nic->regs.BPRC++;
	else if (mac[0] & 1)
		nic->regs.MPRC++;
}

/* Write one descriptor back and take it off the ring. */
static void us_rx_write_back(struct us_rx_view *view, struct us_adv_rx_wb wb)
{
	view->desc[view->regs->RDH].wb = wb;
	view->regs->RDH = view->regs->RDH + 1 == view->count ? 0 : view->regs->RDH + 1;
	view->free--;
}

/* Whether a low latency filter matches, so that the interrupt must not wait. */
static bool us_rx_is_urgent(const struct us_nic *nic, const uint8_t *frame, uint32_t len,
			    uint32_t pkt_info)
{
	for (int f = 0; f < 2; f++) {
		const uint32_t match = nic->regs.IMIREXT[f];
		const uint8_t *tcp = frame + US_ETH_HLEN + (frame[US_ETH_HLEN] & 15U) * 4U;

		if (!(nic->regs.IMIR[f] & US_E1000_IMIR_PORT_IM_EN))
			continue;
		if (!(match & US_E1000_IMIREXT_SIZE_BP) &&
		    len >= (match & US_E1000_IMIREXT_SIZE_MASK))
			continue;
		if (match & US_E1000_IMIREXT_CTRL_BP)
			return true;
		if (!(pkt_info & US_E1000_RXDADV_PKTTYPE_TCP))
			continue;
		if (((tcp[13] & 0x20) && (match & US_E1000_IMIREXT_CTRL_URG)) ||
		    ((tcp[13] & 0x10) && (match & US_E1000_IMIREXT_CTRL_ACK)) ||
		    ((tcp[13] & 0x08) && (match & US_E1000_IMIREXT_CTRL_PSH)) ||
		    ((tcp[13] & 0x04) && (match & US_E1000_IMIREXT_CTRL_RST)) ||
		    ((tcp[13] & 0x02) && (match & US_E1000_IMIREXT_CTRL_SYN)) ||
		    ((tcp[13] & 0x01) && (match & US_E1000_IMIREXT_CTRL_FIN)))
			return true;
	}
	return false;
}

/* The frame lies in its buffers: verify it, write its descriptors back, set the cause. */
static void us_rx_complete(struct us_nic *nic, const struct us_rx_verdict *verdict,
			   struct us_rx_view *view, const struct us_vnet_hdr *hdr,
			   const struct iovec *pieces, uint32_t len)
{
	const uint32_t size = view->regs->SRRCTL;
	struct us_adv_rx_wb wb = {0};
	uint32_t status;
	bool is_urgent;

	us_rx_count(nic, pieces[0].iov_base, len);
	status = us_nic_rx_status(nic, hdr, pieces, len, &wb.pkt_info);
	is_urgent = us_rx_is_urgent(nic, pieces[0].iov_base, len, wb.pkt_info);
	wb.pkt_info = (uint16_t)(wb.pkt_info | verdict->rss_type);
	wb.rss = verdict->rss;
	wb.status_error = US_E1000_RXD_STAT_DD;
	wb.length = (uint16_t)size;
	for (; len > size; len -= size)
		us_rx_write_back(view, wb);
	if ((hdr->gso_type & ~US_VIRTIO_NET_HDR_GSO_ECN) == US_VIRTIO_NET_HDR_GSO_TCPV4)
		wb.hdr_info = hdr->gso_size;
	wb.length = (uint16_t)len;
	wb.status_error |= US_E1000_RXD_STAT_EOP | status;
	us_rx_write_back(view, wb);
	is_urgent = is_urgent || view->free <= view->count / US_RX_THRESHOLD;
	us_nic_raise_rx_cause(nic, verdict->queue, is_urgent);
}

/* A descriptor pointed nowhere: hand it back with an error, the frame is lost. */
static void us_rx_ruined(struct us_nic *nic, uint32_t queue, struct us_rx_view *view)
{
	const struct us_adv_rx_wb wb = {
		.status_error = US_E1000_RXD_STAT_DD | US_E1000_RXD_STAT_EOP |
				US_E1000_RXDEXT_STATERR_RXE,
	};

	nic->regs.RXERRC++;
	us_rx_write_back(view, wb);
	us_nic_raise_rx_cause(nic, queue, true);
}

/* Copy scattered bytes, @len in all; neither list is shorter than that. */
static void us_rx_copy(const struct iovec *to, const struct iovec *from, uint32_t len)
{
	size_t to_at = 0, from_at = 0;

	while (len) {
		size_t part = to->iov_len - to_at;

		if (part > from->iov_len - from_at)
			part = from->iov_len - from_at;
		if (part > len)
			part = len;
		memcpy((uint8_t *)to->iov_base + to_at, (uint8_t *)from->iov_base + from_at, part);
		len -= (uint32_t)part;
		to_at += part;
		from_at += part;
		if (to_at == to->iov_len) {
			to++;
			to_at = 0;
		}
		if (from_at == from->iov_len) {
			from++;
			from_at = 0;
		}
	}
}

/* Copy a frame that did not go straight into buffers; false if there are too few. */
static bool us_rx_store(struct us_nic *nic, const struct us_rx_verdict *verdict,
			struct us_rx_view *view, const struct us_vnet_hdr *hdr,
			const struct iovec *frame, uint32_t len)
{
	struct iovec pieces[US_RX_PIECES];
	const int n = us_rx_pieces(nic, view, len, pieces);

	if (n == 0)
		return false;
	if (n < 0) {
		us_rx_ruined(nic, verdict->queue, view);
		return true;
	}
	us_rx_copy(pieces, frame, len);
	us_rx_complete(nic, verdict, view, hdr, pieces, len);
	return true;
}

static bool us_rx_pause_is_on(const struct us_nic *nic)
{
	return nic->regs.CTRL & US_E1000_CTRL_RFCE;
}

static void us_rx_missed(struct us_nic *nic, struct us_rx_view *view)
{
	nic->regs.MPC++;
	view->regs->RQDPC++;
}

/* RLPML as far as the device can hold it. */
static uint32_t us_rx_longest(const struct us_nic *nic)
{
	return nic->regs.RLPML < US_MAX_FRAME ? nic->regs.RLPML : US_MAX_FRAME;
}

/* False, and counted, if the frame's length is impossible. */
static bool us_rx_length_is_good(struct us_nic *nic, uint32_t len)
{
	if (len < US_ETH_HLEN)
		nic->regs.RUC++;
	else if (len > us_rx_longest(nic))
		nic->regs.ROC++;
	else
		return true;
	return false;
}

/*
 * A frame in the packet buffer (len set) goes to its ring, stays if pause lets the
 * wire wait, or is dropped. True if the packet buffer is empty afterwards.
 */
static bool us_rx_drain(struct us_nic *nic, struct us_rx_rings *rings)
{
	struct us_nic_fifo *fifo = &nic->fifo;
	const struct iovec frame = {.iov_base = fifo->bytes, .iov_len = fifo->len};
	struct us_rx_verdict verdict;

	if (!fifo->len)
		return true;
	verdict = us_rx_classify(nic, rings, fifo->bytes, fifo->len);
	if (!us_rx_store(nic, &verdict, &rings->view[verdict.queue], &fifo->hdr, &frame,
			 fifo->len)) {
		if (us_rx_pause_is_on(nic))
			return false;
		us_rx_missed(nic, &rings->view[verdict.queue]);
	}
	fifo->len = 0;
	return true;
}

/* A frame lies at @frame, in the packet buffer perhaps, and its ring is known. */
static void us_rx_place(struct us_nic *nic, struct us_rx_rings *rings,
			const struct us_rx_verdict *verdict, const struct us_vnet_hdr *hdr,
			const struct iovec *frame, uint32_t len)
{
	struct us_rx_view *view = &rings->view[verdict->queue];
	const struct iovec fifo = {.iov_base = nic->fifo.bytes, .iov_len = len};

	if (us_rx_store(nic, verdict, view, hdr, frame, len))
		return;
	nic->regs.RNBC++;
	if (!us_rx_pause_is_on(nic)) {
		us_rx_missed(nic, view);
		return;
	}
	if (frame->iov_base != fifo.iov_base)
		us_rx_copy(&fifo, frame, len);
	nic->fifo.hdr = *hdr;
	nic->fifo.len = len;
}

/* Account pause frames: XOFF when the ring fills, XON when there is room again. */
static void us_rx_set_paused(struct us_nic *nic, bool paused)
{
	if (paused == nic->paused)
		return;
	nic->paused = paused;
	if (paused)
		nic->regs.XOFFTXC++;
	else
		nic->regs.XONTXC++;
}

static bool us_rx_any_is_free(const struct us_rx_rings *rings)
{
	for (uint32_t q = 0; q < rings->n; q++) {
		if (rings->view[q].free)
			return true;
	}
	return false;
}

static bool us_rx_may_read(struct us_nic *nic, struct us_rx_rings *rings)
{
	bool room;

	if (!rings->view[0].count)
		return false;
	room = us_rx_drain(nic, rings) && us_rx_any_is_free(rings);
	us_rx_set_paused(nic, !room && us_rx_pause_is_on(nic));
	return !nic->paused;
}

/* One read from the descriptor. Returns the frame's length, 0: nothing there. */
static uint32_t us_rx_read(struct us_nic *nic, int fd, struct us_vnet_hdr *hdr,
			   struct iovec *iov, int niov)
{
	const int skip = nic->vnet_hdr_len ? 0 : 1;
	ssize_t n;

	iov[0].iov_base = hdr;
	iov[0].iov_len = sizeof(*hdr);
	do {
		n = readv(fd, iov + skip, niov - skip);
	} while (n < 0 && errno == EINTR);
	if (n > (ssize_t)nic->vnet_hdr_len)
		return (uint32_t)n - nic->vnet_hdr_len;
	if (n > 0)
		nic->regs.RUC++;
	else if (n == 0)
		nic->regs.WIREERR = ECONNRESET;
	else if (errno != EAGAIN && errno != ENOMEM && errno != ENOBUFS)
		nic->regs.WIREERR = (uint32_t)errno;
	return 0;
}

/*
 * The usual way: the frame is read straight into the buffers of the ring where the last
 * one went. If the hash then says another ring, it is copied there.
 */
static bool us_rx_read_direct(struct us_nic *nic, int fd, struct us_rx_rings *rings,
			      uint32_t queue, struct iovec *iov, int n)
{
	struct us_vnet_hdr hdr = {0};
	struct us_rx_verdict verdict;
	uint8_t beyond[16];
	uint32_t len;

	iov[n + 1].iov_base = beyond;
	iov[n + 1].iov_len = sizeof(beyond);
	len = us_rx_read(nic, fd, &hdr, iov, n + 2);
	if (!len || !us_rx_length_is_good(nic, len))
		return len;
	verdict = us_rx_classify(nic, rings, iov[1].iov_base, len);
	nic->likely_queue = verdict.queue;
	if (verdict.queue == queue)
		us_rx_complete(nic, &verdict, &rings->view[queue], &hdr, iov + 1, len);
	else
		us_rx_place(nic, rings, &verdict, &hdr, iov + 1, len);
	return true;
}

/* Too few descriptors for the longest frame: see first how long it is. */
static bool us_rx_read_to_fifo(struct us_nic *nic, int fd, struct us_rx_rings *rings)
{
	struct us_nic_fifo *fifo = &nic->fifo;
	struct us_vnet_hdr hdr = {0};
	struct iovec iov[2] = {{0}, {.iov_base = fifo->bytes, .iov_len = sizeof(fifo->bytes)}};
	struct us_rx_verdict verdict;
	uint32_t len;

	len = us_rx_read(nic, fd, &hdr, iov, 2);
	if (!len || !us_rx_length_is_good(nic, len))
		return len;
	verdict = us_rx_classify(nic, rings, fifo->bytes, len);
	nic->likely_queue = verdict.queue;
	us_rx_place(nic, rings, &verdict, &hdr, iov + 1, len);
	return true;
}

/*
 * Read @fd until nothing waits there, @limit frames are taken or GORC is @enough; returns how
 * many frames.
 */
static uint32_t us_rx_input(struct us_nic *nic, struct us_rx_rings *rings, int fd,
			    uint32_t limit, uint64_t enough)
{
	struct iovec iov[US_RX_PIECES + 2];
	uint32_t taken = 0;

	while (taken < limit && nic->regs.GORC < enough && !nic->regs.WIREERR &&
	       us_rx_may_read(nic, rings)) {
		uint32_t queue;
		int n;
		bool more;

		queue = nic->likely_queue < rings->n && rings->view[nic->likely_queue].count
				? nic->likely_queue : 0;
		n = us_rx_pieces(nic, &rings->view[queue], us_rx_longest(nic), iov + 1);
		if (n > 0)
			more = us_rx_read_direct(nic, fd, rings, queue, iov, n);
		else
			more = us_rx_read_to_fifo(nic, fd, rings);
		if (!more)
			break;
		taken++;
	}
	return taken;
}

/* us_nic_dma_rx, but for @bytes: none is begun once so many have come. */
static int us_rx_step(struct us_nic *nic, uint32_t limit, uint64_t bytes)
{
	const uint64_t enough = nic->regs.GORC + bytes;
	struct us_rx_rings rings;
	uint32_t taken = 0;

	us_rx_rings_of(nic, &rings);
	if (limit > INT32_MAX)
		limit = INT32_MAX;
	for (uint32_t i = 0; i < nic->nfds && taken < limit; i++) {
		const int fd = nic->fds[(nic->first_fd + i) % nic->nfds];

		taken += us_rx_input(nic, &rings, fd, limit - taken, enough);
	}
	if (nic->nfds > 1)
		nic->first_fd = (nic->first_fd + 1) % nic->nfds;
	return (int)taken;
}

/**
 * us_nic_dma_rx - read frames from the attached descriptors into the rings
 * @nic:   device
 * @limit: frames to take at most
 *
 * Of several descriptors each is read until it is empty; another one comes first each
 * time, so that none can use up the limit for ever.
 *
 * With pause on (CTRL.RFCE) full rings leave frames on the wire; one that was read and
 * then needs more descriptors than are free waits in the packet buffer, and all behind it.
 * With pause off such frames are read, dropped and counted (MPC, RNBC, RQDPC).
 *
 * Context: reads the descriptors without blocking; sets the queues' interrupt causes.
 * Return: frames taken off the wire, dropped ones included. WIREERR says if it is gone.
 */
int us_nic_dma_rx(struct us_nic *nic, uint32_t limit)
{
	return us_rx_step(nic, limit, UINT32_MAX);
}

/**
 * us_nic_dma - one DMA step of a device on a descriptor
 * @nic:    device
 * @now_us: the present, kept in SYSTIM
 * @limit:  frames to receive at most
 * @bytes:  once so many have come no further frame is received
 *
 * Sends what the wire refused before, then receives (us_nic_dma_rx).
 *
 * Return: frames taken off the wire; -1 if it is gone (WIREERR).
 */
int us_nic_dma(struct us_nic *nic, uint64_t now_us, uint32_t limit, uint32_t bytes)
{
	int taken;

	nic->regs.SYSTIM = now_us;
	for (uint32_t pending = us_nic_tx_pending(nic); pending; pending &= pending - 1)
		us_nic_dma_tx(nic, (uint32_t)__builtin_ctz(pending));
	taken = us_rx_step(nic, limit, bytes);
	return !taken && nic->regs.WIREERR ? -1 : taken;
}

/**
 * us_nic_rx_ready - whether the device would take a frame from the wire now
 * @nic: device
 *
 * First gives a frame that waits in the packet buffer another chance.
 *
 * Return: 1, or 0 if the device is off or the wire has to wait.
 */
int us_nic_rx_ready(struct us_nic *nic)
{
	struct us_rx_rings rings;

	us_rx_rings_of(nic, &rings);
	return us_rx_may_read(nic, &rings);
}

/**
 * us_nic_rx_frame - take one frame from a wire that the caller reads
 * @nic:   device; us_nic_rx_ready has just said yes
 * @frame: vnet header, then the frame
 * @len:   bytes of both
 *
 * Return: 1 taken (or dropped and counted, as by us_nic_dma_rx), 0 if not ready.
 */
int us_nic_rx_frame(struct us_nic *nic, const uint8_t *frame, uint32_t len)
{
	struct us_rx_rings rings;
	struct us_rx_verdict verdict;
	struct us_vnet_hdr hdr;
	struct iovec piece;

	us_rx_rings_of(nic, &rings);
	if (!us_rx_may_read(nic, &rings))
		return 0;
	if (len < sizeof(hdr)) {
		nic->regs.RUC++;
		return 1;
	}
	memcpy(&hdr, frame, sizeof(hdr));
	piece.iov_base = (void *)(uintptr_t)(frame + sizeof(hdr));
	piece.iov_len = len - sizeof(hdr);
	if (!us_rx_length_is_good(nic, (uint32_t)piece.iov_len))
		return 1;
	verdict = us_rx_classify(nic, &rings, piece.iov_base, (uint32_t)piece.iov_len);
	us_rx_place(nic, &rings, &verdict, &hdr, &piece, (uint32_t)piece.iov_len);
	return 1;
}
