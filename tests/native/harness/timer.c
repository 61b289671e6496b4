/* The timer wheel against an array of deadlines. */

#include <stdbool.h>
#include <string.h>

#include "harness.h"
#include "timer.h"

#define TIMERS 300
#define STEPS 2000
#define FEW 16

struct model {
	struct us_timer_wheel *wheel;
	struct us_timer timers[TIMERS];
	uint64_t due_us[TIMERS];	/* US_TIMER_NEVER: not armed */
	uint64_t now_us;
};

/* Near and far alike: every level of the wheel is used, up to thousands of years. */
static uint64_t delay(struct rng *rng)
{
	return rng_next(rng) >> (6 + (rng_below(rng, 4) ? 28 + rng_below(rng, 28)
							: rng_below(rng, 58)));
}

static uint64_t first_due(const struct model *model)
{
	uint64_t first = US_TIMER_NEVER;

	for (uint32_t i = 0; i < TIMERS; i++)
		first = model->due_us[i] < first ? model->due_us[i] : first;
	return first;
}

static void arm(struct model *model, struct rng *rng)
{
	const uint32_t i = rng_below(rng, TIMERS);
	uint64_t due_us = model->now_us + delay(rng);

	if (!rng_below(rng, 20))
		due_us = rng_below(rng, 2) ? 0 : model->now_us;
	us_mod_timer(model->wheel, &model->timers[i], due_us);
	model->due_us[i] = due_us;
}

static void run(struct model *model, struct rng *rng)
{
	const uint64_t ahead = delay(rng);
	struct us_timer *timer;

	if (rng_below(rng, 2) && model->now_us < 1ULL << 60)
		model->now_us += ahead;
	else if (us_timer_next_us(model->wheel) != US_TIMER_NEVER &&
		 us_timer_next_us(model->wheel) > model->now_us)
		model->now_us = us_timer_next_us(model->wheel);
	while ((timer = us_timer_expired(model->wheel, model->now_us))) {
		const size_t i = (size_t)(timer - model->timers);

		CHECK(i < TIMERS);
		CHECK(model->due_us[i] <= model->now_us);
		model->due_us[i] = US_TIMER_NEVER;
	}
	CHECK(first_due(model) > model->now_us);
	CHECK(us_timer_next_us(model->wheel) > model->now_us);
}

static void cancel(struct model *model, struct rng *rng)
{
	const uint32_t i = rng_below(rng, TIMERS);

	us_del_timer(model->wheel, &model->timers[i]);
	model->due_us[i] = US_TIMER_NEVER;
}

static void check(struct model *model)
{
	uint32_t armed = 0;

	for (uint32_t i = 0; i < TIMERS; i++) {
		CHECK((model->due_us[i] != US_TIMER_NEVER) == (model->timers[i].pprev != NULL));
		armed += model->timers[i].pprev != NULL;
	}
	CHECK(us_timers_armed(model->wheel) == armed);
	CHECK(us_timer_next_us(model->wheel) <= first_due(model));
	if (armed && armed <= FEW)
		CHECK(us_timer_first(model->wheel)->expires_us == first_due(model));
	else if (!armed)
		CHECK(!us_timer_first(model->wheel));
}

HARNESS_TEST(timer_wheel)
{
	struct model *model = calloc(1, sizeof(*model));

	model->now_us = rng_below(rng, 2) ? 0 : rng_next(rng) >> 20;
	model->wheel = us_timer_wheel_create(model->now_us);
	memset(model->due_us, 0xff, sizeof(model->due_us));
	for (uint32_t step = 0; step < STEPS; step++) {
		switch (rng_below(rng, 4)) {
		case 0:
			run(model, rng);
			break;
		case 1:
			cancel(model, rng);
			break;
		default:
			arm(model, rng);
		}
		check(model);
	}
	us_timer_wheel_destroy(model->wheel);
	free(model);
}
