"""Settings → the hypervisor of this host."""

from ipaddress import IPv6Address

from app.errors import OperatorError
from app.installation import Installation
from app.settings import Settings
from hypervisor.host import HostConfig, QemuHypervisor
from image_api.source import make_source


def make_hypervisor(settings: Settings, installation: Installation) -> QemuHypervisor:
    """The host, checked: raises HostUnfit, which says what to do, or OperatorError for a setting that is wrong."""
    if settings.accelerator not in ("auto", "kvm", "tcg"):
        raise OperatorError(f"--accelerator is auto, kvm or tcg, not {settings.accelerator}.")
    try:
        dns_servers = tuple(IPv6Address(server) for server in _words(settings.dns_servers))
    except ValueError as error:
        raise OperatorError(f"--dns-servers: {error}; guests have IPv6 only.") from None
    config = HostConfig(
        state=settings.state,
        installation=installation.id,
        host_name=settings.host_name,
        uplink=settings.uplink,
        accelerator=settings.accelerator,  # type: ignore[arg-type]
        dns_servers=dns_servers,
        dns_search=tuple(_words(settings.dns_search)),
        reserved_memory_mib=settings.reserved_memory_mib,
    )
    hypervisor = QemuHypervisor(config, make_source(settings))
    hypervisor.check()
    return hypervisor


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
