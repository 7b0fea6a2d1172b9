"""Network service, a subset of Neutron's API v2.0: networks, subnets, subnet pools, ports."""

PORT_CHANGE_HOOK = "sixstack.network.port_change_hook"
"""Key in `app.extensions` of a function called with the transaction and the ids of servers whose ports have changed."""
