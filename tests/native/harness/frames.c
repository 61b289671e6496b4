/*
 * Mutated and random frames, virtio headers included, through the whole ring path: the NIC
 * stores them, the driver gives them out, what came is summed and queued as a socket would,
 * and goes back through the transmit ring with any offload asked for. Bytes are never
 * changed, a checksum is only called good that is, and every page comes back.
 */

#include <string.h>

#include "bytequeue.h"
#include "checksum.h"
#include "harness.h"
#include "igb.h"
#include "nic.h"

#define ROUNDS 60
#define WAITING 64
#define ETH_LEN 14
#define HEADERS_LEN 160
#define UNIT_MAX (US_VNET_HDR_LEN + US_MAX_FRAME)

struct loop {
	struct rng *rng;
	struct us_mem *mem;
	struct us_nic *nic;
	struct us_igb_regs *regs;
	struct us_igb_rx_ring *rx;
	struct us_igb_tx_ring *tx;
	struct us_bq bq;
	uint8_t *unit[WAITING];	/* on their way through the receive ring */
	uint32_t len[WAITING];
	uint32_t head;
	uint32_t count;
	uint8_t *sent;
	uint8_t *out;
};

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static void put_native16(uint8_t *p, uint32_t value)
{
	const uint16_t half = (uint16_t)value;

	memcpy(p, &half, sizeof(half));
}

static void make_arp(struct rng *rng, uint8_t *p)
{
	static const uint8_t head[] = {0x08, 0x06, 0, 1, 8, 0, 6, 4, 0};

	memcpy(p + 12, head, sizeof(head));
	p[21] = (uint8_t)(1 + rng_below(rng, 2));
}

/* The transport's checksum over its pseudo header, right. */
static void finish_l4(uint8_t *ip, uint32_t ihl, uint32_t l4_len, uint32_t at)
{
	uint8_t tail[4] = {0, ip[9], 0, 0};
	uint32_t sum;

	put16(tail + 2, l4_len);
	put16(ip + ihl + at, 0);
	sum = us_csum_partial(ip + 12, 8, us_csum_partial(tail, 4, 0));
	sum = us_csum_partial(ip + ihl, l4_len, sum);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(ip + ihl + at, ~sum & 0xffff);
}

/* IPv4 with options, TCP with options, UDP, ICMP or anything; right, or in fragments. */
static void make_ip(struct rng *rng, uint8_t *frame, uint32_t len)
{
	static const uint8_t protos[] = {6, 6, 6, 17, 1, 99};
	uint8_t *ip = frame + ETH_LEN;
	const uint32_t total = len - ETH_LEN;
	const uint32_t ihl = 20 + (rng_below(rng, 4) ? 0 : 4 * rng_below(rng, 11));
	const uint32_t fragment = rng_below(rng, 4) ? 0 : rng_below(rng, 0x4000);

	put16(frame + 12, 0x0800);
	ip[0] = (uint8_t)(0x40 + ihl / 4);
	put16(ip + 2, total);
	put16(ip + 6, fragment);
	ip[9] = protos[rng_below(rng, sizeof(protos))];
	if (total < ihl)
		return;
	put16(ip + 10, 0);
	put16(ip + 10, us_ip_fast_csum(ip, ihl));
	if (ip[9] == 6 && total >= ihl + 20) {
		ip[ihl + 12] = (uint8_t)((5 + rng_below(rng, 11)) << 4);
		finish_l4(ip, ihl, total - ihl, 16);
	} else if (ip[9] == 17 && total >= ihl + 8) {
		put16(ip + ihl + 4, total - ihl);
		finish_l4(ip, ihl, total - ihl, 6);
	}
}

/* What the wire says of the frame: mostly nothing, or what it should, or anything. */
static void make_vnet_hdr(struct rng *rng, uint8_t *hdr)
{
	memset(hdr, 0, US_VNET_HDR_LEN);
	switch (rng_below(rng, 4)) {
	case 0:
		hdr[0] = (uint8_t)rng_below(rng, 4);
		hdr[1] = (uint8_t)rng_below(rng, 2);
		put_native16(hdr + 2, 54);
		put_native16(hdr + 4, rng_below(rng, 3) ? 1448 : rng_below(rng, 2));
		put_native16(hdr + 6, 34);
		put_native16(hdr + 8, 16);
		break;
	case 1:
		rng_fill(rng, hdr, US_VNET_HDR_LEN);
		break;
	default:
		break;
	}
}

