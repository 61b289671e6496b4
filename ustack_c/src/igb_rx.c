/* The driver's receive half: posting buffers and taking frames off the ring. */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "igb.h"

static uint32_t us_order_of(uint64_t bytes)
{
	uint32_t order = 0;

	while ((uint64_t)US_PAGE_SIZE << order < bytes)
		order++;
	return order;
}

static union us_adv_rx_desc *us_rx_desc(const struct us_igb_rx_ring *ring, uint32_t i)
{
	return (union us_adv_rx_desc *)(void *)(ring->mem->base + ring->dma) + i;
}

static uint32_t us_rx_next(const struct us_igb_rx_ring *ring, uint32_t i)
{
	return i + 1 == ring->count ? 0 : i + 1;
}

/* Give every descriptor its buffer, the one that stays unused too. */
static bool us_rx_alloc_pages(struct us_igb_rx_ring *ring)
{
	for (uint32_t i = 0; i < ring->count; i++) {
		ring->buffer_info[i].page = us_alloc_pages(ring->mem,
							   us_order_of(ring->buffer_bytes));
		if (ring->buffer_info[i].page == US_NO_PAGE)
			return false;
	}
	return true;
}

/**
 * us_igb_setup_rx_resources - allocate a receive ring: descriptors and their buffers
 * @mem:          arena that both lie in
 * @count:        descriptors, a multiple of 8 from 64 to 4096
 * @buffer_bytes: US_IGB_RXBUFFER_2048 or US_IGB_RXBUFFER_LARGE
 *
 * Buffers stay with their descriptors, so that an arena that is exhausted later cannot
 * stop the receiver. As in igb a 2 KiB buffer has a page to itself. The device gets them
 * by us_igb_alloc_rx_buffers.
 *
 * Return: the ring, or NULL (size or memory).
 */
struct us_igb_rx_ring *us_igb_setup_rx_resources(struct us_mem *mem, uint32_t count,
						 uint32_t buffer_bytes)
{
	struct us_igb_rx_ring *ring;

	if (count < 64 || count > 4096 || count % 8)
		return NULL;
	if (buffer_bytes != US_IGB_RXBUFFER_2048 && buffer_bytes != US_IGB_RXBUFFER_LARGE)
		return NULL;
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return NULL;
	ring->mem = mem;
	ring->count = count;
	ring->buffer_bytes = buffer_bytes;
	ring->buffer_info = calloc(count, sizeof(*ring->buffer_info));
	ring->dma = us_alloc_pages(mem, us_order_of(count * sizeof(union us_adv_rx_desc)));
	if (!ring->buffer_info || ring->dma == US_NO_PAGE || !us_rx_alloc_pages(ring)) {
		us_igb_free_rx_resources(ring);
		return NULL;
	}
	memset(us_rx_desc(ring, 0), 0, count * sizeof(union us_adv_rx_desc));
	return ring;
}

static void us_rx_free_linear(struct us_igb_rx_ring *ring)
{
	while (ring->nlinear)
		us_put_page(ring->mem, ring->linear[--ring->nlinear]);
}

/**
 * us_igb_free_rx_resources - give back the ring and every buffer
 * @ring: ring that the device has forgotten, or NULL; frames taken from it die with it
 */
void us_igb_free_rx_resources(struct us_igb_rx_ring *ring)
{
	if (!ring)
		return;
	us_rx_free_linear(ring);
	for (uint32_t i = 0; ring->buffer_info && i < ring->count; i++) {
		if (ring->buffer_info[i].page != US_NO_PAGE)
			us_put_page(ring->mem, ring->buffer_info[i].page);
	}
	if (ring->dma != US_NO_PAGE)
		us_put_page(ring->mem, ring->dma);
	free(ring->buffer_info);
	free(ring);
}

/*
 * Let the device fill next what was read last: swap the buffers of the @n descriptors just
 * cleaned with those of the next ones it will use. In ring order every buffer would be the
 * coldest one: with 64 KiB buffers that doubles the time of a super-frame. Sound because
 * this device reads a descriptor only when it fills it.
 */
