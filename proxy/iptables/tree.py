"""A tree of chains over destination addresses or ports, so that neither a lookup nor a change grows with their number.

Pure. The tree branches on a few bits and skips bits on which nothing branches (a path-compressed trie). A prefix with
more than INLINE rules has a chain of its own; fewer stand in the chain above:

    NETPROXY-SERVICES       -d 10.96.0.0/18 -j NETPROXY-10.96.0.0/18
    NETPROXY-10.96.0.0/18   -d 10.96.16.0/23 -j NETPROXY-10.96.16.0/23
    NETPROXY-10.96.16.0/23  -d 10.96.17.4/32 -p tcp -m tcp --dport 80 -j NETPROXY-SVC-...

The root stands for all addresses: traffic to none of them leaves after one rule for each separate network.
The same rules give the same chains, in whatever order they came.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass, field

from controlloop.delta import Delta
from controlloop.iptables.chains import Key, Rules
from proxy.iptables.chains import PREFIX
from proxy.iptables.spaces import Space

INLINE = 4
"""With two, 10,000 Services at random addresses take 2,000 chains instead of 450, and packets are no faster."""
MAX_HEIGHT = 8
"""Chains below the root on the longest way down; what branches higher up is listed in the root. nf_tables refuses a
ruleset that jumps deeper than 16 (NFT_JUMP_STACK_SIZE), and IPv6 addresses chosen for it could branch 32 times."""


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """Which tree: where it starts, and how its other chains begin (at most 10 characters)."""

    table: str
    chain: str
    inner: str = PREFIX


@dataclass(slots=True, eq=False)
class _Node:
    """A prefix at which rules branch, or (as long as an address) one address with its rules."""

    prefix: int
    length: int
    name: str
    jump: str
    children: dict[int, "_Node"] = field(default_factory=dict)
    rules: list[str] = field(default_factory=list)
    """Sorted."""
    count: int = 0
    height: int = 0
    """Chains on the longest way down, its own included."""
    is_chain: bool = False
    """Whether the chain above jumps here instead of listing what is below."""

    def measure(self) -> None:
        """After those below."""
        self.height = 0
        if self.count > INLINE:
            self.height = 1 + max((child.height for child in self.children.values()), default=0)
        self.is_chain = 0 < self.height <= MAX_HEIGHT

    def listing(self) -> list[str]:
        if not self.children:
            return self.rules
        rules: list[str] = []
        for _, child in sorted(self.children.items()):
            rules += (child.jump,) if child.is_chain else child.listing()
        return rules


class Tree:
    """The chains of one tree, kept up to date one rule at a time."""

    def __init__(self, space: Space, root: Root) -> None:
        self._bits = space.bits
        self._space = space
        self._forks: tuple[int, ...] = (0, *space.forks, space.bits)
        self._names = root
        self._root = _Node(0, 0, root.chain, "")
        self._tail: Rules = ()
        self._touched: dict[str, _Node | None] = {}
        self.objects: dict[Key, Rules] = {(root.table, root.chain): ()}

    def insert(self, address: int, rule: str) -> None:
        path = [self._root]
        while path[-1].length < self._bits:
            path.append(self._descend(path[-1], address))
        insort(path[-1].rules, rule)
        self._count(path, 1)

    def remove(self, address: int, rule: str) -> None:
        """KeyError or ValueError when the rule is not there."""
        path = [self._root]
        while path[-1].length < self._bits:
            path.append(path[-1].children[self._branch(path[-1], address)])
        path[-1].rules.remove(rule)
        if not path[-1].rules:
            self._unlink(path)
        self._count(path, -1)

    def spans(self) -> tuple[str, ...]:
        """Matches of all packets that a rule of the tree may be for: one for each branch of the root."""
        tops = (top for _, top in sorted(self._root.children.items()))
        return tuple(self._space.match(top.prefix, top.length) for top in tops)

    def end_with(self, rules: Rules) -> None:
        """Let these be the last rules of the root, for what no rule of the tree has taken."""
        self._tail = rules
        self._touched[self._root.name] = self._root

    def record(self, delta: Delta[Key, Rules]) -> None:
        """Note in `delta` which chains the insertions and removals since the last call change."""
        standing = [node for node in self._touched.values() if node]
        for each in sorted(standing, key=_length, reverse=True):
            each.measure()
        for name, node in self._touched.items():
            key = (self._names.table, name)
            old = self.objects.get(key)
            new = self._rules(node) if node else None
            if new == old:
                continue
            delta.record(key, old, new)
            if new is None:
                del self.objects[key]
            else:
                self.objects[key] = new
        self._touched.clear()

    def _rules(self, node: _Node) -> Rules | None:
        if node is self._root:
            return (*node.listing(), *self._tail)
        return tuple(node.listing()) if node.is_chain else None

    def _branch(self, node: _Node, address: int) -> int:
        """Bits that are above those of the node do not matter: they are the same for all children."""
        return address >> self._bits - self._forks[bisect_right(self._forks, node.length)]

    def _descend(self, node: _Node, address: int) -> _Node:
        """The child on the way to `address`, made if there is none."""
        child = node.children.get(self._branch(node, address))
        if child is None:
            return self._adopt(node, self._new(address, self._bits))
        differing = (child.prefix ^ address) >> (self._bits - child.length)
        if not differing:
            return child
        shared = child.length - differing.bit_length()
        fork = self._adopt(node, self._new(address, self._forks[bisect_right(self._forks, shared) - 1]))
        self._adopt(fork, child)
        fork.count = child.count
        return fork

    def _new(self, address: int, length: int) -> _Node:
        host_bits = self._bits - length
        prefix = address >> host_bits << host_bits
        name = self._space.chain(self._names.inner, prefix, length)
        return _Node(prefix, length, name, f"{self._space.match(prefix, length)} -j {name}")

    def _adopt(self, parent: _Node, child: _Node) -> _Node:
        parent.children[self._branch(parent, child.prefix)] = child
        return child

    def _count(self, path: list[_Node], step: int) -> None:
        for node in path:
            node.count += step
            self._touched[node.name] = node

    def _unlink(self, path: list[_Node]) -> None:
        """Take the address at the end of the path out, and the fork above it when one branch is left."""
        gone = path.pop()
        self._touched[gone.name] = None
        del path[-1].children[self._branch(path[-1], gone.prefix)]
        if len(path) > 1 and len(path[-1].children) == 1:
            fork = path.pop()
            self._touched[fork.name] = None
            self._adopt(path[-1], *fork.children.values())


def _length(node: _Node) -> int:
    return node.length
