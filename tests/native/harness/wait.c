/* us_wait on pipes; nothing here sleeps longer than a millisecond. */

#include <errno.h>
#include <unistd.h>

#include "harness.h"
#include "wait.h"

HARNESS_TEST(wait)
{
	const uint32_t spin = rng_below(rng, 3);
	int wire[2], wake[2];

	CHECK(pipe(wire) == 0 && pipe(wake) == 0);
	CHECK(us_wait(wire[0], wake[0], spin, 0) == 0);
	CHECK(us_wait(-1, -1, spin, rng_below(rng, 1000)) == 0);
	CHECK(write(wire[1], "x", 1) == 1);
	CHECK(us_wait(wire[0], wake[0], spin, -1) == US_WAIT_FD);
	CHECK(us_wait(wire[0], -1, spin, -1) == US_WAIT_FD);
	close(wake[1]);
	CHECK(us_wait(wire[0], wake[0], spin, -1) == (US_WAIT_FD | US_WAIT_WAKEFD));
	CHECK(us_wait(-1, wake[0], spin, -1) == US_WAIT_WAKEFD);
	close(wake[0]);
	CHECK(us_wait(wire[0], wake[0], spin, -1) == -EBADF);
	close(wire[0]);
	close(wire[1]);
}
