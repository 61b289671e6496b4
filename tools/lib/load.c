// SPDX-License-Identifier: Apache-2.0
/*
 * Clients and a server that cost as little as they can, on Linux's sockets:
 *
 * load pingpong ADDRESS PORT SECONDS CONNECTIONS SIZE	bounce SIZE bytes on each connection
 * load connect ADDRESS PORT SECONDS PARALLEL SIZE	connect, send, be answered, close
 * load send|receive|both ADDRESS DISCARD_PORT CHARGEN_PORT SECONDS CONNECTIONS	both: half, half
 * load serve ADDRESS PORT				echo what comes
 *
 * Clients run on the second processor and print one JSON object; the server runs on the first
 * and prints "ready".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 1024
#define MAX_EVENTS 256
#define MAX_TIMES (1 << 22)

static char buffer[1 << 18];

struct connection {
	int fd;
	int direction;		/* of both: 0 sends, 1 receives */
	size_t left;		/* bytes of the answer that are still to come */
	uint64_t start_ns;
	uint64_t bytes;
};

static struct connection connections[MAX_CONNECTIONS];
static float times_us[MAX_TIMES];
static size_t times;

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t all, one;
	int nth = 0;

	sched_getaffinity(0, sizeof(all), &all);
	cpu %= CPU_COUNT(&all);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &all) || nth++ != cpu)
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static struct sockaddr_in address_of(const char *host, const char *port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
		die(host);
	return sin;
}

static int stream_socket(int flags)
{
	int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	if (fd < 0)
		die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void watch(int epfd, int fd, uint32_t events, uint32_t index)
{
	struct epoll_event ev = { .events = events, .data.u32 = index };

	if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev))
		die("epoll_ctl");
}

