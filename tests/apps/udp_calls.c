/*
 * UDP by every call that C has for it: prints what each one gave, the same on any stack.
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int udp(struct sockaddr_in *name)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(*name);
	const int fd = socket(AF_INET, SOCK_DGRAM, 0);

	bind(fd, (struct sockaddr *)&any, sizeof(any));
	getsockname(fd, (struct sockaddr *)name, &len);
	return fd;
}

static void say(const char *what, long value)
{
	printf("%s %ld %s\n", what, value, value < 0 ? strerror(errno) : "");
}

/* read(), write(), send(), recv() and their relatives, between connected sockets. */
static void connected(int a, int b, const struct sockaddr_in *name_of_b)
{
	char buf[100] = "";
	struct iovec parts[2] = { { "ga", 2 }, { "ther", 4 } };
	struct iovec halves[2] = { { buf, 3 }, { buf + 50, 40 } };
	int waiting = 0;

	say("connect", connect(a, (const struct sockaddr *)name_of_b, sizeof(*name_of_b)));
	say("write", write(a, "written", 7));
	poll(&(struct pollfd){ .fd = b, .events = POLLIN }, 1, 5000);
	ioctl(b, FIONREAD, &waiting);
	say("FIONREAD", waiting);
	say("read", read(b, buf, sizeof(buf)));
	say("writev", writev(a, parts, 2));
	say("readv", readv(b, halves, 2));
	printf("%.3s %.3s\n", buf, buf + 50);
	say("send", send(a, "0123456789", 10, 0));
	say("peek", recv(b, buf, 4, MSG_PEEK));
	say("trunc", recv(b, buf, 4, MSG_TRUNC));
	say("nothing", recv(b, buf, 4, MSG_DONTWAIT));
	say("empty", send(a, "", 0, 0));
	say("empty", recv(b, buf, 4, 0));
}

/* Several at once. */
static void many(int a, int b, const struct sockaddr_in *name_of_b)
{
	char buf[3][10];
	struct iovec out[3] = { { "a", 1 }, { "bb", 2 }, { "ccc", 3 } };
	struct iovec in[3];
	struct mmsghdr msgs[3];
	struct sockaddr_in from[3];
	int i;

	memset(msgs, 0, sizeof(msgs));
	for (i = 0; i < 3; i++) {
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &out[i], .msg_iovlen = 1,
						   .msg_name = (void *)name_of_b,
						   .msg_namelen = sizeof(*name_of_b) };
		in[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
	}
	say("sendmmsg", sendmmsg(a, msgs, 3, 0));
	usleep(50000);
	for (i = 0; i < 3; i++)
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &in[i], .msg_iovlen = 1,
						   .msg_name = &from[i],
						   .msg_namelen = sizeof(from[i]) };
	say("recvmmsg", recvmmsg(b, msgs, 3, MSG_WAITFORONE, NULL));
	for (i = 0; i < 3; i++)
		printf("%u %.*s %d\n", msgs[i].msg_len, (int)msgs[i].msg_len, buf[i],
		       from[i].sin_family == AF_INET && from[i].sin_port != 0);
}

static void errors(int a, const struct sockaddr_in *gone)
{
	const struct sockaddr_in nowhere = { .sin_family = AF_INET, .sin_port = 0,
					     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	static char big[65508];
	char buf[4];

	say("connect", connect(a, (const struct sockaddr *)gone, sizeof(*gone)));
	say("send", send(a, "x", 1, 0));
	usleep(50000);
	say("send", send(a, "x", 1, 0));
	say("send", send(a, "x", 1, 0));
	say("recv", recv(a, buf, sizeof(buf), 0));
	say("port 0", sendto(a, "x", 1, 0, (const struct sockaddr *)&nowhere, sizeof(nowhere)));
	say("too long", send(a, big, sizeof(big), 0));
	say("disconnect", connect(a, &(struct sockaddr){ .sa_family = AF_UNSPEC }, sizeof(*gone)));
	say("to nobody", send(a, "x", 1, 0));
	say("shutdown", shutdown(a, SHUT_RD));
	say("at the end", recv(a, buf, sizeof(buf), 0));
}

int main(void)
{
	struct sockaddr_in name_of_a, name_of_b;
	const int a = udp(&name_of_a), b = udp(&name_of_b);

	connected(a, b, &name_of_b);
	many(a, b, &name_of_b);
	close(b);
	errors(a, &name_of_b);
	return 0;
}
