"""Print the results of `gpu_run.py` as Markdown tables, and what did not run and why.

    python benchmarks/read_gpu_run.py OUT/results.jsonl [MORE …] > tables.md

Every line has the id of its `gpu_run.py` call. Each part is shown for one call, the newest with a measurement. The
first lines say which parts come from which call, and whether scale, commit or device differ. For a part that was cut
off, the steps it completed are shown. Unreadable lines are skipped and listed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

Line = Mapping[str, Any]
PARTS = ("machine", "base", "attention", "tests", "ablation", "against", "large", "input", "study", "mini")
TOP = 25
SAME = ("scale", "commit", "device")
NOT_MEASURED = frozenset({"settings", "ready", "skipped", "end", "cut off", "left out"})
"""Values of `what` in lines without a measurement."""


class Markdown(str):
    """Text that is already Markdown; other text is escaped."""

    __slots__ = ()


def read_lines(files: Sequence[Path]) -> tuple[list[Line], list[str]]:
    """Return the lines of all files in order of time, and a message for every file with unreadable lines."""
    lines, damaged = [], []
    for file in files:
        unread = []
        for number, text in enumerate(file.read_bytes().split(b"\n"), 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text.decode(), parse_constant=_refuse)
                _check(line)
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
                unread.append(number)
            else:
                lines.append(line)
        if unread:
            counted = "1 line" if len(unread) == 1 else f"{len(unread)} lines"
            named = f"line{'s' * (len(unread) > 1)} {', '.join(map(str, unread))}"
            damaged.append(f"{counted} could not be read: {named}" + (f" of {file}" if len(files) > 1 else ""))
    return sorted(lines, key=lambda line: float(line["at"])), damaged


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no measurement")


def _check(line: Any) -> None:
    """Raise an error if the tables cannot show this line, because of missing keys, wrong types or values."""
    if not (
        all(isinstance(line[key], str) for key in ("call", "part", "what")) and isinstance(line["at"], int | float)
    ):
        raise TypeError("call, part and what are text, at is a number")
    rates = {"step": "seconds", "variant": "tokens_per_second", "rates": "tokens_per_second"}
    if line["what"] in rates and not line[rates[line["what"]]] > 0:
        raise ValueError("no rate is 0")
    if line["what"] == "step" and line["part"] == "ablation" and not isinstance(line["form"], str):
        raise TypeError("a form is text")
    (heading([line]) + tables([line])).encode()  # a lone surrogate cannot be printed


def tables(lines: Sequence[Line]) -> str:
    """Return all sections in Markdown."""
    sections = {
        "Machine and peak rates": _machine(newest(lines, "machine")),
        "Attention kernels": _attention(newest(lines, "attention")),
        "Base": _training(newest(lines, "base"), "base"),
        "Profile of one step of base": _profile(newest(lines, "base")),
        "Large": _training(newest(lines, "large"), "large"),
        "Ablation": _ablation(newest(lines, "ablation")),
        "Comparison with Hugging Face": _against(newest(lines, "against")),
        "Input pipeline": _input(newest(lines, "input")),
        "Study of learning methods": _study(newest(lines, "study")),
        "Tests marked gpu": _tests(newest(lines, "tests")),
        "Small encoder": _mini(newest(lines, "mini")),
        "Parts that did not run": _missing(lines),
    }
    return "\n".join(f"## {title}\n\n{section or 'Nothing was measured.'}\n" for title, section in sections.items())


def newest(lines: Sequence[Line], part: str) -> list[Line]:
    """Return the lines of `part` in its newest call with a measurement, or in its newest call if there is none."""
    mine = [line for line in lines if line["part"] == part]
    measured = [line for line in mine if line["what"] not in NOT_MEASURED] or mine
    return [line for line in mine if line["call"] == measured[-1]["call"]]


def heading(lines: Sequence[Line]) -> str:
    """Return scale, commit and device of each call, and which of them differ."""
    shown: dict[str, list[str]] = {}
    for part in PARTS:
        for call in {line["call"] for line in newest(lines, part)}:
            shown.setdefault(call, []).append(part)
    settings = [line for line in lines if line["what"] == "settings" and line["part"] in shown.get(line["call"], ())]
    said = ["Scale tiny: a dry run, these are not measurements."] if "tiny" in _named(settings, "scale") else []
    for call, parts in shown.items():
        own = [line for line in settings if line["call"] == call]
        loads = [line["load"] for line in own if "load" in line]
        facts = "; ".join(f"{key} {', '.join(_named(own, key)) or 'not recorded'}" for key in SAME)
        load = f" Load when a part began: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
        said.append(f"Call {_plain(call)}: {', '.join(parts)}. Its {facts}.{load}")
    differing = [key for key in SAME if len(_named(settings, key)) > 1]
    said += [f"**Different between tables: {', '.join(differing)}.**"] if differing else []
    return "\n\n".join(said)


def _named(settings: Sequence[Line], key: str) -> list[str]:
    """Return the distinct values of `key`."""
    return list(dict.fromkeys(_plain(line.get(key) or "not recorded") for line in settings))


def _of(lines: Sequence[Line], part: str, what: str) -> list[Line]:
    return [line for line in lines if line["part"] == part and line["what"] == what]


def _last(lines: Sequence[Line], part: str, what: str, *keys: str) -> list[Line]:
    """Return the last line for every distinct value of `keys`, in order of first appearance."""
    return list({tuple(line.get(key) for key in keys): line for line in _of(lines, part, what)}.values())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    shown = [" | ".join(cell if isinstance(cell, Markdown) else _plain(cell) for cell in row) for row in rows]
    return "\n".join(f"| {row} |" for row in [" | ".join(head), "|".join("---" for _ in head), *shown]) if shown else ""


def _plain(value: object) -> str:
    """Return `value` on one line with Markdown escaped."""
    text = " ".join(str(value).split())
    for sign, escaped in (("|", "\\|"), ("`", "\\`"), ("<", "&lt;")):
        text = text.replace(sign, escaped)
    return text


def _code(value: object) -> Markdown:
    """Return `value` on one line as code."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return Markdown(f"`{text}`")


