/*
 * The NIC and its driver on a socket pair: every frame arrives once, in order and
 * unchanged, and every page comes back; then each of them against nonsense from the other.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"
#include "igb.h"
#include "nic.h"

#define STEPS 400
#define WAITING 512
#define FRAME_MAX 4000

/* What is on its way: enough of each frame to know it again. */
struct flight {
	uint8_t *frame[WAITING];
	uint32_t len[WAITING];
	uint32_t head;
	uint32_t count;
};

struct rig {
	struct rng *rng;
	struct us_mem *mem;
	struct us_nic *nic;
	struct us_igb_regs *regs;
	struct us_igb_rx_ring *rx;
	struct us_igb_tx_ring *tx;
	int near;
	int far;
	uint32_t header;
	struct flight inward;
	struct flight outward;
};

static uint8_t *at(const struct rig *rig, us_dma_addr_t addr)
{
	return (uint8_t *)us_mem_base(rig->mem) + addr;
}

static void push(struct flight *flight, const uint8_t *frame, uint32_t len)
{
	const uint32_t i = (flight->head + flight->count++) % WAITING;

	CHECK(flight->count <= WAITING);
	flight->frame[i] = malloc(len);
	memcpy(flight->frame[i], frame, len);
	flight->len[i] = len;
}

static void expect(struct flight *flight, const uint8_t *frame, uint32_t len)
{
	const uint32_t i = flight->head;

	CHECK(flight->count > 0);
	CHECK(flight->len[i] == len);
	CHECK(memcmp(flight->frame[i], frame, len) == 0);
	free(flight->frame[i]);
	flight->head = (i + 1) % WAITING;
	flight->count--;
}

static void forget(struct flight *flight)
{
	for (; flight->count; flight->count--) {
		free(flight->frame[flight->head]);
		flight->head = (flight->head + 1) % WAITING;
	}
}

/* Half of the frames look like TCP or UDP over IPv4, some of their bytes spoiled. */
static void make_frame(struct rng *rng, uint8_t *frame, uint32_t len)
{
	rng_fill(rng, frame, len);
	if (len < 34 || rng_below(rng, 2))
		return;
	frame[12] = 0x08;
	frame[13] = 0x00;
	frame[14] = (uint8_t)(0x40 + (rng_below(rng, 4) ? 5 : rng_below(rng, 16)));
	if (rng_below(rng, 4)) {
		frame[16] = (uint8_t)((len - 14) >> 8);
		frame[17] = (uint8_t)(len - 14);
	}
	if (rng_below(rng, 4)) {
		frame[20] = 0x40;
		frame[21] = 0;
	}
	frame[23] = rng_below(rng, 2) ? 6 : 17;
}

static void program(struct rig *rig, uint32_t longest)
{
	struct us_igb_rxq_regs *rxq = &rig->regs->rxq[0];
	struct us_igb_txq_regs *txq = &rig->regs->txq[0];

	rxq->RDBAL = (uint32_t)rig->rx->dma;
	rxq->RDLEN = rig->rx->count * 16;
	rxq->SRRCTL = rig->rx->buffer_bytes;
	rxq->RXDCTL = US_E1000_RXDCTL_QUEUE_ENABLE;
	txq->TDBAL = (uint32_t)rig->tx->dma;
	txq->TDLEN = rig->tx->count * 16;
	txq->TXDCTL = US_E1000_TXDCTL_QUEUE_ENABLE;
	rig->regs->RLPML = longest;
	rig->regs->RXCSUM = US_E1000_RXCSUM_IPOFL | US_E1000_RXCSUM_TUOFL;
	rig->regs->CTRL = US_E1000_CTRL_RFCE;
	rig->regs->RCTL = US_E1000_RCTL_EN;
	rig->regs->TCTL = US_E1000_TCTL_EN;
	us_igb_alloc_rx_buffers(rig->rx, rxq);
}

static void set_up(struct rig *rig, struct rng *rng)
{
	const int large = rng_below(rng, 4) == 0;
	int ends[2];

	memset(rig, 0, sizeof(*rig));
	rig->rng = rng;
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0);
	rig->near = ends[0];
	rig->far = ends[1];
	rig->header = rng_below(rng, 4) ? US_VNET_HDR_LEN : 0;
	rig->mem = us_mem_create(UINT64_C(16) << 20);
	rig->nic = us_nic_create(rig->mem);
	rig->regs = us_nic_regs(rig->nic);
	us_nic_attach(rig->nic, rig->near, rig->header);
	/* Queues that share a socket: the order of what passes can still be held. */
	for (uint32_t more = rng_below(rng, US_IGB_MAX_QUEUES); more; more--)
		CHECK(us_nic_attach_queue(rig->nic, rig->near) == 0);
	rig->rx = us_igb_setup_rx_resources(rig->mem, 64 + 8 * rng_below(rng, 5),
					    large ? US_IGB_RXBUFFER_LARGE : US_IGB_RXBUFFER_2048);
	rig->tx = us_igb_setup_tx_resources(rig->mem, 64 + 8 * rng_below(rng, 5));
	CHECK(rig->rx && rig->tx);
	program(rig, rng_below(rng, 2) ? FRAME_MAX : US_MAX_FRAME);
}

