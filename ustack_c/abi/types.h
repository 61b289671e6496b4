#ifndef USTACK_ABI_TYPES_H
#define USTACK_ABI_TYPES_H

#include <stdint.h>

/*
 * Shared by gcc and by cffi's cdef: plain declarations only.
 * dma_addr_t is an offset into the arena, never a pointer: the emulated NIC
 * can reach nothing else, and every use is checked against the arena's size.
 */
typedef uint64_t us_dma_addr_t;

/* A run of bytes in the arena, as a transmit descriptor points at it. */
struct us_frag {
	us_dma_addr_t addr;
	uint32_t len;
};

#endif
