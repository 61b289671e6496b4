/* The arena: one private mapping that everything the NIC can reach lies in. */

#include <stdlib.h>
#include <sys/mman.h>

#include "arena.h"

/**
 * us_mem_create - map an arena and give all of it to the buddy
 * @bytes: size, rounded down to whole pages; two pages at least, 16 TiB at most
 *
 * Pages that nobody touches cost no memory: the mapping is not reserved.
 *
 * Context: allocates. Return: the arena, or NULL (size or memory).
 */
struct us_mem *us_mem_create(uint64_t bytes)
{
	const uint64_t npages = bytes >> US_PAGE_SHIFT;
	struct us_mem *mem;
	void *base;

	if (npages < 2 || npages >= US_PAGE_NONE)
		return NULL;
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return NULL;
	mem->pages = calloc(npages, sizeof(*mem->pages));
	if (!mem->pages)
		goto free_mem;
	base = mmap(NULL, npages << US_PAGE_SHIFT, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		goto free_pages;
	mem->base = base;
	mem->size = npages << US_PAGE_SHIFT;
	mem->npages = (uint32_t)npages;
	us_buddy_init(mem);
	us_dma_map_init(mem);
	return mem;

free_pages:
	free(mem->pages);
free_mem:
	free(mem);
	return NULL;
}

/**
 * us_mem_destroy - unmap the arena; its caches and all objects go with it
 * @mem: arena, or NULL
 */
void us_mem_destroy(struct us_mem *mem)
{
	if (!mem)
		return;
	us_slab_release_all(mem);
	munmap(mem->base, mem->size);
	free(mem->pages);
	free(mem->mappings);
	free(mem);
}

/**
 * us_mem_fail_alloc - let allocations of pages fail on purpose (fail_page_alloc)
 * @mem:   arena
 * @count: how many from now on; 0 ends it
 */
void us_mem_fail_alloc(struct us_mem *mem, uint32_t count)
{
	mem->fail_alloc = count;
}

/**
 * us_mem_fail_alloc_left - allocations that are still to fail
 * @mem: arena
 */
uint32_t us_mem_fail_alloc_left(const struct us_mem *mem)
{
	return mem->fail_alloc;
}

/**
 * us_mem_set_min_free - keep pages back for those who must not fail (min_free_kbytes)
 * @mem:   arena
 * @pages: how many
 */
void us_mem_set_min_free(struct us_mem *mem, uint32_t pages)
{
	mem->min_free = pages;
	mem->queue_mark = pages;
}

/**
 * us_mem_min_free - pages that are kept back
 * @mem: arena
 */
uint32_t us_mem_min_free(const struct us_mem *mem)
{
	return mem->min_free;
}

/**
 * us_mem_queue_pages - pages that byte queues hold
 * @mem: arena
 */
uint32_t us_mem_queue_pages(const struct us_mem *mem)
{
	return mem->queue_pages;
}

/**
 * us_mem_base - the address that arena offset 0 has in this process
 * @mem: arena
 */
void *us_mem_base(struct us_mem *mem)
{
	return mem->base;
}

/**
 * us_mem_size - bytes of the arena
 * @mem: arena
 */
uint64_t us_mem_size(const struct us_mem *mem)
{
	return mem->size;
}
