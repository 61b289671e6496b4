/* The driver's transmit half: mapping packets to descriptors and cleaning up behind them. */

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "igb.h"

#define US_ETH_HLEN 14
#define US_TX_LONGEST 65549	/* Ethernet header and the largest IPv4 packet */
#define US_TX_HEADER_GROUP 64	/* descriptors whose header buffers share a block */

/* One packet on its way into the ring. */
struct us_tx_map {
	struct us_igb_tx_ring *ring;
	uint32_t i;			/* next descriptor */
	uint32_t last;			/* the one filled before it */
	uint32_t cmd;
	uint32_t olinfo;
};

static uint32_t us_order_of(uint64_t bytes)
{
	uint32_t order = 0;

	while ((uint64_t)US_PAGE_SIZE << order < bytes)
		order++;
	return order;
}

static union us_adv_tx_desc *us_tx_desc(const struct us_igb_tx_ring *ring, uint32_t i)
{
	return (union us_adv_tx_desc *)(void *)(ring->mem->base + ring->dma) + i;
}

static uint32_t us_tx_next(const struct us_igb_tx_ring *ring, uint32_t i)
{
	return i + 1 == ring->count ? 0 : i + 1;
}

/* igb_desc_unused: descriptors that may be filled; one always stays free. */
static uint32_t us_tx_unused(const struct us_igb_tx_ring *ring)
{
	return (ring->next_to_clean + ring->count - ring->next_to_use - 1) % ring->count;
}

/**
 * us_igb_tx_room - how many descriptors may be filled
 * @ring: ring
 *
 * Return: their number, 0 while the queue is stopped.
 */
uint32_t us_igb_tx_room(const struct us_igb_tx_ring *ring)
{
	return ring->stopped ? 0 : us_tx_unused(ring);
}

static us_dma_addr_t us_tx_header_buffer(const struct us_igb_tx_ring *ring, uint32_t i)
{
	return ring->headers[i / US_TX_HEADER_GROUP] +
	       (us_dma_addr_t)(i % US_TX_HEADER_GROUP) * US_IGB_TX_HEADER_BYTES;
}

static bool us_tx_alloc_headers(struct us_igb_tx_ring *ring)
{
	const uint32_t order = us_order_of(US_TX_HEADER_GROUP * US_IGB_TX_HEADER_BYTES);

	for (uint32_t g = 0; g * US_TX_HEADER_GROUP < ring->count; g++) {
		ring->headers[g] = us_alloc_pages(ring->mem, order);
		if (ring->headers[g] == US_NO_PAGE)
			return false;
	}
	return true;
}

/**
 * us_igb_setup_tx_resources - allocate a transmit ring: descriptors, buffer array, headers
 * @mem:   arena
 * @count: descriptors, a multiple of 8 from 64 to 4096
 *
 * Return: the ring, or NULL (size or memory).
 */
struct us_igb_tx_ring *us_igb_setup_tx_resources(struct us_mem *mem, uint32_t count)
{
	struct us_igb_tx_ring *ring;

	if (count < 64 || count > 4096 || count % 8)
		return NULL;
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return NULL;
	ring->mem = mem;
	ring->count = count;
	ring->buffer_info = calloc(count, sizeof(*ring->buffer_info));
	ring->dma = us_alloc_pages(mem, us_order_of(count * sizeof(union us_adv_tx_desc)));
	if (!ring->buffer_info || ring->dma == US_NO_PAGE || !us_tx_alloc_headers(ring)) {
		us_igb_free_tx_resources(ring);
		return NULL;
	}
	memset(us_tx_desc(ring, 0), 0, count * sizeof(union us_adv_tx_desc));
	return ring;
}

/* Forget descriptor @i: what it pointed at goes back to where it came from. */
static void us_tx_unmap(struct us_igb_tx_ring *ring, uint32_t i)
{
	struct us_igb_tx_buffer *buffer = &ring->buffer_info[i];

	if (buffer->page != US_NO_PAGE)
		us_put_page(ring->mem, buffer->page);
	buffer->page = US_NO_PAGE;
	buffer->next_to_watch = 0;
}

