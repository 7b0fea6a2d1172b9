"""Exceptions of hypervisor hosts. Every message may be shown to the server's owner."""


class HypervisorError(Exception):
    """The host failed to execute an operation. The message is the reason, suitable for users."""


class ImageUnusable(HypervisorError):
    """The image cannot be fetched, does not match its hash, or is not a disk."""


class LaunchFailed(HypervisorError):
    """qemu did not start, or the guest crashed during startup."""


class AcceleratorFailed(LaunchFailed):
    """KVM cannot run this guest; TCG may."""


class HostUnfit(HypervisorError):
    """The host lacks a requirement of all machines (root, /dev/net/tun, a program). The message names the remedy."""


NETWORK_FAILED = "The host's network could not be set up."
"""Message for users when a network program of the host fails; the program's output goes to the host's log."""
