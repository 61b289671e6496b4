/*
 * libustack_preload.so: the socket calls of an unmodified program, on a running ustackd.
 *
 * AF_INET sockets come from the daemon that USTACK_SOCKET names; each is a real
 * descriptor (see ustack_proto.h). The library keeps no table of them: it asks a descriptor
 * for its peer's name, so dup, fork, exec, close and passing need nothing from us. Bytes go
 * by the kernel's own calls; only their failures are looked at. All else is the C library's.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "preload.h"

#define NO_DAEMON_PAUSE_NS (10 * 1000 * 1000)
#define FLAGS_OF_TYPE (SOCK_NONBLOCK | SOCK_CLOEXEC)

static _Atomic bool lingers;	/* somebody has set SO_LINGER: close() has to ask */

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

/* What a stream's descriptor is, for all who hold it; -1 if it is no socket. errno stays. */
static int priority_of(int fd)
{
	const int saved = errno;
	int priority = 0;
	socklen_t len = sizeof(priority);

	if (real()->getsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, &len))
		priority = -1;
	errno = saved;
	return priority;
}

static bool listens(int priority)
{
	return priority == USTACK_LISTENER_PRIORITY || priority == USTACK_ORPHAN_PRIORITY;
}

static bool is_idle(int priority)
{
	return priority == USTACK_NEW_PRIORITY || listens(priority);
}

static void set_priority(int fd, int priority)
{
	real()->setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof(priority));
}

/* Opening. */

EXPORT int socket(int domain, int type, int protocol)
{
	struct call call = { .fd = -1 };
	const int kind = type & ~FLAGS_OF_TYPE;
	int error;

	if ((kind != SOCK_STREAM && kind != SOCK_DGRAM && kind != SOCK_RAW) || (domain != AF_INET && domain != AF_INET6) ||
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
	if (kind != SOCK_STREAM)
		datagram_began(call.received);
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
	if (!is_ours(fd))
		return real()->listen(fd, backlog);
	if (simple_call(fd, USTACK_LISTEN, backlog))
		return -1;
	set_priority(fd, USTACK_LISTENER_PRIORITY);
	return 0;
}

static int connect_stream(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct pollfd waiting = { .fd = fd, .events = POLLOUT };
	int error;

	set_priority(fd, USTACK_CONNECTED_PRIORITY);
	error = address_call(fd, USTACK_CONNECT, addr, len);
	if ((error == EINPROGRESS || error == EALREADY) && !(fcntl(fd, F_GETFL) & O_NONBLOCK)) {
		if (poll(&waiting, 1, -1) < 0)
			return errno;
		error = address_call(fd, USTACK_CONNECT, addr, len);
	}
	return error;
}

/* sendto() with MSG_FASTOPEN: connect, with data in the SYN; what is left is sent after that. */
static ssize_t send_fastopen(int fd, const void *buf, size_t len, int flags,
			     const struct sockaddr *addr, socklen_t addrlen)
{
	const bool waits = !(fcntl(fd, F_GETFL) & O_NONBLOCK || flags & MSG_DONTWAIT);
	struct call call = { .fd = fd };
	struct sockaddr_in in;
	size_t sent = 0;
	ssize_t rest;
	int error;

	if (!addr || addrlen < sizeof(in))
		return fail(EINVAL);
	memcpy(&in, addr, sizeof(in));
	call.request.op = USTACK_FASTOPEN;
	call.request.addr = in.sin_addr.s_addr;
	call.request.port = in.sin_port;
	call.request.len = (uint16_t)(len > USTACK_MAX_DATA ? USTACK_MAX_DATA : len);
	memcpy(call.data, buf, call.request.len);
	set_priority(fd, USTACK_CONNECTED_PRIORITY);
	error = ask(&call);
	if (error && (error != EINPROGRESS || !waits))
		return fail(error);
	if (!error)
		sent = (size_t)call.reply.value;
	if (sent == len || !waits)
		return (ssize_t)sent;
	error = connect_stream(fd, addr, addrlen);
	if (error)
		return fail(error);
	rest = send(fd, (const char *)buf + sent, len - sent, flags & ~MSG_FASTOPEN);
	return rest < 0 ? (sent ? (ssize_t)sent : -1) : (ssize_t)sent + rest;
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	int error;

	if (!is_ours(fd))
		return real()->connect(fd, addr, len);
	if (len >= sizeof(addr->sa_family) && addr->sa_family == AF_UNSPEC) {
		if (is_datagram(fd))
			datagram_connected(fd, false);
		return simple_call(fd, USTACK_DISCONNECT, 0);
	}
	error = connect_stream(fd, addr, len);
	if (is_datagram(fd))
		datagram_connected(fd, !error);
	return error ? fail(error) : 0;
}

/* Store an address as the kernel does: as much as there is room for, and its whole length. */
void store_address(uint32_t addr, uint16_t port, struct sockaddr *to, socklen_t *len)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = port };

	if (!to || !len)
		return;
	in.sin_addr.s_addr = addr;
	memcpy(to, &in, *len < sizeof(in) ? *len : sizeof(in));
	*len = sizeof(in);
}

