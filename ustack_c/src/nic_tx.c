/* Transmit DMA: frames that descriptors describe, gathered and put on the wire. */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "nic_dev.h"

#define US_TX_COPIED 512	/* the longest frame whose header is put in front of it */

/* The ring as the registers describe it, checked; count 0: the queue is off. */
struct us_tx_view {
	struct us_igb_txq_regs *regs;
	union us_adv_tx_desc *desc;
	uint32_t count;
};

/* One frame, gathered: iov[0] is its vnet header. */
struct us_tx_packet {
	struct us_vnet_hdr hdr;
	struct iovec iov[US_TX_PIECES + 1];
	int niov;
	uint32_t len;
	uint32_t next;		/* TDH once it is done */
	bool is_good;
};

static struct us_tx_view us_tx_view_of(struct us_nic *nic, uint32_t queue)
{
	struct us_tx_view view = {0};
	struct us_igb_txq_regs *regs;

	if (queue >= US_IGB_MAX_QUEUES || !(nic->regs.TCTL & US_E1000_TCTL_EN))
		return view;
	regs = &nic->regs.txq[queue];
	view.regs = regs;
	view.desc = (void *)us_mem_at(nic->mem, (us_dma_addr_t)regs->TDBAH << 32 | regs->TDBAL,
				      regs->TDLEN);
	if (!view.desc || (regs->TDBAL & 15U) || !(regs->TXDCTL & US_E1000_TXDCTL_QUEUE_ENABLE))
		return view;
	if (regs->TDH >= regs->TDLEN / 16 || regs->TDT >= regs->TDLEN / 16)
		return view;
	view.count = regs->TDLEN / 16;
	return view;
}

static void us_tx_load_context(struct us_nic_context *context, const struct us_adv_tx_ctxt *desc)
{
	context->iplen = desc->vlan_macip_lens & US_E1000_ADVTXD_IPLEN_MASK;
	context->maclen = desc->vlan_macip_lens >> US_E1000_ADVTXD_MACLEN_SHIFT &
			  US_E1000_ADVTXD_MACLEN_MASK;
	context->is_tcp = desc->type_tucmd_mlhl & US_E1000_ADVTXD_TUCMD_L4T_TCP;
	context->l4len = desc->mss_l4len_idx >> US_E1000_ADVTXD_L4LEN_SHIFT & 0xff;
	context->mss = desc->mss_l4len_idx >> US_E1000_ADVTXD_MSS_SHIFT;
}

static void us_tx_add_piece(const struct us_nic *nic, struct us_tx_packet *pkt,
			    const struct us_adv_tx_read *desc)
{
	const uint32_t len = desc->cmd_type_len & US_E1000_ADVTXD_DTALEN_MASK;
	const uint8_t *bytes = us_mem_read_at(nic->mem, desc->buffer_addr, len);

	if (!bytes || !len || pkt->niov > US_TX_PIECES || len > US_MAX_FRAME - pkt->len) {
		pkt->is_good = false;
		return;
	}
	pkt->iov[pkt->niov].iov_base = (void *)(uintptr_t)bytes;
	pkt->iov[pkt->niov].iov_len = len;
	pkt->niov++;
	pkt->len += len;
}

/* Say in the vnet header what the first data descriptor asks the device to do. */
static void us_tx_offload(struct us_tx_packet *pkt, const struct us_nic_context *context,
			  const struct us_adv_tx_read *first)
{
	struct us_vnet_hdr *hdr = &pkt->hdr;
	const uint32_t l4 = context->maclen + context->iplen;

	if (first->olinfo_status & US_E1000_TXD_POPTS_TXSM) {
		hdr->flags = US_VIRTIO_NET_HDR_F_NEEDS_CSUM;
		hdr->csum_start = (uint16_t)l4;
		hdr->csum_offset = context->is_tcp ? 16 : 6;
		if (l4 + hdr->csum_offset + 2 > pkt->len)
			pkt->is_good = false;
	}
	if (first->cmd_type_len & US_E1000_ADVTXD_DCMD_TSE) {
		hdr->gso_type = US_VIRTIO_NET_HDR_GSO_TCPV4;
		hdr->gso_size = (uint16_t)context->mss;
		hdr->hdr_len = (uint16_t)(l4 + context->l4len);
		if (!hdr->flags || !hdr->gso_size || !context->is_tcp || hdr->hdr_len > pkt->len)
			pkt->is_good = false;
	}
}

