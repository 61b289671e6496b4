/*
 * A FIFO of bytes in chunks, each a block of the buddy. A chunk starts with its header;
 * bytes between start and end are queued. Bytes are only ever written behind end, so a
 * frag that the NIC still points at never changes under it. A chunk's bytes lie behind its
 * header, or are somebody else's that it holds a reference to (us_bq_append_ref).
 */

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "arena.h"
#include "bytequeue.h"

#define US_CHUNK_MAX_ORDER 4

struct us_chunk {
	us_dma_addr_t next;
	us_dma_addr_t prev;
	us_dma_addr_t data;	/* what start and end count from: the block, or a mapping */
	uint32_t start;
	uint32_t end;
	uint32_t size;		/* end's limit: bytes of the block with this header, or lent */
	uint32_t truesize;	/* bytes of the block */
};

_Static_assert(sizeof(struct us_chunk) == US_BQ_HEADER, "callers leave room for it");

/* One place in the queue: @skip bytes into @chunk. */
struct us_bq_pos {
	const struct us_chunk *chunk;
	us_dma_addr_t addr;
	uint32_t skip;
};

static struct us_chunk *us_chunk_at(const struct us_mem *mem, us_dma_addr_t addr)
{
	return (struct us_chunk *)(void *)(mem->base + addr);
}

/* A queue names its chunks by their pages. */
static us_dma_addr_t us_addr_of(uint32_t page)
{
	return (us_dma_addr_t)page << US_PAGE_SHIFT;
}

static uint32_t us_page_of(us_dma_addr_t addr)
{
	return (uint32_t)(addr >> US_PAGE_SHIFT);
}

static uint32_t us_chunk_len(const struct us_chunk *chunk)
{
	return chunk->end - chunk->start;
}

