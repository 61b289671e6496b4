/* Receive side scaling: the Toeplitz hash over a frame's addresses and ports. */

#include <string.h>

#include "nic_dev.h"

#define US_IPPROTO_TCP 6
#define US_IPPROTO_UDP 17

/**
 * us_toeplitz - Microsoft's hash of receive side scaling (datasheet 7.1.2.8)
 * @key:  US_IGB_RSSRK_SIZE bytes
 * @data: fields in network order
 * @len:  bytes of @data, at most US_IGB_RSSRK_SIZE - 4
 *
 * Every bit of @data that is set adds the 32 bits of the key that begin at its place.
 */
uint32_t us_toeplitz(const uint8_t *key, const uint8_t *data, uint32_t len)
{
	uint64_t window = 0;
	uint32_t hash = 0;

	for (int i = 0; i < 4; i++)
		window = window << 8 | key[i];
	if (len > US_IGB_RSSRK_SIZE - 4)
		len = US_IGB_RSSRK_SIZE - 4;
	for (uint32_t i = 0; i < len; i++) {
		window = (window << 8 | key[i + 4]) & 0xffffffffffU;
		for (uint32_t bit = 0; bit < 8; bit++) {
			if (data[i] & 0x80U >> bit)
				hash ^= (uint32_t)(window >> (8 - bit));
		}
	}
	return hash;
}

/* Bytes of the fields to hash from the source address on, 0: not a packet that is hashed. */
static uint32_t us_rss_fields(uint32_t mrqc, const uint8_t *ip, uint32_t len, uint32_t *type)
{
	const uint32_t ihl = (ip[0] & 15U) * 4U;
	const bool is_fragment = (ip[6] & 0x3f) || ip[7];

	if (ip[0] >> 4 != 4 || ihl < 20)
		return 0;
	if (!is_fragment && len >= ihl + 4) {
		if (ip[9] == US_IPPROTO_TCP && (mrqc & US_E1000_MRQC_RSS_FIELD_IPV4_TCP))
			*type = US_E1000_RXDADV_RSSTYPE_IPV4_TCP;
		else if (ip[9] == US_IPPROTO_UDP && (mrqc & US_E1000_MRQC_RSS_FIELD_IPV4_UDP))
			*type = US_E1000_RXDADV_RSSTYPE_IPV4_UDP;
		if (*type)
			return 12;
	}
	if (!(mrqc & US_E1000_MRQC_RSS_FIELD_IPV4))
		return 0;
	*type = US_E1000_RXDADV_RSSTYPE_IPV4;
	return 8;
}

/**
 * us_nic_rss - hash a frame as MRQC says
 * @nic:   device
 * @frame: its first bytes, all headers
 * @len:   how many
 * @type:  out, RSS type of the write-back; 0: not hashed
 *
 * Return: the hash, 0 for a frame that is not hashed.
 */
uint32_t us_nic_rss(const struct us_nic *nic, const uint8_t *frame, uint32_t len, uint32_t *type)
{
	const uint8_t *ip = frame + US_ETH_HLEN;
	uint8_t fields[12];
	uint32_t n;

	*type = 0;
	if (!(nic->regs.MRQC & US_E1000_MRQC_ENABLE_RSS) || len < US_ETH_HLEN + 20 ||
	    frame[12] != 0x08 || frame[13] != 0x00)
		return 0;
	n = us_rss_fields(nic->regs.MRQC, ip, len - US_ETH_HLEN, type);
	if (!n)
		return 0;
	memcpy(fields, ip + 12, 8);
	if (n == 12)
		memcpy(fields + 8, ip + (ip[0] & 15U) * 4U, 4);
	return us_toeplitz(nic->regs.RSSRK, fields, n);
}
