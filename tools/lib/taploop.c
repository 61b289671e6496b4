/*
 * What a TAP can do at most: read() and write() in a loop, in C, with nothing behind.
 *
 * taploop read|write vnet|plain {FRAMES UNIT_FILE}...: each file holds one unit, the 10-byte
 * virtio header and the frame ("plain" leaves the header out). For each of them a TAP of our
 * own is filled by a packet socket and emptied by read(), or written to. Only the reads and
 * the writes are timed, by this thread's processor time. Prints "FILE NANOSECONDS FRAMES".
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define VNET_HDR_LEN 10
#define UNIT_MAX (VNET_HDR_LEN + 14 + 65535)
#define FRAMES_MAX 10000
#define FILL_ERRORS_MAX 100

static void die(const char *what)
{
	fprintf(stderr, "taploop: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

/* Bring the interface up with a queue for FRAMES_MAX frames; returns its index. */
static int set_up(const char *name)
{
	struct ifreq ifr = {0};
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	memcpy(ifr.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	ifr.ifr_qlen = FRAMES_MAX;
	if (ioctl(fd, SIOCSIFTXQLEN, &ifr) < 0)
		die("SIOCSIFTXQLEN");
	if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		die("SIOCGIFFLAGS");
	ifr.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		die("SIOCSIFFLAGS");
	close(fd);
	return (int)if_nametoindex(name);
}

static int open_tap(bool vnet, int *ifindex)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		die("/dev/net/tun");
	if (vnet)
		ifr.ifr_flags |= IFF_VNET_HDR;
	strcpy(ifr.ifr_name, "taploop%d");
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		die("TUNSETIFF");
	if (vnet && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0)
		die("TUNSETOFFLOAD");
	*ifindex = set_up(ifr.ifr_name);
	return fd;
}

static int open_sender(int ifindex)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = ifindex};
	const int on = 1;
	const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("packet socket");
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0)
		die("PACKET_VNET_HDR");
	if (bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("bind");
	return fd;
}

/* Read until nothing is left; returns the frames. */
static int drain(int tap)
{
	static uint8_t buffer[UNIT_MAX];
	int frames = 0;

	while (read(tap, buffer, sizeof(buffer)) > 0)
		frames++;
	return frames;
}

static void fill(int sender, const uint8_t *unit, size_t len, int frames)
{
	int errors = 0;

	while (frames > 0) {
		if (send(sender, unit, len, 0) == (ssize_t)len)
			frames--;
		else if (errno != ENOBUFS || ++errors > FILL_ERRORS_MAX)
			die("send");
	}
}

static int put(int tap, const uint8_t *unit, size_t len, int frames)
{
	int done = 0;

	while (done < frames) {
		if (write(tap, unit, len) != (ssize_t)len)
			die("write");
		done++;
	}
	return done;
}

static size_t load(const char *path, uint8_t *unit)
{
	FILE *file = fopen(path, "rb");
	size_t len;

	if (!file)
		die(path);
	len = fread(unit, 1, UNIT_MAX, file);
	fclose(file);
	if (len <= VNET_HDR_LEN + 14) {
		errno = EINVAL;
		die(path);
	}
	return len;
}

int main(int argc, char **argv)
{
	static uint8_t unit[UNIT_MAX];
	const bool reads = argc > 1 && !strcmp(argv[1], "read");
	const bool vnet = argc > 2 && !strcmp(argv[2], "vnet");
	const size_t skip = vnet ? 0 : VNET_HDR_LEN;
	int ifindex, tap, sender;

	if (argc < 5 || argc % 2 == 0) {
		fprintf(stderr, "usage: taploop read|write vnet|plain {FRAMES UNIT_FILE}...\n");
		return 2;
	}
	tap = open_tap(vnet, &ifindex);
	sender = open_sender(ifindex);
	for (int i = 3; i < argc; i += 2) {
		const int frames = atoi(argv[i]);
		const size_t len = load(argv[i + 1], unit);
		uint64_t begin;
		int done;

		if (frames < 1 || frames > FRAMES_MAX)
			return 2;
		for (int round = 0; round < 2; round++) { /* the first one warms up */
			if (reads) {
				drain(tap);
				fill(sender, unit, len, frames);
			}
			begin = now_ns();
			done = reads ? drain(tap) : put(tap, unit + skip, len - skip, frames);
			begin = now_ns() - begin;
		}
		printf("%s %llu %d\n", argv[i + 1], (unsigned long long)begin, done);
	}
	return 0;
}