/**
 * us_igb_free_tx_resources - give back the ring and all that waits in it
 * @ring: ring that the device has forgotten, or NULL
 */
void us_igb_free_tx_resources(struct us_igb_tx_ring *ring)
{
	if (!ring)
		return;
	for (uint32_t i = 0; ring->buffer_info && i < ring->count; i++)
		us_tx_unmap(ring, i);
	for (uint32_t g = 0; g < US_TX_HEADER_GROUP; g++) {
		if (ring->headers[g] != US_NO_PAGE)
			us_put_page(ring->mem, ring->headers[g]);
	}
	if (ring->dma != US_NO_PAGE)
		us_put_page(ring->mem, ring->dma);
	free(ring->buffer_info);
	free(ring);
}

/* Bytes of linear part and frags; 0 if a frag is empty or lies outside the arena. */
static uint64_t us_tx_length(const struct us_igb_tx_ring *ring, uint32_t len, uint32_t nfrags)
{
	uint64_t total = len;

	for (uint32_t f = 0; f < nfrags; f++) {
		const struct us_frag *frag = &ring->frags[f];

		if (!frag->len || !us_mem_read_at(ring->mem, frag->addr, frag->len))
			return 0;
		total += frag->len;
	}
	return total;
}

static uint32_t us_tx_descriptors(const struct us_igb_tx_ring *ring, uint32_t len,
				  uint32_t nfrags)
{
	uint32_t n = 1 + (len + US_IGB_MAX_DATA_PER_TXD - 1) / US_IGB_MAX_DATA_PER_TXD;

	for (uint32_t f = 0; f < nfrags; f++)
		n += (ring->frags[f].len + US_IGB_MAX_DATA_PER_TXD - 1) / US_IGB_MAX_DATA_PER_TXD;
	return n;
}

/* igb_tx_ctxtdesc: tell the device where the headers are. */
static void us_tx_context(struct us_tx_map *map, uint32_t csum_start, bool is_tcp,
			  uint32_t l4len, uint32_t gso_size)
{
	struct us_adv_tx_ctxt *ctxt = &us_tx_desc(map->ring, map->i)->ctxt;

	ctxt->vlan_macip_lens = US_ETH_HLEN << US_E1000_ADVTXD_MACLEN_SHIFT |
				(csum_start - US_ETH_HLEN);
	ctxt->seqnum_seed = 0;
	ctxt->type_tucmd_mlhl = US_E1000_ADVTXD_DTYP_CTXT | US_E1000_ADVTXD_DCMD_DEXT |
				US_E1000_ADVTXD_TUCMD_IPV4 |
				(is_tcp ? US_E1000_ADVTXD_TUCMD_L4T_TCP : 0);
	ctxt->mss_l4len_idx = l4len << US_E1000_ADVTXD_L4LEN_SHIFT |
			      gso_size << US_E1000_ADVTXD_MSS_SHIFT;
	map->i = us_tx_next(map->ring, map->i);
}

/* Fill data descriptors for [@addr, @addr + @len); the last one carries the reference @page. */
static void us_tx_data(struct us_tx_map *map, us_dma_addr_t addr, uint32_t len,
		       us_dma_addr_t page)
{
	while (len) {
		const uint32_t part = len < US_IGB_MAX_DATA_PER_TXD ? len
								    : US_IGB_MAX_DATA_PER_TXD;
		struct us_adv_tx_read *desc = &us_tx_desc(map->ring, map->i)->read;

		desc->buffer_addr = addr;
		desc->cmd_type_len = map->cmd | part;
		desc->olinfo_status = map->olinfo;
		map->last = map->i;
		map->i = us_tx_next(map->ring, map->i);
		addr += part;
		len -= part;
	}
	map->ring->buffer_info[map->last].page = page;
}

