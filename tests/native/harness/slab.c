/* Slab caches against a list of live objects, in an arena that runs out. */

#include <errno.h>
#include <string.h>

#include "harness.h"
#include "mem.h"

#define CACHES 3
#define OBJECTS 600
#define STEPS 1500

struct object {
	uint8_t *obj;
	uint32_t cache;
	uint8_t fill;
};

struct model {
	struct us_mem *mem;
	struct us_kmem_cache *caches[CACHES];
	uint32_t objsize[CACHES];
	uint32_t active[CACHES];
	struct object objects[OBJECTS];
	uint32_t count;
};

static void check_filled(const uint8_t *p, uint8_t fill, uint32_t len)
{
	uint32_t i;

	for (i = 0; i < len; i++)
		CHECK(p[i] == fill);
}

static void alloc(struct model *model, struct rng *rng)
{
	struct object object = { .cache = rng_below(rng, CACHES) };

	if (model->count == OBJECTS)
		return;
	object.obj = us_kmem_cache_zalloc(model->caches[object.cache]);
	if (!object.obj)
		return;
	object.fill = (uint8_t)rng_below(rng, 256);
	check_filled(object.obj, 0, model->objsize[object.cache]);
	memset(object.obj, object.fill, model->objsize[object.cache]);
	model->active[object.cache]++;
	model->objects[model->count++] = object;
}

static void release(struct model *model, uint32_t which)
{
	const struct object object = model->objects[which];

	check_filled(object.obj, object.fill, model->objsize[object.cache]);
	CHECK(us_kmem_cache_free(model->caches[(object.cache + 1) % CACHES], object.obj) == -EINVAL);
	CHECK(us_kmem_cache_free(model->caches[object.cache], object.obj + 1) == -EINVAL);
	CHECK(us_kmem_cache_free(model->caches[object.cache], object.obj) == 0);
	CHECK(us_kmem_cache_free(model->caches[object.cache], object.obj) == -EINVAL);
	model->active[object.cache]--;
	model->objects[which] = model->objects[--model->count];
}

static void check_strangers(struct model *model, struct rng *rng)
{
	struct us_kmem_cache *cache = model->caches[rng_below(rng, CACHES)];
	us_dma_addr_t addr;

	CHECK(us_kmem_cache_free(cache, NULL) == -EINVAL);
	CHECK(us_kmem_cache_free(cache, (void *)(uintptr_t)rng_next(rng)) == -EINVAL);
	CHECK(us_kmem_cache_free(cache, us_mem_base(model->mem)) == -EINVAL);
	addr = us_alloc_pages(model->mem, 0);
	if (addr == US_NO_PAGE)
		return;
	CHECK(us_kmem_cache_free(cache, (uint8_t *)us_mem_base(model->mem) + addr) == -EINVAL);
	CHECK(us_put_page(model->mem, addr) == 0);
}

static void check_slab_pages_are_not_put(struct model *model, const struct object *object)
{
	const us_dma_addr_t addr = (us_dma_addr_t)(object->obj - (uint8_t *)us_mem_base(model->mem));

	CHECK(us_get_page(model->mem, addr) == -EINVAL);
	CHECK(us_put_page(model->mem, addr) == -EINVAL);
}

static void check_info(const struct model *model, uint32_t which)
{
	struct us_slabinfo info;

	us_kmem_cache_info(model->caches[which], &info);
	CHECK(info.active_objs == model->active[which]);
	CHECK(info.num_objs == info.num_slabs * info.objperslab);
	CHECK(info.active_objs <= info.active_slabs * info.objperslab);
	CHECK(info.num_slabs - info.active_slabs <= 1);
	CHECK(info.objsize >= model->objsize[which]);
	CHECK(info.objsize * info.objperslab <= info.pagesperslab * US_PAGE_SIZE);
}

static void step(struct model *model, struct rng *rng, uint32_t frees)
{
	const uint32_t which = model->count ? rng_below(rng, model->count) : 0;

	if (rng_below(rng, 20) == 0)
		check_strangers(model, rng);
	else if (model->count && rng_below(rng, 20) == 0)
		check_slab_pages_are_not_put(model, &model->objects[which]);
	else if (model->count && rng_below(rng, 10) < frees)
		release(model, which);
	else
		alloc(model, rng);
	check_info(model, rng_below(rng, CACHES));
}

HARNESS_TEST(slab)
{
	struct model *model = calloc(1, sizeof(*model));
	uint32_t first[11], last[11];
	uint32_t i;

	model->mem = us_mem_create((uint64_t)(20 + rng_below(rng, 200)) * US_PAGE_SIZE);
	us_mem_buddyinfo(model->mem, first);
	for (i = 0; i < CACHES; i++) {
		model->objsize[i] = 1 + rng_length(rng, rng_below(rng, 10) ? 600 : 32767);
		model->caches[i] = us_kmem_cache_create(model->mem, "harness", model->objsize[i]);
	}
	for (i = 0; i < STEPS; i++)
		step(model, rng, i % 500 < 250 ? 3 : 7);
	if (rng_below(rng, 2)) {
		while (model->count)
			release(model, rng_below(rng, model->count));
		for (i = 0; i < CACHES; i++)
			CHECK(us_kmem_cache_destroy(model->caches[i]) == 0);
		us_mem_buddyinfo(model->mem, last);
		CHECK(memcmp(first, last, sizeof(first)) == 0);
	} else if (model->count) {
		CHECK(us_kmem_cache_destroy(model->caches[model->objects[0].cache]) == -EBUSY);
	}
	us_mem_destroy(model->mem);
	free(model);
}

HARNESS_TEST(slab_refuses_bad_sizes)
{
	struct us_mem *mem = us_mem_create(UINT64_C(1) << 20);

	(void)rng;
	CHECK(!us_kmem_cache_create(mem, "none", 0));
	CHECK(!us_kmem_cache_create(mem, "huge", 8 * US_PAGE_SIZE + 1));
	CHECK(us_kmem_cache_create(mem, "a name that is much longer than a cache keeps", 1));
	CHECK(!us_mem_create(0));
	CHECK(!us_mem_create(US_PAGE_SIZE));
	CHECK(!us_mem_create(UINT64_MAX));
	us_mem_destroy(mem);
}