/* Gather the frame at TDH; false if there is none that is complete. */
static bool us_tx_fetch(struct us_nic *nic, uint32_t queue, const struct us_tx_view *view,
			struct us_tx_packet *pkt)
{
	const struct us_adv_tx_read *first = NULL;
	uint32_t i = view->regs->TDH;

	memset(&pkt->hdr, 0, sizeof(pkt->hdr));
	pkt->niov = 1;
	pkt->len = 0;
	pkt->is_good = true;
	while (i != view->regs->TDT) {
		const union us_adv_tx_desc *desc = &view->desc[i];
		const uint32_t cmd = desc->read.cmd_type_len;

		i = i + 1 == view->count ? 0 : i + 1;
		pkt->next = i;
		if ((cmd & US_E1000_ADVTXD_DTYP_MASK) == US_E1000_ADVTXD_DTYP_CTXT) {
			us_tx_load_context(&nic->context[queue], &desc->ctxt);
			if (!first)
				continue;
			pkt->is_good = false;
		}
		if (!first)
			first = &desc->read;
		us_tx_add_piece(nic, pkt, &desc->read);
		if (cmd & US_E1000_ADVTXD_DCMD_EOP) {
			us_tx_offload(pkt, &nic->context[queue], first);
			if (pkt->len < US_ETH_HLEN)
				pkt->is_good = false;
			return true;
		}
	}
	return false;
}

/* Done with the descriptors from TDH to @next: write back DD where asked, set the cause. */
static void us_tx_complete(struct us_nic *nic, uint32_t queue, struct us_tx_view *view,
			   uint32_t next)
{
	uint32_t i = view->regs->TDH;

	while (i != next) {
		union us_adv_tx_desc *desc = &view->desc[i];
		const uint32_t cmd = desc->read.cmd_type_len;

		i = i + 1 == view->count ? 0 : i + 1;
		if ((cmd & US_E1000_ADVTXD_DTYP_MASK) == US_E1000_ADVTXD_DTYP_CTXT ||
		    !(cmd & US_E1000_ADVTXD_DCMD_RS))
			continue;
		desc->wb.status = US_E1000_TXD_STAT_DD;
		us_nic_raise_tx_cause(nic, queue);
	}
	view->regs->TDH = next;
}

static void us_tx_count(struct us_nic *nic, const struct us_tx_packet *pkt)
{
	const uint8_t *mac = pkt->iov[1].iov_base;

	nic->regs.GPTC++;
	nic->regs.GOTC += pkt->len;
	if (pkt->hdr.gso_size)
		nic->regs.TSCTC++;
	if (pkt->iov[1].iov_len >= 6 && us_is_broadcast(mac))
		nic->regs.BPTC++;
	else if (mac[0] & 1)
		nic->regs.MPTC++;
}

/* What a failed write means: false if the frame should be tried again later. */
static bool us_tx_refused(struct us_nic *nic, int error)
{
	switch (error) {
	case EAGAIN:
		return false;
	case EIO:
	case ENETDOWN:
		nic->regs.TNCRS++;
		return true;
	case EBADFD:
	case EBADF:
	case ENODEV:
	case ENXIO:
	case EPIPE:
	case ECONNRESET:
	case ECONNREFUSED:
	case ENOTCONN:
		nic->regs.WIREERR = (uint32_t)error;
		break;
	default:
		break;
	}
	nic->regs.TXERRC++;
	return true;
}

/* One system call with the frame; a short one in one piece, which costs the kernel less. */
static ssize_t us_tx_put(const struct us_nic *nic, int fd, struct us_tx_packet *pkt)
{
	const int skip = nic->vnet_hdr_len ? 0 : 1;
	uint8_t whole[sizeof(pkt->hdr) + US_TX_COPIED];

	pkt->iov[0].iov_base = &pkt->hdr;
	pkt->iov[0].iov_len = sizeof(pkt->hdr);
	if (skip || pkt->niov != 2 || pkt->len > US_TX_COPIED)
		return writev(fd, pkt->iov + skip, pkt->niov - skip);
	memcpy(whole, &pkt->hdr, sizeof(pkt->hdr));
	memcpy(whole + sizeof(pkt->hdr), pkt->iov[1].iov_base, pkt->len);
	return write(fd, whole, sizeof(pkt->hdr) + pkt->len);
}