def _machine(lines: Sequence[Line]) -> str:
    paragraphs = []
    for about in _last(lines, "machine", "environment"):
        card, versions = about["card"], about["versions"]
        where = about["device"]
        if card:
            where = (
                f"{card['name']} ({card['memory_bytes'] / 2**30:.0f} GiB, {card['multiprocessors']} multiprocessors, "
                f"CUDA {card['cuda']}, cuDNN {card['cudnn']})"
            )
        packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if versions.get(name))
        paragraphs.append(f"{where}; {about['cores']} CPU cores, Python {about['python']}, {packages}.")
    paragraphs += [
        f"Copy on the device: {copy['terabytes_per_second']:.2f} TB/s, read and written bytes counted."
        for copy in _last(lines, "machine", "copy")
    ]
    rows = [
        (
            f"{line['rows']:,} × {line['inner']:,} × {line['columns']:,}",
            *(f"{line['teraflops'][name]:,.1f}" for name in ("forward", "input_gradient", "weight_gradient")),
        )
        for line in _last(lines, "machine", "matmul", "rows", "inner", "columns")
    ]
    head = ("bf16 product, TFLOP/s", "forward", "gradient of the input", "gradient of the weights")
    return "\n\n".join([*paragraphs, *([_table(head, rows)] if rows else [])])


