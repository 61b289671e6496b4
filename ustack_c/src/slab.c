/*
 * Slabs of fixed-size objects on top of the buddy (mm/slub.c). What is free in a slab is
 * kept beside the arena, not in the objects: a stray write to a freed object cannot break
 * the allocator, and freeing twice is seen.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

#define US_SLAB_MAX_ORDER 3
#define US_SLAB_MIN_OBJS 8
#define US_CACHE_LINE 64
#define US_OBJ_USED 0xffff
#define US_OBJ_END 0xfffe
#define US_CACHE_NAME_BYTES 32

struct us_slab {
	struct us_kmem_cache *cache;
	struct us_slab *prev;
	struct us_slab *next;
	us_dma_addr_t addr;
	uint32_t inuse;
	uint16_t first_free;
	uint16_t link[];	/* next free object, US_OBJ_END, or US_OBJ_USED */
};

struct us_kmem_cache {
	struct us_mem *mem;
	struct us_kmem_cache *prev;
	struct us_kmem_cache *next;
	struct us_slab *partial;	/* some objects free; an empty slab is at no list */
	struct us_slab *full;
	struct us_slab *empty;		/* at most one */
	uint32_t objsize;
	uint32_t stride;
	uint32_t objperslab;
	uint32_t order;
	uint32_t active_objs;
	uint32_t active_slabs;
	char name[US_CACHE_NAME_BYTES];
};

static void us_slab_link(struct us_slab **list, struct us_slab *slab)
{
	slab->prev = NULL;
	slab->next = *list;
	if (*list)
		(*list)->prev = slab;
	*list = slab;
}

static void us_slab_unlink(struct us_slab **list, struct us_slab *slab)
{
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		*list = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
}

/* The smallest order that holds enough objects and leaves at most an eighth unused. */
static uint32_t us_slab_order(uint32_t stride)
{
	uint32_t order, bytes;

	for (order = 0; order < US_SLAB_MAX_ORDER; order++) {
		bytes = (uint32_t)US_PAGE_SIZE << order;
		if (bytes / stride >= US_SLAB_MIN_OBJS && bytes % stride <= bytes / 8)
			return order;
	}
	return US_SLAB_MAX_ORDER;
}

/**
 * us_kmem_cache_create - make a cache of objects of one size
 * @mem:     arena that the slabs come from; must outlive the cache
 * @name:    for the views; cut at 31 bytes
 * @objsize: bytes of an object, 1 to 32768
 *
 * Objects of 256 bytes and more start on a cache line, smaller ones at 8 bytes.
 *
 * Return: the cache, without any page; NULL (size or memory).
 */
struct us_kmem_cache *us_kmem_cache_create(struct us_mem *mem, const char *name, uint32_t objsize)
{
	const uint32_t align = objsize >= 4 * US_CACHE_LINE ? US_CACHE_LINE : 8;
	struct us_kmem_cache *cache;

	if (objsize == 0 || objsize > (uint32_t)US_PAGE_SIZE << US_SLAB_MAX_ORDER)
		return NULL;
	cache = calloc(1, sizeof(*cache));
	if (!cache)
		return NULL;
	cache->mem = mem;
	cache->objsize = objsize;
	cache->stride = (objsize + align - 1) & ~(align - 1);
	cache->order = us_slab_order(cache->stride);
	cache->objperslab = ((uint32_t)US_PAGE_SIZE << cache->order) / cache->stride;
	strncpy(cache->name, name, sizeof(cache->name) - 1);
	cache->next = mem->caches;
	if (mem->caches)
		mem->caches->prev = cache;
	mem->caches = cache;
	return cache;
}

static struct us_slab *us_slab_create(struct us_kmem_cache *cache)
{
	struct us_slab *slab;
	struct us_page *page;
	uint32_t i;

	slab = malloc(sizeof(*slab) + cache->objperslab * sizeof(slab->link[0]));
	if (!slab)
		return NULL;
	slab->addr = us_alloc_pages_wmark(cache->mem, cache->order, cache->mem->min_free / 2);
	if (slab->addr == US_NO_PAGE) {
		free(slab);
		return NULL;
	}
	page = us_page_head(cache->mem, slab->addr);
	page->state = US_PAGE_SLAB;
	page->slab = slab;
	slab->cache = cache;
	slab->inuse = 0;
	slab->first_free = 0;
	for (i = 0; i < cache->objperslab; i++)
		slab->link[i] = (uint16_t)(i + 1);
	slab->link[cache->objperslab - 1] = US_OBJ_END;
	return slab;
}

static void us_slab_destroy(struct us_kmem_cache *cache, struct us_slab *slab)
{
	us_free_block(cache->mem, us_page_head(cache->mem, slab->addr));
	free(slab);
}

/* A slab with a free object, on the partial list; NULL if memory has run out. */
static struct us_slab *us_slab_for_alloc(struct us_kmem_cache *cache)
{
	struct us_slab *slab = cache->partial;

	if (slab)
		return slab;
	slab = cache->empty;
	cache->empty = NULL;
	if (!slab)
		slab = us_slab_create(cache);
	if (!slab)
		return NULL;
	us_slab_link(&cache->partial, slab);
	cache->active_slabs++;
	return slab;
}

/**
 * us_kmem_cache_zalloc - take one object, all zero
 * @cache: cache; NULL has no memory
 *
 * Context: may take pages from the arena. Return: the object, or NULL if there are none.
 */
