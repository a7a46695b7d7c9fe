"""What other programs do to the rules of a running netproxy, and how it is put right, in all three variants."""

import re
import time
from collections import Counter
from operator import itemgetter

import pytest
from deadline import PATIENCE_S, becomes, eventually
from proxy_lab import ANSWER_WITHIN_S, LOCK, LOOK_AGAIN_S, NODE, bring_up_proxy

from controlloop.repairs import BURST, PERIOD_S

WEB, STICKY, NOBODY, TWIN = "10.96.1.1", "10.96.1.2", "10.96.1.3", "10.96.1.4"
CALLERS = ("client", "node-1", "pod-1-1", "pod-1-2", "pod-1-3")

FOREIGN = {
    "nftables": """
        nft add table ip somebody-else
        nft add chain ip somebody-else count '{ type filter hook forward priority 10; }'
        nft add rule ip somebody-else count ip daddr 203.0.113.1 drop
        nft add map ip somebody-else services '{ type ipv4_addr : verdict; elements = { 203.0.113.2 : accept }; }'
    """,
    "iptables": """
        {iptables} -w -N SOMEBODY-ELSE || {iptables} -w -F SOMEBODY-ELSE
        {iptables} -w -A SOMEBODY-ELSE -d 203.0.113.1 -j DROP
        {iptables} -w -A FORWARD -j SOMEBODY-ELSE
        {iptables} -w -t nat -A PREROUTING -d 203.0.113.2 -p tcp -j DNAT --to-destination 203.0.113.3
    """,
}

RULE_OF_SERVICES = "nft -a list chain ip netproxy services | sed -n 's/.*@services.* handle //p'"
FIRST_OF_WEB = f"ip netproxy tcp-endpoints {{ {WEB} . 80 . 0"
NFT_DAMAGE = {
    "rule deleted": ("chain", f"nft delete rule ip netproxy services handle $({RULE_OF_SERVICES})"),
    "rule added": ("chain", "nft insert rule ip netproxy services drop"),
    "chain flushed": ("chain", "nft flush chain ip netproxy prerouting"),
    "chain deleted": ("chain", "nft 'flush chain ip netproxy prerouting; delete chain ip netproxy prerouting'"),
    "chain added": ("chain", "nft add chain ip netproxy stray"),
    "element deleted": ("element", f"nft delete element ip netproxy services '{{ {WEB} . tcp . 80 }}'"),
    "element changed": (
        "element",
        f"nft 'delete element {FIRST_OF_WEB} }}; add element {FIRST_OF_WEB} : 203.0.113.9 . 9 }}'",
    ),
    "element added": ("element", "nft add element ip netproxy services '{ 10.96.9.9 . tcp . 80 : drop }'"),
    "set flushed": ("element", "nft flush set ip netproxy cluster-ips"),
    "map flushed": ("element", "nft flush map ip netproxy services"),
    "map deleted": (
        "container",
        """nft '
            flush chain ip netproxy refuse-here
            flush chain ip netproxy refuse-services
            delete map ip netproxy no-endpoints
        '""",
    ),
    "set added": ("container", "nft add set ip netproxy stray '{ type ipv4_addr; }'"),
    "table deleted": ("container", "nft delete table ip netproxy"),
}
OF_WEB = f'$({{iptables}}-save -t nat | sed -n "s/.* -d {WEB}.32 .* -j //p")'
RESTORE = "| {iptables}-restore --noflush -w"
IPTABLES_DAMAGE = {
    "rule deleted": ("chain", f"{{iptables}} -w -t nat -D {OF_WEB} 2"),
    "rule added": ("chain", "{iptables} -w -t nat -I NETPROXY-SERVICES -j RETURN"),
    "rules in another order": (
        "chain",
        "printf '*nat\\n-D NETPROXY-SERVICES 1\\n-A NETPROXY-SERVICES -j RETURN\\nCOMMIT\\n'" + RESTORE,
    ),
    "chain flushed": ("chain", f"{{iptables}} -w -t nat -F {OF_WEB}"),
    "chain deleted": (
        "chain",
        f'web={OF_WEB}; printf "*nat\\n-F NETPROXY-SERVICES\\n-F $web\\n-X $web\\nCOMMIT\\n"' + RESTORE,
    ),
    "chain added": ("chain", "{iptables} -w -t nat -N NETPROXY-SVC-STRAY"),
    "jump deleted": ("jump", "{iptables} -w -t nat -D PREROUTING -j NETPROXY-SERVICES"),
    "jump twice": ("jump", "{iptables} -w -t nat -A PREROUTING -j NETPROXY-SERVICES"),
    "refusals gone": ("chain", "{iptables} -w -F NETPROXY-REFUSED"),
    "all our chains of a table flushed": (
        "chain",
        "{iptables}-save -t nat | sed -n 's/^\\*/&/p; s/^:\\(NETPROXY-[^ ]*\\).*/-F \\1/p; s/^COMMIT/&/p'" + RESTORE,
    ),
}
EVERYTHING = [
    ("nftables", "nft flush ruleset"),
    ("iptables-nft", "nft flush ruleset"),
    # What is back already cannot be deleted.
    ("iptables-nft", "for t in nat filter; do iptables-nft -w -t $t -F; iptables-nft -w -t $t -X || true; done"),
    (
        "iptables-legacy",
        "for t in nat filter; do iptables-legacy -w -t $t -F; iptables-legacy -w -t $t -X || true; done",
    ),
]


