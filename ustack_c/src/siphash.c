/* SipHash-2-4 (Aumasson and Bernstein 2012; lib/siphash.c in Linux). */

#include <string.h>

#include "siphash.h"

struct us_sipstate {
	uint64_t v0, v1, v2, v3;
};

static uint64_t us_rol64(uint64_t word, unsigned int bits)
{
	return (word << bits) | (word >> (64 - bits));
}

static uint64_t us_load_le64(const uint8_t *p)
{
	uint64_t word = 0;
	unsigned int i;

	for (i = 0; i < 8; i++)
		word |= (uint64_t)p[i] << (8 * i);
	return word;
}

static inline __attribute__((always_inline)) void us_sip_round(struct us_sipstate *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = us_rol64(s->v1, 13) ^ s->v0;
	s->v3 = us_rol64(s->v3, 16) ^ s->v2;
	s->v0 = us_rol64(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = us_rol64(s->v1, 17) ^ s->v2;
	s->v3 = us_rol64(s->v3, 21) ^ s->v0;
	s->v2 = us_rol64(s->v2, 32);
}

static void us_sip_word(struct us_sipstate *s, uint64_t word)
{
	s->v3 ^= word;
	us_sip_round(s);
	us_sip_round(s);
	s->v0 ^= word;
}

static struct us_sipstate us_sip_start(const uint8_t *key16)
{
	const uint64_t k0 = us_load_le64(key16);
	const uint64_t k1 = us_load_le64(key16 + 8);

	/* The initial state is the ASCII text "somepseudorandomlygeneratedbytes". */
	return (struct us_sipstate){
		.v0 = k0 ^ UINT64_C(0x736f6d6570736575),
		.v1 = k1 ^ UINT64_C(0x646f72616e646f6d),
		.v2 = k0 ^ UINT64_C(0x6c7967656e657261),
		.v3 = k1 ^ UINT64_C(0x7465646279746573),
	};
}

static uint64_t us_sip_end(struct us_sipstate *s, uint64_t last)
{
	int i;

	us_sip_word(s, last);
	s->v2 ^= 0xff;
	for (i = 0; i < 4; i++)
		us_sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/**
 * us_siphash - keyed hash of bytes
 * @key16: 16 bytes of key
 * @data:  bytes
 * @len:   how many
 *
 * Return: 64 bits that cannot be predicted without the key.
 */
uint64_t us_siphash(const uint8_t *key16, const void *data, uint64_t len)
{
	struct us_sipstate s = us_sip_start(key16);
	const uint8_t *p = data;
	uint64_t last = len << 56;
	uint64_t left;

	for (left = len; left >= 8; left -= 8, p += 8)
		us_sip_word(&s, us_load_le64(p));
	while (left > 0) {
		left--;
		last |= (uint64_t)p[left] << (8 * left);
	}
	return us_sip_end(&s, last);
}

/**
 * us_siphash_2u64 - keyed hash of two words, as of their 16 little-endian bytes
 * @key16: 16 bytes of key
 * @a:     first word
 * @b:     second word
 */
uint64_t us_siphash_2u64(const uint8_t *key16, uint64_t a, uint64_t b)
{
	struct us_sipstate s = us_sip_start(key16);

	us_sip_word(&s, a);
	us_sip_word(&s, b);
	return us_sip_end(&s, UINT64_C(16) << 56);
}
