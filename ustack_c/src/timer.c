/*
 * The timer wheel (kernel/time/timer.c): levels of 64 slots, the lowest of about a
 * millisecond each, every level 64 times as coarse as the one below. A timer lies in the
 * lowest level that reaches as far as it does, and moves down when its slot comes up. Unlike
 * Linux's, expiry is exact: a slot that has come up keeps what is not due yet.
 */

#include <stdbool.h>
#include <stdlib.h>

#include "timer.h"

#define US_WHEEL_TICK_SHIFT 10
#define US_WHEEL_BITS 6
#define US_WHEEL_SLOTS 64
#define US_WHEEL_LEVELS 8
#define US_WHEEL_LOOK 16	/* timers of a slot that us_timer_first looks through */

struct us_timer_level {
	uint64_t occupied;			/* a bit for each slot with timers */
	struct us_timer *slots[US_WHEEL_SLOTS];
	uint64_t first_us[US_WHEEL_SLOTS];	/* none of a slot's timers is earlier */
};

struct us_timer_wheel {
	uint64_t tick;				/* everything before it has been looked at */
	uint32_t armed;
	struct us_timer_level levels[US_WHEEL_LEVELS];
};

/* One slot of the wheel. */
struct us_timer_slot {
	uint32_t level;
	uint32_t index;
	uint64_t tick;				/* when it begins */
};

/**
 * us_timer_wheel_create - a wheel without timers
 * @now_us: time that it begins with
 *
 * Return: the wheel, or NULL for lack of memory.
 */
struct us_timer_wheel *us_timer_wheel_create(uint64_t now_us)
{
	struct us_timer_wheel *wheel = calloc(1, sizeof(*wheel));

	if (wheel)
		wheel->tick = now_us >> US_WHEEL_TICK_SHIFT;
	return wheel;
}

/**
 * us_timer_wheel_destroy - forget the wheel; timers still armed are not touched
 * @wheel: wheel, or NULL
 */
void us_timer_wheel_destroy(struct us_timer_wheel *wheel)
{
	free(wheel);
}

/* The lowest level whose 64 slots reach to @tick, and the slot there. */
static struct us_timer_slot us_timer_slot_of(const struct us_timer_wheel *wheel, uint64_t tick)
{
	struct us_timer_slot slot = {.level = 0};
	uint64_t now = wheel->tick;
	uint64_t at = tick;

	while (at - now >= US_WHEEL_SLOTS && slot.level < US_WHEEL_LEVELS - 1) {
		slot.level++;
		at >>= US_WHEEL_BITS;
		now >>= US_WHEEL_BITS;
	}
	if (at - now >= US_WHEEL_SLOTS)
		at = now + US_WHEEL_SLOTS - 1;	/* beyond the wheel: to be put back from there */
	slot.index = (uint32_t)(at % US_WHEEL_SLOTS);
	slot.tick = at << US_WHEEL_BITS * slot.level;
	return slot;
}

static void us_timer_link(struct us_timer_wheel *wheel, struct us_timer *timer)
{
	const uint64_t tick = timer->expires_us >> US_WHEEL_TICK_SHIFT;
	const struct us_timer_slot slot =
		us_timer_slot_of(wheel, tick > wheel->tick ? tick : wheel->tick);
	struct us_timer_level *level = &wheel->levels[slot.level];
	struct us_timer **head = &level->slots[slot.index];
	uint64_t first_us = timer->expires_us;

	if (slot.level == US_WHEEL_LEVELS - 1)
		first_us = slot.tick << US_WHEEL_TICK_SHIFT;
	if (!*head || first_us < level->first_us[slot.index])
		level->first_us[slot.index] = first_us;
	timer->next = *head;
	timer->pprev = head;
	if (*head)
		(*head)->pprev = &timer->next;
	*head = timer;
	level->occupied |= 1ULL << slot.index;
	wheel->armed++;
}

