"""What an import process reaches with each way of telling progress, each at its best, beside Headway in the same run.

A peer is used the way that its own documentation calls normal or fast; the docstring of each says with which settings.
One process reports for a while, then four that start together, each of them jobs of its own; everything is on loopback.
A round takes every peer once, and what is compared is of the same round. At the end of each turn the peer is asked what
it has, so that nothing counts that did not arrive.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from benchmarks.figures import Section
from benchmarks.peers import cgi_session
from benchmarks.peers.measure import JOBS, PROCESSES, SECONDS, Failed, Missing, Peer, Role
from benchmarks.peers.servers import Servers

MODULES = ("headway", "redis", "celery", "rq", "psycopg", "gearman", "cgi_session", "temporal")
"""Each has `PEERS`: what starts the server of a peer, if it can, and says how to use it."""
NOT_TO_BE_HAD = (
    "Faktory: no package registry has its server, which comes from its authors as a binary or a container",
)

Rates = dict[str, list[tuple[float, float]]]


def run(rounds: int) -> Section:
    section = Section(f"Peers: reports a second from one process, and from {PROCESSES}")
    with Servers() as servers:
        peers = available(servers, section)
        rates: Rates = {peer.name: [] for peer in peers}
        for number in range(rounds):
            # There and back, so that what slowly changes on the machine favours neither end.
            for peer in reversed(peers) if number % 2 else peers:
                take_turn(peer, rates, section)
        peers = [peer for peer in peers if peer.name in rates]
        show(section, peers, rates)
        with suppress(Missing, Failed):
            section.notes.append(cgi_session.lost_finish(servers))
    section.skipped += NOT_TO_BE_HAD
    return section


def available(servers: Servers, section: Section) -> Sequence[Peer]:
    """Those that can be measured here; the section says of the others why not."""
    peers: list[Peer] = []
    for name in MODULES:
        try:
            makers: Sequence[Callable[[Servers], Peer]] = import_module(f"benchmarks.peers.{name}").PEERS
        except ModuleNotFoundError as error:
            section.skipped.append(f"{name}: there is no module {error.name} (make bench installs it)")
            continue
        for maker in makers:
            try:
                peers.append(maker(servers))
            except (Missing, Failed) as reason:
                section.skipped.append(f"{name}: {reason}")
    section.skipped = list(dict.fromkeys(section.skipped))
    return peers


def take_turn(peer: Peer, rates: Rates, section: Section) -> None:
    """Once more, unless it failed before: then it is left out as a whole."""
    if peer.name not in rates:
        return
    try:
        rates[peer.name].append(peer.rates())
    except Failed as failure:
        section.skipped.append(f"{peer.name}: {failure}")
        del rates[peer.name]


def show(section: Section, peers: Sequence[Peer], rates: Rates) -> None:
    ours = next((rates[peer.name] for peer in peers if peer.role is Role.SUBJECT), None)
    for peer in peers:
        for index, suffix in enumerate(("", f", {PROCESSES} processes")):
            theirs = [both[index] for both in rates[peer.name]]
            section.add(f"  {PROCESSES} processes" if suffix else peer.title, theirs, "reports/s")
            if ours is not None and peer.role is Role.PEER:
                mine = [both[index] for both in ours]
                section.add_ratio(f"  Headway's stream, of it{suffix}", mine, theirs, at_least=peer.goals[index])
    section.notes.append("* on the disk before it counts; the others keep what they are told in memory")
    section.notes.append(f"each for {SECONDS:g} s at a time; a process reports {JOBS} jobs in turn where it can")
