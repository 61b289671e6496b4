/*
 * Sockets that are not streams: each message of their descriptor is a datagram behind a
 * struct ustack_datagram. A program that has none pays nothing for them; one that has asks
 * of each descriptor that it reads or writes what it is.
 */

#define _GNU_SOURCE

#include <limits.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload.h"

#define KNOWN_SIZE 256
#define LENGTH_TO_ASK 65000	/* longer ones may be too long */
#define INHERITED_MAX 256	/* descriptors that are looked at when a program begins */

/* Whether this process may have datagram sockets at all. */
static atomic_bool may_have;

/*
 * By descriptor and destination: that a datagram could be sent there. The first one goes by
 * USTACK_SENDMSG, to hear of errors; an entry that is out of date makes an error late, no more.
 */
static _Atomic uint64_t known[KNOWN_SIZE];

static uint64_t destination(int fd, const struct ustack_datagram *to)
{
	return (uint64_t)(uint16_t)(fd + 1) << 48 | (uint64_t)to->port << 32 | to->addr;
}

static _Atomic uint64_t *known_slot(uint64_t key)
{
	return &known[(key * 0x9E3779B97F4A7C15u >> 56) % KNOWN_SIZE];
}

static void forget_destinations(int fd)
{
	int i;

	for (i = 0; i < KNOWN_SIZE; i++)
		if (known[i] >> 48 == (uint16_t)(fd + 1))
			known[i] = 0;
}

/* A new datagram socket. */
void datagram_began(int fd)
{
	may_have = true;
	forget_destinations(fd);
}

/* Descriptors have come from another process. */
void datagrams_may_come(void)
{
	may_have = true;
}

/* connect() has succeeded or failed: the peer is another one, or none. */
void datagram_connected(int fd, bool ok)
{
	const struct ustack_datagram peer = { .port = 0 };
	const uint64_t key = destination(fd, &peer);

	forget_destinations(fd);
	if (ok)
		*known_slot(key) = key;
}

/* Whether a descriptor is a socket of ours whose messages have boundaries. errno stays. */
bool is_datagram(int fd)
{
	const int saved = errno;
	int type = 0;
	socklen_t len = sizeof(type);
	bool found;

	if (!may_have)
		return false;
	found = !real()->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) &&
		type == SOCK_SEQPACKET && is_ours(fd);
	errno = saved;
	return found;
}

/* A program that is executed may have been given some. */
__attribute__((constructor)) static void look_at_inherited(void)
{
	int fd;

	if (!getenv("USTACK_SOCKET"))
		return;
	may_have = true;
	for (fd = 0; fd < INHERITED_MAX && !is_datagram(fd); fd++)
		continue;
	may_have = fd < INHERITED_MAX;
}

/* Receiving. */

static void put_cmsg(struct msghdr *msg, size_t *used, int kind, const void *value, size_t len)
{
	struct cmsghdr header = { .cmsg_len = CMSG_LEN(len), .cmsg_level = IPPROTO_IP,
				  .cmsg_type = kind };
	char *at = (char *)msg->msg_control + *used;

	if (*used + CMSG_LEN(len) > msg->msg_controllen) {
		msg->msg_flags |= MSG_CTRUNC;
		return;
	}
	memcpy(at, &header, sizeof(header));
	memcpy(CMSG_DATA((struct cmsghdr *)(void *)at), value, len);
	*used += CMSG_SPACE(len);
	if (*used > msg->msg_controllen)
		*used = msg->msg_controllen;
}

/* Tell what recvmsg() tells besides the data. */
static void store_header(const struct ustack_datagram *header, struct msghdr *msg)
{
	size_t used = 0;

	if (header->has & USTACK_HAS_PKTINFO)
		put_cmsg(msg, &used, IP_PKTINFO, &header->pktinfo, sizeof(header->pktinfo));
	if (header->has & USTACK_HAS_TTL)
		put_cmsg(msg, &used, IP_TTL, &header->ttl, sizeof(header->ttl));
	if (header->has & USTACK_HAS_TOS)
		put_cmsg(msg, &used, IP_TOS, &header->tos, sizeof(header->tos));
	msg->msg_controllen = used;
	if (msg->msg_name)
		store_address(header->addr, header->port, msg->msg_name, &msg->msg_namelen);
}