/* The linear part: short into the descriptor's header buffer, long into pages of its own. */
static bool us_tx_linear(struct us_tx_map *map, const uint8_t *data, uint32_t len)
{
	struct us_igb_tx_ring *ring = map->ring;
	us_dma_addr_t page = US_NO_PAGE;
	us_dma_addr_t addr = us_tx_header_buffer(ring, map->i);

	if (len > US_IGB_TX_HEADER_BYTES) {
		page = us_alloc_pages(ring->mem, us_order_of(len));
		if (page == US_NO_PAGE)
			return false;
		addr = page;
	}
	memcpy(ring->mem->base + addr, data, len);
	us_tx_data(map, addr, len, page);
	return true;
}

/* Context descriptor and command bits for the offloads asked for; 0 or -EINVAL. */
static int us_tx_offload(struct us_tx_map *map, const uint8_t *data, uint32_t len,
			 uint32_t csum_start, uint32_t csum_offset, uint32_t gso_size)
{
	const bool is_tcp = csum_offset == 16;
	uint32_t l4len = 8;

	if (!is_tcp && csum_offset != 6)
		return -EINVAL;
	if (csum_start < US_ETH_HLEN + 20 || csum_start > US_ETH_HLEN + 60 ||
	    csum_start + csum_offset + 2 > len)
		return -EINVAL;
	if (is_tcp)
		l4len = (uint32_t)(data[csum_start + 12] >> 4) * 4U;
	if (gso_size) {
		if (!is_tcp || gso_size > UINT16_MAX || l4len < 20 || csum_start + l4len > len)
			return -EINVAL;
		map->cmd |= US_E1000_ADVTXD_DCMD_TSE;
	}
	map->olinfo |= US_E1000_TXD_POPTS_TXSM;
	us_tx_context(map, csum_start, is_tcp, l4len, gso_size);
	return 0;
}

static int us_tx_has_room(struct us_igb_tx_ring *ring, uint32_t need)
{
	if (us_tx_unused(ring) >= need + 2)
		return 0;
	ring->stopped = 1;
	ring->busy++;
	return -EBUSY;
}

/**
 * us_igb_xmit_frame - map one packet to descriptors (igb_xmit_frame_ring, igb_tx_map)
 * @ring:        ring; ring->frags holds the payload behind @data
 * @data:        linear part, all headers in it; copied
 * @len:         bytes of @data, at least an Ethernet header
 * @nfrags:      entries of ring->frags, US_MAX_SKB_FRAGS at most; each brings one page
 *               reference, which clean-up gives back
 * @csum_start:  where the transport header begins if the device has to complete its
 *               checksum, or 0
 * @csum_offset: from there to the checksum: 16 (TCP) or 6 (UDP)
 * @gso_size:    payload bytes of each segment of a TCP super-frame, or 0
 * @owner:       generation of the connection that it is from, or 0 (skb->sk)
 *
 * The device is not told: write the tail register after one packet or several. The queue
 * is stopped when it could not take the largest packet next.
 *
 * Return: the new tail (next_to_use); or with nothing taken and all references still the
 * caller's: -EBUSY no room (the queue is stopped), -EMSGSIZE too long or too many frags,
 * -EINVAL offsets or frags that make no sense, -ENOMEM.
 */
