/*
 * libustack_preload.so: the socket calls of an unmodified program, on a running ustackd.
 *
 * AF_INET stream sockets come from the daemon that USTACK_SOCKET names; each is a real
 * descriptor (see ustack_proto.h). The library keeps no table of them: it asks a descriptor
 * for its peer's name, so dup, fork, exec, close and passing need nothing from us. Bytes go
 * by the kernel's own calls; only their failures are looked at. All else is the C library's.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "ustack_proto.h"

#define EXPORT __attribute__((visibility("default")))
#define HIGH_FD 200		/* the control connection's number is at least this */
#define FLAGS_OF_TYPE (SOCK_NONBLOCK | SOCK_CLOEXEC)

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
};

static struct libc_calls libc_calls;

/* This process's line to the daemon. */
static struct {
	pthread_mutex_t lock;
	int fd;
	ino_t inode;		/* programs close descriptors that they do not know */
} line = { PTHREAD_MUTEX_INITIALIZER, -1, 0 };

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* One call to the daemon: the request, its answer, and a descriptor each way. */
struct call {
	struct ustack_request request;
	struct ustack_reply reply;
	uint8_t data[USTACK_MAX_DATA];
	int fd;			/* goes with the request */
	int received;		/* came with the answer, or -1 */
};

static void forked(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	line.lock = fresh;	/* a thread that is not here may hold the old one */
	if (line.fd >= 0)
		close(line.fd);
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
#undef FIND
	pthread_atfork(NULL, NULL, forked);
}

/* The C library's functions, looked up by whoever calls first. */
static const struct libc_calls *real(void)
{
	pthread_once(&once, find_libc);
	return &libc_calls;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

/* Whether a descriptor is a socket of a ustackd: its peer's name says so. errno stays. */
static bool is_ours(int fd)
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
	struct iovec iov[2] = {
		{ (void *)(uintptr_t)&call->request, sizeof(call->request) },
		{ (void *)(uintptr_t)call->data, call->request.len },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t sent;

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
static ssize_t receive_with_fd(int from, struct iovec *iov, size_t count, int flags, int *fd)
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
		close(line.fd);
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
		close(fd);
		fd = high;
	}
	if (real()->connect(fd, (struct sockaddr *)&address, sizeof(address)) || fstat(fd, &status)) {
		close(fd);
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
static int ask(struct call *call)
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

/* Ask about a socket, with one value; as a system call returns. */
static int simple_call(int fd, uint16_t op, int value)
{
	struct call call = { .fd = fd };
	int error;

	call.request.op = op;
	call.request.value = value;
	error = ask(&call);
	return error ? fail(error) : 0;
}

/* Opening. */

EXPORT int socket(int domain, int type, int protocol)
{
	struct call call = { .fd = -1 };
	const int kind = type & ~FLAGS_OF_TYPE;
	int error;

	if (kind != SOCK_STREAM || (domain != AF_INET && domain != AF_INET6) ||
	    !getenv("USTACK_SOCKET"))
		return real()->socket(domain, type, protocol);
	if (domain == AF_INET6)
		return fail(EAFNOSUPPORT);
	call.request.op = USTACK_SOCKET;
	call.request.level = domain;
	call.request.name = kind;
	call.request.value = protocol;
	error = ask(&call);
	if (error)
		return fail(error);
	if (call.received < 0)
		return fail(EMFILE);
	if (type & SOCK_NONBLOCK)
		fcntl(call.received, F_SETFL, fcntl(call.received, F_GETFL) | O_NONBLOCK);
	if (!(type & SOCK_CLOEXEC))
		fcntl(call.received, F_SETFD, 0);
	return call.received;
}

/* Have the daemon do @op with an address of the application's. */
static int address_call(int fd, uint16_t op, const struct sockaddr *addr, socklen_t len)
{
	struct call call = { .fd = fd };
	struct sockaddr_in in;

	if (len < sizeof(in))
		return EINVAL;
	memcpy(&in, addr, sizeof(in));
	if (in.sin_family != AF_INET && !(in.sin_family == AF_UNSPEC && op == USTACK_BIND))
		return EAFNOSUPPORT;
	call.request.op = op;
	call.request.addr = in.sin_addr.s_addr;
	call.request.port = in.sin_port;
	return ask(&call);
}

EXPORT int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int error;

	if (!is_ours(fd))
		return real()->bind(fd, addr, len);
	error = address_call(fd, USTACK_BIND, addr, len);
	return error ? fail(error) : 0;
}

EXPORT int listen(int fd, int backlog)
{
	return is_ours(fd) ? simple_call(fd, USTACK_LISTEN, backlog) : real()->listen(fd, backlog);
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct pollfd waiting = { .fd = fd, .events = POLLOUT };
	int error;

	if (!is_ours(fd))
		return real()->connect(fd, addr, len);
	error = address_call(fd, USTACK_CONNECT, addr, len);
	if ((error == EINPROGRESS || error == EALREADY) && !(fcntl(fd, F_GETFL) & O_NONBLOCK)) {
		if (poll(&waiting, 1, -1) < 0)
			return -1;
		error = address_call(fd, USTACK_CONNECT, addr, len);
	}
	return error ? fail(error) : 0;
}

/* Store an address as the kernel does: as much as there is room for, and its whole length. */
static void store_address(uint32_t addr, uint16_t port, struct sockaddr *to, socklen_t *len)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = port };

	if (!to || !len)
		return;
	in.sin_addr.s_addr = addr;
	memcpy(to, &in, *len < sizeof(in) ? *len : sizeof(in));
	*len = sizeof(in);
}