def _attention(lines: Sequence[Line]) -> str:
    found = _last(lines, "attention", "kernel", "kernel", "mix")
    measured = [line for line in found if "error" not in line]
    if not measured:
        return ""
    mixes = [mix for mix in dict.fromkeys(line.get("mix") for line in found) if mix]
    cells = {(line["kernel"], line["mix"]): line for line in measured}
    rows = []
    for kernel in dict.fromkeys(line["kernel"] for line in measured):
        mine = [cells.get((kernel, mix)) for mix in mixes]
        differences = [
            max(line["relative_difference"]) for line in mine if line and line.get("compared_with") != kernel
        ]
        times = ("–" if line is None else f"{line['layers_ms']:.2f}" for line in mine)
        rows.append((kernel, *times, f"{max(differences):.1e}" if differences else "–"))
    sequences = {line["mix"]: f"{line['mix']} {line['sequences']:,}" for line in measured}
    counts = ", ".join(sequences[mix] for mix in mixes if mix in sequences)
    layers = measured[0]["layers"]
    head = (f"forward and backward of {layers} layers, ms", *mixes, "largest relative difference")
    return f"{_table(head, rows)}\n\nSequences: {counts}. Differences are from the first kernel that ran on a mix."


def _training(lines: Sequence[Line], part: str) -> str:
    head = (
        "size",
        "tokens/s",
        "MFU",
        "median step, s",
        "memory, GiB",
        "real tokens",
        "graphs",
        "recompilations",
        "steps",
    )
    rows = []
    for line in _last(lines, part, "rates"):
        size = f"{line['layers']} × {line['hidden']}, {line['parameters'] / 1e6:,.0f} M"
        rows.append((size, *_rate_cells(line)))
    if not rows:
        return _partial(_of(lines, part, "step"))
    (line,) = _last(lines, part, "rates")
    ready = "".join(
        f" Ready after {each['seconds']:.0f} s{', compiling included' if each['compiled'] else ''}."
        for each in _last(lines, part, "ready")
    )
    kernels = "; ".join(f"{name} for {use['packs']} packs" for name, use in line["kernels"].items())
    flash = f"; packed by {line['flash_attention']}" if line.get("flash_attention") else ""
    return (
        f"{_table(head, rows)}\n\n{line['batch_tokens']:,} tokens a step in packs of {line['pack_tokens']:,}, "
        f"sequences up to {line['sequence_tokens']}, {line['precision']}; {line['measured_sets']} of "
        f"{line['task_sets']} task sets. Attention: {kernels}{flash}. Peak: {line['peak_source']}.{ready}"
    )


def _rate_cells(line: Line) -> tuple[str, ...]:
    return (
        f"{line['tokens_per_second']:,.0f}",
        f"{line['mfu']:.1%}",
        f"{line['median_seconds']:.4f}",
        _gib(line.get("memory_bytes")),
        f"{line['real_share']:.1%}",
        "–" if line["graphs"] is None else str(line["graphs"]),
        "–" if line["recompilations"] is None else str(line["recompilations"]),
        str(line["steps"]),
    )


def _partial(steps: Sequence[Line]) -> str:
    """Return a sentence about steps without a summary: tokens over seconds, not weighted by the plan."""
    if not steps:
        return ""
    rate = sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)
    counted = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    return f"Cut off after {counted}: {rate:,.0f} tokens/s over these, not weighted by the plan."


def _partials(steps: Sequence[Line], key: str) -> list[str]:
    """Return such a sentence for each value of `key`, in order of first appearance."""
    return [
        f"{_plain(value)}: {_partial([step for step in steps if step[key] == value])}"
        for value in dict.fromkeys(step[key] for step in steps)
    ]


def _spread(steps: Sequence[Line], count: int) -> str:
    """Return shortest and longest of the last `count` steps, in seconds."""
    seconds = [step["seconds"] for step in steps[-count:]]
    return f"{min(seconds):.4f} to {max(seconds):.4f}" if seconds else "–"


def _model(lines: Sequence[Line], part: str) -> list[str]:
    """Return size, precision and compilation of the model of a part."""
    paragraphs = [
        f"{line['layers']} × {line['hidden']}, {line['parameters'] / 1e6:,.0f} M parameters, {line['precision']}, "
        f"{'compiled' if line['compiled'] else 'not compiled'}."
        for line in _of(lines, part, "ready")
        if "layers" in line
    ]
    return paragraphs[-1:]


def _gib(size: float | None) -> str:
    return "–" if not size else f"{size / 2**30:.1f}"