int us_igb_xmit_frame(struct us_igb_tx_ring *ring, const uint8_t *data, uint32_t len,
		      uint32_t nfrags, uint32_t csum_start, uint32_t csum_offset,
		      uint32_t gso_size, uint32_t owner)
{
	struct us_tx_map map = {.ring = ring, .i = ring->next_to_use};
	const uint32_t first = ring->next_to_use;
	uint64_t total;
	int err;

	if (nfrags > US_MAX_SKB_FRAGS || len > US_TX_LONGEST)
		return -EMSGSIZE;
	total = us_tx_length(ring, len, nfrags);
	if (len < US_ETH_HLEN || !total || (gso_size && !csum_start))
		return -EINVAL;
	if (total > US_TX_LONGEST)
		return -EMSGSIZE;
	err = us_tx_has_room(ring, us_tx_descriptors(ring, len, nfrags));
	if (err)
		return err;

	map.cmd = US_E1000_ADVTXD_DTYP_DATA | US_E1000_ADVTXD_DCMD_DEXT |
		  US_E1000_ADVTXD_DCMD_IFCS;
	map.olinfo = (uint32_t)total << US_E1000_ADVTXD_PAYLEN_SHIFT;
	if (csum_start)
		err = us_tx_offload(&map, data, len, csum_start, csum_offset, gso_size);
	if (err)
		return err;
	if (!us_tx_linear(&map, data, len))
		return -ENOMEM;
	for (uint32_t f = 0; f < nfrags; f++)
		us_tx_data(&map, ring->frags[f].addr, ring->frags[f].len, ring->frags[f].addr);
	us_tx_desc(ring, map.last)->read.cmd_type_len |= US_E1000_ADVTXD_DCMD_EOP |
							 US_E1000_ADVTXD_DCMD_RS;
	ring->buffer_info[first].next_to_watch = map.last + 1;
	ring->buffer_info[first].bytes = (uint32_t)total;
	ring->buffer_info[first].owner = owner;
	ring->descriptors += (map.i + ring->count - first) % ring->count;
	ring->next_to_use = map.i;
	if (us_tx_unused(ring) < US_IGB_DESC_NEEDED + 2)
		ring->stopped = 1;
	return (int)map.i;
}

/**
 * us_igb_tx_is_above - whether much of one connection waits for the device (sk_wmem_alloc)
 * @ring:  ring
 * @txq:   the device's registers for it
 * @owner: generation of the connection
 * @limit: bytes of frames
 *
 * While the device has sent all that it was told of, nothing waits: what is only held for a
 * common doorbell is about to go.
 *
 * Return: 1 if its frames from the head on have more than @limit bytes, else 0.
 */
int us_igb_tx_is_above(const struct us_igb_tx_ring *ring, const struct us_igb_txq_regs *txq,
		       uint32_t owner, uint64_t limit)
{
	uint64_t bytes = 0;

	if (txq->TDH == txq->TDT)
		return 0;
	for (uint32_t i = txq->TDH; i != ring->next_to_use;) {
		const struct us_igb_tx_buffer *first = &ring->buffer_info[i];

		if (first->owner == owner)
			bytes += first->bytes;
		i = us_tx_next(ring, first->next_to_watch - 1);
	}
	return bytes > limit;
}

/**
 * us_igb_clean_tx_irq - free what the device has sent (igb_clean_tx_irq)
 * @ring:   ring
 * @budget: packets at most
 *
 * Clears ring->stopped (and counts tx_restart) once a good part of the ring is free: the
 * caller then wakes the queue.
 *
 * Return: packets cleaned; equal to @budget means there may be more.
 */
uint32_t us_igb_clean_tx_irq(struct us_igb_tx_ring *ring, uint32_t budget)
{
	uint32_t cleaned = 0;

	while (cleaned < budget && ring->next_to_clean != ring->next_to_use) {
		const struct us_igb_tx_buffer *first = &ring->buffer_info[ring->next_to_clean];
		const uint32_t last = first->next_to_watch - 1;
		uint32_t i = ring->next_to_clean;

		if (!first->next_to_watch ||
		    !(us_tx_desc(ring, last)->wb.status & US_E1000_TXD_STAT_DD))
			break;
		ring->packets++;
		ring->bytes += first->bytes;
		for (; i != last; i = us_tx_next(ring, i))
			us_tx_unmap(ring, i);
		us_tx_unmap(ring, last);
		ring->next_to_clean = us_tx_next(ring, last);
		cleaned++;
	}
	if (ring->stopped && us_tx_unused(ring) >= US_IGB_TX_QUEUE_WAKE) {
		ring->stopped = 0;
		ring->restart++;
	}
	return cleaned;
}
