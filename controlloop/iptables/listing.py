"""From the output of iptables-save to our state. Pure."""

from controlloop.iptables.chains import Key, Owned, Rules


def parse(text: str, owned: Owned) -> dict[Key, Rules]:
    """Chains of ours with all their rules; of other chains the rules that jump to ours, if there are any.

    A jump to us is ours wherever it stands: while it stays, the chain that it leads to cannot be deleted.
    """
    state: dict[Key, list[str]] = {}
    table = ""
    for line in text.split("\n"):
        if line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            if owned.is_ours(chain) or owned.jumps_to_ours(rule):
                state.setdefault((table, chain), []).append(rule)
        elif line.startswith(":"):
            chain = line[1:].partition(" ")[0]
            if owned.is_ours(chain):
                state[table, chain] = []
        elif line.startswith("*"):
            table = line[1:]
    return {key: tuple(rules) for key, rules in state.items()}