static void note_time(uint64_t start_ns)
{
	if (times < MAX_TIMES)
		times_us[times++] = (float)(now_ns() - start_ns) / 1000.0f;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void print_rate(uint64_t count, uint64_t begin_ns)
{
	double seconds = (double)(now_ns() - begin_ns) / 1e9;

	if (!times) {
		fprintf(stderr, "load: nothing was answered\n");
		exit(1);
	}
	qsort(times_us, times, sizeof(times_us[0]), by_value);
	printf("{\"count\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
	       (unsigned long long)count, seconds, (double)times_us[times / 2],
	       (double)times_us[times - 1 - times / 100]);
}

static void ask(struct connection *c, size_t size)
{
	c->start_ns = now_ns();
	c->left = size;
	if (send(c->fd, buffer, size, MSG_NOSIGNAL) != (ssize_t)size)
		die("send");
}

/* Read some of the answer; true when it is complete. */
static int answered(struct connection *c)
{
	ssize_t n = recv(c->fd, buffer, c->left, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		die("recv");
	c->left -= (size_t)n;
	return !c->left;
}

static void pingpong(char **argv)
{
	struct sockaddr_in sin = address_of(argv[2], argv[3]);
	struct epoll_event events[MAX_EVENTS];
	int n = atoi(argv[5]), epfd = epoll_create1(0);
	size_t size = (size_t)atoi(argv[6]);
	uint64_t begin, end, count = 0;

	for (int i = 0; i < n; i++) {
		connections[i].fd = stream_socket(0);
		if (connect(connections[i].fd, (struct sockaddr *)&sin, sizeof(sin)))
			die("connect");
		watch(epfd, connections[i].fd, EPOLLIN, (uint32_t)i);
	}
	begin = now_ns();
	end = begin + (uint64_t)(atof(argv[4]) * 1e9);
	for (int i = 0; i < n; i++)
		ask(&connections[i], size);
	while (now_ns() < end) {
		int got = epoll_wait(epfd, events, MAX_EVENTS, 1000);

		for (int i = 0; i < got; i++) {
			struct connection *c = &connections[events[i].data.u32];

			if (!answered(c))
				continue;
			note_time(c->start_ns);
			count++;
			ask(c, size);
		}
	}
	print_rate(count, begin);
}

static void begin_connecting(struct connection *c, const struct sockaddr_in *sin, int epfd,
			     uint32_t index, size_t size)
{
	c->fd = stream_socket(SOCK_NONBLOCK);
	c->left = size;
	c->start_ns = now_ns();
	if (connect(c->fd, (const struct sockaddr *)sin, sizeof(*sin)) && errno != EINPROGRESS)
		die("connect");
	watch(epfd, c->fd, EPOLLOUT, index);
}

static void connect_loop(char **argv)
{
	struct sockaddr_in sin = address_of(argv[2], argv[3]);
	struct epoll_event events[MAX_EVENTS];
	int n = atoi(argv[5]), epfd = epoll_create1(0);
	size_t size = (size_t)atoi(argv[6]);
	uint64_t begin = now_ns(), count = 0;
	uint64_t end = begin + (uint64_t)(atof(argv[4]) * 1e9);

	for (int i = 0; i < n; i++)
		begin_connecting(&connections[i], &sin, epfd, (uint32_t)i, size);
	while (now_ns() < end) {
		int got = epoll_wait(epfd, events, MAX_EVENTS, 1000);

		for (int i = 0; i < got; i++) {
			uint32_t index = events[i].data.u32;
			struct connection *c = &connections[index];

			if (events[i].events & EPOLLOUT) {
				struct epoll_event ev = { .events = EPOLLIN, .data.u32 = index };

				if (send(c->fd, buffer, size, MSG_NOSIGNAL) != (ssize_t)size)
					die("connect, send");
				epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &ev);
				continue;
			}
			if (!answered(c))
				continue;
			note_time(c->start_ns);
			count++;
			close(c->fd);
			begin_connecting(c, &sin, epfd, index, size);
		}
	}
	print_rate(count, begin);
}

/* Jain's index over one direction: 1 if all got the same, or there is none. */
static double fairness(int n, int direction)
{
	double sum = 0, squares = 0, m = 0;

	for (int i = 0; i < n; i++) {
		double x = (double)connections[i].bytes;

		if (connections[i].direction != direction)
			continue;
		sum += x;
		squares += x * x;
		m++;
	}
	return squares > 0 ? sum * sum / (m * squares) : m == 0;
}

static void bulk(char **argv)
{
	const int sends = strcmp(argv[1], "receive"), receives = strcmp(argv[1], "send");
	struct epoll_event events[MAX_EVENTS];
	int n = atoi(argv[6]), epfd = epoll_create1(0);
	uint64_t begin, end, bytes = 0;
	double seconds, fair[2];

	for (int i = 0; i < n; i++) {
		struct connection *c = &connections[i];
		struct sockaddr_in sin;

		c->direction = sends && receives ? i & 1 : receives != 0;
		sin = address_of(argv[2], argv[3 + c->direction]);
		c->fd = stream_socket(0);
		if (connect(c->fd, (struct sockaddr *)&sin, sizeof(sin)))
			die("connect");
		watch(epfd, c->fd, c->direction ? EPOLLIN : EPOLLOUT, (uint32_t)i);
	}
	begin = now_ns();
	end = begin + (uint64_t)(atof(argv[5]) * 1e9);
	while (now_ns() < end) {
		int got = epoll_wait(epfd, events, MAX_EVENTS, 1000);

		for (int i = 0; i < got; i++) {
			struct connection *c = &connections[events[i].data.u32];
			int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
			ssize_t moved = c->direction ?
				recv(c->fd, buffer, sizeof(buffer), flags) :
				send(c->fd, buffer, sizeof(buffer), flags);

			if (moved < 0 && errno != EAGAIN)
				die(argv[1]);
			c->bytes += moved > 0 ? (uint64_t)moved : 0;
		}
	}
	seconds = (double)(now_ns() - begin) / 1e9;
	for (int i = 0; i < n; i++)
		bytes += connections[i].bytes;
	for (int i = 0; i < 2; i++)
		fair[i] = fairness(n, i);
	printf("{\"bytes\": %llu, \"seconds\": %.6f, \"jain\": %.4f}\n",
	       (unsigned long long)bytes, seconds, fair[0] < fair[1] ? fair[0] : fair[1]);
}

static void serve(char **argv)
{
	struct sockaddr_in sin = address_of(argv[2], argv[3]);
	struct epoll_event events[MAX_EVENTS];
	int one = 1, lfd, epfd = epoll_create1(0);

	lfd = stream_socket(SOCK_NONBLOCK);
	setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(lfd, (struct sockaddr *)&sin, sizeof(sin)) || listen(lfd, 4096))
		die("bind");
	watch(epfd, lfd, EPOLLIN, (uint32_t)lfd);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int got = epoll_wait(epfd, events, MAX_EVENTS, -1);

		for (int i = 0; i < got; i++) {
			int fd = (int)events[i].data.u32;
			ssize_t n;

			if (fd == lfd) {
				while ((fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
					watch(epfd, fd, EPOLLIN, (uint32_t)fd);
				}
				continue;
			}
			n = recv(fd, buffer, sizeof(buffer), 0);
			if (n > 0 && send(fd, buffer, (size_t)n, MSG_NOSIGNAL) == n)
				continue;
			if (n < 0 && errno == EAGAIN)
				continue;
			close(fd);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int argc;
		int cpu;
		void (*run)(char **argv);
	} modes[] = {
		{ "pingpong", 7, 1, pingpong },
		{ "connect", 7, 1, connect_loop },
		{ "send", 7, 1, bulk },
		{ "receive", 7, 1, bulk },
		{ "both", 7, 1, bulk },
		{ "serve", 4, 0, serve },
	};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (argc != modes[i].argc || strcmp(argv[1], modes[i].name))
			continue;
		pin(modes[i].cpu);
		modes[i].run(argv);
		return 0;
	}
	fprintf(stderr, "usage: see the head of load.c\n");
	return 2;
}