@pytest.fixture(scope="module")
def labs():
    """One for each variant, as they are asked for."""
    made = {}
    yield made
    for lab in made.values():
        lab.down()


@pytest.fixture
def lab(request, labs):
    """Four Services: of one pod, of two with affinity, of nobody, and a twin of the first for comparison."""
    if made := labs.get(request.param):
        return made
    made = labs[request.param] = bring_up_proxy(request.param, name="repair")
    made.serve("web", WEB, ["pod-1-1"])
    made.serve("sticky", STICKY, ["pod-1-1", "pod-1-2"], sessionAffinity="ClientIP")
    made.serve("nobody", NOBODY, [])
    made.serve("twin", TWIN, ["pod-1-2"])
    made.sh(in_variant(made, FOREIGN[made.variant.partition("-")[0]]))
    eventually(lambda: works(made, LOOK_AGAIN_S))
    return made


def in_variant(lab, script):
    return script.replace("{iptables}", lab.variant).replace("{web}", str(lab.pod_address("pod-1-1")))


def works(lab, within_s=ANSWER_WITHIN_S):
    answers = [lab.call("pod-1-3", address, within_s=within_s) for address in (WEB, NOBODY, TWIN)]
    return answers == ["pod-1-1", "refused", "pod-1-2"] and lab.call("client", WEB, within_s=within_s) == "pod-1-1"


def friends(lab):
    """Whom each caller is sent to by its affinity."""
    return {caller: lab.call(caller, STICKY) for caller in CALLERS}


def rules(lab):
    """All that is ours, and all that is not, whatever the order of what has none."""
    if lab.variant == "nftables":
        listing = lab.sh("nft list table ip netproxy", check=False)
        ours = sorted(re.sub(r"elements = {[^}]*expires[^}]*}", "", listing).replace(",", " ").split())
        return ours, lab.sh("nft list table ip somebody-else", check=False)
    saved = lab.sh(f"for table in raw nat filter; do {lab.variant}-save -t $table; done")
    lines = [re.sub(r" ?\[\d+:\d+\]", "", line) for line in saved.splitlines() if line.startswith((":", "-A"))]
    ours = [line for line in lines if "NETPROXY" in line]
    # The order of chains says nothing, that of rules within one does.
    return sorted(ours, key=lambda line: line.split()[:2]), [line for line in lines if "NETPROXY" not in line]


def repairs(lab, kind):
    """As Prometheus sees it."""
    family = f"{lab.variant.partition('-')[0]}-ip"
    return lab.metrics().get(f'netproxy_drift_repairs_total{{rules="{family}",kind="{kind}"}}', 0)


@pytest.mark.kube_proxy("extra-1", "extra-2", "gap 5.4-1", "gap 5.7-3")
@pytest.mark.parametrize("damage", NFT_DAMAGE)
@pytest.mark.parametrize("lab", ["nftables"], indirect=True)
def test_what_somebody_breaks_in_nftables_is_mended_and_nothing_else_is_touched(lab, damage):
    kind, script = NFT_DAMAGE[damage]
    # With its sets go the clients that were in them.
    break_and_mend(lab, kind, script, keeps_clients=damage != "table deleted")


@pytest.mark.kube_proxy("extra-1", "gap 5.4-1", "gap 5.7-3")
@pytest.mark.parametrize("damage", IPTABLES_DAMAGE)
@pytest.mark.parametrize("lab", ["iptables-nft", "iptables-legacy"], indirect=True)
def test_what_somebody_breaks_in_iptables_is_mended_and_nothing_else_is_touched(lab, damage):
    kind, script = IPTABLES_DAMAGE[damage]
    # xt_recent, which needs less rights than sets, forgets all when no rule names its list any more.
    keeps_clients = lab.variant == "iptables-legacy" or damage != "all our chains of a table flushed"
    break_and_mend(lab, kind, in_variant(lab, script), keeps_clients=keeps_clients)