static int accept_ours(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct ustack_accepted accepted;
	struct iovec iov = { &accepted, sizeof(accepted) };
	const int spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	ssize_t got;
	int conn;

	if (spare < 0)
		return -1;	/* EMFILE, and the connection waits on */
	close(spare);
	got = receive_with_fd(fd, &iov, 1, flags & SOCK_CLOEXEC ? MSG_CMSG_CLOEXEC : 0, &conn);
	if (got < 0)
		return -1;
	if (conn < 0)
		return fail(got ? EMFILE : EINVAL);
	if (flags & SOCK_NONBLOCK)
		fcntl(conn, F_SETFL, fcntl(conn, F_GETFL) | O_NONBLOCK);
	store_address(accepted.peer_addr, accepted.peer_port, addr, len);
	return conn;
}

EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	return is_ours(fd) ? accept_ours(fd, addr, len, flags) : real()->accept4(fd, addr, len, flags);
}

EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	return accept4(fd, addr, len, 0);
}

/* Asking. */

static int name_call(int fd, uint16_t op, struct sockaddr *addr, socklen_t *len)
{
	struct call call = { .fd = fd };
	int error;

	call.request.op = op;
	error = ask(&call);
	if (error)
		return fail(error);
	store_address(call.reply.addr, call.reply.port, addr, len);
	return 0;
}

EXPORT int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	return is_ours(fd) ? name_call(fd, USTACK_GETSOCKNAME, addr, len)
			   : real()->getsockname(fd, addr, len);
}

EXPORT int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
	return is_ours(fd) ? name_call(fd, USTACK_GETPEERNAME, addr, len)
			   : real()->getpeername(fd, addr, len);
}

/* Options of waiting are the descriptor's: it is the one that is waited for. */
static bool is_own_option(int level, int name)
{
	return level == SOL_SOCKET &&
	       (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == 66 || name == 67);
}

EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	struct call call = { .fd = fd };
	int error;

	if (!is_ours(fd) || is_own_option(level, name))
		return real()->getsockopt(fd, level, name, value, len);
	call.request.op = USTACK_GETSOCKOPT;
	call.request.level = level;
	call.request.name = name;
	call.request.value = *len > USTACK_MAX_DATA ? USTACK_MAX_DATA : (int)*len;
	error = ask(&call);
	if (error)
		return fail(error);
	*len = call.reply.len < *len ? call.reply.len : *len;
	memcpy(value, call.data, *len);
	return 0;
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	struct call call = { .fd = fd };
	int error;

	if (!is_ours(fd) || is_own_option(level, name))
		return real()->setsockopt(fd, level, name, value, len);
	if (len > USTACK_MAX_DATA)
		return fail(EINVAL);
	call.request.op = USTACK_SETSOCKOPT;
	call.request.level = level;
	call.request.name = name;
	call.request.len = (uint16_t)len;
	memcpy(call.data, value, len);
	error = ask(&call);
	if (error)
		return fail(error);
	if (level == SOL_SOCKET && name == SO_RCVLOWAT)
		real()->setsockopt(fd, level, name, value, len);
	return 0;
}

