/*
 * The binary buddy (mm/page_alloc.c): blocks of 2^order pages, orders 0 to 10, split on
 * allocation and merged with their buddy as soon as both are free.
 */

#include <errno.h>

#include "arena.h"

static uint32_t us_page_index(const struct us_mem *mem, const struct us_page *page)
{
	return (uint32_t)(page - mem->pages);
}

static void us_free_list_add(struct us_mem *mem, uint32_t index, uint32_t order)
{
	struct us_page *page = &mem->pages[index];

	page->state = US_PAGE_FREE;
	page->order = (uint8_t)order;
	page->prev = US_PAGE_NONE;
	page->next = mem->free_head[order];
	if (page->next != US_PAGE_NONE)
		mem->pages[page->next].prev = index;
	mem->free_head[order] = index;
	mem->free_count[order]++;
}

static void us_free_list_del(struct us_mem *mem, struct us_page *page)
{
	if (page->prev != US_PAGE_NONE)
		mem->pages[page->prev].next = page->next;
	else
		mem->free_head[page->order] = page->next;
	if (page->next != US_PAGE_NONE)
		mem->pages[page->next].prev = page->prev;
	mem->free_count[page->order]--;
	page->state = US_PAGE_TAIL;
}

/**
 * us_buddy_init - put all pages except page 0 on the free lists
 * @mem: arena, mapped; pages zeroed
 *
 * The blocks are the largest that are naturally aligned and fit.
 */
void us_buddy_init(struct us_mem *mem)
{
	uint32_t index = 1;
	uint32_t order;

	for (order = 0; order < US_ORDERS; order++)
		mem->free_head[order] = US_PAGE_NONE;
	while (index < mem->npages) {
		order = (uint32_t)__builtin_ctz(index);
		if (order > US_MAX_ORDER)
			order = US_MAX_ORDER;
		while ((UINT32_C(1) << order) > mem->npages - index)
			order--;
		us_free_list_add(mem, index, order);
		index += UINT32_C(1) << order;
	}
	mem->free_pages = mem->npages - 1;
}

/**
 * us_page_head - first page of the block that @addr lies in
 * @mem:  arena
 * @addr: any offset, not trusted
 *
 * Return: the page, free or allocated; NULL outside the arena and for page 0.
 */
struct us_page *us_page_head(const struct us_mem *mem, us_dma_addr_t addr)
{
	uint32_t index, head, order;

	if (addr < US_PAGE_SIZE || addr >= mem->size)
		return NULL;
	index = (uint32_t)(addr >> US_PAGE_SHIFT);
	for (order = 0; order < US_ORDERS; order++) {
		head = index & ~((UINT32_C(1) << order) - 1);
		if (mem->pages[head].state != US_PAGE_TAIL)
			return &mem->pages[head];
	}
	return NULL;
}

/**
 * us_alloc_pages - take a naturally aligned block of 2^@order pages
 * @mem:   arena
 * @order: 0 to US_MAX_ORDER
 *
 * The block has one reference and is not zeroed.
 *
 * Return: its offset, or US_NO_PAGE if no block is large enough.
 */
us_dma_addr_t us_alloc_pages(struct us_mem *mem, uint32_t order)
{
	uint32_t from = order;
	struct us_page *page;
	uint32_t index;

	if (order > US_MAX_ORDER || us_mem_should_fail(mem))
		return US_NO_PAGE;
	while (mem->free_head[from] == US_PAGE_NONE)
		if (++from > US_MAX_ORDER)
			return US_NO_PAGE;
	index = mem->free_head[from];
	page = &mem->pages[index];
	us_free_list_del(mem, page);
	while (from > order) {
		from--;
		us_free_list_add(mem, index + (UINT32_C(1) << from), from);
	}
	page->state = US_PAGE_USED;
	page->order = (uint8_t)order;
	page->refcount = 1;
	mem->free_pages -= UINT32_C(1) << order;
	return (us_dma_addr_t)index << US_PAGE_SHIFT;
}

