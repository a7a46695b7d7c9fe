"""What stands in nftables and in iptables in each mode. Pure."""

from dataclasses import dataclass
from enum import Enum

from controlloop.iptables.chains import Key as ChainKey
from controlloop.iptables.chains import Rules
from controlloop.nft.state import Key, Value
from netagent.config import FirewallSettings
from netagent.firewall.iptables import forward_chains, masquerade_chains
from netagent.firewall.nftables import Tunnel, forward, gate, postrouting
from netagent.firewall.translation import Pods, translations
from netagent.instance import FIRST, Instance


class Mode(Enum):
    NFTABLES = "nftables"
    IPTABLES = "iptables"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator wants of the firewall."""

    settings: FirewallSettings
    mode: Mode
    tunnel: Tunnel | None
    """Whose packets only peers may send; None: this backend has no VXLAN."""
    instance: Instance = FIRST

    @property
    def guarded(self) -> Tunnel | None:
        return self.tunnel if self.settings.peer_filter else None


def rules_name(policy: Policy) -> str:
    """For who is told about all of them."""
    return f"firewall rules ({policy.instance.program} in {policy.mode.value})"


def table_objects(policy: Policy, pods: Pods, *, fully_random: bool) -> dict[Key, Value]:
    """All of our table but the peers; empty when none is needed."""
    settings, objects = policy.settings, dict[Key, Value]()
    if policy.guarded:
        objects.update(gate(pods.family, policy.guarded))
    if policy.mode is Mode.IPTABLES:
        return objects
    if settings.forward_rules:
        objects.update([forward(pods)])
    if settings.ip_masq:
        rules = translations(pods, settings.masq_exclude)
        objects.update([postrouting(pods, rules, fully_random=fully_random)])
    return objects


def chain_objects(policy: Policy, pods: Pods, *, fully_random: bool) -> dict[ChainKey, Rules]:
    """All of our iptables chains, and the jumps to them."""
    settings, objects = policy.settings, dict[ChainKey, Rules]()
    if policy.mode is Mode.NFTABLES:
        return objects
    if settings.forward_rules:
        objects.update(forward_chains(pods, policy.instance.chain_prefix))
    if settings.ip_masq:
        rules = translations(pods, settings.masq_exclude)
        objects.update(masquerade_chains(rules, policy.instance.chain_prefix, random_fully=fully_random))
    return objects