static void us_timer_unlink(struct us_timer_wheel *wheel, struct us_timer *timer)
{
	*timer->pprev = timer->next;
	if (timer->next)
		timer->next->pprev = timer->pprev;
	timer->next = NULL;
	timer->pprev = NULL;
	wheel->armed--;
}

/**
 * us_mod_timer - arm a timer, or move it
 * @wheel:      wheel
 * @timer:      timer; armed in no other wheel
 * @expires_us: when it is due; the past is at once
 */
void us_mod_timer(struct us_timer_wheel *wheel, struct us_timer *timer, uint64_t expires_us)
{
	if (timer->pprev)
		us_timer_unlink(wheel, timer);
	timer->expires_us = expires_us;
	us_timer_link(wheel, timer);
}

/**
 * us_del_timer - disarm a timer, if it is armed
 * @wheel: wheel that it may be armed in
 * @timer: timer
 */
void us_del_timer(struct us_timer_wheel *wheel, struct us_timer *timer)
{
	if (timer->pprev)
		us_timer_unlink(wheel, timer);
}

/**
 * us_timers_armed - how many timers are armed
 * @wheel: wheel
 *
 * Return: their number.
 */
uint32_t us_timers_armed(const struct us_timer_wheel *wheel)
{
	return wheel->armed;
}

/* The first occupied slot of one level; slots whose timers were all cancelled count. */
static bool us_timer_first_slot(const struct us_timer_wheel *wheel, uint32_t level,
				struct us_timer_slot *slot)
{
	const uint64_t now = wheel->tick >> US_WHEEL_BITS * level;
	const uint32_t at = now % US_WHEEL_SLOTS;
	const uint64_t occupied = wheel->levels[level].occupied;
	uint64_t ahead;

	if (!occupied)
		return false;
	/* Rotate, so that the present slot is bit 0. */
	ahead = at ? occupied >> at | occupied << (US_WHEEL_SLOTS - at) : occupied;
	ahead = (uint64_t)__builtin_ctzll(ahead);
	slot->level = level;
	slot->index = (uint32_t)(now + ahead) % US_WHEEL_SLOTS;
	slot->tick = (now + ahead) << US_WHEEL_BITS * level;
	return true;
}

/* The slot with the earliest bound of all levels, and that bound. */
static uint64_t us_timer_earliest(const struct us_timer_wheel *wheel, struct us_timer_slot *first)
{
	uint64_t next_us = US_TIMER_NEVER;
	struct us_timer_slot slot;

	if (!wheel->armed)
		return next_us;
	for (uint32_t level = 0; level < US_WHEEL_LEVELS; level++) {
		if (us_timer_first_slot(wheel, level, &slot) &&
		    wheel->levels[level].first_us[slot.index] < next_us) {
			next_us = wheel->levels[level].first_us[slot.index];
			*first = slot;
		}
	}
	return next_us;
}

/**
 * us_timer_next_us - when to look at the wheel again
 * @wheel: wheel
 *
 * Return: stack time, or US_TIMER_NEVER.
 */
uint64_t us_timer_next_us(const struct us_timer_wheel *wheel)
{
	struct us_timer_slot slot;

	return us_timer_earliest(wheel, &slot);
}

/* The first of a slot's timers, the slot's bound exact afterwards; NULL if they are many, or none. */
static struct us_timer *us_timer_first_of_slot(struct us_timer_level *level, uint32_t index)
{
	struct us_timer *first = level->slots[index];
	uint32_t n = 0;

	for (struct us_timer *timer = first; timer; timer = timer->next) {
		if (++n > US_WHEEL_LOOK)
			return NULL;
		if (timer->expires_us < first->expires_us)
			first = timer;
	}
	if (first)
		level->first_us[index] = first->expires_us;
	else
		level->occupied &= ~(1ULL << index);
	return first;
}

/**
 * us_timer_first - the timer that is due first
 * @wheel: wheel
 *
 * What cancelled timers have left behind is cleared away on the way.
 *
 * Return: the timer, still armed; NULL if none is, or if it is one of many in its slot, whose
 * bound is then what is known (us_timer_next_us).
 */