static void tear_down(struct rig *rig)
{
	us_nic_destroy(rig->nic);
	us_igb_free_rx_resources(rig->rx);
	us_igb_free_tx_resources(rig->tx);
	CHECK(us_mem_free_pages(rig->mem) == us_mem_size(rig->mem) / US_PAGE_SIZE - 1);
	us_mem_destroy(rig->mem);
	forget(&rig->inward);
	forget(&rig->outward);
	close(rig->near);
	close(rig->far);
}

static void arrive(struct rig *rig)
{
	uint8_t unit[US_VNET_HDR_LEN + FRAME_MAX] = {0};
	const uint32_t len = 14 + rng_length(rig->rng, FRAME_MAX - 14);

	if (rig->inward.count == WAITING)
		return;
	if (rig->header)
		unit[0] = (uint8_t)rng_below(rig->rng, 4);
	make_frame(rig->rng, unit + rig->header, len);
	if (send(rig->far, unit, rig->header + len, 0) > 0)
		push(&rig->inward, unit + rig->header, len);
}

static void receive(struct rig *rig)
{
	const int n = us_igb_clean_rx_irq(rig->rx, 1 + rng_below(rig->rng, 80));

	for (int i = 0; i < n; i++) {
		const struct us_igb_rx_frame *frame = &rig->rx->frames[i];

		expect(&rig->inward, at(rig, frame->addr), frame->len);
	}
	us_igb_alloc_rx_buffers(rig->rx, &rig->regs->rxq[0]);
}

/* A frag with one reference, so placed that it may cross pages of its block. */
static uint32_t make_frag(struct rig *rig, struct us_frag *frag, uint8_t *copy, uint32_t room)
{
	const uint32_t order = rng_below(rig->rng, 3);
	const uint32_t size = US_PAGE_SIZE << order;
	const uint32_t off = rng_below(rig->rng, size);
	const us_dma_addr_t page = us_alloc_pages(rig->mem, order);

	CHECK(page != US_NO_PAGE);
	frag->addr = page + off;
	frag->len = 1 + rng_below(rig->rng, size - off);
	if (frag->len > room)
		frag->len = room;
	rng_fill(rig->rng, at(rig, frag->addr), frag->len);
	memcpy(copy, at(rig, frag->addr), frag->len);
	return frag->len;
}

static void transmit(struct rig *rig)
{
	static const uint32_t longest = 40000;
	uint8_t *copy = malloc(longest);
	uint32_t linear = 14 + rng_length(rig->rng, rng_below(rig->rng, 4) ? 200 : 6000);
	uint32_t nfrags = rng_below(rig->rng, 3) ? rng_below(rig->rng, US_MAX_SKB_FRAGS + 1) : 0;
	uint32_t len = linear;
	int tail;

	rng_fill(rig->rng, copy, linear);
	for (uint32_t f = 0; f < nfrags; f++) {
		if (longest - len < 1)
			nfrags = f;
		else
			len += make_frag(rig, &rig->tx->frags[f], copy + len, longest - len);
	}
	tail = us_igb_xmit_frame(rig->tx, copy, linear, nfrags, 0, 0, 0, 0);
	if (tail < 0) {
		CHECK(tail == -EBUSY && rig->tx->stopped);
		for (uint32_t f = 0; f < nfrags; f++)
			CHECK(us_put_page(rig->mem, rig->tx->frags[f].addr) == 0);
	} else {
		push(&rig->outward, copy, len);
		us_nic_write_tdt(rig->nic, 0, (uint32_t)tail);
	}
	free(copy);
}

static void take_out(struct rig *rig)
{
	static const size_t longest = 70000;
	uint8_t *unit = malloc(longest);
	uint32_t most = 1 + rng_below(rig->rng, 20);
	ssize_t n;

	while (most-- && (n = recv(rig->far, unit, longest, 0)) > 0)
		expect(&rig->outward, unit + rig->header, (uint32_t)n - rig->header);
	free(unit);
}

