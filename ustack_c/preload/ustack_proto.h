#ifndef USTACK_PROTO_H
#define USTACK_PROTO_H

/*
 * Socket calls to a running ustackd: what a client says and hears.
 *
 * The daemon listens on a Unix SOCK_SEQPACKET socket. A client connects and sends
 * USTACK_HELLO; from then on one struct ustack_request (and len bytes behind it) is one
 * message, answered in order by one struct ustack_reply (and len bytes). No call waits in
 * the daemon. A request of another version is answered by EPROTO, one that it does not know by
 * EOPNOTSUPP. Numbers are in host order; addresses and ports as in struct sockaddr_in.
 * A process has its own connection: one that forks opens another.
 *
 * USTACK_SOCKET's answer carries a descriptor (SCM_RIGHTS): one end of a socketpair that is
 * the socket. read, write, poll, fcntl, dup, fork, close and passing it on are the kernel's:
 * the connection is closed when the last reference to this end goes, by whatever way. All
 * other calls carry that descriptor with the request, which is what permits them. It can be
 * told from other descriptors by its peer's name (getpeername): abstract, and beginning with
 * USTACK_NAME.
 *
 * connect: USTACK_CONNECT answers EINPROGRESS; the descriptor becomes writable when the
 *   attempt is over, and USTACK_CONNECT once more (or SO_ERROR) says how it ended.
 *   USTACK_FASTOPEN goes on as USTACK_CONNECT does. With TCP_FASTOPEN_CONNECT the answer is 0,
 *   the first write is the SYN's, and how that ends is known as the end of a stream is.
 * close with SO_LINGER: ask USTACK_LINGER, close the socket, write a byte to the descriptor
 *   that came with the answer, and read from it: its end is when close() may return. If others
 *   hold the socket that is at once.
 * SO_PRIORITY of a stream's descriptor tells all who hold it what it is: USTACK_NEW_PRIORITY
 *   at first, USTACK_CONNECTED_PRIORITY when the client is about to connect it,
 *   USTACK_LISTENER_PRIORITY when it listens, USTACK_READ_SHUT_PRIORITY when reading is shut
 *   down; the client sets it. To read one that is not connected is ENOTCONN, to write EPIPE, to
 *   accept from one that does not listen EINVAL. One whose reading is shut down has an end, and
 *   what there is behind that USTACK_RECV gives.
 * accept: a listener's descriptor is readable when a connection waits. recvmsg() of one
 *   struct ustack_accepted takes it, the connection's descriptor coming with it; whichever
 *   process reads it has it, and tells by giving it a name (bind() to no more than AF_UNIX).
 *   One that has no name when it is closed was never accepted: its peer gets a reset.
 *   The end of a stream there is the end of the daemon: tell the application once, and set
 *   USTACK_ORPHAN_PRIORITY, which says that somebody has been told; a listener whose reading is
 *   shut down has USTACK_NEW_PRIORITY again.
 * USTACK_TELL is a USTACK_SETSOCKOPT that has no answer, and comes without a descriptor: who
 *   accepted the connection names it by its key. It sets what cannot be refused, TCP_NODELAY and
 *   SO_KEEPALIVE; a client may leave it and use USTACK_SETSOCKOPT for these as well.
 * The peer's FIN is the end of the stream; a shutdown for writing is our FIN, behind all that
 *   was written. An end of the stream with POLLHUP, when this side has not shut down, is an
 *   error or the end of the daemon: SO_ERROR says which. So it is for EPIPE and ECONNRESET.
 * Datagrams (UDP, raw, ping): the descriptor keeps boundaries (SOCK_SEQPACKET), and each
 *   message is a struct ustack_datagram and the datagram behind it, both ways. A message with
 *   USTACK_HAS_ERROR is a hint: ask SO_ERROR, which tells each error once, and read on if
 *   there is none. What is written is sent in order; an error that it meets is the next
 *   one's. USTACK_SENDMSG sends one and answers how it went: for the first to a destination,
 *   for one that may be too long, and while a hint is at the head. Do not call the descriptor's own shutdown().
 * Urgent data that arrives is the descriptor's own (MSG_OOB, POLLPRI); to send it,
 *   USTACK_SENDOOB.
 */

