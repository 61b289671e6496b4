/* Receive checksum offload: what the device says about a frame in its write-back. */

#include "checksum.h"
#include "nic_dev.h"

#define US_IPPROTO_TCP 6
#define US_IPPROTO_UDP 17

/* Add bytes [@off, @end) of the frame to a sum; every piece but the last is of even length. */
static uint32_t us_sum_pieces(uint32_t sum, const struct iovec *pieces, size_t off, size_t end)
{
	size_t start = 0;

	for (; start < end; start += pieces->iov_len, pieces++) {
		const size_t piece_end = start + pieces->iov_len;
		const size_t from = off > start ? off - start : 0;
		const size_t to = (end < piece_end ? end : piece_end) - start;

		if (from < to)
			sum = us_csum_partial((const uint8_t *)pieces->iov_base + from, to - from,
					      sum);
	}
	return sum;
}

static uint32_t us_be16(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 8 | bytes[1];
}

/* Status bits for a transport that can be checked: good, wrong, or none (UDP without). */
static uint32_t us_l4_status(const struct us_vnet_hdr *hdr, const struct iovec *pieces,
			     const uint8_t *ip, uint32_t l4, uint32_t end)
{
	const uint8_t *th = ip - US_ETH_HLEN + l4;
	const bool is_tcp = ip[9] == US_IPPROTO_TCP;
	const uint32_t good = is_tcp ? US_E1000_RXD_STAT_TCPCS : US_E1000_RXD_STAT_UDPCS;
	uint32_t sum;

	if (hdr->flags & US_VIRTIO_NET_HDR_F_DATA_VALID)
		return good;
	if ((hdr->flags & US_VIRTIO_NET_HDR_F_NEEDS_CSUM) && hdr->csum_start == l4)
		return good;
	if (!is_tcp && us_be16(th + 6) == 0)
		return 0;
	sum = us_csum_partial(ip + 12, 8, end - l4 + ip[9]);
	if (us_csum_fold(us_sum_pieces(sum, pieces, l4, end)) == 0)
		return good;
	return good | US_E1000_RXDEXT_STATERR_L4E;
}

/**
 * us_nic_rx_status - parse a received frame as the device does and verify its checksums
 * @nic:      device; RXCSUM says what to verify
 * @hdr:      what the wire says: a frame that never left this host has only partial sums
 * @pieces:   the frame where it lies, the first piece holding all headers
 * @len:      bytes of the frame
 * @pkt_info: out, packet type bits of the write-back
 *
 * Drops nothing: the driver and the stack decide. Fragments and truncated packets get
 * no verdict about the transport.
 *
 * Return: status and error bits of the write-back.
 */
uint32_t us_nic_rx_status(const struct us_nic *nic, const struct us_vnet_hdr *hdr,
			  const struct iovec *pieces, uint32_t len, uint16_t *pkt_info)
{
	const uint8_t *frame = pieces[0].iov_base;
	const uint8_t *ip = frame + US_ETH_HLEN;
	uint32_t ihl, end, l4, status = 0;

	*pkt_info = 0;
	if (len < US_ETH_HLEN + 20 || us_be16(frame + 12) != 0x0800)
		return 0;
	ihl = (ip[0] & 15U) * 4U;
	l4 = US_ETH_HLEN + ihl;
	if (ip[0] >> 4 != 4 || ihl < 20 || l4 > len)
		return 0;
	*pkt_info = US_E1000_RXDADV_PKTTYPE_IPV4;
	if (nic->regs.RXCSUM & US_E1000_RXCSUM_IPOFL) {
		status |= US_E1000_RXD_STAT_IPCS;
		if (us_ip_fast_csum(ip, ihl))
			status |= US_E1000_RXDEXT_STATERR_IPE;
	}
	end = US_ETH_HLEN + us_be16(ip + 2);
	if (end > len || (us_be16(ip + 6) & 0x3fff))
		return status;
	if (ip[9] == US_IPPROTO_TCP && end >= l4 + 20)
		*pkt_info |= US_E1000_RXDADV_PKTTYPE_TCP;
	else if (ip[9] == US_IPPROTO_UDP && end >= l4 + 8)
		*pkt_info |= US_E1000_RXDADV_PKTTYPE_UDP;
	else
		return status;
	if (nic->regs.RXCSUM & US_E1000_RXCSUM_TUOFL)
		status |= us_l4_status(hdr, pieces, ip, l4, end);
	return status;
}
