/*
 * The daemon's side of a client's socket: a pair whose other end the client gets, several system
 * calls at a time; preload/ustack_proto.h says what they mean. None of them waits.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pair.h"

#define US_PAIR_NAME "ustack."

/* Give an end its abstract name: a socket of ours is known by its peer's. */
static int us_pair_name(int fd, uint64_t number)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	char *text = name.sun_path + 1;
	const int len = snprintf(text, sizeof(name.sun_path) - 1, US_PAIR_NAME "%012" PRIx64, number);

	return bind(fd, (const struct sockaddr *)&name,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) + (socklen_t)len);
}

/* What is to be done to a new pair; 0 or -1. */
static int us_pair_set_up(struct us_pair *pair, uint64_t number, int epoll, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = pair->fd };
	struct stat status;

	if (fcntl(pair->fd, F_SETFL, O_RDWR | O_NONBLOCK) || us_pair_name(pair->fd, number) ||
	    fstat(pair->end, &status) || epoll_ctl(epoll, EPOLL_CTL_ADD, pair->fd, &event))
		return -1;
	pair->inode = status.st_ino;
	return 0;
}

/**
 * us_pair_open - make a client's socket
 * @pair:   filled
 * @type:   SOCK_STREAM or SOCK_SEQPACKET
 * @number: for the name of the daemon's end, random, 48 bits
 * @epoll:  is to watch the daemon's end
 * @events: for these
 *
 * Return: 0, or -errno with nothing open.
 */
int us_pair_open(struct us_pair *pair, int type, uint64_t number, int epoll, uint32_t events)
{
	int fds[2];
	int error;

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds))
		return -errno;
	pair->fd = fds[0];
	pair->end = fds[1];
	if (!us_pair_set_up(pair, number, epoll, events))
		return 0;
	error = -errno;
	close(pair->fd);
	close(pair->end);
	return error;
}

/**
 * us_pair_hand_over - put an accepted connection into its listener's pair
 * @listener: the daemon's end of that
 * @end:      the client's end of the connection's; it is closed here
 * @message:  struct ustack_accepted
 * @size:     of that
 *
 * Return: 0, or -errno: the pair takes no more.
 */
int us_pair_hand_over(int listener, int end, const void *message, uint32_t size)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .space = {0} };
	struct iovec iov = { (void *)(uintptr_t)message, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
			      .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t sent;
	int error;

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &end, sizeof(end));
	sent = sendmsg(listener, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	error = sent < 0 ? -errno : 0;
	close(end);
	return error;
}

/**
 * us_pair_is_taken - whether a client has named its end, as accept() does
 * @fd: the daemon's end
 *
 * Return: 1 or 0.
 */
int us_pair_is_taken(int fd)
{
	struct sockaddr_un name;
	socklen_t len = sizeof(name);

	return !getpeername(fd, (struct sockaddr *)&name, &len) &&
	       len > offsetof(struct sockaddr_un, sun_path);
}

/**
 * us_pair_end_stream - tell the client that nothing more comes: an end of the stream behind it all
 * @fd: the daemon's end
 *
 * Return: 0, or -errno: it is gone.
 */
int us_pair_end_stream(int fd)
{
	return shutdown(fd, SHUT_WR) ? -errno : 0;
}
