/* The driver's adaptive interrupt moderation (igb_update_itr, igb_set_itr). */

#include "igb.h"

/* Which class a ring belongs in that moved so much since the last interrupt. */
static uint32_t us_igb_update_itr(uint32_t class, uint64_t packets, uint64_t bytes)
{
	if (!packets)
		return class;
	switch (class) {
	case US_IGB_LOWEST_LATENCY:
		if (bytes / packets > 8000)	/* super-frames and jumbo frames */
			return US_IGB_BULK_LATENCY;
		if (packets < 5 && bytes > 512)
			return US_IGB_LOW_LATENCY;
		return class;
	case US_IGB_LOW_LATENCY:
		if (bytes > 10000) {
			if (bytes / packets > 1200 || packets < 10)
				return US_IGB_BULK_LATENCY;
			return packets > 35 ? US_IGB_LOWEST_LATENCY : class;
		}
		if (bytes / packets > 2000)
			return US_IGB_BULK_LATENCY;
		return packets <= 2 && bytes < 512 ? US_IGB_LOWEST_LATENCY : class;
	default:
		if (bytes > 25000)
			return packets > 35 ? US_IGB_LOW_LATENCY : class;
		return bytes < 1500 ? US_IGB_LOW_LATENCY : class;
	}
}

/* The class of both rings together, as EITR's value. */
static uint32_t us_igb_class_itr(const struct us_igb_itr *itr)
{
	const uint32_t class = itr->rx_class > itr->tx_class ? itr->rx_class : itr->tx_class;

	if (class == US_IGB_BULK_LATENCY)
		return US_IGB_4K_ITR;
	if (class == US_IGB_LOW_LATENCY || itr->setting == 3)
		return US_IGB_20K_ITR;	/* 3: conservative, without the lowest latency */
	return US_IGB_70K_ITR;
}

/**
 * us_igb_set_itr - choose a vector's moderation from what its rings moved (igb_set_itr)
 * @itr: the vector's state; nothing happens unless its setting is adaptive
 * @rx:  its receive ring
 * @tx:  its transmit ring
 *
 * Return: the new value for EITR, -1 if it stays.
 */
int us_igb_set_itr(struct us_igb_itr *itr, const struct us_igb_rx_ring *rx,
		   const struct us_igb_tx_ring *tx)
{
	uint32_t itr_val;

	if (itr->setting != 1 && itr->setting != 3)
		return -1;
	itr->rx_class = us_igb_update_itr(itr->rx_class, rx->packets - itr->rx_packets,
					  rx->bytes - itr->rx_bytes);
	itr->tx_class = us_igb_update_itr(itr->tx_class, tx->packets - itr->tx_packets,
					  tx->bytes - itr->tx_bytes);
	itr->rx_packets = rx->packets;
	itr->rx_bytes = rx->bytes;
	itr->tx_packets = tx->packets;
	itr->tx_bytes = tx->bytes;
	itr_val = us_igb_class_itr(itr);
	if (itr_val == itr->itr_val)
		return -1;
	itr->itr_val = itr_val;
	return (int)itr_val;
}
