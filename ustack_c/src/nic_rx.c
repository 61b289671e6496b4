/* Receive DMA: frames from the wire into the buffers of free descriptors. */

#include <errno.h>
#include <string.h>

#include "nic_dev.h"

/* The ring as the registers describe it, checked; count 0: the queue is off. */
struct us_rx_view {
	struct us_igb_rxq_regs *regs;
	union us_adv_rx_desc *desc;
	uint32_t count;
	uint32_t free;		/* descriptors that the device may fill */
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

/* The frame lies in its buffers: verify it, write its descriptors back, set the cause. */
static void us_rx_complete(struct us_nic *nic, uint32_t queue, struct us_rx_view *view,
			   const struct us_vnet_hdr *hdr, const struct iovec *pieces,
			   uint32_t len)
{
	const uint32_t size = view->regs->SRRCTL;
	struct us_adv_rx_wb wb = {0};
	uint32_t status;

	us_rx_count(nic, pieces[0].iov_base, len);
	status = us_nic_rx_status(nic, hdr, pieces, len, &wb.pkt_info);
	wb.status_error = US_E1000_RXD_STAT_DD;
	wb.length = (uint16_t)size;
	for (; len > size; len -= size)
		us_rx_write_back(view, wb);
	if ((hdr->gso_type & ~US_VIRTIO_NET_HDR_GSO_ECN) == US_VIRTIO_NET_HDR_GSO_TCPV4)
		wb.hdr_info = hdr->gso_size;
	wb.length = (uint16_t)len;
	wb.status_error |= US_E1000_RXD_STAT_EOP | status;
	us_rx_write_back(view, wb);
	us_nic_raise_cause(nic, queue);
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
	us_nic_raise_cause(nic, queue);
}

/* Copy a frame that did not go straight into buffers; false if there are too few. */
static bool us_rx_store(struct us_nic *nic, uint32_t queue, struct us_rx_view *view,
			const struct us_vnet_hdr *hdr, const uint8_t *frame, uint32_t len)
{
	struct iovec pieces[US_RX_PIECES];
	const int n = us_rx_pieces(nic, view, len, pieces);

	if (n == 0)
		return false;
	if (n < 0) {
		us_rx_ruined(nic, queue, view);
		return true;
	}
	for (int i = 0; i < n; i++) {
		memcpy(pieces[i].iov_base, frame, pieces[i].iov_len);
		frame += pieces[i].iov_len;
	}
	us_rx_complete(nic, queue, view, hdr, pieces, len);
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
 * A frame in the packet buffer (len set) goes to the ring, stays if pause lets the
 * wire wait, or is dropped. True if the packet buffer is empty afterwards.
 */
static bool us_rx_drain(struct us_nic *nic, uint32_t queue, struct us_rx_view *view)
{
	struct us_nic_fifo *fifo = &nic->fifo;

	if (!fifo->len)
		return true;
	if (!us_rx_store(nic, queue, view, &fifo->hdr, fifo->bytes, fifo->len)) {
		if (us_rx_pause_is_on(nic))
			return false;
		us_rx_missed(nic, view);
	}
	fifo->len = 0;
	return true;
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

static bool us_rx_may_read(struct us_nic *nic, uint32_t queue, struct us_rx_view *view)
{
	bool room;

	if (!view->count)
		return false;
	room = us_rx_drain(nic, queue, view) && view->free;
	us_rx_set_paused(nic, !room && us_rx_pause_is_on(nic));
	return !nic->paused;
}

/* One read from the descriptor. Returns the frame's length, 0: nothing there. */
static uint32_t us_rx_read(struct us_nic *nic, struct us_vnet_hdr *hdr, struct iovec *iov,
			   int niov)
{
	const int skip = nic->vnet_hdr_len ? 0 : 1;
	ssize_t n;

	iov[0].iov_base = hdr;
	iov[0].iov_len = sizeof(*hdr);
	do {
		n = readv(nic->fd, iov + skip, niov - skip);
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

/* The usual way: the frame is read straight into the descriptors' buffers. */
static bool us_rx_read_direct(struct us_nic *nic, uint32_t queue, struct us_rx_view *view,
			      struct iovec *iov, int n)
{
	struct us_vnet_hdr hdr = {0};
	uint8_t beyond[16];
	uint32_t len;

	iov[n + 1].iov_base = beyond;
	iov[n + 1].iov_len = sizeof(beyond);
	len = us_rx_read(nic, &hdr, iov, n + 2);
	if (len && us_rx_length_is_good(nic, len))
		us_rx_complete(nic, queue, view, &hdr, iov + 1, len);
	return len;
}

/* Too few descriptors for the longest frame: see first how long it is. */
static bool us_rx_read_to_fifo(struct us_nic *nic, uint32_t queue, struct us_rx_view *view)
{
	struct us_nic_fifo *fifo = &nic->fifo;
	struct iovec iov[2] = {{0}, {.iov_base = fifo->bytes, .iov_len = sizeof(fifo->bytes)}};
	uint32_t len;

	memset(&fifo->hdr, 0, sizeof(fifo->hdr));
	len = us_rx_read(nic, &fifo->hdr, iov, 2);
	if (len && us_rx_length_is_good(nic, len)) {
		fifo->len = len;
		if (us_rx_pieces(nic, view, len, (struct iovec[US_RX_PIECES]){{0}}) == 0)
			nic->regs.RNBC++;
		us_rx_drain(nic, queue, view);
	}
	return len;
}

/**
 * us_nic_dma_rx - read frames from the attached descriptor into the ring
 * @nic:   device
 * @queue: receive queue
 * @limit: frames to take at most
 *
 * With pause on (CTRL.RFCE) a full ring leaves frames on the wire; one that was read and
 * then needs more descriptors than are free waits in the packet buffer. With pause off
 * such frames are read, dropped and counted (MPC, RNBC, RQDPC).
 *
 * Context: reads the descriptor without blocking; sets the queue's interrupt cause.
 * Return: frames taken off the wire, dropped ones included. WIREERR says if it is gone.
 */
int us_nic_dma_rx(struct us_nic *nic, uint32_t queue, uint32_t limit)
{
	struct us_rx_view view = us_rx_view_of(nic, queue);
	struct iovec iov[US_RX_PIECES + 2];
	uint32_t taken = 0;

	if (limit > INT32_MAX)
		limit = INT32_MAX;
	while (taken < limit && nic->fd >= 0 && !nic->regs.WIREERR) {
		int n;
		bool more;

		if (!us_rx_may_read(nic, queue, &view))
			break;
		n = us_rx_pieces(nic, &view, us_rx_longest(nic), iov + 1);
		if (n > 0)
			more = us_rx_read_direct(nic, queue, &view, iov, n);
		else
			more = us_rx_read_to_fifo(nic, queue, &view);
		if (!more)
			break;
		taken++;
	}
	return (int)taken;
}

/**
 * us_nic_rx_ready - whether the device would take a frame from the wire now
 * @nic:   device
 * @queue: receive queue
 *
 * First gives a frame that waits in the packet buffer another chance.
 *
 * Return: 1, or 0 if the queue is off or the wire has to wait.
 */
int us_nic_rx_ready(struct us_nic *nic, uint32_t queue)
{
	struct us_rx_view view = us_rx_view_of(nic, queue);

	return us_rx_may_read(nic, queue, &view);
}

/**
 * us_nic_rx_frame - take one frame from a wire that the caller reads
 * @nic:   device; us_nic_rx_ready has just said yes
 * @queue: receive queue
 * @frame: vnet header, then the frame
 * @len:   bytes of both
 *
 * Return: 1 taken (or dropped and counted, as by us_nic_dma_rx), 0 if not ready.
 */
int us_nic_rx_frame(struct us_nic *nic, uint32_t queue, const uint8_t *frame, uint32_t len)
{
	struct us_rx_view view = us_rx_view_of(nic, queue);
	struct us_vnet_hdr hdr;

	if (!us_rx_may_read(nic, queue, &view))
		return 0;
	if (len < sizeof(hdr)) {
		nic->regs.RUC++;
		return 1;
	}
	memcpy(&hdr, frame, sizeof(hdr));
	frame += sizeof(hdr);
	len -= (uint32_t)sizeof(hdr);
	if (!us_rx_length_is_good(nic, len))
		return 1;
	if (us_rx_store(nic, queue, &view, &hdr, frame, len))
		return 1;
	nic->regs.RNBC++;
	if (us_rx_pause_is_on(nic)) {
		nic->fifo.hdr = hdr;
		nic->fifo.len = len;
		memcpy(nic->fifo.bytes, frame, len);
	} else {
		us_rx_missed(nic, &view);
	}
	return 1;
}
