"""Our chains in iptables: what they should hold. Pure.

The jumps stand at the end of POSTROUTING and FORWARD, as flanneld's do: kube-proxy and network policies decide first.
"""

from collections.abc import Collection

from controlloop.iptables.chains import Key, Owned, Rules
from netagent.firewall.translation import MARK, Match, Pods, Translation

PREFIX = "NETAGENT-"
OURS = Owned((PREFIX,), jumps_first=False)

POSTROUTING = f"{PREFIX}POSTROUTING"
FORWARD = f"{PREFIX}FORWARD"


def masquerade_chains(rules: Collection[Translation], *, random_fully: bool) -> dict[Key, Rules]:
    masquerade = "MASQUERADE --random-fully" if random_fully else "MASQUERADE"
    marked = f"-m mark --mark {MARK:#x}/{MARK:#x} -j RETURN"
    return {
        ("nat", POSTROUTING): (marked, *(translation_rule(rule, masquerade) for rule in rules)),
        ("nat", "POSTROUTING"): (f"-j {POSTROUTING}",),
    }


def translation_rule(rule: Translation, masquerade: str) -> str:
    verdict = masquerade if rule.masquerade else "RETURN"
    return f"{match('-s', rule.source)}{match('-d', rule.destination)}-j {verdict}"


def match(option: str, wanted: Match) -> str:
    """As iptables-save prints it, which leaves out what matches everything."""
    if wanted.is_everything:
        return ""
    return f"{'' if wanted.inside else '! '}{option} {wanted} "


def forward_chains(pods: Pods) -> dict[Key, Rules]:
    anywhere = Match(pods.network)
    return {
        ("filter", FORWARD): tuple(f"{match(option, anywhere)}-j ACCEPT" for option in ("-s", "-d")),
        ("filter", "FORWARD"): (f"-j {FORWARD}",),
    }
