#ifndef USTACK_ABI_MEM_H
#define USTACK_ABI_MEM_H

#include "types.h"

#define US_PAGE_SHIFT 12
#define US_PAGE_SIZE 4096
#define US_MAX_ORDER 10

/* Page 0 is never handed out, so that address 0 can mean "none". */
#define US_NO_PAGE 0

/* The arena: one mmap, cut into 4 KiB pages by a binary buddy (orders 0-10). */
struct us_mem;

/* One cache of fixed-size objects on top of the buddy, as /proc/slabinfo shows it. */
struct us_kmem_cache;

/* The figures of one cache; the columns of /proc/slabinfo. */
struct us_slabinfo {
	uint32_t active_objs;
	uint32_t num_objs;
	uint32_t objsize;
	uint32_t objperslab;
	uint32_t pagesperslab;
	uint32_t active_slabs;
	uint32_t num_slabs;
};

struct us_mem *us_mem_create(uint64_t bytes);
void us_mem_destroy(struct us_mem *mem);
void *us_mem_base(struct us_mem *mem);
uint64_t us_mem_size(const struct us_mem *mem);
uint64_t us_mem_free_pages(const struct us_mem *mem);
/* Pages kept back from byte queues, and half of them from slabs: see us_alloc_pages_wmark. */
void us_mem_set_min_free(struct us_mem *mem, uint32_t pages);
uint32_t us_mem_min_free(const struct us_mem *mem);
/* Pages that byte queues hold. */
uint32_t us_mem_queue_pages(const struct us_mem *mem);
/* Fault injection: the next @count allocations of pages fail; 0 ends it. */
void us_mem_fail_alloc(struct us_mem *mem, uint32_t count);
uint32_t us_mem_fail_alloc_left(const struct us_mem *mem);
void us_mem_buddyinfo(const struct us_mem *mem, uint32_t free_count[11]);

/* alloc_pages: a naturally aligned block of 2^order pages with one reference, US_NO_PAGE if none is left. */
us_dma_addr_t us_alloc_pages(struct us_mem *mem, uint32_t order);
/* get_page, put_page: any address inside the block names it; 0 or -EINVAL. */
int us_get_page(struct us_mem *mem, us_dma_addr_t addr);
int us_put_page(struct us_mem *mem, us_dma_addr_t addr);
uint32_t us_page_refcount(const struct us_mem *mem, us_dma_addr_t addr);

/* Bytes outside the arena that may be sent from; their addresses have this bit. */
#define US_DMA_MAPPED 0x4000000000000000
us_dma_addr_t us_dma_map(struct us_mem *mem, const void *bytes, uint32_t len);
int64_t us_dma_unmapped(struct us_mem *mem);

struct us_kmem_cache *us_kmem_cache_create(struct us_mem *mem, const char *name, uint32_t objsize);
int us_kmem_cache_destroy(struct us_kmem_cache *cache);
void *us_kmem_cache_zalloc(struct us_kmem_cache *cache);
int us_kmem_cache_free(struct us_kmem_cache *cache, void *obj);
uint32_t us_kmem_cache_shrink(struct us_kmem_cache *cache);
void us_kmem_cache_info(const struct us_kmem_cache *cache, struct us_slabinfo *out);

#endif
