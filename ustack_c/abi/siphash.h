#ifndef USTACK_ABI_SIPHASH_H
#define USTACK_ABI_SIPHASH_H

#include "types.h"

/* SipHash-2-4 with a 16-byte key: what an attacker must not predict (ISNs, hash tables). */
uint64_t us_siphash(const uint8_t *key16, const void *data, uint64_t len);
uint64_t us_siphash_2u64(const uint8_t *key16, uint64_t a, uint64_t b);

#endif
