#ifndef USTACK_HARNESS_H
#define USTACK_HARNESS_H

/*
 * Random tests of the C code without Python, run under AddressSanitizer and UBSan.
 *
 * A test is a function that plays one round, from a random source that the round's seed
 * decides. Write one as
 *
 *	HARNESS_TEST(name)
 *	{
 *		... rng_below(rng, 6) ... CHECK(condition);
 *	}
 *
 * in any .c file of this folder; main.c runs all of them. When a CHECK or a sanitizer
 * stops the run, it prints how to play that round again.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct rng {
	uint64_t state;
};

uint64_t rng_next(struct rng *rng);
uint32_t rng_below(struct rng *rng, uint32_t limit);	/* 0 to limit - 1 */
void rng_fill(struct rng *rng, void *buf, size_t len);

/* A length from 0 to limit: small ones, whole ones and all others alike often. */
uint32_t rng_length(struct rng *rng, uint32_t limit);

struct harness_test {
	const char *name;
	void (*play)(struct rng *rng);
	struct harness_test *next;
};

void harness_add(struct harness_test *test);

/* Print what failed and how to play the round again; does not return. */
__attribute__((noreturn)) void harness_fail(const char *file, int line, const char *condition);

#define CHECK(condition)                                                                  \
	do {                                                                              \
		if (!(condition))                                                         \
			harness_fail(__FILE__, __LINE__, #condition);                     \
	} while (0)

#define HARNESS_TEST(test)                                                                \
	static void play_##test(struct rng *rng);                                         \
	__attribute__((constructor)) static void add_##test(void)                         \
	{                                                                                 \
		static struct harness_test entry = { .name = #test, .play = play_##test }; \
		harness_add(&entry);                                                      \
	}                                                                                 \
	static void play_##test(struct rng *rng)

#endif