def _profile(lines: Sequence[Line]) -> str:
    for line in _last(lines, "base", "profile"):
        rows = [
            (f"{kernel['ms']:.3f}", f"{kernel['share']:.1%}", kernel["calls"], _code(kernel["name"]))
            for kernel in line["kernels"][:TOP]
        ]
        times = f"{line['step_ms']:.1f} ms by the clock, {line['kernels_ms']:.1f} ms in kernels"
        table = _table(("ms", "share", "calls", "kernel"), rows)
        return f"{', '.join(line['active'])}; {times}.\n\n{table}"
    return ""


def _ablation(lines: Sequence[Line]) -> str:
    measured = _last(lines, "ablation", "variant", "form")
    steps = _of(lines, "ablation", "step")
    full_rate = next((line["tokens_per_second"] for line in measured if not line["off"]), None)
    rows = [
        (
            line["form"],
            f"{line['tokens_per_second']:,.0f}",
            "–" if full_rate is None else f"{full_rate / line['tokens_per_second']:.3f}",
            _gib(line.get("memory_bytes")),
            line.get("steps", "–"),
            _spread([step for step in steps if step["form"] == line["form"]], line.get("steps", 0)),
        )
        for line in measured
    ]
    table = _table(
        ("variant", "tokens/s", "all optimisations / this", "memory, GiB", "steps", "seconds per step"), rows
    )
    done = {line["form"] for line in measured}
    parts = _partials([step for step in steps if step["form"] not in done], "form")
    return "\n\n".join(part for part in [table, *parts, *_model(lines, "ablation")] if part)


def _against(lines: Sequence[Line]) -> str:
    measured = [line for line in _last(lines, "against", "against", "side") if "error" not in line]
    steps = _of(lines, "against", "step")
    rows = []
    for line in measured:
        theirs, ours = line["theirs"], line["ours"]
        masked = theirs["ratio_where_masked"]
        rows.append(
            (
                line["side"],
                f"{theirs['tokens_per_second']:,.0f}",
                f"{theirs['real_share']:.0%}",
                theirs["sequences_at_once"],
                _gib(theirs["memory_bytes"]),
                f"{ours['tokens_per_second']:,.0f}",
                Markdown(f"**{theirs['ratio']:.2f}**"),
                "–" if masked is None else f"{masked:.2f}",
                theirs.get("steps", "–"),
                _spread([step for step in steps if step["side"] == line["side"]], theirs.get("steps", 0)),
            )
        )
    head = ("Hugging Face", "tokens/s", "real tokens", "sequences", "memory, GiB", "ours, tokens/s", "ours / theirs",
            "steps with masked tokens", "steps", "a step of Hugging Face, s")  # fmt: skip
    paragraphs = [_table(head, rows), f"{_plain(measured[-1]['library'])}."] if rows else []
    sides = {line["side"] for line in measured}
    cut = [
        {
            **step,
            "sides": step["side"] if step["side"] == step["beside"] else f"{step['side']}, with {step['beside']}",
        }
        for step in steps
        if step["beside"] not in sides
    ]
    return "\n\n".join([*paragraphs, *_partials(cut, "sides"), *_model(lines, "against")])


def _input(lines: Sequence[Line]) -> str:
    paragraphs = [
        f"One loader worker builds {line['tokens_per_second']:,.0f} tokens/s and {line['instances_per_second']:,.0f} "
        "instances/s."
        for line in _last(lines, "input", "one_process")
    ]
    rows = [
        (line["workers"], f"{line['share']:.2%}", f"{line['tokens_per_second']:,.0f}", line["steps"])
        for line in _last(lines, "input", "waiting", "workers")
    ]
    table = _table(("workers", "training waits", "tokens/s", "steps"), rows)
    return "\n\n".join([*paragraphs, *([table] if table else [])])


def _study(lines: Sequence[Line]) -> str:
    for line in _last(lines, "study", "study"):
        settings = f"Preset {_code(line['preset'])} with {', '.join(_code(value) for value in line['overrides'])}."
        return f"{settings} {_ended(line)}.\n\n{_below(line['table'])}".rstrip()
    return ""