struct us_timer *us_timer_first(struct us_timer_wheel *wheel)
{
	struct us_timer_slot slot;
	struct us_timer *timer;
	uint64_t bound_us;

	while ((bound_us = us_timer_earliest(wheel, &slot)) != US_TIMER_NEVER) {
		struct us_timer_level *level = &wheel->levels[slot.level];

		timer = us_timer_first_of_slot(level, slot.index);
		if (level->occupied & 1ULL << slot.index &&
		    (!timer || timer->expires_us == bound_us))
			return timer;
	}
	return NULL;
}

/* Find the slot that comes up first and not after @tick; of two, the coarser one. */
static bool us_timer_due_slot(const struct us_timer_wheel *wheel, uint64_t tick,
			      struct us_timer_slot *due)
{
	struct us_timer_slot slot;
	bool found = false;

	for (uint32_t level = US_WHEEL_LEVELS; level-- > 0;) {
		if (us_timer_first_slot(wheel, level, &slot) && slot.tick <= tick &&
		    (!found || slot.tick < due->tick)) {
			*due = slot;
			found = true;
		}
	}
	return found;
}

/* Take a slot's timers out of the wheel, as a list. */
static struct us_timer *us_timer_take_slot(struct us_timer_wheel *wheel,
					   const struct us_timer_slot *slot)
{
	struct us_timer_level *level = &wheel->levels[slot->level];
	struct us_timer *list = level->slots[slot->index];

	level->slots[slot->index] = NULL;
	level->occupied &= ~(1ULL << slot->index);
	return list;
}

/* A coarse slot has come up: its timers go where they belong now. */
static void us_timer_cascade(struct us_timer_wheel *wheel, const struct us_timer_slot *slot)
{
	struct us_timer *timer = us_timer_take_slot(wheel, slot);

	while (timer) {
		struct us_timer *next = timer->next;

		wheel->armed--;
		us_timer_link(wheel, timer);
		timer = next;
	}
}

/* Take the first timer of a fine slot that is due; without one the slot's bounds are exact. */
static struct us_timer *us_timer_take_due(struct us_timer_wheel *wheel,
					  const struct us_timer_slot *slot, uint64_t now_us)
{
	struct us_timer_level *level = &wheel->levels[0];
	uint64_t first_us = US_TIMER_NEVER;
	struct us_timer *timer;

	if (level->first_us[slot->index] > now_us && level->slots[slot->index])
		return NULL;
	for (timer = level->slots[slot->index]; timer; timer = timer->next) {
		if (timer->expires_us <= now_us) {
			us_timer_unlink(wheel, timer);
			return timer;
		}
		if (timer->expires_us < first_us)
			first_us = timer->expires_us;
	}
	level->first_us[slot->index] = first_us;
	if (!level->slots[slot->index])
		level->occupied &= ~(1ULL << slot->index);
	return NULL;
}

/**
 * us_timer_expired - take one timer that is due out of the wheel
 * @wheel:  wheel
 * @now_us: stack time, which does not go back
 *
 * Timers of one millisecond come in no particular order, as in Linux.
 *
 * Return: a timer, disarmed; NULL once none is due.
 */
struct us_timer *us_timer_expired(struct us_timer_wheel *wheel, uint64_t now_us)
{
	const uint64_t now = now_us >> US_WHEEL_TICK_SHIFT;
	struct us_timer_slot slot = {0};
	struct us_timer *timer;

	while (us_timer_due_slot(wheel, now, &slot)) {
		if (slot.tick > wheel->tick)
			wheel->tick = slot.tick;
		if (slot.level) {
			us_timer_cascade(wheel, &slot);
			continue;
		}
		timer = us_timer_take_due(wheel, &slot, now_us);
		if (timer)
			return timer;
		if (slot.tick >= now)
			break;	/* the present slot, and what is left in it is not due */
	}
	if (now > wheel->tick)
		wheel->tick = now;
	return NULL;
}
