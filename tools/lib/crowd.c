// SPDX-License-Identifier: Apache-2.0
/*
 * Clients that keep their connections, on Linux's sockets, told what to do line by line.
 *
 * crowd ADDRESS SERVER PORT: from ADDRESS, to the server. On its standard input:
 *
 * open N		make N connections more, 64 of them at a time
 * echo N TIMES		bounce 64 bytes TIMES times on N of them at random, all at once
 * churn N		connect and close N times, 64 at a time; those that are open stay
 * close		close all, 64 at a time, each when the server has closed, too
 *
 * It answers each line with "done", and ends at the end of the input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONNECTIONS 1000000
#define AT_ONCE 64
#define SIZE 64

static int fds[MAX_CONNECTIONS];
static int count;
static struct sockaddr_in own, server;

static void die(const char *what)
{
	fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in address_of(const char *host, int port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
		die(host);
	return sin;
}

/* Begin one; the port is chosen with the four-tuple, so that many share one. */
static int begin(int epfd)
{
	struct epoll_event ev = { .events = EPOLLOUT };
	int one = 1;

	ev.data.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (ev.data.fd < 0)
		die("socket");
	setsockopt(ev.data.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(ev.data.fd, (struct sockaddr *)&own, sizeof(own)))
		die("bind");
	if (connect(ev.data.fd, (struct sockaddr *)&server, sizeof(server)) && errno != EINPROGRESS)
		die("connect");
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, ev.data.fd, &ev))
		die("epoll_ctl");
	return 1;
}

/* Whether it is there now; then it blocks from here on. */
static void finish(int epfd, int fd, int keep)
{
	socklen_t len = sizeof(int);
	int error = 0;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		errno = error;
		die("connect");
	}
	if (!keep) {
		close(fd);
		return;
	}
	if (epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL) || fcntl(fd, F_SETFL, 0))
		die("fcntl");
	fds[count++] = fd;
}

static void connect_all(int n, int keep)
{
	struct epoll_event events[AT_ONCE];
	int epfd = epoll_create1(0), begun = 0, done = 0;

	if (n < 0 || (keep && n > MAX_CONNECTIONS - count)) {
		errno = EINVAL;
		die("open");
	}
	while (done < n) {
		int got;

		while (begun < n && begun - done < AT_ONCE)
			begun += begin(epfd);
		got = epoll_wait(epfd, events, AT_ONCE, 60000);
		if (got <= 0)
			die("nobody answers");
		for (int i = 0; i < got; i++, done++)
			finish(epfd, events[i].data.fd, keep);
	}
	close(epfd);
}

static void echo(int n, int times)
{
	char bytes[SIZE] = { 0 };
	int chosen[AT_ONCE];

	for (; n > 0; n -= AT_ONCE) {
		const int some = n < AT_ONCE ? n : AT_ONCE;
		const int first = (int)(random() % count);

		for (int i = 0; i < some; i++)	/* a prime apart */
			chosen[i] = fds[(first + (long)i * 7919) % count];
		for (int t = 0; t < times; t++) {
			for (int i = 0; i < some; i++)
				if (send(chosen[i], bytes, SIZE, MSG_NOSIGNAL) != SIZE)
					die("send");
			for (int i = 0; i < some; i++)
				if (recv(chosen[i], bytes, SIZE, MSG_WAITALL) != SIZE)
					die("recv");
		}
	}
}

static void close_all(void)
{
	char byte;

	for (int i = 0; i < count + AT_ONCE; i++) {
		if (i < count && shutdown(fds[i], SHUT_WR))
			die("shutdown");
		if (i < AT_ONCE || i - AT_ONCE >= count)
			continue;
		if (recv(fds[i - AT_ONCE], &byte, 1, 0))
			die("the server has not closed");
		close(fds[i - AT_ONCE]);
	}
	count = 0;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	char line[128];

	if (argc != 4) {
		fprintf(stderr, "usage: crowd ADDRESS SERVER PORT\n");
		return 2;
	}
	own = address_of(argv[1], 0);
	server = address_of(argv[2], atoi(argv[3]));
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	srandom((unsigned)ntohl(own.sin_addr.s_addr) ^ server.sin_port);
	while (fgets(line, sizeof(line), stdin)) {
		int n = 0, times = 1;

		if (sscanf(line, "open %d", &n) == 1)
			connect_all(n, 1);
		else if (sscanf(line, "echo %d %d", &n, &times) == 2 && count)
			echo(n, times);
		else if (sscanf(line, "churn %d", &n) == 1)
			connect_all(n, 0);
		else if (!strcmp(line, "close\n"))
			close_all();
		else
			die(line);
		puts("done");
		fflush(stdout);
	}
	return 0;
}