static size_t length_of(const struct msghdr *msg)
{
	size_t i, total = 0;

	for (i = 0; i < msg->msg_iovlen; i++)
		total += msg->msg_iov[i].iov_len;
	return total;
}

/* An entry of the error queue (IP_RECVERR). */
static ssize_t receive_error(int fd, struct msghdr *msg)
{
	const size_t value_len = 32;	/* struct sock_extended_err, struct sockaddr_in */
	struct call call = { .fd = fd };
	size_t used = 0, at, part, i;
	int error;

	call.request.op = USTACK_RECVERR;
	error = ask(&call);
	if (error)
		return fail(error);
	msg->msg_flags = MSG_ERRQUEUE;
	put_cmsg(msg, &used, IP_RECVERR, call.data, value_len);
	msg->msg_controllen = used;
	if (msg->msg_name)
		store_address(call.reply.addr, call.reply.port, msg->msg_name, &msg->msg_namelen);
	for (i = 0, at = value_len; i < msg->msg_iovlen; i++, at += part) {
		part = call.reply.len - at;
		if (part > msg->msg_iov[i].iov_len)
			part = msg->msg_iov[i].iov_len;
		memcpy(msg->msg_iov[i].iov_base, call.data + at, part);
	}
	return (ssize_t)(at - value_len);
}

/* The hint at an error is at the head: return the error, 0 if somebody else has had it. */
static int take_error(int fd, int flags)
{
	struct ustack_datagram hint;
	const int error = pending_error(fd);

	if (!error && flags & MSG_PEEK)
		real()->recv(fd, &hint, sizeof(hint), MSG_DONTWAIT);
	return error;
}

/* recvmsg() of a datagram socket. */
ssize_t receive_datagram(int fd, struct msghdr *msg, int flags)
{
	struct ustack_datagram header;
	struct iovec iov[msg->msg_iovlen + 1];
	struct msghdr whole = { .msg_iov = iov, .msg_iovlen = msg->msg_iovlen + 1 };
	const size_t room = length_of(msg);
	ssize_t got;
	int error;

	if (flags & MSG_ERRQUEUE)
		return receive_error(fd, msg);
	iov[0] = (struct iovec){ &header, sizeof(header) };
	if (msg->msg_iovlen)
		memcpy(iov + 1, msg->msg_iov, msg->msg_iovlen * sizeof(*iov));
	for (;;) {
		got = real()->recvmsg(fd, &whole, (flags | MSG_TRUNC) & ~MSG_WAITALL);
		if (got < (ssize_t)sizeof(header))
			return got <= 0 ? got : 0;
		if (!(header.has & USTACK_HAS_ERROR))
			break;
		error = take_error(fd, flags);
		if (error)
			return fail(error);
	}
	got -= (ssize_t)sizeof(header);
	msg->msg_flags = (size_t)got > room ? MSG_TRUNC : 0;
	store_header(&header, msg);
	return (size_t)got > room && !(flags & MSG_TRUNC) ? (ssize_t)room : got;
}

/* FIONREAD: the length of the next datagram. */
int next_datagram(int fd)
{
	struct ustack_datagram header;
	const ssize_t got = real()->recv(fd, &header, sizeof(header),
					 MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);

	return got < (ssize_t)sizeof(header) ? 0 : (int)(got - (ssize_t)sizeof(header));
}

/* Sending. */

