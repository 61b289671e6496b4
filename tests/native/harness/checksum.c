/* Checksums and hashes of buffers of every length, against the definition. */

#include <string.h>

#include "checksum.h"
#include "harness.h"
#include "siphash.h"

static uint32_t plain_sum(const uint8_t *p, uint32_t len, uint32_t start)
{
	uint64_t sum = start;
	uint32_t i;

	for (i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint32_t)sum;
}

HARNESS_TEST(checksum)
{
	const uint32_t len = rng_length(rng, rng_below(rng, 8) ? 300 : 70000);
	const uint32_t cut = rng_below(rng, len + 1);
	const uint32_t start = (uint32_t)rng_next(rng) & (rng_below(rng, 2) ? UINT32_MAX : 0xffff);
	uint8_t *buf = malloc(len);
	uint32_t head, tail;

	if (rng_below(rng, 4))
		rng_fill(rng, buf, len);
	else
		memset(buf, rng_below(rng, 2) ? 0xff : 0, len);
	CHECK(us_csum_partial(buf, len, start) == plain_sum(buf, len, start));
	head = us_csum_partial(buf, cut, 0);
	tail = us_csum_partial(buf + cut, len - cut, 0);
	CHECK(us_csum_block_add(head, tail, cut) == plain_sum(buf, len, 0));
	CHECK(us_ip_fast_csum(buf, len) == (uint16_t)~plain_sum(buf, len, 0));
	free(buf);
}

HARNESS_TEST(siphash)
{
	const uint32_t len = rng_length(rng, 100);
	uint8_t *key = malloc(16);
	uint8_t *buf = malloc(len);
	uint64_t words[2] = { rng_next(rng), rng_next(rng) };

	rng_fill(rng, key, 16);
	rng_fill(rng, buf, len);
	CHECK(us_siphash(key, buf, len) == us_siphash(key, buf, len));
	CHECK(us_siphash_2u64(key, words[0], words[1]) == us_siphash(key, words, sizeof(words)));
	free(buf);
	free(key);
}