/*
 * accept() of a listener whose daemon has gone, and which is readable for good. Once it says so;
 * then it is ENFILE, of which servers know that they had better wait, and takes a little while,
 * since some do not.
 */
static int no_daemon(int fd)
{
	const struct timespec pause = { .tv_nsec = NO_DAEMON_PAUSE_NS };
	const int priority = priority_of(fd);

	if (priority == USTACK_LISTENER_PRIORITY) {
		set_priority(fd, USTACK_ORPHAN_PRIORITY);
		return fail(ENETDOWN);
	}
	if (priority != USTACK_ORPHAN_PRIORITY)
		return fail(EINVAL);	/* it was shut down meanwhile */
	nanosleep(&pause, NULL);
	return fail(ENFILE);
}

static int accept_ours(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct ustack_accepted accepted;
	struct iovec iov = { &accepted, sizeof(accepted) };
	const struct sockaddr taken = { .sa_family = AF_UNIX };
	ssize_t got;
	int spare, conn;

	if (!listens(priority_of(fd)))
		return fail(is_datagram(fd) ? EOPNOTSUPP : EINVAL);
	spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (spare < 0)
		return -1;	/* EMFILE, and the connection waits on */
	close(spare);
	got = receive_with_fd(fd, &iov, 1, flags & SOCK_CLOEXEC ? MSG_CMSG_CLOEXEC : 0, &conn);
	if (got < 0)
		return -1;
	if (conn < 0)
		return got ? fail(EMFILE) : no_daemon(fd);
	real()->bind(conn, &taken, sizeof(taken.sa_family));
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

/* Options of waiting and peeking are the descriptor's: that is what is waited for and read. */
static bool is_own_option(int level, int name)
{
	return level == SOL_SOCKET &&
	       (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == 66 || name == 67 ||
		name == SO_PEEK_OFF);
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
	if (level == SOL_SOCKET && name == SO_LINGER)
		lingers = true;
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

static void reading_is_shut(int fd)
{
	const int priority = priority_of(fd);

	if (priority == USTACK_CONNECTED_PRIORITY)
		set_priority(fd, USTACK_READ_SHUT_PRIORITY);
	else if (listens(priority))
		set_priority(fd, USTACK_NEW_PRIORITY);
}

EXPORT int shutdown(int fd, int how)
{
	struct call call = { .fd = fd };
	int error;

	if (!is_ours(fd))
		return real()->shutdown(fd, how);
	call.request.op = USTACK_SHUTDOWN;
	call.request.value = how;
	error = ask(&call);
	if (error)
		return fail(error);
	if (how != SHUT_WR)
		reading_is_shut(fd);
	return call.reply.value ? 0 : real()->shutdown(fd, how);
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
	if (request == FIONREAD && is_datagram(fd)) {
		*(int *)arg = next_datagram(fd);
		return 0;
	}
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

/* Closing, which waits if SO_LINGER says so and nobody else holds the socket. */

EXPORT int close(int fd)
{
	struct call call = { .fd = fd, .received = -1 };
	struct pollfd waiting = { .events = POLLIN };
	int result;

	if (!lingers || !is_ours(fd))
		return real()->close(fd);
	call.request.op = USTACK_LINGER;
	if (ask(&call) || call.received < 0)
		return real()->close(fd);
	result = real()->close(fd);
	if (real()->send(call.received, "x", 1, MSG_NOSIGNAL) == 1) {
		waiting.fd = call.received;
		poll(&waiting, 1, (call.reply.value + 1) * 1000);
	}
	real()->close(call.received);
	return result;
}

/* Moving bytes: what a failure is called, and whose address a peer has. */

int pending_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	real()->getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);	/* the pair's own goes */
	len = sizeof(error);
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) ? ECONNRESET : error;
}