static void mutate(struct rng *rng, uint8_t *frame, uint32_t len)
{
	uint32_t changes = rng_below(rng, 2) * rng_below(rng, 6);

	while (changes-- && len)
		frame[rng_below(rng, rng_below(rng, 4) ? (len < 80 ? len : 80) : len)] =
			(uint8_t)rng_next(rng);
}

static uint32_t make_unit(struct rng *rng, uint8_t *unit)
{
	static const uint32_t limits[] = {60, 100, 200, 200, 1500, 1500, 4000, US_MAX_FRAME};
	uint32_t len = rng_length(rng, limits[rng_below(rng, 8)]);
	uint8_t *frame = unit + US_VNET_HDR_LEN;

	make_vnet_hdr(rng, unit);
	rng_fill(rng, frame, len < HEADERS_LEN ? len : HEADERS_LEN);	/* behind it: set_up's */
	if (rng_below(rng, 8) == 0)
		memset(frame, 0xff, len < 6 ? len : 6);
	if (len >= 42 && rng_below(rng, 8) == 0)
		make_arp(rng, frame);
	else if (len >= ETH_LEN + 20 && rng_below(rng, 8))
		make_ip(rng, frame, len);
	mutate(rng, frame, len);
	if (rng_below(rng, 16) == 0)	/* cut, often in the middle of a header */
		len = rng_below(rng, (len < 100 ? len : 100) + 1);
	return US_VNET_HDR_LEN + len;
}

static void set_up(struct loop *loop, struct rng *rng)
{
	const int large = rng_below(rng, 2) == 0;
	struct us_igb_rxq_regs *rxq;
	struct us_igb_txq_regs *txq;

	memset(loop, 0, sizeof(*loop));
	loop->rng = rng;
	loop->mem = us_mem_create(UINT64_C(24) << 20);
	loop->nic = us_nic_create(loop->mem);
	loop->regs = us_nic_regs(loop->nic);
	loop->rx = us_igb_setup_rx_resources(loop->mem, 64 + 8 * rng_below(rng, 5),
					     large ? US_IGB_RXBUFFER_LARGE : US_IGB_RXBUFFER_2048);
	loop->tx = us_igb_setup_tx_resources(loop->mem, 64 + 8 * rng_below(rng, 5));
	CHECK(loop->rx && loop->tx);
	loop->sent = malloc(UNIT_MAX);
	loop->out = malloc(UNIT_MAX);
	rng_fill(rng, loop->sent, UNIT_MAX);
	rxq = &loop->regs->rxq[0];
	txq = &loop->regs->txq[0];
	rxq->RDBAL = (uint32_t)loop->rx->dma;
	rxq->RDLEN = loop->rx->count * 16;
	rxq->SRRCTL = loop->rx->buffer_bytes;
	rxq->RXDCTL = US_E1000_RXDCTL_QUEUE_ENABLE;
	txq->TDBAL = (uint32_t)loop->tx->dma;
	txq->TDLEN = loop->tx->count * 16;
	txq->TXDCTL = US_E1000_TXDCTL_QUEUE_ENABLE;
	loop->regs->RLPML = rng_below(rng, 2) ? US_MAX_FRAME : 1514;
	loop->regs->RXCSUM = rng_below(rng, 4) ? US_E1000_RXCSUM_IPOFL | US_E1000_RXCSUM_TUOFL : 0;
	loop->regs->CTRL = rng_below(rng, 2) ? US_E1000_CTRL_RFCE : 0;
	loop->regs->RCTL = US_E1000_RCTL_EN;
	loop->regs->TCTL = US_E1000_TCTL_EN;
	us_igb_alloc_rx_buffers(loop->rx, rxq);
}

static void tear_down(struct loop *loop)
{
	us_bq_purge(loop->mem, &loop->bq);
	us_nic_destroy(loop->nic);
	us_igb_free_rx_resources(loop->rx);
	us_igb_free_tx_resources(loop->tx);
	CHECK(us_mem_free_pages(loop->mem) == us_mem_size(loop->mem) / US_PAGE_SIZE - 1);
	us_mem_destroy(loop->mem);
	for (; loop->count; loop->count--) {
		free(loop->unit[loop->head]);
		loop->head = (loop->head + 1) % WAITING;
	}
	free(loop->sent);
	free(loop->out);
}

