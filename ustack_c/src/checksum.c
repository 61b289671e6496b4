/*
 * The Internet checksum, RFC 1071 (lib/checksum.c). Words are added in the machine's
 * order, 64 bits at a time with the carry kept, and the result is swapped once at the
 * end: ones-complement addition does not mind.
 */

#include <arpa/inet.h>
#include <string.h>

#include "checksum.h"

#define US_CSUM_BLOCK 32	/* bytes of one step */

/* A processor that adds so much in one instruction is told at run time: half the time. */
#if defined(__x86_64__) && defined(__GLIBC__)
#define US_CSUM_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define US_CSUM_CLONES
#endif

static uint64_t us_load64(const uint8_t *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

static uint64_t us_add_carry(uint64_t a, uint64_t b)
{
	const uint64_t sum = a + b;

	return sum + (sum < a);
}

static uint32_t us_fold16(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint32_t)sum;
}

/* Four words at once, wherever they lie. */
typedef uint64_t us_words_t __attribute__((vector_size(US_CSUM_BLOCK), aligned(1), may_alias));

/* Sum of whole 32-byte blocks: the halves of each word go to 64-bit sums that cannot overflow. */
US_CSUM_CLONES
static uint64_t us_csum_blocks(const uint8_t *p, uint64_t blocks)
{
	const us_words_t *words = (const void *)p;
	us_words_t low = {0}, high = {0};
	uint64_t sum = 0;

	for (; blocks > 0; blocks--, words++) {
		low += *words & UINT32_MAX;
		high += *words >> 32;
	}
	for (int i = 0; i < 4; i++)
		sum = us_add_carry(us_add_carry(sum, low[i]), high[i]);
	return sum;
}

/**
 * us_csum_partial - add bytes to a sum
 * @buf: bytes; the first is the high half of a word
 * @len: how many; after an odd number use us_csum_block_add() for what follows
 * @sum: sum so far
 *
 * Return: the sum, 0 to 0xffff.
 */
uint32_t us_csum_partial(const void *buf, uint64_t len, uint32_t sum)
{
	const uint64_t blocks = len / US_CSUM_BLOCK;
	const uint8_t *p = buf;
	uint64_t total = us_csum_blocks(p, blocks);
	uint64_t rest = len % US_CSUM_BLOCK;
	uint64_t last = 0;

	p += blocks * US_CSUM_BLOCK;
	for (; rest >= 8; rest -= 8, p += 8)
		total = us_add_carry(total, us_load64(p));
	if (rest) {
		memcpy(&last, p, rest);
		total = us_add_carry(total, last);
	}
	return us_fold16((uint64_t)ntohs((uint16_t)us_fold16(total)) + sum);
}

/**
 * us_csum_block_add - join the sums of two pieces of one buffer
 * @sum:    sum of what comes first
 * @part:   sum of the second piece, taken as if it began a word
 * @offset: where the second piece begins; odd ones swap its bytes
 *
 * Return: the sum of both, 0 to 0xffff.
 */
uint32_t us_csum_block_add(uint32_t sum, uint32_t part, uint64_t offset)
{
	part = us_fold16(part);
	if (offset & 1)
		part = __builtin_bswap16((uint16_t)part);
	return us_fold16((uint64_t)sum + part);
}

/**
 * us_csum_fold - the checksum that stands for a sum
 * @sum: any sum
 */
uint16_t us_csum_fold(uint32_t sum)
{
	return (uint16_t)~us_fold16(sum);
}

/**
 * us_csum_tcpudp_nofold - add TCP's or UDP's pseudo header (RFC 9293 §3.1)
 * @saddr: source address, host order
 * @daddr: destination address, host order
 * @len:   bytes of transport header and payload
 * @proto: IP protocol number
 * @sum:   sum of these bytes, or 0
 *
 * Return: the sum, 0 to 0xffff.
 */
uint32_t us_csum_tcpudp_nofold(uint32_t saddr, uint32_t daddr, uint32_t len, uint8_t proto, uint32_t sum)
{
	return us_fold16((uint64_t)saddr + daddr + len + proto + sum);
}

/**
 * us_csum_tcpudp_magic - the checksum of a TCP segment or UDP datagram
 * @saddr: source address, host order
 * @daddr: destination address, host order
 * @len:   bytes of transport header and payload
 * @proto: IP protocol number
 * @sum:   sum of these bytes
 *
 * Return: what belongs into the checksum field, if it was summed as zero; 0 if it was
 * summed as it stands and is right.
 */
uint16_t us_csum_tcpudp_magic(uint32_t saddr, uint32_t daddr, uint32_t len, uint8_t proto, uint32_t sum)
{
	return (uint16_t)~us_csum_tcpudp_nofold(saddr, daddr, len, proto, sum);
}

/**
 * us_ip_fast_csum - the checksum of an IPv4 header
 * @iph:   header
 * @bytes: its length, 4 * IHL
 *
 * Return: what belongs into the field, if it is zero now; 0 if it is filled and right.
 */
uint16_t us_ip_fast_csum(const void *iph, uint32_t bytes)
{
	return (uint16_t)~us_csum_partial(iph, bytes, 0);
}