/**
 * us_alloc_pages_wmark - us_alloc_pages for those who leave some to others
 * @mem:   arena
 * @order: 0 to US_MAX_ORDER
 * @mark:  pages that must be free afterwards
 *
 * Whoever can wait or be refused stops at a mark (__zone_watermark_ok): what is below it is
 * for rings, for frames on their way and for text that a reader has nothing else of, so that
 * an arena full of data to be sent still takes what makes room in it.
 *
 * Return: as us_alloc_pages.
 */
us_dma_addr_t us_alloc_pages_wmark(struct us_mem *mem, uint32_t order, uint32_t mark)
{
	if (order > US_MAX_ORDER || mem->free_pages < mark + (UINT32_C(1) << order))
		return US_NO_PAGE;
	return us_alloc_pages(mem, order);
}

/**
 * us_free_block - give a block back, merging it with free buddies
 * @mem:  arena
 * @page: head of an allocated block that nobody refers to any more
 */
void us_free_block(struct us_mem *mem, struct us_page *page)
{
	uint32_t index = us_page_index(mem, page);
	uint32_t order = page->order;
	struct us_page *buddy;
	uint32_t other;

	mem->free_pages += UINT32_C(1) << order;
	page->refcount = 0;
	page->slab = NULL;
	page->state = US_PAGE_TAIL;
	for (; order < US_MAX_ORDER; order++) {
		other = index ^ (UINT32_C(1) << order);
		if (other >= mem->npages)
			break;
		buddy = &mem->pages[other];
		if (buddy->state != US_PAGE_FREE || buddy->order != order)
			break;
		us_free_list_del(mem, buddy);
		index &= other;
	}
	us_free_list_add(mem, index, order);
}

static struct us_page *us_used_page(const struct us_mem *mem, us_dma_addr_t addr)
{
	struct us_page *page = us_page_head(mem, addr);

	return page && page->state == US_PAGE_USED ? page : NULL;
}

/**
 * us_get_page - take one more reference to a block
 * @mem:  arena
 * @addr: any offset inside it
 *
 * Return: 0, or -EINVAL if @addr is in no allocated block (a slab's is not one).
 */
int us_get_page(struct us_mem *mem, us_dma_addr_t addr)
{
	struct us_page *page;

	if (addr & US_DMA_MAPPED)
		return us_get_mapping(mem, addr);
	page = us_used_page(mem, addr);
	if (!page || page->refcount == UINT32_MAX)
		return -EINVAL;
	page->refcount++;
	return 0;
}

/**
 * us_put_page - drop one reference; the last one frees the block
 * @mem:  arena
 * @addr: any offset inside it
 *
 * Return: 0, or -EINVAL if @addr is in no allocated block; nothing has changed then.
 */
int us_put_page(struct us_mem *mem, us_dma_addr_t addr)
{
	struct us_page *page;

	if (addr & US_DMA_MAPPED)
		return us_put_mapping(mem, addr);
	page = us_used_page(mem, addr);
	if (!page)
		return -EINVAL;
	if (--page->refcount == 0)
		us_free_block(mem, page);
	return 0;
}

/**
 * us_page_refcount - references to the block that @addr lies in
 * @mem:  arena
 * @addr: any offset
 *
 * Return: the count; 0 if it is free, a slab's or no block at all.
 */
uint32_t us_page_refcount(const struct us_mem *mem, us_dma_addr_t addr)
{
	const struct us_page *page;

	if (addr & US_DMA_MAPPED)
		return us_mapping_refcount(mem, addr);
	page = us_used_page(mem, addr);
	return page ? page->refcount : 0;
}

/**
 * us_mem_free_pages - pages on the free lists
 * @mem: arena
 */
uint64_t us_mem_free_pages(const struct us_mem *mem)
{
	return mem->free_pages;
}

/**
 * us_mem_buddyinfo - free blocks of each order, as /proc/buddyinfo has them
 * @mem:        arena
 * @free_count: filled
 */
void us_mem_buddyinfo(const struct us_mem *mem, uint32_t free_count[US_ORDERS])
{
	uint32_t order;

	for (order = 0; order < US_ORDERS; order++)
		free_count[order] = mem->free_count[order];
}