static void step(struct rig *rig)
{
	switch (rng_below(rig->rng, 6)) {
	case 0:
	case 1:
		arrive(rig);
		break;
	case 2:
		us_nic_dma_rx(rig->nic, 1 + rng_below(rig->rng, 50));
		us_nic_dma_tx(rig->nic, 0);
		break;
	case 3:
		receive(rig);
		break;
	case 4:
		transmit(rig);
		break;
	default:
		take_out(rig);
		us_igb_clean_tx_irq(rig->tx, rng_below(rig->rng, 130));
		break;
	}
	CHECK(us_nic_regs(rig->nic)->WIREERR == 0);
}

HARNESS_TEST(rings)
{
	struct rig *rig = malloc(sizeof(*rig));

	set_up(rig, rng);
	for (int i = 0; i < STEPS; i++)
		step(rig);
	for (int i = 0; i < 4 * WAITING && (rig->inward.count || rig->outward.count); i++) {
		us_nic_dma_rx(rig->nic, 50);
		us_nic_dma_tx(rig->nic, 0);
		receive(rig);
		take_out(rig);
		us_igb_clean_tx_irq(rig->tx, 128);
	}
	us_igb_clean_tx_irq(rig->tx, 4096);	/* the last step's own may have been cut short */
	CHECK(rig->inward.count == 0 && rig->outward.count == 0);
	CHECK(rig->regs->MPC == 0 && rig->regs->TXERRC == 0 && rig->regs->RXERRC == 0);
	CHECK(rig->tx->next_to_clean == rig->tx->next_to_use && !rig->tx->stopped);
	tear_down(rig);
	free(rig);
}

/* Registers: mostly plausible, some not. */
static uint32_t odd_register(struct rng *rng, uint32_t plausible)
{
	switch (rng_below(rng, 8)) {
	case 0:
		return (uint32_t)rng_next(rng);
	case 1:
		return plausible + 1;
	case 2:
		return 0;
	default:
		return plausible;
	}
}

static void spoil_registers(struct rig *rig, struct rng *rng)
{
	struct us_igb_rxq_regs *rxq = &rig->regs->rxq[0];
	struct us_igb_txq_regs *txq = &rig->regs->txq[0];

	rxq->RDBAL = odd_register(rng, rxq->RDBAL);
	rxq->RDBAH = odd_register(rng, 0);
	rxq->RDLEN = odd_register(rng, rxq->RDLEN);
	rxq->RDH = odd_register(rng, rng_below(rng, rig->rx->count));
	rxq->RDT = odd_register(rng, rng_below(rng, rig->rx->count));
	rxq->SRRCTL = odd_register(rng, rxq->SRRCTL);
	txq->TDBAL = odd_register(rng, txq->TDBAL);
	txq->TDBAH = odd_register(rng, 0);
	txq->TDLEN = odd_register(rng, txq->TDLEN);
	txq->TDH = odd_register(rng, rng_below(rng, rig->tx->count));
	txq->TDT = odd_register(rng, rng_below(rng, rig->tx->count));
	rig->regs->RLPML = odd_register(rng, US_MAX_FRAME);
	rig->regs->CTRL = odd_register(rng, US_E1000_CTRL_RFCE);
	rig->regs->IVAR[0] = odd_register(rng, 0);
	rig->regs->rxq[1 + rng_below(rng, 7)] = *rxq;
	rig->regs->MRQC = odd_register(rng, rng_below(rng, 2) * US_E1000_MRQC_ENABLE_RSS |
						    US_E1000_MRQC_RSS_FIELD_IPV4_TCP |
						    US_E1000_MRQC_RSS_FIELD_IPV4);
	rng_fill(rng, rig->regs->RETA, sizeof(rig->regs->RETA));
	rng_fill(rng, rig->regs->RSSRK, sizeof(rig->regs->RSSRK));
	rig->regs->TIDV = odd_register(rng, 245);
	rig->regs->SYSTIM = rng_next(rng);
	for (int i = 0; i < 2; i++) {
		rig->regs->IMIR[i] = odd_register(rng, US_E1000_IMIR_PORT_IM_EN);
		rig->regs->IMIREXT[i] = (uint32_t)rng_next(rng);
	}
	us_nic_write_eitr(rig->nic, rng_below(rng, 9), (uint32_t)rng_next(rng));
}

/* Descriptors whose addresses, types and lengths are random within and beyond reason. */
static void spoil_descriptors(struct rig *rig, struct rng *rng, us_dma_addr_t ring, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t *desc = (uint64_t *)(void *)at(rig, ring + 16 * i);

		desc[0] = rng_below(rng, 4) ? rng_next(rng) % us_mem_size(rig->mem) : rng_next(rng);
		if (rng_below(rng, 2))
			desc[1] = rng_next(rng);
		else
			desc[1] = US_E1000_ADVTXD_DTYP_DATA | rng_below(rng, 3000) |
				  (uint64_t)rng_below(rng, 2) << 24 | rng_next(rng) << 40;
	}
}

