#ifndef USTACK_ABI_BYTEQUEUE_H
#define USTACK_ABI_BYTEQUEUE_H

#include "mem.h"

#define US_BQ_HEADER 40	/* bytes of a block in front of those that are queued */

/*
 * A FIFO of bytes in arena pages: TCP's receive queue and send queue. It owns no
 * page while it is empty. head and tail are the page numbers of its first and
 * last chunk; all zero is a valid empty queue.
 */
struct us_bq {
	uint32_t head;
	uint32_t tail;
	uint32_t len;
	uint32_t truesize;
};

uint32_t us_bq_append(struct us_mem *mem, struct us_bq *bq, const void *src, uint32_t len);
uint32_t us_bq_append_forced(struct us_mem *mem, struct us_bq *bq, const void *src, uint32_t len,
			     uint32_t left);
int us_bq_alloc_chunk(struct us_mem *mem, uint32_t want, struct us_frag *room);
int us_bq_append_chunk(struct us_mem *mem, struct us_bq *bq, us_dma_addr_t addr, uint32_t len);
int us_bq_append_block(struct us_mem *mem, struct us_bq *bq, us_dma_addr_t block, uint32_t skip,
		       uint32_t len);
int us_bq_append_ref(struct us_mem *mem, struct us_bq *bq, us_dma_addr_t addr, uint32_t len);
uint32_t us_bq_peek(struct us_mem *mem, const struct us_bq *bq, uint32_t off, void *dst, uint32_t len);
uint32_t us_bq_read(struct us_mem *mem, struct us_bq *bq, void *dst, uint32_t len);
uint32_t us_bq_drop(struct us_mem *mem, struct us_bq *bq, uint32_t len);
int us_bq_frags(struct us_mem *mem, const struct us_bq *bq, uint32_t off, uint32_t len,
		struct us_frag *frags, int max);
uint32_t us_bq_room(const struct us_mem *mem, const struct us_bq *bq);
uint32_t us_bq_lent(const struct us_mem *mem, const struct us_bq *bq);
void us_bq_purge(struct us_mem *mem, struct us_bq *bq);

#endif
