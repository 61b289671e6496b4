/* Byte queues against a flat array, with frags that the "NIC" holds for a while. */

#include <errno.h>
#include <string.h>

#include "bytequeue.h"
#include "harness.h"

#define QUEUES 2
#define LIMIT 400000
#define HELD 40
#define STEPS 200
#define MAX_FRAGS 17
#define MAX_LENT 64
#define CHUNK_HEADER 40

struct flat {
	uint8_t bytes[LIMIT];
	uint32_t len;
};

struct held {
	struct us_frag frag;
	uint8_t *copy;
};

struct model {
	struct us_mem *mem;
	struct us_bq bq[QUEUES];
	struct flat flat[QUEUES];
	struct held held[HELD];
	uint32_t held_count;
	uint8_t out[LIMIT];
	uint8_t *lent[MAX_LENT];	/* by the mapping's number; freed once it is over */
};

static const uint8_t *at(const struct model *model, us_dma_addr_t addr)
{
	if (addr & US_DMA_MAPPED)
		return model->lent[addr >> 32 & 0xffff] + (uint32_t)addr;
	return (const uint8_t *)us_mem_base(model->mem) + addr;
}

/* An offset into the queue, often just where a chunk begins. */
static uint32_t offset_in(struct model *model, struct rng *rng, uint32_t q)
{
	const uint32_t len = model->flat[q].len;
	struct us_frag list[64];
	int count, i, stop;
	uint32_t off = 0;

	if (rng_below(rng, 3) == 0)
		return rng_length(rng, len);
	count = us_bq_frags(model->mem, &model->bq[q], 0, len, list, 64);
	stop = count > 0 ? (int)rng_below(rng, (uint32_t)count + 1) : 0;
	for (i = 0; i < count; i++) {
		off += i < stop ? list[i].len : 0;
		CHECK(us_put_page(model->mem, list[i].addr) == 0);
	}
	return off;
}

static void append(struct model *model, struct rng *rng, uint32_t q)
{
	struct flat *flat = &model->flat[q];
	const uint32_t len = rng_length(rng, rng_below(rng, 2) ? 3000 : 100000);
	uint8_t *src;
	uint32_t done;

	if (flat->len + len > LIMIT)
		return;
	src = malloc(len);
	rng_fill(rng, src, len);
	done = us_bq_append(model->mem, &model->bq[q], src, len);
	CHECK(done <= len);
	CHECK(done == len || us_alloc_pages(model->mem, 0) == US_NO_PAGE);
	memcpy(flat->bytes + flat->len, src, done);
	flat->len += done;
	free(src);
}

/* Fill a chunk that is in no queue yet, then queue it; sometimes give it up. */
static void append_chunk(struct model *model, struct rng *rng, uint32_t q)
{
	struct flat *flat = &model->flat[q];
	struct us_frag room;
	uint8_t *to;
	uint32_t len;

	if (us_bq_alloc_chunk(model->mem, rng_length(rng, 100000), &room)) {
		CHECK(us_alloc_pages(model->mem, 0) == US_NO_PAGE);
		return;
	}
	CHECK(room.len >= US_PAGE_SIZE - CHUNK_HEADER);
	len = rng_length(rng, room.len);
	to = (uint8_t *)us_mem_base(model->mem) + room.addr;
	rng_fill(rng, to, len);
	CHECK(us_bq_append_chunk(model->mem, &model->bq[q], room.addr, room.len + 1) == -EINVAL);
	CHECK(us_bq_append_chunk(model->mem, &model->bq[q], room.addr + 1, 1) == -EINVAL);
	if (!len || flat->len + len > LIMIT || rng_below(rng, 8) == 0) {
		CHECK(us_put_page(model->mem, room.addr) == 0);
		return;
	}
	CHECK(us_bq_append_chunk(model->mem, &model->bq[q], room.addr, len) == 0);
	memcpy(flat->bytes + flat->len, to, len);
	flat->len += len;
}

/* Lend a buffer of its own to a queue: whoever reads it when it is over hits freed memory. */
static void append_ref(struct model *model, struct rng *rng, uint32_t q)
{
	struct flat *flat = &model->flat[q];
	const uint32_t len = 1 + rng_length(rng, 70000);
	us_dma_addr_t addr;
	uint8_t *bytes;
	uint32_t id;

	if (flat->len + len > LIMIT)
		return;
	bytes = malloc(len);
	rng_fill(rng, bytes, len);
	addr = us_dma_map(model->mem, bytes, len);
	CHECK(addr & US_DMA_MAPPED);
	id = addr >> 32 & 0xffff;
	if (id >= MAX_LENT) {
		CHECK(us_put_page(model->mem, addr) == 0);
		CHECK(us_dma_unmapped(model->mem) == id);
		free(bytes);
		return;
	}
	CHECK(!model->lent[id]);
	model->lent[id] = bytes;
	CHECK(us_bq_append_ref(model->mem, &model->bq[q], addr, len + 1) == -EINVAL);
	if (us_bq_append_ref(model->mem, &model->bq[q], addr, len)) {
		CHECK(us_alloc_pages(model->mem, 0) == US_NO_PAGE);
		CHECK(us_put_page(model->mem, addr) == 0);
		return;
	}
	memcpy(flat->bytes + flat->len, bytes, len);
	flat->len += len;
}