def break_and_mend(lab, kind, script, *, keeps_clients):
    ours, theirs = rules(lab)
    before, bound = repairs(lab, kind), friends(lab) if keeps_clients else {}
    lab.sh(script)
    eventually(lambda: same(rules(lab)[0], ours))
    assert rules(lab)[1] == theirs
    eventually(lambda: repairs(lab, kind), that=lambda counted: counted > before)
    assert works(lab)
    assert {caller: lab.call(caller, STICKY) for caller in bound} == bound
    eventually(lab.status, that=itemgetter("ready"))


def same(now, wanted):
    """AssertionError with what differs."""
    missing, added = Counter(wanted) - Counter(now), Counter(now) - Counter(wanted)
    assert not missing | added, f"missing: {sorted(missing)}; too much: {sorted(added)}"
    assert now == wanted
    return True


@pytest.mark.kube_proxy("extra-3", "6.2-40")
@pytest.mark.parametrize(("lab", "script"), EVERYTHING, indirect=["lab"])
def test_all_rules_come_back_whoever_took_them_away(lab, script):
    ours, _ = rules(lab)
    before = lab.repairs()
    lab.sh(script)
    eventually(lambda: same(rules(lab)[0], ours))
    eventually(lambda: lab.is_ready() and lab.repairs() > before)
    assert works(lab)
    lab.sh(in_variant(lab, FOREIGN[lab.variant.partition("-")[0]]))


@pytest.mark.parametrize("lab", ["iptables-nft", "iptables-legacy"], indirect=True)
def test_a_repair_starts_no_other_counter_anew(lab):
    before = connections_of_web(lab)
    assert before
    ours, _ = rules(lab)
    lab.sh(f"{lab.variant} -w -F NETPROXY-REFUSED; {lab.variant} -w -t nat -D OUTPUT -j NETPROXY-SERVICES")
    eventually(lambda: same(rules(lab)[0], ours))
    assert connections_of_web(lab) >= before


def connections_of_web(lab):
    """As counted by the rule that translates them; works() makes some."""
    assert works(lab)
    chain = lab.sh(in_variant(lab, f"{lab.variant} -t nat -nvxL {OF_WEB}"))
    return next(int(line.split()[0]) for line in chain.splitlines() if "DNAT" in line)


FIGHTS = {
    "nftables": (f"nft delete element ip netproxy services '{{ {WEB} . tcp . 80 }}'", "by nft; "),
    "iptables-nft": ("iptables-nft -w -t nat -F $web", "by iptables"),
    "iptables-legacy": ("iptables-legacy -w -t nat -F $web", "by another program; "),
}


def most_repairs(began):
    """At once, and with time; one may have been counted that is still to come."""
    return BURST + (time.monotonic() - began) / PERIOD_S + 2


@pytest.mark.parametrize("lab", FIGHTS, indirect=True)
def test_a_fight_costs_ten_repairs_and_then_few_is_told_and_delays_nobody_else(lab):
    script, by = FIGHTS[lab.variant]
    ours, _ = rules(lab)
    before, began = lab.repairs(), time.monotonic()
    chain = "" if lab.variant == "nftables" else f"web={OF_WEB}; "
    loop = in_variant(lab, f"{chain}while sleep 0.05; do {script} 2>/dev/null || true; done")
    with lab.node.popen(["env", f"XTABLES_LOCKFILE={LOCK}", "sh", "-c", loop]) as vandal:
        try:
            [finding] = eventually(lambda: lab.status()["findings"])
            assert (finding["code"], by in finding["reason"]) == ("NN207", True)
            assert eventually(lambda: lab.events("RulesUndone"))[0]["regarding"]["name"] == NODE
            assert lab.repairs() - before <= most_repairs(began)
            # Where each repair takes seconds, for want of a processor, so does it until they come too often.
            eventually(lab.status, 3 * PATIENCE_S, that=lambda told: not told["ready"])
            assert lab.call("pod-1-3", TWIN) == "pod-1-2"
            lab.serve("newcomer", "10.96.1.9", ["pod-1-1"])
            becomes(lambda: lab.call("pod-1-3", "10.96.1.9", within_s=0.5), "pod-1-1")
            assert lab.repairs() - before <= most_repairs(began)
        finally:
            vandal.kill()
    lab.take_away("newcomer")
    eventually(lambda: same(rules(lab)[0], ours))
    eventually(lab.status, that=itemgetter("ready"))
