#!/bin/sh
# Builds internet | dmz | lan around a firewall, in network namespaces inside a user namespace: `unshare -Urnm sh lab.sh`.
# Prints one JSON line with the process ids by which the namespaces are entered, and holds them until its stdin ends, be it
# that the test closes it or that the test is gone: nothing stays behind.
#
#   internet 203.0.113.10 ── firewall ── dmz 192.0.2.10
#                               │
#                           lan 10.10.0.10   (a route to the DMZ, no default route)
#
# Allowed: internet -> dmz at the door (TCP 5222), lan -> dmz at the tunnel (UDP and TCP 7443), and the answers. All else is
# counted and dropped, at the firewall and once more at the LAN's own input.
set -eu
PATH=$PATH:/usr/sbin:/sbin
exec 3<&0

# A namespace lives as long as its cat, and the cat as long as the pipe.
hold() {
  unshare -n cat <&3 >/dev/null &
  held=$!
  tries=0
  while [ "$(readlink /proc/$held/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do
    tries=$((tries + 1))
    [ $tries -lt 500 ] || exit 1
    sleep 0.01
  done
}

# join PID FIREWALL-SIDE NETWORK ROUTE: a veth pair, .1 at the firewall and .10 inside. Packets pass one by one, as on a cable:
# what the firewall measures is what a narrow path would have to carry.
join() {
  ip link add "$2" type veth peer name eth0 netns "$1"
  ip link set "$2" gso_max_segs 1
  ip addr add "$3.1/24" dev "$2"
  ip link set "$2" up
  nsenter -t "$1" -n sh -eu -c "ip link set lo up; ip link set eth0 gso_max_segs 1; ip addr add $3.10/24 dev eth0
    ip link set eth0 up; ip route add $4 via $3.1"
}

hold; internet=$held
hold; dmz=$held
hold; lan=$held
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
join "$internet" to-internet 203.0.113 default
join "$dmz" to-dmz 192.0.2 default
join "$lan" to-lan 10.10.0 192.0.2.0/24

nft -f - <<'RULES'
table inet firewall {
  counter door { }
  counter tunnel_opened { }
  counter tunnel_out { }
  counter tunnel_back { }
  counter dmz_to_lan_refused { }
  counter internet_to_lan_refused { }
  counter dmz_to_internet_refused { }
  counter other_refused { }
  chain forward {
    type filter hook forward priority 0; policy drop;
    iifname "to-internet" oifname "to-dmz" tcp dport 5222 counter name door accept
    iifname "to-dmz" oifname "to-internet" ct state established accept
    iifname "to-lan" oifname "to-dmz" ip daddr 192.0.2.10 udp dport 7443 ct state new counter name tunnel_opened accept
    iifname "to-lan" oifname "to-dmz" ip daddr 192.0.2.10 tcp dport 7443 ct state new counter name tunnel_opened accept
    iifname "to-lan" oifname "to-dmz" ct state established counter name tunnel_out accept
    iifname "to-dmz" oifname "to-lan" udp sport 7443 ct state established counter name tunnel_back accept
    iifname "to-dmz" oifname "to-lan" tcp sport 7443 ct state established counter name tunnel_back accept
    iifname "to-dmz" oifname "to-lan" counter name dmz_to_lan_refused drop
    iifname "to-internet" oifname "to-lan" counter name internet_to_lan_refused drop
    iifname "to-dmz" oifname "to-internet" counter name dmz_to_internet_refused drop
    counter name other_refused drop
  }
}
# Empty until the lab cuts everything.
table inet scissors {
  counter cut { }
  chain forward { type filter hook forward priority -10; }
}
RULES

nsenter -t "$lan" -n nft -f - <<'RULES'
table inet host {
  counter opened_from_outside { }
  chain input {
    type filter hook input priority 0; policy drop;
    iif "lo" accept
    ct state established,related accept
    # The lab has no IPv6 but for the neighbours' own link-local noise.
    meta nfproto ipv6 drop
    counter name opened_from_outside drop
  }
}
RULES

echo "{\"firewall\": $$, \"internet\": $internet, \"dmz\": $dmz, \"lan\": $lan}"
exec cat <&3 >/dev/null