HARNESS_TEST(nic_against_nonsense)
{
	struct rig *rig = malloc(sizeof(*rig));
	uint8_t *unit = malloc(US_VNET_HDR_LEN + US_MAX_FRAME);

	set_up(rig, rng);
	for (int i = 0; i < 20; i++) {
		const uint32_t len = rng_length(rng, US_VNET_HDR_LEN + US_MAX_FRAME);

		spoil_descriptors(rig, rng, rig->rx->dma, rig->rx->count);
		spoil_descriptors(rig, rng, rig->tx->dma, rig->tx->count);
		spoil_registers(rig, rng);
		arrive(rig);
		us_nic_dma(rig->nic, rng_next(rng), 10, rng_below(rng, 100000));
		rng_fill(rng, unit, len < 4096 ? len : 4096);
		if (us_nic_rx_ready(rig->nic))
			us_nic_rx_frame(rig->nic, unit, len);
		us_nic_write_tdt(rig->nic, rng_below(rng, 10), (uint32_t)rng_next(rng) % 128);
		us_nic_tx_frame(rig->nic, 0, unit, rng_length(rng, US_VNET_HDR_LEN + US_MAX_FRAME));
		us_nic_tx_done(rig->nic, 0);
		us_nic_deliver_irq(rig->nic);
		us_nic_write_eims(rig->nic, (uint32_t)rng_next(rng));
	}
	us_nic_destroy(rig->nic);	/* the arena holds nonsense: no page is looked for */
	us_mem_destroy(rig->mem);
	free(rig->rx->buffer_info);
	free(rig->tx->buffer_info);
	free(rig->rx);
	free(rig->tx);
	forget(&rig->inward);
	close(rig->near);
	close(rig->far);
	free(unit);
	free(rig);
}

HARNESS_TEST(driver_against_nonsense)
{
	struct rig *rig = malloc(sizeof(*rig));
	uint8_t data[256];

	set_up(rig, rng);
	for (int i = 0; i < 50; i++) {
		const int n = (spoil_descriptors(rig, rng, rig->rx->dma, rig->rx->count),
			       us_igb_clean_rx_irq(rig->rx, rng_below(rng, 100)));

		for (int f = 0; f < n; f++) {
			const struct us_igb_rx_frame *frame = &rig->rx->frames[f];
			const uint8_t *bytes = at(rig, frame->addr);
			volatile uint8_t touched = (uint8_t)(bytes[0] ^ bytes[frame->len - 1]);

			(void)touched;
			CHECK(frame->addr + frame->len <= us_mem_size(rig->mem));
		}
		us_igb_alloc_rx_buffers(rig->rx, &rig->regs->rxq[0]);
		rng_fill(rng, data, sizeof(data));
		for (uint32_t f = 0; f < US_MAX_SKB_FRAGS; f++) {
			rig->tx->frags[f].addr = rng_next(rng);
			rig->tx->frags[f].len = (uint32_t)rng_next(rng);
		}
		if (us_igb_xmit_frame(rig->tx, data, rng_length(rng, sizeof(data)),
				      rng_below(rng, 2) * rng_below(rng, 30), rng_below(rng, 100),
				      rng_below(rng, 2) ? 16 : rng_below(rng, 20),
				      rng_below(rng, 2) * rng_below(rng, 70000),
				      (uint32_t)rng_next(rng)) >= 0)
			us_nic_write_tdt(rig->nic, 0, rig->tx->next_to_use);
		us_igb_clean_tx_irq(rig->tx, 128);
	}
	tear_down(rig);
	free(rig);
}

HARNESS_TEST(rings_of_bad_sizes)
{
	struct us_mem *mem = us_mem_create(UINT64_C(1) << 20);

	(void)rng;
	CHECK(!us_igb_setup_rx_resources(mem, 56, US_IGB_RXBUFFER_2048));
	CHECK(!us_igb_setup_rx_resources(mem, 4104, US_IGB_RXBUFFER_2048));
	CHECK(!us_igb_setup_rx_resources(mem, 65, US_IGB_RXBUFFER_2048));
	CHECK(!us_igb_setup_rx_resources(mem, 64, 1024));
	CHECK(!us_igb_setup_rx_resources(mem, 4096, US_IGB_RXBUFFER_2048));	/* no room */
	CHECK(!us_igb_setup_tx_resources(mem, 63));
	CHECK(!us_igb_setup_tx_resources(mem, 4096));
	CHECK(us_mem_free_pages(mem) == (1 << 20) / US_PAGE_SIZE - 1);
	us_igb_free_rx_resources(NULL);
	us_igb_free_tx_resources(NULL);
	us_nic_destroy(NULL);
	us_mem_destroy(mem);
}
