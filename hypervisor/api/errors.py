"""What can go wrong on a host, by meaning. Every message is fit to be shown to the server's owner."""


class HypervisorError(Exception):
    """The host could not do what was asked. The message says why, in words a user understands."""


class ImageUnusable(HypervisorError):
    """The image cannot be fetched, does not match its hash, or is not a disk."""


class LaunchFailed(HypervisorError):
    """qemu did not start, or its guest fell over before it ran."""


class AcceleratorFailed(LaunchFailed):
    """KVM cannot run this guest; TCG may."""


class HostUnfit(HypervisorError):
    """The host lacks something every machine needs (root, /dev/net/tun, a program). Says what to do."""


NETWORK_FAILED = "The host's network could not be set up."
"""What users are shown when a program of the host's network fails; its own words go to the host's log."""
