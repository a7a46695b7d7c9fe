"""Whether the kernel has done what it does by itself, some time after a device came up."""


def has_settled(run):
    """Each device that is up has its IPv6 address for good: the kernel hands them out a second or two after a cable.

    `run` runs a command where the devices are, and gives back what it prints.
    """
    up, addresses = (run(["ip", "-o", *words]).splitlines() for words in (["link", "show", "up"], ["-6", "addr"]))
    if any("tentative" in line for line in addresses):
        return False
    named = {line.split()[1].partition("@")[0] for line in addresses}
    return {line.split(": ")[1].partition("@")[0] for line in up} <= named
