/*
 * Memory that is not the arena's but may be sent from: a caller's buffer, lent until nobody
 * refers to it any more (dma_map_single, and MSG_ZEROCOPY's completions). A mapping's bytes
 * have addresses above the arena; get_page and put_page count its references like a page's.
 */

#include <errno.h>
#include <stdlib.h>

#include "arena.h"

#define US_MAPPINGS_MIN 16
#define US_MAPPINGS_MAX 65536
#define US_MAPPING_NONE UINT32_MAX

struct us_mapping {
	const uint8_t *bytes;
	uint32_t len;
	uint32_t refcount;	/* 0: free, or over and not yet told */
	uint32_t next;		/* on the list of free ones, or of those that are over */
};

static uint32_t us_mapping_id(us_dma_addr_t addr)
{
	return (uint32_t)((addr & ~(us_dma_addr_t)US_DMA_MAPPED) >> 32);
}

static struct us_mapping *us_mapping_of(const struct us_mem *mem, us_dma_addr_t addr)
{
	const uint32_t id = us_mapping_id(addr);

	if (id >= mem->nmappings || !mem->mappings[id].refcount)
		return NULL;
	return &mem->mappings[id];
}

/* Room for twice as many mappings; the new ones are free. */
static bool us_mappings_grow(struct us_mem *mem)
{
	const uint32_t count = mem->nmappings ? mem->nmappings * 2 : US_MAPPINGS_MIN;
	struct us_mapping *grown;

	if (count > US_MAPPINGS_MAX)
		return false;
	grown = realloc(mem->mappings, count * sizeof(*grown));
	if (!grown)
		return false;
	mem->mappings = grown;
	for (uint32_t id = mem->nmappings; id < count; id++)
		grown[id] = (struct us_mapping){
			.next = id + 1 < count ? id + 1 : US_MAPPING_NONE,
		};
	mem->free_mapping = mem->nmappings;
	mem->nmappings = count;
	return true;
}

/**
 * us_dma_map_init - start without mappings
 * @mem: new arena
 */
void us_dma_map_init(struct us_mem *mem)
{
	mem->free_mapping = US_MAPPING_NONE;
	mem->first_unmapped = US_MAPPING_NONE;
	mem->last_unmapped = US_MAPPING_NONE;
}

/**
 * us_dma_map - let bytes outside the arena be sent from
 * @mem:   arena
 * @bytes: must stay where they are, and as they are, until us_dma_unmapped() names them
 * @len:   how many, at least one
 *
 * Return: the address of the first byte, with one reference for us_put_page(); its bits 32
 * to 47 are the mapping's number. US_NO_PAGE if there are too many mappings.
 */
us_dma_addr_t us_dma_map(struct us_mem *mem, const void *bytes, uint32_t len)
{
	struct us_mapping *mapping;
	uint32_t id;

	if (!len || (mem->free_mapping == US_MAPPING_NONE && !us_mappings_grow(mem)))
		return US_NO_PAGE;
	id = mem->free_mapping;
	mapping = &mem->mappings[id];
	mem->free_mapping = mapping->next;
	mapping->bytes = bytes;
	mapping->len = len;
	mapping->refcount = 1;
	return US_DMA_MAPPED | (us_dma_addr_t)id << 32;
}

/**
 * us_dma_unmapped - name a mapping that nobody refers to any more
 * @mem: arena
 *
 * Each is named once, in the order in which they ended; its number may be used again then.
 *
 * Return: the number, or -1 if there is none.
 */
int64_t us_dma_unmapped(struct us_mem *mem)
{
	const uint32_t id = mem->first_unmapped;
	struct us_mapping *mapping;

	if (id == US_MAPPING_NONE)
		return -1;
	mapping = &mem->mappings[id];
	mem->first_unmapped = mapping->next;
	if (mem->first_unmapped == US_MAPPING_NONE)
		mem->last_unmapped = US_MAPPING_NONE;
	mapping->bytes = NULL;
	mapping->next = mem->free_mapping;
	mem->free_mapping = id;
	return id;
}

/**
 * us_mapped_at - the bytes [@addr, @addr + @len) of a mapping, to be read only
 * @mem:  arena
 * @addr: from a descriptor perhaps: not trusted
 * @len:  bytes that the caller will read
 *
 * Return: pointer, or NULL if there is no such mapping or it is shorter.
 */
const uint8_t *us_mapped_at(const struct us_mem *mem, us_dma_addr_t addr, uint64_t len)
{
	const struct us_mapping *mapping = us_mapping_of(mem, addr);
	const uint32_t off = (uint32_t)addr;

	if (!mapping || off > mapping->len || len > mapping->len - off)
		return NULL;
	return mapping->bytes + off;
}

/* us_get_page, us_put_page and us_page_refcount of a mapped address. */

int us_get_mapping(struct us_mem *mem, us_dma_addr_t addr)
{
	struct us_mapping *mapping = us_mapping_of(mem, addr);

	if (!mapping || mapping->refcount == UINT32_MAX)
		return -EINVAL;
	mapping->refcount++;
	return 0;
}

int us_put_mapping(struct us_mem *mem, us_dma_addr_t addr)
{
	struct us_mapping *mapping = us_mapping_of(mem, addr);
	const uint32_t id = us_mapping_id(addr);

	if (!mapping)
		return -EINVAL;
	if (--mapping->refcount)
		return 0;
	mapping->next = US_MAPPING_NONE;
	if (mem->last_unmapped == US_MAPPING_NONE)
		mem->first_unmapped = id;
	else
		mem->mappings[mem->last_unmapped].next = id;
	mem->last_unmapped = id;
	return 0;
}

uint32_t us_mapping_refcount(const struct us_mem *mem, us_dma_addr_t addr)
{
	const struct us_mapping *mapping = us_mapping_of(mem, addr);

	return mapping ? mapping->refcount : 0;
}
