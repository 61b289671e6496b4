/* Waiting for the wire: spin for a little while, then sleep. Waking up costs more than both. */

#define _GNU_SOURCE

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <time.h>

#include "wait.h"

#define US_PER_S 1000000
#define NS_PER_US 1000

/**
 * us_monotonic_us - CLOCK_MONOTONIC in microseconds: the present, as stack time
 *
 * Context: the edge only.
 */
uint64_t us_monotonic_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / NS_PER_US;
}

/* Bits of the readable descriptors, 0 if there are none yet, or -errno. */
static int us_wait_result(int polled, const struct pollfd fds[2])
{
	int bits = 0;

	if (polled < 0)
		return -errno;
	if ((fds[0].revents | fds[1].revents) & POLLNVAL)
		return -EBADF;
	if (fds[0].revents)
		bits |= US_WAIT_FD;
	if (fds[1].revents)
		bits |= US_WAIT_WAKEFD;
	return bits;
}

/**
 * us_wait - wait until a descriptor can be read
 * @fd:         wire, or -1
 * @wakefd:     eventfd that another thread writes to, or -1
 * @spin:       how often to look before going to sleep; each look is one system call
 * @timeout_us: longest sleep in microseconds; -1 sleeps for ever, 0 only looks
 *
 * An error or hangup counts as readable: the read that follows tells it.
 *
 * Context: the edge only; blocks, without the GIL. A signal ends the sleep.
 * Return: US_WAIT_FD and US_WAIT_WAKEFD as bits, 0 after the timeout, or -errno (-EINTR
 * after a signal, -EBADF for a descriptor that is not open).
 */
int us_wait(int fd, int wakefd, uint32_t spin, int64_t timeout_us)
{
	struct pollfd fds[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = wakefd, .events = POLLIN },
	};
	struct timespec timeout;
	int result;

	do {
		result = us_wait_result(poll(fds, 2, 0), fds);
		if (result)
			return result;
	} while (spin-- > 0);
	if (timeout_us == 0)
		return 0;
	timeout.tv_sec = timeout_us / US_PER_S;
	timeout.tv_nsec = timeout_us % US_PER_S * 1000;
	return us_wait_result(ppoll(fds, 2, timeout_us < 0 ? NULL : &timeout, NULL), fds);
}