void *us_kmem_cache_zalloc(struct us_kmem_cache *cache)
{
	struct us_slab *slab = cache ? us_slab_for_alloc(cache) : NULL;
	uint32_t index;
	uint8_t *obj;

	if (!slab)
		return NULL;
	index = slab->first_free;
	slab->first_free = slab->link[index];
	slab->link[index] = US_OBJ_USED;
	slab->inuse++;
	cache->active_objs++;
	if (slab->first_free == US_OBJ_END) {
		us_slab_unlink(&cache->partial, slab);
		us_slab_link(&cache->full, slab);
	}
	obj = cache->mem->base + slab->addr + (size_t)index * cache->stride;
	memset(obj, 0, cache->stride);
	return obj;
}

/* The slab of this cache that @offset lies in, or NULL. */
static struct us_slab *us_slab_of(const struct us_kmem_cache *cache, uint64_t offset)
{
	const struct us_page *page = us_page_head(cache->mem, offset);

	if (!page || page->state != US_PAGE_SLAB || page->slab->cache != cache)
		return NULL;
	return page->slab;
}

/* @slab has just become empty: keep it if it is the only one. */
static void us_slab_retire(struct us_kmem_cache *cache, struct us_slab *slab)
{
	us_slab_unlink(&cache->partial, slab);
	cache->active_slabs--;
	if (cache->empty)
		us_slab_destroy(cache, slab);
	else
		cache->empty = slab;
}

/**
 * us_kmem_cache_free - give an object back
 * @cache: cache that it came from, or NULL
 * @obj:   object
 *
 * A slab that becomes empty goes back to the buddy, except one that is kept for the next
 * allocation.
 *
 * Return: 0, or -EINVAL if @obj is not an object of @cache in use; nothing has changed then.
 */
int us_kmem_cache_free(struct us_kmem_cache *cache, void *obj)
{
	struct us_slab *slab;
	uint64_t offset, index;

	if (!cache)
		return -EINVAL;
	offset = (uint64_t)((uintptr_t)obj - (uintptr_t)cache->mem->base);
	slab = us_slab_of(cache, offset);
	if (!slab)
		return -EINVAL;
	index = (offset - slab->addr) / cache->stride;
	if ((offset - slab->addr) % cache->stride || index >= cache->objperslab)
		return -EINVAL;
	if (slab->link[index] != US_OBJ_USED)
		return -EINVAL;
	if (slab->first_free == US_OBJ_END) {
		us_slab_unlink(&cache->full, slab);
		us_slab_link(&cache->partial, slab);
	}
	slab->link[index] = slab->first_free;
	slab->first_free = (uint16_t)index;
	slab->inuse--;
	cache->active_objs--;
	if (slab->inuse == 0)
		us_slab_retire(cache, slab);
	return 0;
}

/**
 * us_kmem_cache_shrink - give the empty slab back that is kept for the next allocation
 * @cache: cache, or NULL
 *
 * Return: pages that are free now.
 */
uint32_t us_kmem_cache_shrink(struct us_kmem_cache *cache)
{
	if (!cache || !cache->empty)
		return 0;
	us_slab_destroy(cache, cache->empty);
	cache->empty = NULL;
	return UINT32_C(1) << cache->order;
}

/**
 * us_kmem_cache_info - the columns of /proc/slabinfo
 * @cache: cache
 * @out:   filled; objsize is what an object takes with its alignment
 */
void us_kmem_cache_info(const struct us_kmem_cache *cache, struct us_slabinfo *out)
{
	const uint32_t slabs = cache->active_slabs + (cache->empty ? 1 : 0);

	out->active_objs = cache->active_objs;
	out->num_objs = slabs * cache->objperslab;
	out->objsize = cache->stride;
	out->objperslab = cache->objperslab;
	out->pagesperslab = UINT32_C(1) << cache->order;
	out->active_slabs = cache->active_slabs;
	out->num_slabs = slabs;
}

static void us_cache_unlink(struct us_kmem_cache *cache)
{
	if (cache->prev)
		cache->prev->next = cache->next;
	else
		cache->mem->caches = cache->next;
	if (cache->next)
		cache->next->prev = cache->prev;
}

/**
 * us_kmem_cache_destroy - give the cache and its empty slab back
 * @cache: cache
 *
 * Return: 0, or -EBUSY while objects are in use; nothing has changed then.
 */
int us_kmem_cache_destroy(struct us_kmem_cache *cache)
{
	if (cache->active_objs)
		return -EBUSY;
	if (cache->empty)
		us_slab_destroy(cache, cache->empty);
	us_cache_unlink(cache);
	free(cache);
	return 0;
}

static void us_slab_free_list(struct us_slab *slab)
{
	struct us_slab *next;

	for (; slab; slab = next) {
		next = slab->next;
		free(slab);
	}
}

/**
 * us_slab_release_all - free the bookkeeping of every cache of an arena that goes away
 * @mem: arena; its pages are not given back
 */
void us_slab_release_all(struct us_mem *mem)
{
	struct us_kmem_cache *cache = mem->caches;
	struct us_kmem_cache *next;

	for (; cache; cache = next) {
		next = cache->next;
		us_slab_free_list(cache->partial);
		us_slab_free_list(cache->full);
		free(cache->empty);
		free(cache);
	}
	mem->caches = NULL;
}
