/*
 * What a client of the daemon does with its descriptors beside plain reading and writing,
 * several system calls at a time; preload/ustack_proto.h says what they mean.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

/* Receive a message and the descriptor that comes with it; returns that, or -errno. */
static int us_client_receive_fd(int from, void *message, uint32_t size)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { message, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
			      .msg_control = &control, .msg_controllen = sizeof(control) };
	const ssize_t got = recvmsg(from, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *cmsg;
	int fd;

	if (got < 0)
		return -errno;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len < CMSG_LEN(sizeof(int)))
		return got ? -EMFILE : -ENETDOWN;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/**
 * us_client_accept - take a connection from a listener's descriptor
 * @fd:       the descriptor
 * @priority: SO_PRIORITY of a descriptor that listens
 * @message:  struct ustack_accepted
 * @size:     of that
 *
 * The connection's descriptor gets a name, which tells the daemon that somebody has it. That
 * there is room for one more is seen to first: one that found none would be lost.
 *
 * Context: an application's thread. Does not wait.
 * Return: the connection's descriptor, or -errno: -EAGAIN none waits, -EINVAL @fd does not
 * listen, -EMFILE and -ENFILE, and the connection waits on, -ENETDOWN the daemon has gone.
 */
int us_client_accept(int fd, int priority, void *message, uint32_t size)
{
	const struct sockaddr taken = { .sa_family = AF_UNIX };
	int is = -1;
	socklen_t len = sizeof(is);
	int spare, conn;

	if (getsockopt(fd, SOL_SOCKET, SO_PRIORITY, &is, &len))
		return -errno;
	if (is != priority)
		return -EINVAL;
	spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (spare < 0)
		return -errno;
	close(spare);
	conn = us_client_receive_fd(fd, message, size);
	if (conn >= 0)
		bind(conn, &taken, sizeof(taken.sa_family));
	return conn;
}

/**
 * us_client_has_hung_up - whether the other end of a descriptor is gone, or both ways are shut
 * @fd: the descriptor
 *
 * Return: 1 or 0.
 */
int us_client_has_hung_up(int fd)
{
	struct pollfd pollfd = { .fd = fd };

	return poll(&pollfd, 1, 0) > 0 && pollfd.revents & POLLHUP;
}
