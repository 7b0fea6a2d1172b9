# Flattened network_data.json in, what to do out: dns, search, mtu, static, address and route lines, by MAC address.
BEGIN { FS = "\t" }
{ v[$1] = $2 }
$1 ~ /^links\/[0-9]+\/id$/ { split($1, p, "/"); mac[$2] = "links/" p[2] }
$1 ~ /^networks\/[0-9]+\/type$/ { split($1, p, "/"); networks[p[2]] = $2 }
$1 ~ /^networks\/[0-9]+\/routes\/[0-9]+\/gateway$/ { routes[$1] = $2 }
$1 ~ /^services\/[0-9]+\/address$/ { if (!seen[$2]++) print "dns", $2 }
$1 ~ /^networks\/[0-9]+\/services\/[0-9]+\/address$/ { if (!seen[$2]++) print "dns", $2 }
$1 ~ /^networks\/[0-9]+\/dns_search\/[0-9]+$/ { search = search " " $2 }
END {
    if (search) print "search" search
    for (id in mac) {
        link[id] = tolower(v[mac[id] "/ethernet_mac_address"])
        if (v[mac[id] "/mtu"] + 0 >= 1280) print "mtu", link[id], v[mac[id] "/mtu"]
    }
    for (n in networks) {
        base = "networks/" n
        if (networks[n] != "ipv6") continue
        address = v[base "/ip_address"]
        if (address !~ /\//) address = address "/" length_of(v[base "/netmask"])
        print "static", link[v[base "/link"]]
        print "address", link[v[base "/link"]], address
    }
    for (path in routes) {
        split(path, p, "/")
        base = "networks/" p[2]
        if (networks[p[2]] != "ipv6") continue
        route = base "/routes/" p[4]
        destination = v[route "/network"]
        if (destination !~ /\//) destination = destination "/" length_of(v[route "/netmask"])
        print "route", link[v[base "/link"]], destination, routes[path]
    }
}

# ffff:ffff:ffff:ffff:: is 64; a number is itself; nothing is 64
function length_of(mask,    bits, i, c) {
    if (mask == "") return 64
    if (mask ~ /^[0-9]+$/) return mask
    for (i = 1; i <= length(mask); i++) {
        c = tolower(substr(mask, i, 1))
        bits += c == "f" ? 4 : c == "e" ? 3 : c == "c" ? 2 : c == "8" ? 1 : 0
    }
    return bits + 0
}
