#ifndef USTACK_ABI_SPLICE_H
#define USTACK_ABI_SPLICE_H

#include "bytequeue.h"

#define US_SPLICE_MAX_FRAGS 64

/* A byte queue's bytes to and from a client's descriptor; see src/splice.c. */
int64_t us_bq_splice_out(struct us_mem *mem, struct us_bq *bq, int fd, uint32_t len);
int64_t us_bq_splice_in(struct us_mem *mem, struct us_bq *bq, int fd, void *scratch, uint32_t len,
			uint32_t *taken);

#endif