static uint32_t us_min(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The smallest order whose chunk holds @bytes, at most US_CHUNK_MAX_ORDER. */
static uint32_t us_chunk_order(uint32_t bytes)
{
	uint32_t order = 0;

	while (order < US_CHUNK_MAX_ORDER &&
	       ((uint32_t)US_PAGE_SIZE << order) - sizeof(struct us_chunk) < bytes)
		order++;
	return order;
}

/* An empty chunk at the beginning of a block of @size bytes. */
static void us_chunk_init(struct us_chunk *chunk, us_dma_addr_t block, uint32_t size)
{
	chunk->data = block;
	chunk->start = sizeof(*chunk);
	chunk->end = sizeof(*chunk);
	chunk->truesize = size;
	chunk->size = size;
}

/* A chunk without bytes, in no queue; of a lower order if memory is in small pieces. */
static us_dma_addr_t us_chunk_alloc(struct us_mem *mem, uint32_t order)
{
	us_dma_addr_t addr = us_alloc_pages_wmark(mem, order, mem->queue_mark);

	while (addr == US_NO_PAGE && order > 0)
		addr = us_alloc_pages_wmark(mem, --order, mem->queue_mark);
	if (addr == US_NO_PAGE)
		return US_NO_PAGE;
	us_chunk_init(us_chunk_at(mem, addr), addr, (uint32_t)US_PAGE_SIZE << order);
	return addr;
}

/* Make a chunk the last one; what it holds already is queued. */
static void us_bq_link(struct us_mem *mem, struct us_bq *bq, us_dma_addr_t addr)
{
	struct us_chunk *chunk = us_chunk_at(mem, addr);

	chunk->next = US_NO_PAGE;
	chunk->prev = us_addr_of(bq->tail);
	if (bq->tail == US_NO_PAGE)
		bq->head = us_page_of(addr);
	else
		us_chunk_at(mem, us_addr_of(bq->tail))->next = addr;
	bq->tail = us_page_of(addr);
	bq->len += us_chunk_len(chunk);
	bq->truesize += chunk->truesize;
	mem->queue_pages += chunk->truesize >> US_PAGE_SHIFT;
}

/*
 * Add an empty chunk that should hold @want bytes: at least as much as is queued already,
 * so that a growing queue needs few of them; less if memory is in small pieces.
 */
static bool us_bq_grow(struct us_mem *mem, struct us_bq *bq, uint32_t want)
{
	const uint32_t order = us_chunk_order(want > bq->len ? want : bq->len);
	const us_dma_addr_t addr = us_chunk_alloc(mem, order);

	if (addr == US_NO_PAGE)
		return false;
	us_bq_link(mem, bq, addr);
	return true;
}

static bool us_bq_tail_is_full(const struct us_mem *mem, const struct us_bq *bq)
{
	const struct us_chunk *tail;

	if (bq->tail == US_NO_PAGE)
		return true;
	tail = us_chunk_at(mem, us_addr_of(bq->tail));
	return tail->end == tail->size;
}

/**
 * us_bq_append - copy bytes to the end of a queue
 * @mem: arena
 * @bq:  queue
 * @src: bytes
 * @len: how many; what would take the queue past 2^32 - 1 is left out
 *
 * Return: bytes appended; fewer than @len when the arena is full.
 */
uint32_t us_bq_append(struct us_mem *mem, struct us_bq *bq, const void *src, uint32_t len)
{
	const uint32_t todo = us_min(len, UINT32_MAX - bq->len);
	const uint8_t *from = src;
	uint32_t done = 0;
	struct us_chunk *tail;
	uint32_t n;

	while (done < todo) {
		if (us_bq_tail_is_full(mem, bq) && !us_bq_grow(mem, bq, todo - done))
			break;
		tail = us_chunk_at(mem, us_addr_of(bq->tail));
		n = us_min(todo - done, tail->size - tail->end);
		memcpy((uint8_t *)tail + tail->end, from + done, n);
		tail->end += n;
		bq->len += n;
		done += n;
	}
	return done;
}

/**
 * us_bq_append_forced - us_bq_append with the pages that are kept back (sk_forced_mem_schedule)
 * @mem:  arena
 * @bq:   queue
 * @src:  bytes
 * @len:  how many
 * @left: pages that must be left even so
 *
 * Return: as us_bq_append.
 */
uint32_t us_bq_append_forced(struct us_mem *mem, struct us_bq *bq, const void *src, uint32_t len,
			     uint32_t left)
{
	uint32_t done;

	mem->queue_mark = left;
	done = us_bq_append(mem, bq, src, len);
	mem->queue_mark = mem->min_free;
	return done;
}

/**
 * us_bq_alloc_chunk - take room that the caller fills before it is queued
 * @mem:  arena
 * @want: bytes wanted
 * @room: where to write, and how many bytes at most
 *
 * What is filled goes into a queue by us_bq_append_chunk(), without being copied; to give
 * the room up us_put_page() its address.
 *
 * Return: 0, or -ENOMEM.
 */
int us_bq_alloc_chunk(struct us_mem *mem, uint32_t want, struct us_frag *room)
{
	const us_dma_addr_t addr = us_chunk_alloc(mem, us_chunk_order(want));

	if (addr == US_NO_PAGE)
		return -ENOMEM;
	room->addr = addr + sizeof(struct us_chunk);
	room->len = us_chunk_at(mem, addr)->size - (uint32_t)sizeof(struct us_chunk);
	return 0;
}

/**
 * us_bq_append_chunk - queue what was written into a chunk
 * @mem:  arena
 * @bq:   queue
 * @addr: us_bq_alloc_chunk()'s address; the chunk is the queue's from here on
 * @len:  bytes written there, at least one
 *
 * Return: 0, or -EINVAL with nothing changed: no such room, or the queue would grow past
 * 2^32 - 1 bytes.
 */
int us_bq_append_chunk(struct us_mem *mem, struct us_bq *bq, us_dma_addr_t addr, uint32_t len)
{
	const us_dma_addr_t block = addr - sizeof(struct us_chunk);
	struct us_chunk *chunk;

	if (addr < sizeof(struct us_chunk) || block % US_PAGE_SIZE ||
	    us_page_refcount(mem, block) != 1)
		return -EINVAL;
	chunk = us_chunk_at(mem, block);
	if (!len || len > chunk->size - chunk->end || len > UINT32_MAX - bq->len)
		return -EINVAL;
	chunk->end += len;
	us_bq_link(mem, bq, block);
	return 0;
}

/**
 * us_bq_append_block - queue bytes that lie in a block of the buddy already
 * @mem:   arena
 * @bq:    queue
 * @block: of the caller alone, the queue's from here on; its first bytes are overwritten
 * @skip:  where the bytes begin, US_BQ_HEADER at least
 * @len:   how many, at least one
 *
 * Return: 0, or -EINVAL with nothing changed: they do not fit, or the queue would grow past
 * 2^32 - 1 bytes.
 */
int us_bq_append_block(struct us_mem *mem, struct us_bq *bq, us_dma_addr_t block, uint32_t skip,
		       uint32_t len)
{
	const struct us_page *page = us_page_head(mem, block);
	struct us_chunk *chunk = us_chunk_at(mem, block);
	uint32_t size;

	if (!page || page->state != US_PAGE_USED || page->refcount != 1 || block % US_PAGE_SIZE)
		return -EINVAL;
	size = (uint32_t)US_PAGE_SIZE << page->order;
	if (skip < US_BQ_HEADER || skip > size || !len || len > size - skip ||
	    len > UINT32_MAX - bq->len)
		return -EINVAL;
	us_chunk_init(chunk, block, size);
	chunk->start = skip;
	chunk->end = skip + len;
	us_bq_link(mem, bq, block);
	return 0;
}

/**
 * us_bq_append_ref - queue bytes where they lie
 * @mem:  arena
 * @bq:   queue
 * @addr: bytes outside the arena (us_dma_map); one reference passes to the queue
 * @len:  how many, at least one
 *
 * Return: 0; -ENOMEM or -EINVAL with nothing changed, the reference still the caller's.
 */
int us_bq_append_ref(struct us_mem *mem, struct us_bq *bq, us_dma_addr_t addr, uint32_t len)
{
	us_dma_addr_t block;
	struct us_chunk *chunk;

	if (!(addr & US_DMA_MAPPED) || !len || !us_mem_read_at(mem, addr, len) ||
	    len > UINT32_MAX - bq->len)
		return -EINVAL;
	block = us_chunk_alloc(mem, 0);
	if (block == US_NO_PAGE)
		return -ENOMEM;
	chunk = us_chunk_at(mem, block);
	chunk->data = addr;
	chunk->start = 0;
	chunk->end = len;
	chunk->size = len;
	us_bq_link(mem, bq, block);
	return 0;
}

/* Find byte @off < bq->len, from whichever end is nearer. */
static struct us_bq_pos us_bq_seek(const struct us_mem *mem, const struct us_bq *bq, uint32_t off)
{
	struct us_bq_pos pos = { .addr = us_addr_of(bq->head), .skip = off };
	uint32_t behind = bq->len - off;	/* bytes from off to the end */

	if (off <= behind) {
		pos.chunk = us_chunk_at(mem, pos.addr);
		while (pos.skip >= us_chunk_len(pos.chunk)) {
			pos.skip -= us_chunk_len(pos.chunk);
			pos.addr = pos.chunk->next;
			pos.chunk = us_chunk_at(mem, pos.addr);
		}
		return pos;
	}
	pos.addr = us_addr_of(bq->tail);
	pos.chunk = us_chunk_at(mem, pos.addr);
	while (behind > us_chunk_len(pos.chunk)) {
		behind -= us_chunk_len(pos.chunk);
		pos.addr = pos.chunk->prev;
		pos.chunk = us_chunk_at(mem, pos.addr);
	}
	pos.skip = us_chunk_len(pos.chunk) - behind;
	return pos;
}

/**
 * us_bq_peek - copy bytes out and leave them queued
 * @mem: arena
 * @bq:  queue
 * @off: first byte wanted
 * @dst: room for @len bytes
 * @len: how many
 *
 * Return: bytes copied; fewer than @len at the end of the queue.
 */
uint32_t us_bq_peek(struct us_mem *mem, const struct us_bq *bq, uint32_t off, void *dst, uint32_t len)
{
	struct us_bq_pos pos;
	uint8_t *to = dst;
	uint32_t done = 0;
	uint32_t n;

	if (off >= bq->len)
		return 0;
	len = us_min(len, bq->len - off);
	for (pos = us_bq_seek(mem, bq, off); done < len; pos.skip = 0) {
		n = us_min(len - done, us_chunk_len(pos.chunk) - pos.skip);
		memcpy(to + done,
		       us_mem_read_at(mem, pos.chunk->data + pos.chunk->start + pos.skip, n), n);
		done += n;
		if (done < len)
			pos.chunk = us_chunk_at(mem, pos.chunk->next);
	}
	return done;
}

static void us_bq_drop_head(struct us_mem *mem, struct us_bq *bq)
{
	const us_dma_addr_t addr = us_addr_of(bq->head);
	const struct us_chunk *chunk = us_chunk_at(mem, addr);

	bq->head = us_page_of(chunk->next);
	bq->truesize -= chunk->truesize;
	mem->queue_pages -= chunk->truesize >> US_PAGE_SHIFT;
	if (bq->head == US_NO_PAGE)
		bq->tail = US_NO_PAGE;
	else
		us_chunk_at(mem, us_addr_of(bq->head))->prev = US_NO_PAGE;
	if (chunk->data != addr)
		us_put_page(mem, chunk->data);
	us_put_page(mem, addr);
}

/**
 * us_bq_drop - forget bytes at the head
 * @mem: arena
 * @bq:  queue
 * @len: how many
 *
 * A chunk without bytes is put at once; the NIC may still hold a reference to it.
 *
 * Return: bytes dropped; fewer than @len if there were fewer.
 */
uint32_t us_bq_drop(struct us_mem *mem, struct us_bq *bq, uint32_t len)
{
	const uint32_t todo = us_min(len, bq->len);
	uint32_t done = 0;
	struct us_chunk *head;
	uint32_t n;

	while (done < todo) {
		head = us_chunk_at(mem, us_addr_of(bq->head));
		n = us_min(todo - done, us_chunk_len(head));
		head->start += n;
		bq->len -= n;
		done += n;
		if (head->start == head->end)
			us_bq_drop_head(mem, bq);
	}
	return done;
}

/**
 * us_bq_read - copy bytes out of the head and drop them
 * @mem: arena
 * @bq:  queue
 * @dst: room for @len bytes
 * @len: how many
 *
 * Return: bytes read; fewer than @len if there were fewer.
 */
uint32_t us_bq_read(struct us_mem *mem, struct us_bq *bq, void *dst, uint32_t len)
{
	const uint32_t n = us_bq_peek(mem, bq, 0, dst, len);

	return us_bq_drop(mem, bq, n);
}

/* List the pieces of [off, off + len) without taking references. */
static int us_bq_list(const struct us_mem *mem, const struct us_bq *bq, uint32_t off, uint32_t len,
		      struct us_frag *frags, int max)
{
	struct us_bq_pos pos = us_bq_seek(mem, bq, off);
	int count = 0;
	uint32_t n;

	for (;; pos.skip = 0) {
		if (count >= max)
			return -1;
		n = us_min(len, us_chunk_len(pos.chunk) - pos.skip);
		frags[count].addr = pos.chunk->data + pos.chunk->start + pos.skip;
		frags[count].len = n;
		count++;
		len -= n;
		if (len == 0)
			return count;
		pos.addr = pos.chunk->next;
		pos.chunk = us_chunk_at(mem, pos.addr);
	}
}

/**
 * us_bq_frags - point at bytes without copying them
 * @mem:   arena
 * @bq:    queue
 * @off:   first byte
 * @len:   how many
 * @frags: filled; together exactly [@off, @off + @len)
 * @max:   room in @frags
 *
 * Each frag holds one reference to its page: us_put_page() of its address ends it.
 *
 * Return: frags filled; -1 if @max is too small, -EINVAL if the queue has not that many
 * bytes. No reference is taken then.
 */
int us_bq_frags(struct us_mem *mem, const struct us_bq *bq, uint32_t off, uint32_t len,
		struct us_frag *frags, int max)
{
	int count, i;

	if (off > bq->len || len > bq->len - off)
		return -EINVAL;
	if (len == 0)
		return 0;
	count = us_bq_list(mem, bq, off, len, frags, max);
	for (i = 0; i < count; i++)
		us_get_page(mem, frags[i].addr);
	return count;
}

/**
 * us_bq_room - bytes that a queue can take without another page
 * @mem: arena
 * @bq:  queue
 */
uint32_t us_bq_room(const struct us_mem *mem, const struct us_bq *bq)
{
	const struct us_chunk *tail;

	if (bq->tail == US_NO_PAGE)
		return 0;
	tail = us_chunk_at(mem, us_addr_of(bq->tail));
	return tail->size - tail->end;
}

/**
 * us_bq_lent - bytes of a queue's chunks that somebody else refers to, a device's ring for one
 * @mem: arena
 * @bq:  queue
 */
uint32_t us_bq_lent(const struct us_mem *mem, const struct us_bq *bq)
{
	us_dma_addr_t addr = us_addr_of(bq->head);
	uint32_t lent = 0;

	while (addr != US_NO_PAGE) {
		const struct us_chunk *chunk = us_chunk_at(mem, addr);

		if (us_page_refcount(mem, chunk->data) > 1)
			lent += chunk->truesize;
		addr = chunk->next;
	}
	return lent;
}

/**
 * us_bq_purge - drop everything
 * @mem: arena
 * @bq:  queue; empty and without pages afterwards
 */
void us_bq_purge(struct us_mem *mem, struct us_bq *bq)
{
	us_bq_drop(mem, bq, bq->len);
}
