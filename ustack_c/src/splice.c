/*
 * Between a byte queue and a descriptor of another process: one system call a transfer.
 * TCP's receive queue is written from where its bytes lie; what a client wrote is read into
 * scratch space first, because how much it is is known only afterwards.
 */

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "arena.h"
#include "splice.h"

/* Point @iov at up to @len bytes of @bq's head; returns how many entries it took. */
static int us_splice_iov(struct us_mem *mem, const struct us_bq *bq, uint32_t len,
			 struct us_frag *frags, struct iovec *iov)
{
	int count, i;

	do
		count = us_bq_frags(mem, bq, 0, len, frags, US_SPLICE_MAX_FRAGS);
	while (count == -1 && (len /= 2));
	for (i = 0; i < count; i++) {
		iov[i].iov_base = (void *)(uintptr_t)us_mem_read_at(mem, frags[i].addr, frags[i].len);
		iov[i].iov_len = frags[i].len;
	}
	return count;
}

/**
 * us_bq_splice_out - write a queue's first bytes to a socket and drop what it took
 * @mem: arena
 * @bq:  queue
 * @fd:  a socket; the call does not wait for it, nor raise SIGPIPE
 * @len: how many at most, no more than @bq holds
 *
 * Return: bytes moved, or -errno with nothing changed (-EAGAIN: the socket is full, -EPIPE:
 * nobody will read there).
 */
int64_t us_bq_splice_out(struct us_mem *mem, struct us_bq *bq, int fd, uint32_t len)
{
	struct us_frag frags[US_SPLICE_MAX_FRAGS];
	struct iovec iov[US_SPLICE_MAX_FRAGS];
	struct msghdr msg = { .msg_iov = iov };
	int64_t sent = -EINVAL;
	int count, i;

	count = us_splice_iov(mem, bq, len, frags, iov);
	if (count > 0) {
		msg.msg_iovlen = (size_t)count;
		sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0)
			sent = -errno;
	}
	for (i = 0; i < count; i++)
		us_put_page(mem, frags[i].addr);
	if (sent > 0)
		us_bq_drop(mem, bq, (uint32_t)sent);
	return sent;
}

/**
 * us_bq_splice_in - read from a socket into a queue
 * @mem:     arena
 * @bq:      queue
 * @fd:      a socket; the call does not wait for it
 * @scratch: room for @len bytes
 * @len:     how many at most
 * @taken:   how many of the bytes read are queued: all, unless the arena is full
 *
 * What is read but not queued lies in @scratch, from *@taken on, and is the caller's to keep.
 *
 * Return: bytes read, 0 at the end of the stream, or -errno (-EAGAIN: there are none now).
 */
int64_t us_bq_splice_in(struct us_mem *mem, struct us_bq *bq, int fd, void *scratch, uint32_t len,
			uint32_t *taken)
{
	const int64_t got = recv(fd, scratch, len, MSG_DONTWAIT);

	*taken = 0;
	if (got < 0)
		return -errno;
	*taken = us_bq_append(mem, bq, scratch, (uint32_t)got);
	return got;
}
