"""Our chains in iptables: what they should hold. Pure.

The jumps stand at the end of POSTROUTING and FORWARD, as flanneld's do: kube-proxy and network policies decide first.
"""

from collections.abc import Collection

from controlloop.iptables.chains import Key, Owned, Rules
from netagent.firewall.translation import MARK, Match, Pods, Translation
from netagent.instance import Instance


def owned(instance: Instance) -> Owned:
    return Owned((instance.chain_prefix,), jumps_first=False)


def masquerade_chains(rules: Collection[Translation], prefix: str, *, random_fully: bool) -> dict[Key, Rules]:
    masquerade = "MASQUERADE --random-fully" if random_fully else "MASQUERADE"
    marked = f"-m mark --mark {MARK:#x}/{MARK:#x} -j RETURN"
    ours = f"{prefix}POSTROUTING"
    return {
        ("nat", ours): (marked, *(translation_rule(rule, masquerade) for rule in rules)),
        ("nat", "POSTROUTING"): (f"-j {ours}",),
    }


def translation_rule(rule: Translation, masquerade: str) -> str:
    verdict = masquerade if rule.masquerade else "RETURN"
    return f"{match('-s', rule.source)}{match('-d', rule.destination)}-j {verdict}"


def match(option: str, wanted: Match) -> str:
    """As iptables-save prints it, which leaves out what matches everything."""
    if wanted.is_everything:
        return ""
    return f"{'' if wanted.inside else '! '}{option} {wanted} "


def forward_chains(pods: Pods, prefix: str) -> dict[Key, Rules]:
    anywhere, ours = Match(pods.network), f"{prefix}FORWARD"
    return {
        ("filter", ours): tuple(f"{match(option, anywhere)}-j ACCEPT" for option in ("-s", "-d")),
        ("filter", "FORWARD"): (f"-j {ours}",),
    }
