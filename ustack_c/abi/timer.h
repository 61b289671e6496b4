#ifndef USTACK_ABI_TIMER_H
#define USTACK_ABI_TIMER_H

#include "types.h"

/* No timer is armed. */
#define US_TIMER_NEVER 0xffffffffffffffff

/* One timer (struct timer_list), embedded in what it is for; all zero is a valid idle one. */
struct us_timer {
	struct us_timer *next;
	struct us_timer **pprev;	/* NULL while it is not armed */
	uint64_t expires_us;
};

/* All timers of one stack: arm, cancel and expire in constant time. */
struct us_timer_wheel;

struct us_timer_wheel *us_timer_wheel_create(uint64_t now_us);
void us_timer_wheel_destroy(struct us_timer_wheel *wheel);

void us_mod_timer(struct us_timer_wheel *wheel, struct us_timer *timer, uint64_t expires_us);
void us_del_timer(struct us_timer_wheel *wheel, struct us_timer *timer);
uint32_t us_timers_armed(const struct us_timer_wheel *wheel);

/* When the first timer may be due; never too late, too early only behind a cancelled one. */
uint64_t us_timer_next_us(const struct us_timer_wheel *wheel);

/* The timer that is due first, still armed; NULL if there is none, or too many to look at. */
struct us_timer *us_timer_first(struct us_timer_wheel *wheel);

/* The next timer that is due, no longer armed, or NULL. */
struct us_timer *us_timer_expired(struct us_timer_wheel *wheel, uint64_t now_us);

#endif
