/* The buddy against a list of live blocks. */

#include <errno.h>
#include <string.h>

#include "harness.h"
#include "mem.h"

#define PAGES 3000
#define BLOCKS 200
#define STEPS 400

struct block {
	us_dma_addr_t addr;
	uint32_t order;
	uint32_t refs;
};

struct model {
	struct us_mem *mem;
	struct block blocks[BLOCKS];
	uint32_t count;
	uint64_t used;
	uint8_t taken[PAGES];
};

static us_dma_addr_t somewhere_in(struct rng *rng, const struct block *block)
{
	return block->addr + rng_below(rng, (uint32_t)US_PAGE_SIZE << block->order);
}

static void mark(struct model *model, const struct block *block, uint8_t taken)
{
	uint32_t page = (uint32_t)(block->addr >> US_PAGE_SHIFT);
	uint32_t i;

	for (i = 0; i < UINT32_C(1) << block->order; i++) {
		CHECK(model->taken[page + i] == !taken);
		model->taken[page + i] = taken;
	}
	model->used += taken ? UINT64_C(1) << block->order : 0;
	model->used -= taken ? 0 : UINT64_C(1) << block->order;
}

static void alloc(struct model *model, uint32_t order)
{
	struct block *block = &model->blocks[model->count];
	us_dma_addr_t addr;

	if (model->count == BLOCKS)
		return;
	addr = us_alloc_pages(model->mem, order);
	if (addr == US_NO_PAGE)
		return;
	CHECK(addr % ((uint64_t)US_PAGE_SIZE << order) == 0);
	CHECK(addr + ((uint64_t)US_PAGE_SIZE << order) <= us_mem_size(model->mem));
	*block = (struct block){ addr, order, 1 };
	mark(model, block, 1);
	memset((uint8_t *)us_mem_base(model->mem) + addr, 0xaa, (size_t)US_PAGE_SIZE << order);
	model->count++;
}

static void put(struct model *model, uint32_t which, us_dma_addr_t addr)
{
	struct block *block = &model->blocks[which];

	CHECK(us_put_page(model->mem, addr) == 0);
	if (--block->refs)
		return;
	mark(model, block, 0);
	*block = model->blocks[--model->count];
}

static void check_stranger(struct model *model, us_dma_addr_t addr)
{
	const uint64_t page = addr >> US_PAGE_SHIFT;

	if (page < PAGES && model->taken[page]) {
		CHECK(us_page_refcount(model->mem, addr) > 0);
		return;
	}
	CHECK(us_get_page(model->mem, addr) == -EINVAL);
	CHECK(us_put_page(model->mem, addr) == -EINVAL);
	CHECK(us_page_refcount(model->mem, addr) == 0);
}

static void step(struct model *model, struct rng *rng)
{
	const uint32_t which = model->count ? rng_below(rng, model->count) : 0;
	struct block *block = &model->blocks[which];

	switch (rng_below(rng, 6)) {
	case 0:
	case 1:
		alloc(model, rng_below(rng, rng_below(rng, 13) + 1));
		return;
	case 2:
		check_stranger(model, rng_below(rng, (PAGES + 10) * (uint32_t)US_PAGE_SIZE));
		check_stranger(model, rng_next(rng));
		return;
	case 3:
		if (!model->count)
			return;
		CHECK(us_get_page(model->mem, somewhere_in(rng, block)) == 0);
		block->refs++;
		CHECK(us_page_refcount(model->mem, somewhere_in(rng, block)) == block->refs);
		return;
	default:
		if (model->count)
			put(model, which, somewhere_in(rng, block));
	}
}

HARNESS_TEST(buddy)
{
	const uint32_t pages = 2 + rng_below(rng, PAGES - 1);
	struct model *model = calloc(1, sizeof(*model));
	uint32_t first[11], last[11];
	int i;

	model->mem = us_mem_create((uint64_t)pages * US_PAGE_SIZE);
	us_mem_buddyinfo(model->mem, first);
	for (i = 0; i < STEPS; i++) {
		step(model, rng);
		CHECK(us_mem_free_pages(model->mem) == pages - 1 - model->used);
	}
	while (model->count)
		put(model, 0, somewhere_in(rng, &model->blocks[0]));
	us_mem_buddyinfo(model->mem, last);
	CHECK(memcmp(first, last, sizeof(first)) == 0);
	us_mem_destroy(model->mem);
	free(model);
}