/* Write down to whom a datagram goes, and how; returns an errno. */
static int build_header(const struct msghdr *msg, int flags, struct ustack_datagram *header)
{
	struct msghdr copy = *msg;
	struct cmsghdr *cmsg;
	struct sockaddr_in in;

	memset(header, 0, sizeof(*header));
	if (msg->msg_name) {
		if (msg->msg_namelen < sizeof(in))
			return EINVAL;
		memcpy(&in, msg->msg_name, sizeof(in));
		if (in.sin_family != AF_INET && in.sin_family != AF_UNSPEC)
			return EAFNOSUPPORT;
		header->addr = in.sin_addr.s_addr;
		header->port = in.sin_port;
		header->has = USTACK_HAS_ADDRESS;
	}
	if (flags & MSG_MORE)
		header->has |= USTACK_HAS_MORE;
	for (cmsg = CMSG_FIRSTHDR(&copy); cmsg; cmsg = CMSG_NXTHDR(&copy, cmsg)) {
		const size_t len = cmsg->cmsg_len - CMSG_LEN(0);

		if (cmsg->cmsg_level != IPPROTO_IP)
			continue;
		if (cmsg->cmsg_type == IP_PKTINFO && len == sizeof(header->pktinfo)) {
			memcpy(&header->pktinfo, CMSG_DATA(cmsg), len);
			header->has |= USTACK_HAS_PKTINFO;
		} else if (cmsg->cmsg_type == IP_TTL && len == sizeof(header->ttl)) {
			memcpy(&header->ttl, CMSG_DATA(cmsg), len);
			header->has |= USTACK_HAS_TTL;
		} else if (cmsg->cmsg_type == IP_TOS && (len == 1 || len == sizeof(int))) {
			header->tos = *CMSG_DATA(cmsg);
			header->has |= USTACK_HAS_TOS;
		} else {
			return EINVAL;
		}
	}
	return 0;
}

/* Whether what would be read next says that there is an error. */
static bool error_waits(int fd)
{
	struct ustack_datagram header;
	const int saved = errno;
	const ssize_t got = real()->recv(fd, &header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);

	errno = saved;
	return got == (ssize_t)sizeof(header) && header.has & USTACK_HAS_ERROR;
}

/* Have the daemon send a datagram, and hear how it went. */
static ssize_t send_first(int fd, struct msghdr *whole, size_t length, uint64_t key)
{
	struct call call = { .fd = fd, .tail = whole->msg_iov, .tail_count = whole->msg_iovlen };
	int error;

	if (length > UINT16_MAX)
		return fail(EMSGSIZE);
	call.request.op = USTACK_SENDMSG;
	call.request.len = (uint16_t)length;
	error = ask(&call);
	if (error)
		return fail(error);
	*known_slot(key) = key;
	return call.reply.value;
}

/* sendmsg() of a datagram socket. */
ssize_t send_datagram(int fd, const struct msghdr *msg, int flags)
{
	struct ustack_datagram header;
	struct iovec iov[msg->msg_iovlen + 1];
	struct msghdr whole = { .msg_iov = iov, .msg_iovlen = msg->msg_iovlen + 1 };
	const int error = flags & MSG_OOB ? EOPNOTSUPP : build_header(msg, flags, &header);
	uint64_t key;
	size_t length;
	ssize_t sent;

	if (error)
		return fail(error);
	iov[0] = (struct iovec){ &header, sizeof(header) };
	if (msg->msg_iovlen)
		memcpy(iov + 1, msg->msg_iov, msg->msg_iovlen * sizeof(*iov));
	key = destination(fd, &header);
	length = length_of(&whole);
	if (*known_slot(key) != key || length > LENGTH_TO_ASK || error_waits(fd)) {
		*known_slot(key) = 0;
		return send_first(fd, &whole, length, key);
	}
	sent = real()->sendmsg(fd, &whole, (flags & MSG_DONTWAIT) | MSG_NOSIGNAL);
	return sent < 0 ? -1 : sent - (ssize_t)sizeof(header);
}
