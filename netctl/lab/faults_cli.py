"""`netctl lab break` and `netctl lab heal`: faults to learn from, and to test with."""

import click

from netctl.lab.options import NAME, lab_errors, named
from netctl.options import OUTPUT


@click.command("break")
@NAME
@OUTPUT
@click.argument("fault", default="")
@click.argument("target", default="")
def break_(name: str, form: str, fault: str, target: str) -> int:
    """Break a lab in one way; without FAULT: list the ways.

    TARGET is another node or pod than the usual one. `netctl lab heal` ends it.
    """
    from lab.faults.breaking import FAULTS, break_lab  # noqa: PLC0415

    if not fault:
        return list_faults(form)
    from lab.cluster import attach  # noqa: PLC0415

    cluster = lab_errors(lambda: attach(name))
    where = lab_errors(lambda: break_lab(cluster, fault, target))
    click.echo(f"{FAULTS[fault].says.format(target=where)}.")
    click.echo(hints(name, fault, where), nl=False)
    return 0


def hints(name: str, fault: str, where: str) -> str:
    """Where to see it, and how to end it."""
    from lab.cluster import attach  # noqa: PLC0415
    from lab.faults.breaking import FAULTS, seen_on  # noqa: PLC0415

    found = FAULTS[fault]
    node = seen_on(found, attach(name).spec, where)
    look = f"netctl lab exec{named(name)} {node} -- netctl {' '.join(found.look)}"
    return f"  see:  {look}   ({found.code})\n  heal: netctl lab heal{named(name)} {fault}\n"


@click.command()
@NAME
@click.argument("fault", nargs=-1)
def heal(name: str, fault: tuple[str, ...]) -> int:
    """End these faults of a lab, or all there are."""
    from lab.cluster import attach  # noqa: PLC0415
    from lab.faults.breaking import heal_lab  # noqa: PLC0415

    cluster = lab_errors(lambda: attach(name))
    for healed, host in lab_errors(lambda: list(heal_lab(cluster, fault))):
        fades = f"; {healed.code} goes {healed.fades_s:g} s later" if healed.fades_s else ""
        click.echo(f"{healed.name} on {host.name} is healed{fades}")
    if not cluster.faults:
        click.echo(f"nothing of lab {name} is broken by us")
    return 0


def list_faults(form: str) -> int:
    from lab.faults.breaking import FAULTS  # noqa: PLC0415
    from netctl.findings.catalogue import CATALOGUE  # noqa: PLC0415
    from netctl.output import Column, Listing, render_listing  # noqa: PLC0415

    items = [
        {
            "fault": fault.name,
            "target": fault.target,
            "code": fault.code,
            "title": CATALOGUE[fault.code].title,
            "look": f"netctl {' '.join(fault.look)}",
            "seen_on": "other nodes" if fault.is_seen_by_others else "target" if "node-" in fault.target else "nodes",
            "says": fault.says.format(target=fault.target),
        }
        for fault in FAULTS.values()
    ]
    columns = (
        Column("FAULT", lambda item: item["fault"]),
        Column("CODE", lambda item: item["code"]),
        Column("WHAT IS WRONG THEN", lambda item: item["says"]),
        Column("LOOK", lambda item: item["look"], wide=True),
        Column("ON", lambda item: item["seen_on"], wide=True),
        Column("TITLE", lambda item: item["title"], wide=True),
    )
    click.echo(render_listing(Listing("LabFaultList", items, columns, lambda item: f"fault/{item['fault']}"), form))
    return 0