/* Put a frame on the descriptor; false if the wire is full. */
static bool us_tx_write(struct us_nic *nic, uint32_t queue, struct us_tx_packet *pkt)
{
	ssize_t n;

	if (!pkt->is_good || (!nic->vnet_hdr_len && pkt->hdr.flags) || nic->regs.WIREERR) {
		nic->regs.TXERRC++;
		return true;
	}
	do {
		n = us_tx_put(nic, nic->fds[queue % nic->nfds], pkt);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return us_tx_refused(nic, errno);
	us_tx_count(nic, pkt);
	return true;
}

/**
 * us_nic_dma_tx - send what lies between head and tail to the attached descriptor
 * @nic:   device
 * @queue: transmit queue
 *
 * A wire that is full keeps the rest for another call; a wire without carrier or gone
 * loses it (TNCRS, TXERRC), so that the ring always drains.
 *
 * Context: writes the descriptor without blocking; sets the queue's interrupt cause.
 * Return: frames done with.
 */
int us_nic_dma_tx(struct us_nic *nic, uint32_t queue)
{
	struct us_tx_view view = us_tx_view_of(nic, queue);
	struct us_tx_packet pkt;
	int done = 0;

	if (!view.count || !nic->nfds)
		return 0;
	while (us_tx_fetch(nic, queue, &view, &pkt)) {
		if (!us_tx_write(nic, queue, &pkt))
			break;
		us_tx_complete(nic, queue, &view, pkt.next);
		done++;
	}
	return done;
}

/**
 * us_nic_tx_pending - queues that the wire refused something of
 * @nic: device
 *
 * Return: a bit for each queue with descriptors left to send.
 */
uint32_t us_nic_tx_pending(const struct us_nic *nic)
{
	uint32_t pending = 0;

	for (uint32_t q = 0; q < US_IGB_MAX_QUEUES; q++) {
		if (nic->regs.txq[q].TDH != nic->regs.txq[q].TDT)
			pending |= 1U << q;
	}
	return pending;
}

/**
 * us_nic_write_tdt - the doorbell: the driver has filled descriptors up to @tail
 * @nic:   device
 * @queue: transmit queue
 * @tail:  index behind the last filled descriptor; ignored if outside the ring
 *
 * Return: as us_nic_dma_tx.
 */
int us_nic_write_tdt(struct us_nic *nic, uint32_t queue, uint32_t tail)
{
	if (queue >= US_IGB_MAX_QUEUES || tail >= nic->regs.txq[queue].TDLEN / 16)
		return 0;
	nic->regs.txq[queue].TDT = tail;
	return us_nic_dma_tx(nic, queue);
}

/**
 * us_nic_tx_frame - gather the next frame for a wire that the caller writes
 * @nic:   device
 * @queue: transmit queue
 * @out:   receives vnet header and frame
 * @size:  bytes of @out; US_VNET_HDR_LEN + US_MAX_FRAME is always enough
 *
 * Malformed frames are skipped and counted. The frame stays at the head until
 * us_nic_tx_done, so a wire that refuses it may be tried again.
 *
 * Return: bytes in @out, 0 if nothing is to be sent or @out is too small.
 */
uint32_t us_nic_tx_frame(struct us_nic *nic, uint32_t queue, uint8_t *out, uint32_t size)
{
	struct us_tx_view view = us_tx_view_of(nic, queue);
	struct us_tx_packet pkt;

	if (!view.count)
		return 0;
	while (us_tx_fetch(nic, queue, &view, &pkt)) {
		if (!pkt.is_good) {
			nic->regs.TXERRC++;
			us_tx_complete(nic, queue, &view, pkt.next);
			continue;
		}
		if (pkt.len + sizeof(pkt.hdr) > size)
			return 0;
		memcpy(out, &pkt.hdr, sizeof(pkt.hdr));
		out += sizeof(pkt.hdr);
		for (int i = 1; i < pkt.niov; i++) {
			memcpy(out, pkt.iov[i].iov_base, pkt.iov[i].iov_len);
			out += pkt.iov[i].iov_len;
		}
		return pkt.len + (uint32_t)sizeof(pkt.hdr);
	}
	return 0;
}

/**
 * us_nic_tx_done - the wire has taken the frame that us_nic_tx_frame gave out
 * @nic:   device
 * @queue: transmit queue
 *
 * Return: 1, or 0 if there was no frame.
 */
int us_nic_tx_done(struct us_nic *nic, uint32_t queue)
{
	struct us_tx_view view = us_tx_view_of(nic, queue);
	struct us_tx_packet pkt;

	if (!view.count || !us_tx_fetch(nic, queue, &view, &pkt))
		return 0;
	us_tx_count(nic, &pkt);
	us_tx_complete(nic, queue, &view, pkt.next);
	return 1;
}