def _ended(line: Line) -> str:
    """Return how the command of a part ended."""
    return "Stopped at its time limit" if line["stopped"] else f"Exit code {line['exit_code']}"


def _below(text: str) -> str:
    """Return Markdown with headings two levels deeper; code is unchanged, and open code fences are closed."""
    paragraphs, fence = [], ""
    for row in text.split("\n"):
        found = re.match(r" {0,3}(`{3,}|~{3,})", row)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence) and not row.strip(" `~"):
            fence = ""
        paragraphs.append(f"##{row}" if row.startswith("#") and not fence else row)
    return "\n".join([*paragraphs, *([fence] if fence else [])])


def _tests(lines: Sequence[Line]) -> str:
    for line in _last(lines, "tests", "tests"):
        said = line["said"][-1] if line["said"] else "nothing was printed"
        counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
        shown = ", ".join(f"{count} {name}" for name, count in {"passed": 0, **counts}.items()) if counts else said
        return f"{_ended(line)}: {_plain(shown)}"
    return ""


def _mini(lines: Sequence[Line]) -> str:
    for line in _last(lines, "mini", "mini"):
        last = "\n".join(f"    {json.dumps(each, ensure_ascii=False)}" for each in line["last"])
        return f"{_code(line['recipe'])}. {_ended(line)}; its last records:\n\n{last}"
    return ""


def _missing(lines: Sequence[Line]) -> str:
    """Return what did not run in its newest call, and missing table entries, with reasons."""
    rows = []
    for part in PARTS:
        asked = [line["call"] for line in lines if part in (line["part"], *line.get("parts", ()))]
        mine = [line for line in lines if line["part"] == part and line["call"] == asked[-1]]
        ends = [line for line in mine if line["what"] in ("end", "cut off", "left out")]
        if not asked:
            rows.append((part, "it was not requested"))
        elif not ends:
            rows.append(
                (part, f"the entire call was cut off {'while it was running' if mine else 'before it started'}")
            )
        elif ends[-1]["what"] == "left out":
            rows.append((part, ends[-1]["why"]))
        elif ends[-1]["what"] == "cut off":
            by = ends[-1].get("by", "its limit")
            rows.append((part, f"cut off by {by}, after {ends[-1]['seconds']:.0f} s"))
        elif ends[-1]["exit_code"] != 0:
            said = ends[-1].get("said") or [""]
            rows.append((part, f"failed with exit code {ends[-1]['exit_code']}: {said[-1]}"))
        rows += [(part, line["why"]) for line in _last(mine, part, "skipped")]
    without: dict[tuple[str, str], list[str]] = {}
    for line in _last(newest(lines, "attention"), "attention", "kernel", "kernel", "mix"):
        if "error" in line:
            without.setdefault((line["kernel"], line["error"]), []).append(line.get("mix") or "every mix")
    rows += [(f"attention, {kernel}: {', '.join(mixes)}", error) for (kernel, error), mixes in without.items()]
    for line in _last(newest(lines, "against"), "against", "against", "side"):
        if "error" in line:
            rows.append((f"against, {line['side']}", line["error"]))
    return _table(("what", "why"), rows) or "Everything ran."


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="results.jsonl of one or more runs")
    given = parser.parse_args()
    if missing := [str(file) for file in given.results if not file.exists()]:
        sys.exit(f"no such file: {', '.join(missing)}")
    try:
        lines, damaged = read_lines(given.results)
    except OSError as error:
        sys.exit(f"cannot read {error.filename}: {error.strerror}")
    if not lines:
        said = "; ".join(damaged) or "no part has started; see the output of gpu_run.py"
        sys.exit(f"no measurement in {', '.join(map(str, given.results))}: {said}")
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        print("\n\n".join([heading(lines), *damaged, tables(lines)]), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python flushes again at exit
        sys.exit(None if isinstance(error, BrokenPipeError) else f"cannot write the tables: {error.strerror}")


if __name__ == "__main__":
    main()