static void arrive(struct loop *loop)
{
	const uint64_t lost = (uint64_t)loop->regs->RUC + loop->regs->ROC + loop->regs->MPC;
	const uint32_t i = (loop->head + loop->count) % WAITING;
	uint32_t len;

	if (loop->count == WAITING || !us_nic_rx_ready(loop->nic))
		return;
	len = make_unit(loop->rng, loop->sent);
	/* A copy of its own size: AddressSanitizer sees the first byte beyond it. */
	loop->unit[i] = malloc(len);
	memcpy(loop->unit[i], loop->sent, len);
	loop->len[i] = len;
	if (us_nic_rx_frame(loop->nic, loop->unit[i], len) &&
	    (uint64_t)loop->regs->RUC + loop->regs->ROC + loop->regs->MPC == lost)
		loop->count++;
	else
		free(loop->unit[i]);
}

/* The sum over transport and pseudo header is 0xffff if the checksum is right. */
static void check_good_sum(const uint8_t *unit, const uint8_t *frame, uint32_t len)
{
	const uint8_t *ip = frame + ETH_LEN;
	const uint32_t ihl = 4U * (ip[0] & 15);
	const uint32_t total = ((uint32_t)ip[2] << 8) | ip[3];
	uint8_t tail[4] = {0, ip[9], 0, 0};
	uint32_t sum;

	if (unit[0] & (US_VIRTIO_NET_HDR_F_NEEDS_CSUM | US_VIRTIO_NET_HDR_F_DATA_VALID))
		return;	/* the wire vouches for it */
	CHECK(len >= ETH_LEN + 20 && total <= len - ETH_LEN && total >= ihl);
	put16(tail + 2, total - ihl);
	sum = us_csum_partial(ip + 12, 8, us_csum_partial(tail, 4, 0));
	sum = us_csum_partial(ip + ihl, total - ihl, sum);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	CHECK(sum == 0xffff || (ip[9] == 17 && ip[ihl + 6] == 0 && ip[ihl + 7] == 0));
}

static void give_back(struct loop *loop, const uint8_t *frame, uint32_t len)
{
	struct rng *rng = loop->rng;
	const uint32_t csum_start = rng_below(rng, 2) ? 34 : rng_below(rng, 2) * rng_below(rng, 120);
	const uint32_t csum_offset = rng_below(rng, 8) ? 16 : rng_below(rng, 30);
	const uint32_t gso_size = rng_below(rng, 2) ? 0 : rng_below(rng, 3000);
	const int tail = us_igb_xmit_frame(loop->tx, frame, len, 0, csum_start, csum_offset, gso_size,
					   0);
	uint32_t n;

	if (tail < 0)
		return;
	loop->regs->txq[0].TDT = (uint32_t)tail;
	n = us_nic_tx_frame(loop->nic, 0, loop->out, UNIT_MAX);
	if (n) {
		CHECK(n == US_VNET_HDR_LEN + len);
		CHECK(memcmp(loop->out + US_VNET_HDR_LEN, frame, len) == 0);
		us_nic_tx_done(loop->nic, 0);
	}
	us_igb_clean_tx_irq(loop->tx, 128);
}

static void take(struct loop *loop, const struct us_igb_rx_frame *frame)
{
	const uint8_t *bytes = (const uint8_t *)us_mem_base(loop->mem) + frame->addr;
	const uint8_t *unit = loop->unit[loop->head];

	CHECK(loop->count > 0);
	CHECK(loop->len[loop->head] == US_VNET_HDR_LEN + frame->len);
	CHECK(memcmp(unit + US_VNET_HDR_LEN, bytes, frame->len) == 0);
	if (frame->ip_summed)
		check_good_sum(unit, bytes, frame->len);
	if (us_bq_append(loop->mem, &loop->bq, bytes, frame->len) && rng_below(loop->rng, 3) == 0)
		us_bq_drop(loop->mem, &loop->bq, rng_below(loop->rng, loop->bq.len + 1));
	if (loop->bq.len > 400000)
		us_bq_purge(loop->mem, &loop->bq);
	give_back(loop, bytes, frame->len);
	free(loop->unit[loop->head]);
	loop->head = (loop->head + 1) % WAITING;
	loop->count--;
}

static void receive(struct loop *loop, uint32_t budget)
{
	const int n = us_igb_clean_rx_irq(loop->rx, budget);

	for (int i = 0; i < n; i++)
		take(loop, &loop->rx->frames[i]);
	us_igb_alloc_rx_buffers(loop->rx, &loop->regs->rxq[0]);
}

HARNESS_TEST(frames)
{
	struct loop *loop = malloc(sizeof(*loop));

	set_up(loop, rng);
	for (int i = 0; i < ROUNDS; i++) {
		uint32_t burst = rng_length(rng, 8);

		while (burst--)
			arrive(loop);
		receive(loop, 1 + rng_below(rng, 64));
		us_nic_dma_rx(loop->nic, 10);	/* what pause has held back */
	}
	tear_down(loop);
	free(loop);
}
