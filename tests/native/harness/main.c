/*
 * harness [--seed N] [--ms N] [--test NAME [--round N]] [--list]
 *
 * Plays each registered test for --ms milliseconds (300), or one round of one test.
 */

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "harness.h"

static struct harness_test *tests;

static struct {
	const struct harness_test *test;
	uint64_t seed;
	uint64_t round;
} playing;

/* From the sanitizers' run-time library; absent without them. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

struct options {
	uint64_t seed;
	uint64_t ms;
	const char *test;
	const char *round;
	int list;
};

uint64_t rng_next(struct rng *rng)
{
	uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint32_t rng_below(struct rng *rng, uint32_t limit)
{
	return (uint32_t)(((rng_next(rng) >> 32) * limit) >> 32);
}

void rng_fill(struct rng *rng, void *buf, size_t len)
{
	uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = (uint8_t)(rng_next(rng) >> 56);
}

uint32_t rng_length(struct rng *rng, uint32_t limit)
{
	switch (rng_below(rng, 4)) {
	case 0:
		return rng_below(rng, limit < 64 ? limit + 1 : 64);
	case 1:
		return limit;
	default:
		return rng_below(rng, limit) + (limit ? rng_below(rng, 2) : 0);
	}
}

void harness_add(struct harness_test *test)
{
	struct harness_test **place = &tests;

	while (*place && strcmp((*place)->name, test->name) < 0)
		place = &(*place)->next;
	test->next = *place;
	*place = test;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void tell_round(void)
{
	fprintf(stderr, "again: --seed %llu --test %s --round %llu\n", (unsigned long long)playing.seed,
		playing.test->name, (unsigned long long)playing.round);
}

void harness_fail(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: CHECK(%s)\n", file, line, condition);
	tell_round();
	abort();
}

static void play_round(const struct harness_test *test, uint64_t seed, uint64_t round)
{
	struct rng rng = { seed * UINT64_C(0x2545f4914f6cdd1d) + round };

	playing.test = test;
	playing.seed = seed;
	playing.round = round;
	test->play(&rng);
}

static void play_test(const struct harness_test *test, const struct options *options)
{
	const uint64_t end = now_ms() + options->ms;
	uint64_t round = 0;

	if (options->round) {
		play_round(test, options->seed, strtoull(options->round, NULL, 0));
		return;
	}
	do
		play_round(test, options->seed, round++);
	while (now_ms() < end);
	printf("%s: %llu rounds\n", test->name, (unsigned long long)round);
}

static struct options parse(int argc, char **argv)
{
	struct options options = { .seed = 1, .ms = 300 };
	int i;

	for (i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--list")) {
			options.list = 1;
			continue;
		}
		if (!strcmp(argv[i], "--seed"))
			options.seed = strtoull(value, NULL, 0);
		else if (!strcmp(argv[i], "--ms"))
			options.ms = strtoull(value, NULL, 0);
		else if (!strcmp(argv[i], "--test"))
			options.test = value;
		else if (!strcmp(argv[i], "--round"))
			options.round = value;
		else
			exit(2);
		i++;
	}
	return options;
}

int main(int argc, char **argv)
{
	const struct options options = parse(argc, argv);
	const struct harness_test *test;
	int played = 0;

	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(tell_round);
	for (test = tests; test; test = test->next) {
		if (options.test && strcmp(options.test, test->name))
			continue;
		if (options.list)
			printf("%s\n", test->name);
		else
			play_test(test, &options);
		played++;
	}
	return played ? 0 : 2;
}
