"""Writes the tables of docs/capacity.md: ``python infra/capacity_page.py``. A test holds them to what the command says."""

from pathlib import Path

from isotherm.sizing import Fleet, Part, Plan, plan

PAGE = Path(__file__).parents[1] / "docs" / "capacity.md"
BEGIN, END = "<!-- made by infra/capacity_page.py -->\n", "<!-- end -->\n"

DEVICES = (100, 1_000, 10_000, 100_000)
RATES = (0.1, 1.0, 10.0)
PROTOCOLS = ("tcp", "mqtt")


def tables() -> str:
    """Return them."""
    return "\n".join(_table(protocol) for protocol in PROTOCOLS)


def _table(protocol: str) -> str:
    broker = ["mosquitto"] if protocol == "mqtt" else []
    names = ["connector", *broker, "worker", "analytics", "kafka", "store"]
    head = ["devices", "Hz", "readings/s", *names, "log, GB each", "store, MB each", "cores in all", "partitions"]
    lines = [f"### {protocol.upper()}", "", _line(head), _line(["--:"] * len(head))]
    for devices in DEVICES:
        lines += [_line(_row(Fleet(devices, rate, protocol=protocol), names)) for rate in RATES]
    return "\n".join(lines) + "\n"


def _row(fleet: Fleet, names: list[str]) -> list[str]:
    made = plan(fleet)
    cells = [_pods(_part(made, name)) for name in names]
    log, store = _part(made, "kafka").disk / 1e9, _part(made, "store").memory / 1e6
    is_whole = not any(part.problem for part in made.parts)
    told = [f"{log:,.1f}", f"{store:,.0f}", f"{made.cores:,.4g}" if is_whole else "–", f"{made.partitions}"]
    return [f"{fleet.devices:,}", f"{fleet.rate:g}", f"{fleet.readings:,.10g}", *cells, *told]


def _part(made: Plan, name: str) -> Part:
    return next(part for part in made.parts if part.name.endswith(name))


def _pods(part: Part) -> str:
    return "no" if part.problem else f"{part.pods} × {part.cpu:g}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write them into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n" + tables() + "\n" + END + after)


if __name__ == "__main__":
    main()