#include <stdint.h>

#define USTACK_MAGIC 0x75
#define USTACK_VERSION 2
#define USTACK_MAX_DATA 2048
#define USTACK_NAME "ustack."

/* SO_PRIORITY of a stream's descriptor. */
#define USTACK_CONNECTED_PRIORITY 0
#define USTACK_NEW_PRIORITY 1
#define USTACK_LISTENER_PRIORITY 2
#define USTACK_READ_SHUT_PRIORITY 3
#define USTACK_ORPHAN_PRIORITY 4

enum ustack_op {
	USTACK_HELLO = 0,	/* answers value: the version that the daemon speaks */
	USTACK_SOCKET = 1,	/* level: domain, name: type, value: protocol */
	USTACK_BIND = 2,	/* addr, port */
	USTACK_LISTEN = 3,	/* value: backlog */
	USTACK_CONNECT = 4,	/* addr, port */
	USTACK_SHUTDOWN = 5,	/* value: how; answers value: 0: the descriptor's own shutdown(how)
				   is left to the client, and must follow; 1: it is done */
	USTACK_GETSOCKNAME = 6,	/* answers addr, port */
	USTACK_GETPEERNAME = 7,	/* answers addr, port */
	USTACK_SETSOCKOPT = 8,	/* level, name, data */
	USTACK_GETSOCKOPT = 9,	/* level, name, value: room; answers data */
	USTACK_IOCTL = 10,	/* name: SIOCINQ, SIOCOUTQ, SIOCOUTQNSD; answers value */
	USTACK_SENDOOB = 11,	/* data; the last byte is the urgent one */
	USTACK_DISCONNECT = 12,	/* be connected to nobody again */
	USTACK_SENDMSG = 13,	/* data: a struct ustack_datagram and a datagram; answers its length */
	USTACK_RECVERR = 14,	/* answers value: bytes of the datagram, addr, port: where it went,
				   data: IP_RECVERR's value (32 bytes), then the datagram's start */
	USTACK_FASTOPEN = 15,	/* addr, port, data: sendto() with MSG_FASTOPEN; answers how much
				   of it was taken */
	USTACK_LINGER = 16,	/* answers value: seconds that close() waits at most, and if there
				   are any a descriptor to wait with */
	USTACK_RECV = 17,	/* name: MSG_PEEK or 0, value: room; answers data, which may be none:
				   what is there behind the end that a shutdown has made */
	USTACK_TELL = 18,	/* level, name, value: an option, data: an accepted connection's key */
};

struct ustack_request {
	uint8_t magic;		/* USTACK_MAGIC */
	uint8_t version;	/* USTACK_VERSION */
	uint16_t op;
	int32_t level;
	int32_t name;
	int32_t value;
	uint32_t addr;
	uint16_t port;
	uint16_t len;		/* bytes of data behind this; in answers USTACK_MAX_DATA at most */
};

struct ustack_reply {
	int32_t error;		/* 0, or errno */
	int32_t value;
	uint32_t addr;
	uint16_t port;
	uint16_t len;
};

/* What of a struct ustack_datagram means something, besides its place. */
enum ustack_has {
	USTACK_HAS_ADDRESS = 1,	/* else: to the peer */
	USTACK_HAS_PKTINFO = 2,
	USTACK_HAS_TTL = 4,
	USTACK_HAS_TOS = 8,
	USTACK_HAS_MORE = 16,	/* MSG_MORE */
	USTACK_HAS_ERROR = 128,	/* no datagram: there is an error, SO_ERROR says which */
};

struct ustack_datagram {
	uint32_t addr;		/* from whom, or to whom */
	uint16_t port;
	uint8_t has;		/* enum ustack_has */
	uint8_t tos;
	uint32_t ttl;
	struct {
		int32_t ifindex;
		uint32_t spec_dst;
		uint32_t addr;
	} pktinfo;		/* struct in_pktinfo */
};

struct ustack_accepted {
	uint32_t peer_addr;
	uint32_t local_addr;
	uint16_t peer_port;
	uint16_t local_port;
	uint8_t key[8];		/* for USTACK_TELL */
};

#endif
