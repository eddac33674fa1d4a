"""Are our SAEs of a real model as good as SAELens's, from the same activations?

Takes a finished run of the dictionary study, gives SAELens (in `.venv-peers`) the run's own
training activations and number of samples at several learning rates, and judges both on the
same test rows, read by SAELens in both cases.

    python -m benchmarks.stories_quality runs/stories --markdown FILE [--json FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.harness import machine
from fluoroscope.activations.capture import capture
from fluoroscope.activations.store import ActivationStore
from fluoroscope.core.tensors import write_tensors
from fluoroscope.data.token_store import TokenStore, WindowRange
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.sae.formats.native import load_sae
from fluoroscope.steps.train_saes import sae_folder

RATES = ("4e-4", "1e-3", "2e-3", "4e-3")
PEER = Path(__file__).parent / "peers" / "saelens_stories.py"


def test_rows(run: Run, point: HookPoint) -> torch.Tensor:
    model = LanguageModel.load(run.config.model.name)
    tokens = TokenStore(run.step_folder("tokens"))
    rows = []
    stop = tokens.n_windows("test")
    for tile in WindowRange("test", 0, stop).tiles(run.config.extract.tile_windows):
        windows = tokens.windows("test", tile.start, tile.stop)
        cache = capture(model, windows.tokens, [point], windows.attention_mask)
        rows.append(cache[point][(windows.document >= 0) & ~windows.is_start])
    return torch.cat(rows)


def compare(run: Run, group: str, rates: tuple[str, ...]) -> dict:
    [plan] = run.config.groups[group]
    point = HookPoint(plan.hook_point)
    store = ActivationStore(run.step_folder("activations"))
    ours = sae_folder(run, group, plan.key)
    test = test_rows(run, point)
    with torch.no_grad():
        latents = load_sae(ours).encode(test[:4096])
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.safetensors"
        train = store.read(point, "train", 0, store.n_rows("train"))
        write_tensors(rows, {"train": train, "test": test, "latents": latents})
        numbers = (run.config.n_tokens, plan.settings["d_sae"], plan.settings["k"])
        command = [".venv-peers/bin/python", PEER, rows, ours, *numbers, *rates]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {"hook_point": str(point), **json.loads(line.removeprefix("RESULT "))}


def table(results: list[dict], rates: tuple[str, ...]) -> str:
    heads = ["hook point", "ours fvu (l0)", *(f"SAELens {rate}" for rate in rates), "ratio to best"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for result in results:
        theirs = [result["saelens"][rate] for rate in rates]
        cells = [f"{r['fvu']:.4f} ({r['l0']:.2f})" for r in (result["ours"], *theirs)]
        ratio = result["ours"]["fvu"] / min(r["fvu"] for r in theirs)
        lines.append("| " + " | ".join([result["hook_point"], *cells, f"{ratio:.3f}"]) + " |")
    worst = max(result["latent_difference"] for result in results)
    lines.append(f"\nLargest difference of a latent, read by SAELens and by us: {worst:.1e}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rates", nargs="+", default=RATES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(arguments.run)
    rates = tuple(arguments.rates)
    results = []
    for group in run.config.groups:
        results.append(compare(run, group, rates))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    text = f"{table(results, rates)}\n\nMachine: {machine()}\n"
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    if arguments.markdown:
        title = "# SAEs of stories260K: fraction of variance unexplained against SAELens\n\n"
        arguments.markdown.write_text(title + text)


if __name__ == "__main__":
    main()