static void us_rx_reuse_hot(struct us_igb_rx_ring *ring, uint32_t head, uint32_t n)
{
	const uint32_t posted = (ring->next_to_use + ring->count - head) % ring->count;
	uint32_t hot = ring->next_to_clean;

	if (head >= ring->count || posted + n >= ring->count)
		return;
	for (n = n < posted ? n : posted; n; n--, head = us_rx_next(ring, head)) {
		us_dma_addr_t page;

		hot = hot ? hot - 1 : ring->count - 1;
		page = ring->buffer_info[hot].page;
		ring->buffer_info[hot].page = ring->buffer_info[head].page;
		ring->buffer_info[head].page = page;
		us_rx_desc(ring, head)->read.pkt_addr = page;
	}
}

/**
 * us_igb_alloc_rx_buffers - give the device every descriptor but one (igb_alloc_rx_buffers)
 * @ring: ring; frames that us_igb_clean_rx_irq returned are invalid from here on
 * @regs: the queue's registers; RDT is written after each 16 descriptors
 *
 * Every buffer is used again, so this needs no memory; an injected fault (us_mem_fail_alloc)
 * stands for a page that the stack has kept, and the rest waits for the next call.
 *
 * Return: descriptors posted.
 */
uint32_t us_igb_alloc_rx_buffers(struct us_igb_rx_ring *ring, struct us_igb_rxq_regs *regs)
{
	const uint32_t unused = (ring->next_to_clean + ring->count - ring->next_to_use - 1) %
				ring->count;
	uint32_t posted = 0;
	uint32_t next = us_rx_next(ring, ring->next_to_use);

	us_rx_free_linear(ring);
	if (ring->descriptors)
		us_rx_reuse_hot(ring, regs->RDH, unused);
	while (next != ring->next_to_clean) {
		union us_adv_rx_desc *desc = us_rx_desc(ring, ring->next_to_use);

		if (us_mem_should_fail(ring->mem)) {
			ring->alloc_failed++;
			break;
		}
		desc->read.pkt_addr = ring->buffer_info[ring->next_to_use].page;
		desc->read.hdr_addr = 0;
		ring->next_to_use = next;
		next = us_rx_next(ring, next);
		if (++posted % US_IGB_RX_BUFFER_WRITE == 0)
			regs->RDT = ring->next_to_use;
	}
	regs->RDT = ring->next_to_use;
	return posted;
}

/* Bytes in descriptor @i's buffer; a length that it cannot hold is not believed. */
static uint32_t us_rx_part(const struct us_igb_rx_ring *ring, uint32_t i)
{
	const uint32_t length = us_rx_desc(ring, i)->wb.length;

	return length < ring->buffer_bytes ? length : ring->buffer_bytes;
}

/* Descriptors of the frame at next_to_clean up to EOP, and its bytes; 0: not all done. */
static uint32_t us_rx_frame_descriptors(const struct us_igb_rx_ring *ring, uint32_t *len)
{
	uint32_t i = ring->next_to_clean;
	uint32_t n = 0;

	*len = 0;
	while (i != ring->next_to_use) {
		const struct us_adv_rx_wb *wb = &us_rx_desc(ring, i)->wb;

		if (!(wb->status_error & US_E1000_RXD_STAT_DD))
			return 0;
		n++;
		*len += us_rx_part(ring, i);
		if (wb->status_error & US_E1000_RXD_STAT_EOP)
			return n;
		i = us_rx_next(ring, i);
	}
	return 0;
}