/* What is there behind the end that a shutdown has made; ENOTCONN: that is over. */
static ssize_t late_data(int fd, const struct iovec *iov, size_t count, int flags)
{
	struct call call = { .fd = fd };
	size_t done = 0, size, i;
	int error;

	call.request.op = USTACK_RECV;
	call.request.name = flags & MSG_PEEK;
	for (i = 0; i < count; i++)
		done += iov[i].iov_len;
	call.request.value = done > USTACK_MAX_DATA ? USTACK_MAX_DATA : (int)done;
	error = ask(&call);
	if (error)
		return fail(error);
	for (i = 0, done = 0; i < count && done < call.reply.len; i++, done += size) {
		size = call.reply.len - done;
		if (size > iov[i].iov_len)
			size = iov[i].iov_len;
		memcpy(iov[i].iov_base, call.data + done, size);
	}
	return (ssize_t)done;
}

/* @got from a read into @iov: an end that is none becomes the error that it was. */
static ssize_t explain_read(int fd, ssize_t got, const struct iovec *iov, size_t count, int flags)
{
	struct pollfd state = { .fd = fd };
	size_t wanted = 0, i;
	ssize_t late;
	int error;

	if (got < 0 && errno == EAGAIN && is_idle(priority_of(fd)) && is_ours(fd))
		return fail(ENOTCONN);
	for (i = 0; i < count && got == 0; i++)
		wanted |= iov[i].iov_len;
	if (got > 0 || (got == 0 && !wanted) || (got < 0 && errno != ECONNRESET) || !is_ours(fd))
		return got;
	if (got == 0 && priority_of(fd) == USTACK_READ_SHUT_PRIORITY) {
		late = late_data(fd, iov, count, flags);
		if (late >= 0 || (errno != ENOTCONN && errno != ENETDOWN))
			return late;
	}
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

/* One buffer, and whom it came from or goes to, as a datagram. */
static ssize_t one_datagram(int fd, void *buf, size_t len, int flags, struct sockaddr *addr,
			    socklen_t *addrlen)
{
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_name = addr,
			      .msg_namelen = addrlen ? *addrlen : 0 };
	const ssize_t got = explain_read(fd, receive_datagram(fd, &msg, flags), &iov, 1, flags);

	if (got >= 0 && addrlen)
		*addrlen = msg.msg_namelen;
	return got;
}

/* MSG_TRUNC: the bytes of a stream that nobody wants go into the same place again and again. */
static ssize_t discard(int fd, size_t len, int flags)
{
	char scratch[4096];
	struct iovec iov[16];
	struct msghdr msg = { .msg_iov = iov };
	size_t left = len;

	for (; left && msg.msg_iovlen < 16; left -= iov[msg.msg_iovlen++].iov_len)
		iov[msg.msg_iovlen] = (struct iovec){
			scratch, left > sizeof(scratch) ? sizeof(scratch) : left };
	return explain_read(fd, real()->recvmsg(fd, &msg, flags), iov, msg.msg_iovlen, flags);
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	const struct iovec iov = { buf, len };

	if (is_datagram(fd))
		return one_datagram(fd, buf, len, 0, NULL, NULL);
	return explain_read(fd, real()->read(fd, buf, len), &iov, 1, 0);
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov,
			      .msg_iovlen = (size_t)count };

	if (is_datagram(fd))
		return explain_read(fd, receive_datagram(fd, &msg, 0), iov, msg.msg_iovlen, 0);
	return explain_read(fd, real()->readv(fd, iov, count), iov, msg.msg_iovlen, 0);
}

EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	return recvfrom(fd, buf, len, flags, NULL, NULL);
}

EXPORT ssize_t recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *addr,
			socklen_t *addrlen)
{
	const struct iovec iov = { buf, len };
	ssize_t got;

	if (is_datagram(fd))
		return one_datagram(fd, buf, len, flags, addr, addrlen);
	if (flags & MSG_TRUNC && is_ours(fd))
		return discard(fd, len, flags & ~MSG_TRUNC);
	if (!addr || !is_ours(fd)) {
		got = real()->recvfrom(fd, buf, len, flags, addr, addrlen);
	} else {
		*addrlen = 0;
		got = real()->recv(fd, buf, len, flags);
	}
	return explain_read(fd, got, &iov, 1, flags);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t got;

	if (is_datagram(fd))
		return explain_read(fd, receive_datagram(fd, msg, flags), msg->msg_iov,
				    msg->msg_iovlen, flags);
	got = explain_read(fd, real()->recvmsg(fd, msg, flags), msg->msg_iov, msg->msg_iovlen,
			   flags);
	if (got >= 0 && msg->msg_controllen)
		datagrams_may_come();
	if (got >= 0 && msg->msg_name && msg->msg_namelen && is_ours(fd))
		msg->msg_namelen = 0;
	return got;
}

EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags,
		    struct timespec *timeout)
{
	unsigned int i;
	ssize_t got;

	if (!is_datagram(fd))
		return real()->recvmmsg(fd, msgs, count, flags, timeout);
	for (i = 0; i < count; i++) {
		got = recvmsg(fd, &msgs[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (got < 0)
			return i ? (int)i : -1;
		msgs[i].msg_len = (unsigned int)got;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
	}
	return (int)i;
}

EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	if (is_datagram(fd))
		return send(fd, buf, len, 0);
	return explain_write(fd, real()->write(fd, buf, len));
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	const struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov,
				    .msg_iovlen = (size_t)count };

	if (is_datagram(fd))
		return explain_write(fd, send_datagram(fd, &msg, 0));
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
	return sendto(fd, buf, len, flags, NULL, 0);
}

EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
		      socklen_t addrlen)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
				    .msg_name = (void *)(uintptr_t)addr, .msg_namelen = addrlen };

	if (is_datagram(fd))
		return explain_write(fd, send_datagram(fd, &msg, flags));
	if (flags & MSG_OOB && is_ours(fd))
		return send_urgent(fd, buf, len);
	if (flags & MSG_FASTOPEN && is_ours(fd))
		return send_fastopen(fd, buf, len, flags, addr, addrlen);
	if (addr && is_ours(fd))
		addr = NULL;	/* a stream has its peer */
	return explain_write(fd, real()->sendto(fd, buf, len, flags, addr, addr ? addrlen : 0));
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct msghdr nameless = *msg;

	if (is_datagram(fd))
		return explain_write(fd, send_datagram(fd, msg, flags));
	if (flags & MSG_FASTOPEN && msg->msg_iovlen == 1 && is_ours(fd))
		return send_fastopen(fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len, flags,
				     msg->msg_name, msg->msg_namelen);
	if (msg->msg_name && is_ours(fd)) {
		nameless.msg_name = NULL;
		nameless.msg_namelen = 0;
	}
	return explain_write(fd, real()->sendmsg(fd, &nameless, flags));
}

EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
	unsigned int i;
	ssize_t sent;

	if (!is_datagram(fd))
		return real()->sendmmsg(fd, msgs, count, flags);
	for (i = 0; i < count; i++) {
		sent = sendmsg(fd, &msgs[i].msg_hdr, flags);
		if (sent < 0)
			return i ? (int)i : -1;
		msgs[i].msg_len = (unsigned int)sent;
	}
	return (int)i;
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
