/*
 * The C library's own functions, and this process's line to the daemon: one request, one
 * answer. The line survives a daemon that is restarted, a fork, and a program that closes
 * descriptors that it does not know.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "preload.h"

#define HIGH_FD 200		/* the control connection's number is at least this */

static struct libc_calls libc_calls;

/* This process's line to the daemon. */
static struct {
	pthread_mutex_t lock;
	int fd;
	ino_t inode;		/* programs close descriptors that they do not know */
} line = { PTHREAD_MUTEX_INITIALIZER, -1, 0 };

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void forked(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	line.lock = fresh;	/* a thread that is not here may hold the old one */
	if (line.fd >= 0)
		libc_calls.close(line.fd);
	line.fd = -1;
}

static void find_libc(void)
{
#define FIND(name) *(void **)&libc_calls.name = dlsym(RTLD_NEXT, #name)
	FIND(socket);
	FIND(bind);
	FIND(listen);
	FIND(accept4);
	FIND(connect);
	FIND(getsockname);
	FIND(getpeername);
	FIND(getsockopt);
	FIND(setsockopt);
	FIND(shutdown);
	FIND(close);
	FIND(ioctl);
	FIND(read);
	FIND(readv);
	FIND(recv);
	FIND(recvfrom);
	FIND(recvmsg);
	FIND(write);
	FIND(writev);
	FIND(send);
	FIND(sendto);
	FIND(sendmsg);
	FIND(recvmmsg);
	FIND(sendmmsg);
#undef FIND
	pthread_atfork(NULL, NULL, forked);
}

/* The C library's functions, looked up by whoever calls first. */
const struct libc_calls *real(void)
{
	pthread_once(&once, find_libc);
	return &libc_calls;
}

/* Whether a descriptor is a socket of a ustackd: its peer's name says so. errno stays. */
bool is_ours(int fd)
{
	struct sockaddr_un name;
	socklen_t len = sizeof(name);
	const size_t prefix = sizeof(USTACK_NAME) - 1;
	const int saved = errno;
	bool ours;

	ours = !real()->getpeername(fd, (struct sockaddr *)&name, &len) &&
	       name.sun_family == AF_UNIX &&
	       len > offsetof(struct sockaddr_un, sun_path) + 1 + prefix && !name.sun_path[0] &&
	       !memcmp(name.sun_path + 1, USTACK_NAME, prefix);
	errno = saved;
	return ours;
}

/* Talking to the daemon. */

static ssize_t send_call(const struct call *call)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	const size_t tail = call->tail_count;
	struct iovec iov[tail + 2];
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = tail + 2 };
	ssize_t sent;

	iov[0] = (struct iovec){ (void *)(uintptr_t)&call->request, sizeof(call->request) };
	iov[1] = (struct iovec){ (void *)(uintptr_t)call->data, call->request.len };
	if (tail) {
		iov[1].iov_len = 0;
		memcpy(iov + 2, call->tail, tail * sizeof(*iov));
	}

	if (call->fd >= 0) {
		memset(&control, 0, sizeof(control));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &call->fd, sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	do
		sent = real()->sendmsg(line.fd, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent;
}

/* Receive @iov and perhaps a descriptor into *@fd (-1: none came). */
ssize_t receive_with_fd(int from, struct iovec *iov, size_t count, int flags, int *fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count,
			      .msg_control = &control, .msg_controllen = sizeof(control) };
	const struct cmsghdr *cmsg;
	const ssize_t got = real()->recvmsg(from, &msg, flags);

	*fd = -1;
	if (got < 0)
		return got;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
	    cmsg->cmsg_len >= CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(cmsg), sizeof(int));
	return got;
}

static ssize_t receive_answer(struct call *call)
{
	struct iovec iov[2] = {
		{ &call->reply, sizeof(call->reply) },
		{ call->data, sizeof(call->data) },
	};
	ssize_t got;

	do
		got = receive_with_fd(line.fd, iov, 2, MSG_CMSG_CLOEXEC, &call->received);
	while (got < 0 && errno == EINTR);
	return got;
}

/* Whether the line is up and its number still means what it meant. */
static bool line_is_up(void)
{
	struct stat status;

	return line.fd >= 0 && !fstat(line.fd, &status) && S_ISSOCK(status.st_mode) &&
	       status.st_ino == line.inode;
}

static void drop_line(void)
{
	if (line_is_up())
		real()->close(line.fd);
	line.fd = -1;
}

static bool open_line(void)
{
	struct call hello = { .fd = -1, .received = -1 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("USTACK_SOCKET");
	struct stat status;
	int fd, high;

	if (!path || strlen(path) >= sizeof(address.sun_path))
		return false;
	strcpy(address.sun_path, path);
	fd = real()->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
	if (high >= 0) {
		real()->close(fd);
		fd = high;
	}
	if (real()->connect(fd, (struct sockaddr *)&address, sizeof(address)) || fstat(fd, &status)) {
		real()->close(fd);
		return false;
	}
	line.fd = fd;
	line.inode = status.st_ino;
	hello.request.magic = USTACK_MAGIC;
	hello.request.version = USTACK_VERSION;
	hello.request.op = USTACK_HELLO;
	if (send_call(&hello) > 0 && receive_answer(&hello) > 0 && !hello.reply.error)
		return true;
	drop_line();
	return false;
}

/*
 * Ask and wait for the answer; a line that has broken is opened anew once. Returns 0 or an
 * errno, the daemon's own or ENETDOWN.
 */
int ask(struct call *call)
{
	int error = ENETDOWN;
	int attempt;

	call->request.magic = USTACK_MAGIC;
	call->request.version = USTACK_VERSION;
	call->received = -1;
	pthread_mutex_lock(&line.lock);
	for (attempt = 0; attempt < 2; attempt++) {
		if (!line_is_up() && !open_line())
			break;
		if (send_call(call) > 0 &&
		    receive_answer(call) >= (ssize_t)sizeof(call->reply)) {
			error = call->reply.error;
			break;
		}
		drop_line();
	}
	pthread_mutex_unlock(&line.lock);
	return error;
}
