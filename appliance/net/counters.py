"""Named counters of the stack: one plain integer for every branch that drops, refuses or repairs.

Each is written on the spot (``counters.tcp_paws_dropped += 1``) and read by whoever shows them.
The names that `wire` gives to its refusals are among them.  It imports nothing.
"""

from __future__ import annotations


class Counters:
    """What one host has seen; all count events (packets, segments, connections) since the start."""

    # link and Ethernet
    vnet_truncated: int = 0
    ethernet_truncated: int = 0
    arp_truncated: int = 0
    arp_unsupported: int = 0
    ethernet_not_ours: int = 0
    ethertype_unknown: int = 0
    frames_in: int = 0
    frames_out: int = 0
    vif_full: int = 0
    # IPv4
    ip_truncated: int = 0
    ip_version: int = 0
    ip_header_length: int = 0
    ip_total_length: int = 0
    ip_checksum: int = 0
    ip_options: int = 0
    ip_bad_source: int = 0
    ip_no_route: int = 0
    ip_not_ours: int = 0
    ip_protocol_unknown: int = 0
    ip_fragments_in: int = 0
    ip_fragments_out: int = 0
    ip_reassembled: int = 0
    ip_fragment_overlap: int = 0
    ip_fragment_limit: int = 0
    ip_fragment_malformed: int = 0
    ip_fragment_timeout: int = 0
    # IPv6
    ip6_truncated: int = 0
    ip6_version: int = 0
    ip6_extension: int = 0
    ip6_extension_limit: int = 0
    ip6_option: int = 0
    ip6_routing_header: int = 0
    ip6_no_next_header: int = 0
    # ICMPv6, neighbour and multicast listener discovery
    icmp6_checksum: int = 0
    icmp6_truncated: int = 0
    mld_ignored: int = 0
    mld_in: int = 0
    nd_in: int = 0
    nd_truncated: int = 0
    nd_option: int = 0
    nd_hop_limit: int = 0
    nd_ignored: int = 0
    mld_truncated: int = 0
    nd_duplicate_address: int = 0
    arp_announcements: int = 0
    arp_address_conflicts: int = 0
    dhcp_truncated: int = 0
    dhcp_malformed: int = 0
    # ICMP
    icmp_checksum: int = 0
    icmp_echo_replies: int = 0
    icmp_errors_in: int = 0
    icmp_errors_out: int = 0
    icmp_ignored: int = 0
    icmp_rate_limited: int = 0
    icmp_truncated: int = 0
    # UDP
    udp_checksum: int = 0
    udp_in: int = 0
    udp_length: int = 0
    udp_no_port: int = 0
    udp_out: int = 0
    udp_truncated: int = 0
    # TCP: segments
    tcp_checksum: int = 0
    tcp_data_offset: int = 0
    tcp_fast_path: int = 0
    tcp_in: int = 0
    tcp_out: int = 0
    tcp_resets_in: int = 0
    tcp_resets_out: int = 0
    tcp_truncated: int = 0
    # TCP: opening and closing
    tcp_accepted: int = 0
    tcp_backlog_dropped: int = 0
    tcp_black_holes_suspected: int = 0
    tcp_per_peer_dropped: int = 0
    tcp_connected: int = 0
    tcp_connections_refused: int = 0
    tcp_cookies_failed: int = 0
    tcp_cookies_sent: int = 0
    tcp_cookies_valid: int = 0
    tcp_fast_open_accepted: int = 0
    tcp_fast_open_connected: int = 0
    tcp_fast_open_cookies_failed: int = 0
    tcp_fast_open_cookies_given: int = 0
    tcp_fast_open_overflows: int = 0
    tcp_fast_open_refused: int = 0
    tcp_no_listener: int = 0
    tcp_orphans_timed_out: int = 0
    tcp_syn_dropped: int = 0
    tcp_syn_retransmitted: int = 0
    tcp_syns_shed: int = 0
    tcp_time_wait_evicted: int = 0
    tcp_time_wait_reused: int = 0
    # TCP: what was dropped and why
    tcp_ack_invalid: int = 0
    tcp_challenge_acks: int = 0
    tcp_challenge_throttled: int = 0
    tcp_data_after_close: int = 0
    tcp_memory_shed: int = 0
    tcp_missing_timestamp: int = 0
    tcp_no_ack_flag: int = 0
    tcp_options_malformed: int = 0
    tcp_out_of_window: int = 0
    tcp_paws_dropped: int = 0
    tcp_reassembly_full: int = 0
    tcp_resets_ignored: int = 0
    # TCP: repair
    tcp_dsack_in: int = 0
    tcp_duplicate_octets: int = 0
    tcp_fast_recoveries: int = 0
    tcp_keepalive_probes: int = 0
    tcp_out_of_order: int = 0
    tcp_retransmitted: int = 0
    tcp_sack_reneged: int = 0
    tcp_spurious_recoveries: int = 0
    tcp_tail_probes: int = 0
    tcp_timeouts: int = 0
    tcp_window_probes: int = 0
    tcp_ecn_reductions: int = 0
    tcp_path_mtu_raised: int = 0
    tcp_path_mtu_reduced: int = 0

    def count(self, name: str) -> None:
        """Raise the counter called `name` by one (AttributeError for a name that is not one)."""
        setattr(self, name, getattr(self, name) + 1)

    def as_dict(self) -> dict[str, int]:
        """Return every counter by name."""
        names = (name for name in dir(self) if not name.startswith("_"))
        return {name: getattr(self, name) for name in names if type(getattr(self, name)) is int}
