#ifndef USTACK_PRELOAD_H
#define USTACK_PRELOAD_H

/* What the parts of the preload library know of each other. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "ustack_proto.h"

#define EXPORT __attribute__((visibility("default")))

/* The C library's functions. */
struct libc_calls {
	int (*socket)(int, int, int);
	int (*bind)(int, const struct sockaddr *, socklen_t);
	int (*listen)(int, int);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	int (*connect)(int, const struct sockaddr *, socklen_t);
	int (*getsockname)(int, struct sockaddr *, socklen_t *);
	int (*getpeername)(int, struct sockaddr *, socklen_t *);
	int (*getsockopt)(int, int, int, void *, socklen_t *);
	int (*setsockopt)(int, int, int, const void *, socklen_t);
	int (*shutdown)(int, int);
	int (*close)(int);
	int (*ioctl)(int, unsigned long, ...);
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*readv)(int, const struct iovec *, int);
	ssize_t (*recv)(int, void *, size_t, int);
	ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
	ssize_t (*recvmsg)(int, struct msghdr *, int);
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*writev)(int, const struct iovec *, int);
	ssize_t (*send)(int, const void *, size_t, int);
	ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	int (*recvmmsg)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
	int (*sendmmsg)(int, struct mmsghdr *, unsigned int, int);
};

/* One call to the daemon: the request, its answer, and a descriptor each way. */
struct call {
	struct ustack_request request;
	struct ustack_reply reply;
	uint8_t data[USTACK_MAX_DATA];
	const struct iovec *tail;	/* more data, behind request.len bytes of @data */
	size_t tail_count;
	int fd;			/* goes with the request */
	int received;		/* came with the answer, or -1 */
};

/* line.c: the C library and the daemon. */
const struct libc_calls *real(void);
bool is_ours(int fd);
ssize_t receive_with_fd(int from, struct iovec *iov, size_t count, int flags, int *fd);
int ask(struct call *call);

/* preload.c */
int pending_error(int fd);
void store_address(uint32_t addr, uint16_t port, struct sockaddr *to, socklen_t *len);

/* datagram.c: sockets that are not streams. */
void datagram_began(int fd);
void datagrams_may_come(void);
void datagram_connected(int fd, bool ok);
bool is_datagram(int fd);
ssize_t receive_datagram(int fd, struct msghdr *msg, int flags);
ssize_t send_datagram(int fd, const struct msghdr *msg, int flags);
int next_datagram(int fd);

static inline int fail(int error)
{
	errno = error;
	return -1;
}

#endif