EXPORT int shutdown(int fd, int how)
{
	if (is_ours(fd) && simple_call(fd, USTACK_SHUTDOWN, how))
		return -1;
	return real()->shutdown(fd, how);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	struct call call = { .fd = fd };
	va_list args;
	void *arg;
	int error;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if ((request != SIOCOUTQ && request != SIOCOUTQNSD) || !is_ours(fd))
		return real()->ioctl(fd, request, arg);
	call.request.op = USTACK_IOCTL;
	call.request.name = (int)request;
	error = ask(&call);
	if (error)
		return fail(error);
	memcpy(arg, &call.reply.value, sizeof(int));
	return 0;
}

/* Moving bytes: what a failure is called, and whose address a peer has. */

static int pending_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	real()->getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);	/* the pair's own goes */
	len = sizeof(error);
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) ? ECONNRESET : error;
}

/* @got from a read of @wanted bytes: an end that is none becomes the error that it was. */
static ssize_t explain_read(int fd, ssize_t got, size_t wanted)
{
	struct pollfd state = { .fd = fd };
	int error;

	if (got > 0 || (got == 0 && !wanted) || (got < 0 && errno != ECONNRESET) || !is_ours(fd))
		return got;
	if (got == 0 && (poll(&state, 1, 0) <= 0 || !(state.revents & POLLHUP)))
		return 0;
	error = pending_error(fd);
	if (!error && got == 0)
		return 0;
	return fail(error ? error : ECONNRESET);
}

static ssize_t explain_write(int fd, ssize_t sent)
{
	int error;

	if (sent >= 0 || (errno != EPIPE && errno != ECONNRESET) || !is_ours(fd))
		return sent;
	error = pending_error(fd);
	return fail(error ? error : EPIPE);
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	return explain_read(fd, real()->read(fd, buf, len), len);
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	return explain_read(fd, real()->readv(fd, iov, count), 1);
}

EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	return explain_read(fd, real()->recv(fd, buf, len, flags), len);
}

EXPORT ssize_t recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *addr,
			socklen_t *addrlen)
{
	if (!addr || !is_ours(fd))
		return explain_read(fd, real()->recvfrom(fd, buf, len, flags, addr, addrlen), len);
	*addrlen = 0;
	return explain_read(fd, real()->recv(fd, buf, len, flags), len);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	const ssize_t got = explain_read(fd, real()->recvmsg(fd, msg, flags), 1);

	if (got >= 0 && msg->msg_name && msg->msg_namelen && is_ours(fd))
		msg->msg_namelen = 0;
	return got;
}

EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	return explain_write(fd, real()->write(fd, buf, len));
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	return explain_write(fd, real()->writev(fd, iov, count));
}

static ssize_t send_urgent(int fd, const void *buf, size_t len)
{
	struct call call = { .fd = fd };
	int error;

	if (len > USTACK_MAX_DATA)
		return fail(EMSGSIZE);
	call.request.op = USTACK_SENDOOB;
	call.request.len = (uint16_t)len;
	memcpy(call.data, buf, len);
	error = ask(&call);
	return error ? fail(error) : call.reply.value;
}

EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	if (flags & MSG_OOB && is_ours(fd))
		return send_urgent(fd, buf, len);
	return explain_write(fd, real()->send(fd, buf, len, flags));
}

EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
		      socklen_t addrlen)
{
	if ((addr || flags & MSG_OOB) && is_ours(fd))
		return send(fd, buf, len, flags);	/* a stream has its peer */
	return explain_write(fd, real()->sendto(fd, buf, len, flags, addr, addrlen));
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct msghdr nameless = *msg;

	if (msg->msg_name && is_ours(fd)) {
		nameless.msg_name = NULL;
		nameless.msg_namelen = 0;
	}
	return explain_write(fd, real()->sendmsg(fd, &nameless, flags));
}

/* The same under the names that a program built with _FORTIFY_SOURCE calls. */

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags);
EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags,
			      struct sockaddr *addr, socklen_t *addrlen);

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	if (len > room)
		abort();
	return read(fd, buf, len);
}

EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags)
{
	if (len > room)
		abort();
	return recv(fd, buf, len, flags);
}

EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags,
			      struct sockaddr *addr, socklen_t *addrlen)
{
	if (len > room)
		abort();
	return recvfrom(fd, buf, len, flags, addr, addrlen);
}
