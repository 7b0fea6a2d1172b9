"""Console proxy: relays WebSockets of browsers, authorized by tokens, to screens and serial consoles of guests."""
