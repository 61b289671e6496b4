"""The edge that waits: descriptors, the real clock and threads drive a sans-IO stack."""