/* Copy a frame of several buffers into one block that lives until the next refill. */
static us_dma_addr_t us_rx_linearize(struct us_igb_rx_ring *ring, uint32_t n, uint32_t len)
{
	const uint32_t order = us_order_of(len);
	us_dma_addr_t block = US_NO_PAGE;
	uint32_t i = ring->next_to_clean;
	uint8_t *out;

	if (order <= US_MAX_ORDER)
		block = us_alloc_pages(ring->mem, order);
	if (block == US_NO_PAGE) {
		ring->alloc_failed++;
		return US_NO_PAGE;
	}
	ring->linear[ring->nlinear++] = block;
	out = ring->mem->base + block;
	for (; n; n--, i = us_rx_next(ring, i)) {
		const uint32_t part = us_rx_part(ring, i);

		memcpy(out, ring->mem->base + ring->buffer_info[i].page, part);
		out += part;
	}
	return block;
}

/* Segments in a TCP super-frame, from its headers; 1 if they make no sense. */
static uint16_t us_rx_gso_segs(const uint8_t *frame, uint32_t len, uint32_t gso_size)
{
	uint32_t headers;

	if (!gso_size || len < 14 + 20 + 20)
		return 1;
	headers = 14 + (frame[14] & 15U) * 4U;
	if (headers + 20 > len)
		return 1;
	headers += (uint32_t)(frame[headers + 12] >> 4) * 4U;
	if (headers >= len)
		return 1;
	return (uint16_t)((len - headers + gso_size - 1) / gso_size);
}

/* igb_rx_checksum: what the status bits are worth to the stack. */
static uint32_t us_rx_checksum(struct us_igb_rx_ring *ring, uint32_t status)
{
	if (status & (US_E1000_RXDEXT_STATERR_L4E | US_E1000_RXDEXT_STATERR_IPE)) {
		ring->csum_err++;
		return 0;
	}
	return (status & (US_E1000_RXD_STAT_TCPCS | US_E1000_RXD_STAT_UDPCS)) != 0;
}

/* Describe the frame of @n descriptors at next_to_clean; false: it is lost. */
static bool us_rx_fetch(struct us_igb_rx_ring *ring, uint32_t n, uint32_t len,
			struct us_igb_rx_frame *frame)
{
	const uint32_t first = ring->next_to_clean;
	const struct us_adv_rx_wb *wb = &us_rx_desc(ring, (first + n - 1) % ring->count)->wb;

	if ((wb->status_error & US_E1000_RXDEXT_STATERR_RXE) || !len) {
		ring->errors++;
		return false;
	}
	frame->large = n == 1 && ring->buffer_bytes == US_IGB_RXBUFFER_LARGE
			? &ring->buffer_info[first] : NULL;
	frame->addr = n == 1 ? ring->buffer_info[first].page : us_rx_linearize(ring, n, len);
	if (frame->addr == US_NO_PAGE)
		return false;
	frame->len = len;
	frame->gso_size = wb->hdr_info;
	frame->gso_segs = us_rx_gso_segs(ring->mem->base + frame->addr, len, frame->gso_size);
	frame->ip_summed = us_rx_checksum(ring, wb->status_error);
	frame->rss = wb->rss;
	ring->packets++;
	ring->bytes += len;
	return true;
}

/**
 * us_igb_clean_rx_irq - take finished frames off the ring (igb_clean_rx_irq)
 * @ring:   ring
 * @budget: frames at most, US_IGB_RX_BUDGET or less
 *
 * Fills ring->frames. A frame that spans several buffers is copied into one piece.
 * Frames that the device marked as ruined, or for which there is no memory, are dropped
 * and counted (errors, alloc_failed).
 *
 * Return: frames found.
 */
int us_igb_clean_rx_irq(struct us_igb_rx_ring *ring, uint32_t budget)
{
	uint32_t found = 0;

	if (budget > US_IGB_RX_BUDGET)
		budget = US_IGB_RX_BUDGET;
	while (found < budget && ring->nlinear < US_IGB_RX_BUDGET) {
		uint32_t len;
		const uint32_t n = us_rx_frame_descriptors(ring, &len);

		if (!n)
			break;
		if (us_rx_fetch(ring, n, len, &ring->frames[found]))
			found++;
		ring->next_to_clean = (ring->next_to_clean + n) % ring->count;
		ring->descriptors += n;
	}
	return (int)found;
}
