#ifndef USTACK_ARENA_H
#define USTACK_ARENA_H

/*
 * What mem.c, buddy.c, slab.c and the NIC know about the arena's inside. Every page has
 * one struct us_page; only the first page of a free or allocated block has a state, all
 * others are US_PAGE_TAIL, which is how any address finds the head of its block.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"

#define US_ORDERS (US_MAX_ORDER + 1)
#define US_PAGE_NONE UINT32_MAX

enum us_page_state {
	US_PAGE_TAIL = 0,	/* inside a block, or page 0 */
	US_PAGE_FREE,
	US_PAGE_USED,
	US_PAGE_SLAB,
};

struct us_slab;
struct us_mapping;

struct us_page {
	uint32_t next;		/* free list, page numbers */
	uint32_t prev;
	uint32_t refcount;
	uint8_t order;
	uint8_t state;
	uint16_t unused;
	struct us_slab *slab;	/* state US_PAGE_SLAB */
};

struct us_mem {
	uint8_t *base;
	uint64_t size;
	struct us_page *pages;
	uint32_t npages;
	uint32_t free_pages;
	uint32_t free_head[US_ORDERS];
	uint32_t free_count[US_ORDERS];
	struct us_kmem_cache *caches;
	struct us_mapping *mappings;	/* memory lent to us, see dma_map.c */
	uint32_t nmappings;
	uint32_t free_mapping;
	uint32_t first_unmapped;
	uint32_t last_unmapped;
	uint32_t fail_alloc;	/* allocations that are still to fail (fault injection) */
	uint32_t min_free;	/* pages that are kept back, see us_alloc_pages_wmark */
	uint32_t queue_pages;	/* pages of byte queues' chunks */
	uint32_t queue_mark;	/* pages that byte queues leave to others: min_free, or less */
};

/**
 * us_mem_at - the bytes [@addr, @addr + @len) of the arena
 * @mem:  arena
 * @addr: offset, from a descriptor perhaps: not trusted
 * @len:  bytes that the caller will touch
 *
 * Return: pointer, or NULL if any of it lies outside the arena or in page 0.
 */
static inline uint8_t *us_mem_at(const struct us_mem *mem, us_dma_addr_t addr, uint64_t len)
{
	if (addr < US_PAGE_SIZE || addr > mem->size || len > mem->size - addr)
		return NULL;
	return mem->base + addr;
}

const uint8_t *us_mapped_at(const struct us_mem *mem, us_dma_addr_t addr, uint64_t len);
int us_get_mapping(struct us_mem *mem, us_dma_addr_t addr);
int us_put_mapping(struct us_mem *mem, us_dma_addr_t addr);
uint32_t us_mapping_refcount(const struct us_mem *mem, us_dma_addr_t addr);
void us_dma_map_init(struct us_mem *mem);

/* us_mem_at for bytes that are only read: they may also be mapped. */
static inline const uint8_t *us_mem_read_at(const struct us_mem *mem, us_dma_addr_t addr,
					    uint64_t len)
{
	return addr & US_DMA_MAPPED ? us_mapped_at(mem, addr, len) : us_mem_at(mem, addr, len);
}

/* Whether an allocation is to fail on purpose (should_fail_alloc_page); counts it off. */
static inline bool us_mem_should_fail(struct us_mem *mem)
{
	if (!mem->fail_alloc)
		return false;
	mem->fail_alloc--;
	return true;
}

us_dma_addr_t us_alloc_pages_wmark(struct us_mem *mem, uint32_t order, uint32_t mark);
void us_buddy_init(struct us_mem *mem);
struct us_page *us_page_head(const struct us_mem *mem, us_dma_addr_t addr);
void us_free_block(struct us_mem *mem, struct us_page *page);
void us_slab_release_all(struct us_mem *mem);

#endif