static void free_unmapped(struct model *model)
{
	int64_t id;

	while ((id = us_dma_unmapped(model->mem)) >= 0) {
		CHECK(id < MAX_LENT && model->lent[id]);
		free(model->lent[id]);
		model->lent[id] = NULL;
		CHECK(us_get_page(model->mem, US_DMA_MAPPED | (uint64_t)id << 32) == -EINVAL);
	}
}

static void forget(struct flat *flat, uint32_t len)
{
	memmove(flat->bytes, flat->bytes + len, flat->len - len);
	flat->len -= len;
}

static void take(struct model *model, struct rng *rng, uint32_t q)
{
	struct flat *flat = &model->flat[q];
	const uint32_t len = rng_length(rng, LIMIT / 4);
	const uint32_t want = len < flat->len ? len : flat->len;

	if (rng_below(rng, 2)) {
		CHECK(us_bq_read(model->mem, &model->bq[q], model->out, len) == want);
		CHECK(memcmp(model->out, flat->bytes, want) == 0);
	} else {
		CHECK(us_bq_drop(model->mem, &model->bq[q], len) == want);
	}
	forget(flat, want);
}

static void peek(struct model *model, struct rng *rng, uint32_t q)
{
	const struct flat *flat = &model->flat[q];
	const uint32_t off = offset_in(model, rng, q) + rng_below(rng, 2) * rng_below(rng, 10);
	const uint32_t len = rng_length(rng, LIMIT / 4);
	const uint32_t left = off < flat->len ? flat->len - off : 0;
	const uint32_t want = len < left ? len : left;

	CHECK(us_bq_peek(model->mem, &model->bq[q], off, model->out, len) == want);
	CHECK(memcmp(model->out, flat->bytes + (off < flat->len ? off : 0), want) == 0);
}

static void put_held(struct model *model, uint32_t which)
{
	struct held *held = &model->held[which];

	CHECK(memcmp(at(model, held->frag.addr), held->copy, held->frag.len) == 0);
	CHECK(us_put_page(model->mem, held->frag.addr) == 0);
	free(held->copy);
	*held = model->held[--model->held_count];
}

static void hold(struct model *model, const struct us_frag *frag)
{
	struct held *held = &model->held[model->held_count];

	if (model->held_count == HELD) {
		CHECK(us_put_page(model->mem, frag->addr) == 0);
		return;
	}
	held->frag = *frag;
	held->copy = malloc(frag->len);
	memcpy(held->copy, at(model, frag->addr), frag->len);
	model->held_count++;
}

static void frags(struct model *model, struct rng *rng, uint32_t q)
{
	const struct flat *flat = &model->flat[q];
	const uint32_t off = offset_in(model, rng, q);
	const uint32_t len = rng_length(rng, flat->len - off < 65536 ? flat->len - off : 65536);
	const int max = (int)rng_below(rng, MAX_FRAGS + 1);
	struct us_frag *list = malloc(sizeof(*list) * (size_t)max);
	uint32_t done = 0;
	int count, i;

	CHECK(us_bq_frags(model->mem, &model->bq[q], off, flat->len - off + 1, list, max) == -EINVAL);
	CHECK(us_bq_frags(model->mem, &model->bq[q], flat->len + 1, 0, list, max) == -EINVAL);
	count = us_bq_frags(model->mem, &model->bq[q], off, len, list, max);
	CHECK(count >= -1 && count <= max);
	for (i = 0; i < count; i++) {
		CHECK(list[i].len > 0 && list[i].len <= len - done);
		CHECK(memcmp(at(model, list[i].addr), flat->bytes + off + done, list[i].len) == 0);
		CHECK(us_page_refcount(model->mem, list[i].addr) >= 2);
		done += list[i].len;
		hold(model, &list[i]);
	}
	CHECK(count == -1 || done == len);
	free(list);
}

static void step(struct model *model, struct rng *rng)
{
	const uint32_t q = rng_below(rng, QUEUES);

	free_unmapped(model);
	switch (rng_below(rng, 10)) {
	case 0:
	case 1:
	case 2:
		append(model, rng, q);
		break;
	case 3:
		take(model, rng, q);
		break;
	case 4:
		peek(model, rng, q);
		break;
	case 5:
		append_chunk(model, rng, q);
		break;
	case 6:
		append_ref(model, rng, q);
		break;
	case 7:
	case 8:
		frags(model, rng, q);
		break;
	default:
		while (model->held_count && rng_below(rng, 4))
			put_held(model, rng_below(rng, model->held_count));
	}
	CHECK(model->bq[q].len == model->flat[q].len);
	CHECK((model->bq[q].len == 0) == (model->bq[q].truesize == 0));
	CHECK((model->bq[q].len == 0) == (model->bq[q].head == US_NO_PAGE));
}

HARNESS_TEST(bytequeue)
{
	struct model *model = calloc(1, sizeof(*model));
	uint32_t first[11], last[11];
	uint32_t i;

	model->mem = us_mem_create((uint64_t)(8 + rng_below(rng, 250)) * US_PAGE_SIZE);
	us_mem_buddyinfo(model->mem, first);
	for (i = 0; i < STEPS; i++)
		step(model, rng);
	for (i = 0; i < QUEUES; i++)
		us_bq_purge(model->mem, &model->bq[i]);
	while (model->held_count)
		put_held(model, 0);
	free_unmapped(model);
	for (i = 0; i < MAX_LENT; i++)
		CHECK(!model->lent[i]);
	us_mem_buddyinfo(model->mem, last);
	CHECK(memcmp(first, last, sizeof(first)) == 0);
	us_mem_destroy(model->mem);
	free(model);
}
