#ifndef USTACK_ABI_IGB_H
#define USTACK_ABI_IGB_H

#include "igb_regs.h"
#include "mem.h"

/* The driver's hot loops (drivers/net/ethernet/intel/igb/igb_main.c). */

#define US_IGB_RX_BUDGET 64
#define US_IGB_RX_BUFFER_WRITE 16
#define US_IGB_MAX_DATA_PER_TXD 32768
#define US_IGB_TX_HEADER_BYTES 2048
#define US_MAX_SKB_FRAGS 17

/* Context, linear part in up to three, frags, and the cuts of frags beyond 32 KiB. */
#define US_IGB_DESC_NEEDED 21
#define US_IGB_TX_QUEUE_WAKE 42
#define US_IGB_TX_WORK 128

/* Classes of adaptive moderation: 70,000, 20,000 and 4,000 interrupts a second. */
#define US_IGB_LOWEST_LATENCY 0
#define US_IGB_LOW_LATENCY 1
#define US_IGB_BULK_LATENCY 2
#define US_IGB_70K_ITR 56
#define US_IGB_20K_ITR 196
#define US_IGB_4K_ITR 980
#define US_IGB_START_ITR 648

/* One descriptor's buffer: one block of pages, kept from frame to frame (igb_rx_buffer). */
struct us_igb_rx_buffer {
	us_dma_addr_t page;
};

/* One received frame, whole in one piece; valid until the buffers are posted again. */
struct us_igb_rx_frame {
	us_dma_addr_t addr;
	uint32_t len;
	uint16_t gso_size;
	uint16_t gso_segs;
	uint32_t ip_summed;	/* CHECKSUM_NONE 0, CHECKSUM_UNNECESSARY 1 */
	uint32_t rss;
	struct us_igb_rx_buffer *large;	/* the 64 KiB buffer that it fills alone: another block of
					 * that size may take its place; or NULL */
};

/* How often one vector may interrupt (igb_q_vector's ITR fields). */
struct us_igb_itr {
	uint32_t setting;	/* ethtool's rx-usecs: 1 and 3 are adaptive, else a time or 0 */
	uint32_t itr_val;	/* quarter microseconds, as EITR has it */
	uint32_t rx_class;	/* 0 lowest latency, 1 low latency, 2 bulk */
	uint32_t tx_class;
	uint64_t rx_packets;	/* the rings' counts at the last update */
	uint64_t rx_bytes;
	uint64_t tx_packets;
	uint64_t tx_bytes;
};

struct us_igb_rx_ring {
	struct us_mem *mem;
	us_dma_addr_t dma;
	uint32_t count;
	uint32_t buffer_bytes;
	uint32_t next_to_use;
	uint32_t next_to_clean;
	uint64_t packets;
	uint64_t bytes;
	uint64_t csum_err;
	uint64_t alloc_failed;
	uint64_t errors;
	uint64_t descriptors;	/* cleaned so far; more than packets if frames span several */
	struct us_igb_rx_buffer *buffer_info;
	uint32_t nlinear;
	us_dma_addr_t linear[64];
	struct us_igb_rx_frame frames[64];
};

/* What clean-up must know of one descriptor (igb_tx_buffer). */
struct us_igb_tx_buffer {
	us_dma_addr_t page;		/* reference to give back, US_NO_PAGE: none */
	uint32_t next_to_watch;		/* first of a packet: index + 1 of its last */
	uint32_t bytes;
	uint32_t owner;			/* whose packet it is, see us_igb_xmit_frame */
};

struct us_igb_tx_ring {
	struct us_mem *mem;
	us_dma_addr_t dma;
	uint32_t count;
	uint32_t next_to_use;
	uint32_t next_to_clean;
	uint32_t stopped;	/* the stack must not send: netif_stop_subqueue */
	uint64_t packets;
	uint64_t bytes;
	uint64_t restart;
	uint64_t busy;
	uint64_t descriptors;	/* used so far, contexts included */
	struct us_igb_tx_buffer *buffer_info;
	us_dma_addr_t headers[64];
	struct us_frag frags[17];	/* the caller's list for us_igb_xmit_frame */
};

struct us_igb_rx_ring *us_igb_setup_rx_resources(struct us_mem *mem, uint32_t count,
						 uint32_t buffer_bytes);
void us_igb_free_rx_resources(struct us_igb_rx_ring *ring);
uint32_t us_igb_alloc_rx_buffers(struct us_igb_rx_ring *ring, struct us_igb_rxq_regs *regs);
int us_igb_clean_rx_irq(struct us_igb_rx_ring *ring, uint32_t budget);

struct us_igb_tx_ring *us_igb_setup_tx_resources(struct us_mem *mem, uint32_t count);
void us_igb_free_tx_resources(struct us_igb_tx_ring *ring);
int us_igb_xmit_frame(struct us_igb_tx_ring *ring, const uint8_t *data, uint32_t len,
		      uint32_t nfrags, uint32_t csum_start, uint32_t csum_offset,
		      uint32_t gso_size, uint32_t owner);
int us_igb_tx_is_above(const struct us_igb_tx_ring *ring, const struct us_igb_txq_regs *txq,
		       uint32_t owner, uint64_t limit);
uint32_t us_igb_tx_room(const struct us_igb_tx_ring *ring);
uint32_t us_igb_clean_tx_irq(struct us_igb_tx_ring *ring, uint32_t budget);

int us_igb_set_itr(struct us_igb_itr *itr, const struct us_igb_rx_ring *rx,
		   const struct us_igb_tx_ring *tx);

#endif
