#ifndef USTACK_NIC_DEV_H
#define USTACK_NIC_DEV_H

/* The inside of the emulated device: what the nic_*.c files share and no driver sees. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "arena.h"
#include "nic.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "descriptors are little endian");
_Static_assert(sizeof(union us_adv_rx_desc) == 16, "receive descriptor");
_Static_assert(sizeof(union us_adv_tx_desc) == 16, "transmit descriptor");

#define US_ETH_HLEN 14

/* Buffers that the largest frame can span, and descriptors of one frame to send. */
#define US_RX_PIECES 33
#define US_TX_PIECES 64

/* struct virtio_net_hdr */
struct us_vnet_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
};

_Static_assert(sizeof(struct us_vnet_hdr) == US_VNET_HDR_LEN, "virtio_net_hdr");

/* What the last context descriptor of a transmit queue said. */
struct us_nic_context {
	uint32_t maclen;
	uint32_t iplen;
	uint32_t l4len;
	uint32_t mss;
	bool is_tcp;
};

/* A frame that found no room stays here while the wire is paused (the packet buffer). */
struct us_nic_fifo {
	struct us_vnet_hdr hdr;
	uint32_t len;		/* 0: empty */
	uint8_t bytes[US_MAX_FRAME + 1];
};

struct us_nic {
	struct us_igb_regs regs;
	struct us_mem *mem;
	int fds[US_IGB_MAX_QUEUES];	/* the wire, or its queues */
	uint32_t nfds;		/* 0: no wire that is a descriptor */
	uint32_t first_fd;	/* which one is read first next time */
	uint32_t vnet_hdr_len;
	bool paused;
	uint32_t likely_queue;	/* where the last frame went */
	uint32_t rx_causes;	/* vectors with a frame pending, not only completions */
	uint32_t urgent;	/* vectors whose interrupt does not wait for EITR */
	int64_t fired_us[US_IGB_MAX_QUEUES];	/* last interrupt of each vector */
	struct us_nic_context context[US_IGB_MAX_QUEUES];
	struct us_nic_fifo fifo;
};

uint32_t us_nic_rx_status(const struct us_nic *nic, const struct us_vnet_hdr *hdr,
			  const struct iovec *pieces, uint32_t len, uint16_t *pkt_info);

uint32_t us_nic_rss(const struct us_nic *nic, const uint8_t *frame, uint32_t len, uint32_t *type);

static inline uint32_t us_nic_vector(const struct us_nic *nic, uint32_t queue)
{
	return 1U << (nic->regs.IVAR[queue] & 7U);
}

static inline void us_nic_raise_tx_cause(struct us_nic *nic, uint32_t queue)
{
	nic->regs.EICR |= us_nic_vector(nic, queue);
}

static inline void us_nic_raise_rx_cause(struct us_nic *nic, uint32_t queue, bool is_urgent)
{
	const uint32_t vector = us_nic_vector(nic, queue);

	nic->regs.EICR |= vector;
	nic->rx_causes |= vector;
	if (is_urgent)
		nic->urgent |= vector;
}

static inline bool us_is_broadcast(const uint8_t *mac)
{
	return (mac[0] & mac[1] & mac[2] & mac[3] & mac[4] & mac[5]) == 0xff;
}

#endif
